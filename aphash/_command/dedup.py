"""``aphash dedup``: near-duplicates of an index, or of vectors: groups, and pairs."""

import csv

import numpy as np

from aphash._command import arguments, reading, search, terminal, writing
from aphash._common import container

BITS, MODE = 128, "neighbors"  # codes are compared with codes, for the nearest: bench/README.md
DISTANCE = 0.1  # of cosines


def parser():
    made = arguments.parser_of(
        "dedup",
        "Find near-duplicates: groups of vectors that are joined by distances of at most --distance. Of vectors, "
        f"{BITS}-bit codes are learned first.",
    )
    made.add_argument(
        "source", metavar="FILE|VECTORS", help=f"what build has made; or vectors: {reading.FORMATS}, FILE:NAME, or -"
    )
    made.add_argument("--distance", type=arguments.distance, metavar="D", help=f"cosine: default {DISTANCE}; l2: needed")
    made.add_argument("--recall", type=arguments.share, default=0.95, metavar="R", help="share to find (default .95)")
    made.add_argument("--diameter", type=arguments.distance, metavar="D", help="no group is wider than this")
    made.add_argument("--groups", metavar="OUT.csv", help="write id, group, keep[, name] of all that have duplicates")
    made.add_argument("--pairs", metavar="OUT.csv", help="write the pairs: id, other, distance")
    made.add_argument("--names", metavar="FILE", help="names: line i is that of id i; or lines of an id, a tab, a name")
    made.add_argument("--metric", choices=("cosine", "l2"), help="of vectors (default cosine)")
    made.add_argument("--seed", type=arguments.seed, default=0, metavar="N")
    arguments.add_jobs(made)
    return made
