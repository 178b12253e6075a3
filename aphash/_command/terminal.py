"""Text for people: tables, sizes, and bold type where a terminal shows it; pipes and files get the same words."""

import os
import shutil
import sys
import textwrap

WIDTH = 60  # columns that every table fits into


def is_terminal(stream=None):
    """Whether someone reads what is written: standard output, unless another stream is meant."""
    stream = sys.stdout if stream is None else stream
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def bold(text):
    """Return text in bold type; as it is where NO_COLOR is set (no-color.org), or no terminal shows it."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not is_terminal():
        return text
    return f"\033[1m{text}\033[0m"


def width():
    """Return how many columns a line may have: those of the terminal; any number in a pipe."""
    return shutil.get_terminal_size().columns if is_terminal() else 1 << 30


def fitted(text, columns):
    """Return text without line ends and control characters, cut to so many columns."""
    text = "".join(each if each.isprintable() else " " for each in text)
    return text if len(text) <= columns else text[: max(0, columns - 1)] + "…"


def paragraph(text):
    """Return text in lines of WIDTH columns, or of the terminal's where it is narrower."""
    return textwrap.fill(text, min(WIDTH, width()))


def bytes_of(n):
    """Return a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:,} bytes" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1024
    raise AssertionError


def distance_of(distance):
    """Return a distance for people: four places, or four digits of what is small or large."""
    return f"{distance:.4f}" if distance == 0 or 0.001 <= distance < 1000 else f"{distance:.4g}"


def counted(n, one, many=None):
    """Return a number with its noun."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def seconds_of(seconds):
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"
