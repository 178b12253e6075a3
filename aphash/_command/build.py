"""``aphash build``: learn codes of vectors and index them, in one file.

Needs the memory of :meth:`aphash.VectorIndex.fit`, and that of the vectors where they are not a .npy file of floats,
which is mapped.
"""

import time

from aphash._command import arguments, info, reading, terminal, writing
from aphash.codes import check_n_bits


def parser():
    made = arguments.parser_of(
        "build",
        "Learn codes of vectors and index them, in one file that search, info and dedup open. An existing file is "
        "replaced once the new one is whole.",
    )
    made.add_argument("vectors", metavar="VECTORS", help=f"one a row: {reading.FORMATS}, FILE:NAME of an array, or -")
    made.add_argument("--out", required=True, metavar="FILE")
    made.add_argument("--ids", metavar="FILE", help="one integer a line, or an array (default: 0, 1, 2, ...)")
    arguments.add_learning(made, mode="scores", bits=64)
    made.add_argument(
        "--keep", choices=("float32", "float16", "int8", "none"), default="float16", metavar="KIND",
        help="keep the vectors in the file, to rank by: float32, float16 (default) or int8; none: codes alone",
    )  # fmt: skip
    made.add_argument("--train", type=arguments.count, metavar="N", help="rows that learn (default: 250,000 at most)")
    arguments.add_jobs(made)
    return made


def run(options):
    check_n_bits(options.bits)
    if options.out == writing.STDOUT:
        raise ValueError("--out -: an index is written to a file")
    reading.check_readable(options.vectors, options.ids)
    writing.check_writable(options.out, [reading.split_source(options.vectors)[0], options.ids])
    X = reading.read_vectors(options.vectors, least=2)
    ids = None if options.ids is None else reading.read_ids(options.ids, len(X))

    from aphash.vectors import VectorIndex

    begun = time.perf_counter()
    index = VectorIndex(
        options.bits, mode=options.mode, metric=options.metric, keep=None if options.keep == "none" else options.keep,
        n_train="auto" if options.train is None else options.train, random_state=options.seed, n_jobs=options.jobs,
    ).fit(X, ids=ids)  # fmt: skip
    index.save(options.out)
    print(f"{options.out}: built in {terminal.seconds_of(time.perf_counter() - begun)}")
    for line in info.summary(index):
        print(line)
