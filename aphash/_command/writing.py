"""Files that a command writes: checked before any work, and replaced as a whole once they are written."""

import contextlib
import errno
import os
import secrets
import stat
import sys

STDOUT = "-"


def check_writable(path, inputs=()):
    """Raise OSError or ValueError where a file cannot be written, or is one that is read; nothing is left there."""
    if path == STDOUT:
        if sys.stdout is None:
            raise ValueError("standard output is closed: name a file by --out")
        return
    target = os.path.realpath(path)
    for each in inputs:
        if each is not None and os.path.exists(each) and os.path.exists(target) and os.path.samefile(each, target):
            raise ValueError(f"{path}: it would be written over, and is read")
    if os.path.isdir(target) or path.endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not _is_replaced(target):
        return
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    temporary = _beside(target)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno), path) from None
    os.unlink(temporary)


@contextlib.contextmanager
def opened(path, mode="w"):
    """Yield a file to write to, or standard output for "-"; a file appears only when all of it has been written.

    A device or a pipe is written to as it comes.
    """
    binary = "b" in mode
    text = {} if binary else {"encoding": "utf-8", "newline": ""}
    if path == STDOUT:
        yield sys.stdout.buffer if binary else sys.stdout
        (sys.stdout.buffer if binary else sys.stdout).flush()
        return
    target = os.path.realpath(path)
    if not _is_replaced(target):
        with open(target, mode, **text) as file:
            yield file
        return
    temporary = _beside(target)
    try:
        with open(temporary, mode, **text) as file:
            yield file
        if os.path.exists(target):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _beside(target):
    return os.path.join(os.path.dirname(target), f".aphash-{secrets.token_hex(8)}.tmp")


def _is_replaced(target):
    return not os.path.exists(target) or stat.S_ISREG(os.stat(target).st_mode)
