"""``python -m aphash``, or ``aphash``: the command line. Its commands are in ``_command``."""

import importlib
import os
import sys
import warnings

COMMANDS = {
    "demo": "what codes do for real images, or for your vectors",
    "build": "learn codes of vectors and index them, in one file",
    "search": "nearest vectors of queries: text, table or page",
    "info": "what a file holds, and whether it is whole",
    "dedup": "near-duplicates: pairs, groups",
    "choose": "which mode and how many bits suit your vectors",
}
ERRORS = OSError, ValueError, TypeError, RuntimeError, MemoryError, ImportError  # others are faults of ours


def main(argv=None):
    """Run a command; the exit status is 0, 1 for an error, 2 for one in the arguments, 130 after Ctrl-C."""
    try:
        _run(sys.argv[1:] if argv is None else list(argv))
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read it has enough: ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter tries once more at its end
        sys.exit(141)  # as a program that SIGPIPE ends
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except ERRORS as error:
        _fail(_words(error), 1)


def _run(argv):
    from aphash._command import arguments

    if argv[:1] and argv[0] in ("-h", "--help"):
        print(_help(arguments.program()))
        return
    if argv[:1] == ["--version"]:
        from aphash._version import __version__

        print(f"aphash {__version__}")
        return
    if hasattr(sys.stdout, "reconfigure"):  # names of files may hold what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    if not argv or (argv[0].startswith("-") and argv[0] != "-"):
        argv = ["demo", *argv]
    if argv[0] not in COMMANDS:
        _fail(f"{argv[0]!r} is no command: one of {', '.join(COMMANDS)} (see {arguments.program()} --help)", 2)
    warnings.showwarning = _warn
    command = importlib.import_module(f"aphash._command.{argv[0]}")
    command.run(command.parser().parse_args(argv[1:]))


def _help(program):
    lines = [f"usage: {program} COMMAND ...", "", "Compact binary codes of vectors, and exact search of them.", ""]
    lines += [f"  {name:8}{words}" for name, words in COMMANDS.items()]
    return "\n".join([*lines, "", "Without a command: demo. A command's options:", f"  {program} COMMAND --help"])


def _words(error):
    """Return an error in one line that begins with the file's name, where there is one."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
        return f"{name}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(words, status):
    if sys.stdout is not None:
        try:
            if status == 130 and sys.stdout.isatty():
                print()  # behind ^C, and a line that was begun
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if sys.stderr is not None:
        print(f"aphash: {words}", file=sys.stderr)
    sys.exit(status)


def _warn(message, *_where, **_more):
    if sys.stderr is not None:
        print(f"aphash: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    main()
