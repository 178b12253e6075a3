"""``aphash dedup``: near-duplicates of an index, or of vectors: groups, whom to keep, and pairs."""

import csv

from aphash._command import arguments, naming, reading, terminal, writing

BITS, MODE = 128, "neighbors"  # codes are compared with each other, and the nearest are wanted
DISTANCE = 0.1  # of cosines


def parser():
    made = arguments.parser_of(
        "dedup",
        "Find near-duplicates, in groups: vectors within --distance, and whom to keep of each. Of vectors, "
        f"{BITS}-bit codes are learned first.",
    )
    made.add_argument(
        "source", metavar="FILE|VECTORS", help=f"what build has made; or vectors: {reading.FORMATS}, FILE:NAME, or -"
    )
    made.add_argument("--distance", type=arguments.distance, metavar="D", help=f"default {DISTANCE}; needed for l2")
    made.add_argument("--metric", choices=("cosine", "l2"), help="of vectors (default cosine)")
    made.add_argument(
        "--linkage", choices=("single", "complete"), default="single",
        help="single: also what a chain of such pairs joins (default); complete: no group is wider than the distance",
    )  # fmt: skip
    made.add_argument(
        "--recall", type=arguments.share, default=0.95, metavar="R", help="share of the pairs to find (default .95)"
    )
    made.add_argument("--groups", metavar="OUT.csv", help="write id, group, keep[, name] of all that have duplicates")
    made.add_argument("--pairs", metavar="OUT.csv", help="write the pairs: id, other, distance")
    naming.add_names(made)
    made.add_argument("--seed", type=arguments.seed, default=0, metavar="N", help="of learning")
    arguments.add_jobs(made)
    return made


def run(options):
    reading.check_readable(options.source, options.names)
    path = reading.split_source(options.source)[0]
    for out in (options.groups, options.pairs):
        if out is not None:
            writing.check_writable(out, [path, options.names])
    if options.groups is not None and options.groups == options.pairs:
        raise ValueError(f"{options.groups}: --groups and --pairs are two files")
    index = _index(options, path)
    metric = index.info()["metric"]
    if options.distance is None and metric != "cosine":
        raise ValueError(f"{reading.name_of(options.source)}: measured by {metric}: say --distance in its unit")
    distance = DISTANCE if options.distance is None else options.distance
    if options.linkage == "complete" and index.info()["distances"] != "exact":
        raise ValueError(f"{options.source}: --linkage complete needs vectors, and it has none: build it with --keep")
    names = naming.Names.read(options.names, index.ids)
    shared = {"recall": options.recall, "n_jobs": options.jobs, "verbose": "auto"}
    if options.pairs is not None:
        with writing.opened(options.pairs) as file:
            n_pairs = _write_pairs(file, index.pairs(distance, **shared))
    found = index.groups(distance, linkage=options.linkage, **shared)
    members = found.members()
    if options.groups is not None:
        with writing.opened(options.groups) as file:
            _write_groups(file, members, set(found.representatives.tolist()), names)
    if writing.STDOUT in (options.groups, options.pairs):
        return
    several = sum(map(len, members))
    kind = "exact" if found.exact else "estimated"
    groups = terminal.counted(len(members), "group")
    print(f"{groups}, {several:,} of {len(index):,} vectors; {several - len(members):,} could go")
    print(f"{metric} distance at most {distance:g}, {kind}; expected recall {found.recall:.3f}")
    if options.pairs is not None:
        print(f"{options.pairs}: {terminal.counted(n_pairs, 'pair')}")
    if options.groups is not None:
        print(f"{options.groups}: {several:,} vectors in {groups}")
    if options.pairs is None and options.groups is None:
        _print_groups(members, set(found.representatives.tolist()), names)


def _index(options, path):
    """Return the index in a file; or one of vectors, by which it ranks where they lie."""
    if reading.is_index(path):
        if options.metric is not None:
            raise ValueError(f"{path}: --metric is of vectors: an index has its own")
        return reading.read_index(path)
    if options.distance is None and options.metric == "l2":
        raise ValueError(f"{reading.name_of(options.source)}: say --distance, in the unit of the vectors")
    X = reading.read_vectors(options.source, least=2)
    from aphash.vectors import VectorIndex

    index = VectorIndex(
        BITS, mode=MODE, metric=options.metric or "cosine", random_state=options.seed, n_jobs=options.jobs
    )
    return index.fit(X).attach_vectors(X)


def _write_pairs(file, blocks):
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["id", "other", "distance"])
    n_pairs = 0
    for ids, others, distances in blocks:
        n_pairs += len(ids)
        distances = (f"{each:.6g}" for each in distances.tolist())
        table.writerows(zip(ids.tolist(), others.tolist(), distances))
    return n_pairs


def _write_groups(file, members, kept, names):
    table = csv.writer(file, lineterminator="\n")
    named = names.of_ids is not None
    table.writerow(["id", "group", "keep", *(["name"] if named else [])])
    for number, ids in enumerate(members):
        for id in ids.tolist():
            table.writerow([id, number, int(id in kept), *([names.of(id)] if named else [])])


def _print_groups(members, kept, names):
    columns = terminal.width()
    for ids in members:
        print()
        ids = sorted(ids.tolist(), key=lambda id: id not in kept)
        wide = max(len(str(id)) for id in ids)
        for id in ids:
            line = f"{'keep' if id in kept else '':4}  {id:>{wide}}  {names.of(id)}".rstrip()
            print(terminal.fitted(line, columns))
