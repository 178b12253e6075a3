"""``aphash demo``: learns codes of real images, or of your vectors, and compares them with what else there is.

Of more than 100,300 vectors so many are drawn at random; these are copied, and twice more while something learns.
"""

import numpy as np

from aphash._command import arguments, comparison, picture, reading, terminal, writing
from aphash._measuring.brute_force import working
from aphash.codes import check_n_bits

OUT = "aphash-demo.png"
LEAST = 20  # rows


def parser():
    made = arguments.parser_of(
        "demo",
        "Learn codes of handwritten digits, or of your own vectors, and search held-out queries: each mode beside ITQ, "
        "signs and the floats.",
        "Without --data: the 1,797 scans of digits that scikit-learn ships, and a picture of results.",
    )
    made.add_argument("--data", metavar="VECTORS", help=f"your vectors, one a row: {reading.FORMATS}, or -")
    made.add_argument("--labels", metavar="FILE", help="their kinds, one each; without: clusters of the vectors")
    made.add_argument("--bits", type=arguments.count, metavar="N", help="bits a code (default 32 for digits, 64)")
    arguments.add_metric(made)
    made.add_argument("--out", metavar="FILE.png", help=f"the picture of digits (default {OUT})")
    made.add_argument("--seed", type=arguments.seed, default=0, metavar="N")
    arguments.add_jobs(made)
    return made


def run(options):
    n_bits = check_n_bits(options.bits or (32 if options.data is None else 64))
    if options.data is None and options.labels is not None:
        raise ValueError("--labels needs --data: the bundled digits have labels of their own")
    if options.data is not None and options.out is not None:
        raise ValueError("--out is the picture of the bundled digits: a page of your own results is search --html")
    reading.check_readable(options.data, options.labels)
    if options.data is None:
        out = options.out or OUT
        if picture.is_possible():
            picture.check(out)
            writing.check_writable(out)
        from sklearn.datasets import load_digits

        X, labels = load_digits(return_X_y=True)
        X = X.astype(np.float32)
    else:
        X = reading.read_vectors(options.data, least=LEAST)
        if X.shape[1] < 2:
            raise ValueError(f"{reading.name_of(options.data)}: expected vectors of 2 numbers or more, got 1")
        labels = None if options.labels is None else reading.read_labels(options.labels, len(X))
    database, queries = comparison.split(len(X), options.seed)
    rows = _compared(X, labels, database, queries, n_bits, options)
    print()
    _explain(rows, labels is not None, min(comparison.KIND_AT, len(database) // 10))
    if options.data is None:
        print()
        _draw(out, X, labels, database, queries, rows)


def _compared(X, labels, database, queries, n_bits, options):
    """Print the table, a line as soon as it is measured; return its rows."""
    sampled = "" if len(database) + len(queries) == len(X) else f" of {len(X):,}"
    print(
        f"{len(database):,} items{sampled} and {len(queries):,} queries of {X.shape[1]:,} numbers, {options.metric}, "
        f"{n_bits} bits\n",
        flush=True,
    )
    train, asked = (np.ascontiguousarray(working(X[rows], options.metric)) for rows in (database, queries))
    of = (None, None) if labels is None else (labels[database], labels[queries])
    where = comparison.setting(train, asked, *of, options.seed)
    kind = "kind" if labels is not None else "cluster"
    print(f"{'':24}{'by codes':^14}  {'then by floats':^14}")
    print(f"{'':16}{'bytes':>6}{kind:>8}{'nearest':>8}{kind:>8}{'nearest':>8}{'s':>6}")
    rows = []
    for name, measure in comparison.methods(where, n_bits, options.seed, options.jobs).items():
        name = f"{name:16}"
        print(terminal.bold(name) if name.startswith("APHash") else name, end="", flush=True)  # what takes its time
        row = measure()
        again = "".join(
            f"{'' if each is None else f'{each:.3f}':>8}" for each in (row.kind_rescored, row.true_rescored)
        )
        seconds = f"{row.seconds:6.1f}" if row.seconds else ""
        line = f"{row.nbytes:6}{row.kind:8.3f}{row.true:8.3f}{again}{seconds}".rstrip()
        print(terminal.bold(line) if row.name.startswith("APHash") else line, flush=True)
        rows.append(row)
    return rows


def _explain(rows, labelled, kind_at):
    kind = "the query's label" if labelled else f"the query's cluster, one of {comparison.N_CLUSTERS} by k-means"
    learned = [row for row in rows if row.kind_rescored is not None and row.name != "signs"]  # of equal bytes
    most_kind, most_true = max(learned, key=lambda row: row.kind), max(learned, key=lambda row: row.true_rescored)
    signs, floats = rows[-2:]
    for text in (
        f"{'kind' if labelled else 'cluster'}: share of the first {kind_at} that have {kind}. nearest: how many of "
        f"the {comparison.TRUE_AT} nearest floats are among the first {comparison.TRUE_AT}. Then by floats: the same "
        f"after up to {comparison.FACTOR} codes a result were ranked anew by the floats. s: seconds to learn and "
        "encode.",
        f"Most of the {'kind' if labelled else 'cluster'}: {most_kind.name}, {most_kind.kind:.3f} with "
        f"{most_kind.nbytes} bytes an item; the floats find {floats.kind:.3f} with {floats.nbytes:,}.",
        f"Most of the nearest: {most_true.name}, {most_true.true_rescored:.3f} with {most_true.nbytes} bytes and the "
        f"floats to rank by; signs {signs.true_rescored:.3f} with {signs.nbytes:,}.",
        f"Next: {arguments.program()} build VECTORS --out FILE, then {arguments.program()} search FILE QUERIES.",
    ):
        print(terminal.paragraph(text))


def _draw(out, X, labels, database, queries, rows):
    if not picture.is_possible():
        print("No picture: matplotlib is not installed (pip install 'aphash[plot]' or pip install matplotlib).")
        return
    shown = [next(row for row in rows if row.name == name) for name in ("APHash neighbors", "ITQ", "floats")]
    picture.draw(out, X.reshape(-1, 8, 8), labels, database, queries, shown)
    print(f"Picture: {out}")
