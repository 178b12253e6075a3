"""``aphash choose``: which mode and how many bits suit vectors, by a table of what was tried on a sample."""

import numpy as np

from aphash._command import arguments, reading, terminal
from aphash._measuring.brute_force import working

LEAST = 200  # rows
ROWS = 20_000

_OPTIONS = {"mode": "--mode", "n_bits": "--bits", "n_train": "--train"}  # of build, for the parameters that it has


def parser():
    made = arguments.parser_of(
        "choose",
        "Choose how to learn codes of your vectors: modes, rounds and bits are tried on a sample, and judged without "
        "labels.",
    )
    made.add_argument("vectors", metavar="VECTORS", help=f"one a row: {reading.FORMATS}, FILE:NAME of an array, or -")
    made.add_argument("--bytes", type=arguments.count, default=8, metavar="N", help="of a code at most (default 8)")
    made.add_argument(
        "--what", choices=("neighbors", "kind"), default="neighbors",
        help="to find: the true nearest (default), or more of the same kind",
    )  # fmt: skip
    arguments.add_metric(made)
    made.add_argument("--rows", type=arguments.count, default=ROWS, metavar="N", help="of the sample (default 20,000)")
    made.add_argument("--seed", type=arguments.seed, default=0, metavar="N")
    arguments.add_jobs(made)
    return made


def run(options):
    if options.rows < LEAST:
        raise ValueError(f"--rows: expected at least {LEAST}, got {options.rows}")
    reading.check_readable(options.vectors)
    X = reading.read_vectors(options.vectors, least=LEAST)
    import aphash

    n = len(X)
    if n > options.rows:  # of all, only these are made of unit length
        X = X[np.sort(np.random.default_rng(options.seed).permutation(n)[: options.rows])]
    choice = aphash.choose(
        np.ascontiguousarray(working(X, options.metric)), n_bytes=options.bytes, what=options.what,
        n_rows=options.rows, random_state=options.seed, n_jobs=options.jobs,
    )  # fmt: skip
    choice.n_ = n
    table, _, notes = str(choice).partition("\n\n")
    print(f"{table}\n")
    for line in notes.splitlines():
        print(terminal.paragraph(line))
    chosen = choice.best_params_
    if set(chosen) <= set(_OPTIONS):
        given = " ".join(f"{_OPTIONS[name]} {value}" for name, value in chosen.items())
        print(f"\n{arguments.program()} build {options.vectors} --out FILE {given} --metric {options.metric}")
