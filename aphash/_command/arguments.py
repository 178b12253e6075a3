"""Parsers whose errors are one line, and the options that commands share."""

import argparse
import math
import os
import sys

MODES = ("scores", "semantic-scores", "semantic", "neighbors", "paper")


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that says in one line what is wrong, and where help is."""

    def error(self, message):
        self.exit(2, f"aphash: {message} (see {self.prog} --help)\n")


def program():
    """Return what people typed: ``aphash``, or ``python -m aphash``."""
    name = os.path.basename(sys.argv[0] if sys.argv else "")
    return "aphash" if name == "aphash" else "python -m aphash"


def parser_of(command, description, epilog=None):
    """Return the parser of a command."""
    return Parser(
        prog=f"{program()} {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter if epilog and "\n" in epilog else argparse.HelpFormatter,
    )


def count(text):
    """An integer of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return value


def seed(text):
    """An integer that seeds random numbers."""
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"expected an integer from 0 to 2^32 - 1, got {text!r}")
    return int(text)


def share(text):
    """A number above 0 and at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {text!r}")
    return value


def distance(text):
    """A number of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_jobs(parser):
    parser.add_argument("--jobs", type=count, metavar="N", help="threads (default: all CPUs)")


def add_learning(parser, *, mode, bits):
    """Add the options of whatever learns codes."""
    parser.add_argument("--bits", type=count, default=bits, metavar="N", help="bits a code (default %(default)s)")
    parser.add_argument(
        "--mode", choices=MODES, default=mode, metavar="MODE",
        help=f"what codes are learned for: {', '.join(MODES)} (default %(default)s)",
    )  # fmt: skip
    add_metric(parser)
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="the same number gives the same codes")


def add_metric(parser):
    parser.add_argument(
        "--metric", choices=("cosine", "l2"), default="cosine",
        help="distances: one minus the cosine (default), or Euclidean",
    )  # fmt: skip
