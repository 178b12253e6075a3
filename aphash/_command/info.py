"""``aphash info``: what a file holds, and whether it is whole."""

from aphash._command import arguments, terminal
from aphash._common import container


def parser():
    made = arguments.parser_of("info", "What a file of aphash holds, and whether it is whole: exit status 1 if not.")
    made.add_argument("file", metavar="FILE")
    return made


def run(options):
    found = container.describe(options.file)
    print(f"{options.file}: {found['kind']}, version {found['version']}, {found['nbytes']:,} bytes")
    if found["kind"] == "VectorIndex" and not found["damage"]:
        from aphash.vectors import VectorIndex

        for line in summary(VectorIndex.load(options.file, mmap=True)):
            print(line)
        print()
    for name, (dtype, shape) in found["arrays"].items():
        print(f"  {name:24} {dtype:8} {' x '.join(map(str, shape))}")
    if found["kind"] != "VectorIndex":
        for name, value in found["params"].items():
            print(f"  {name:24} {value}")
    if found["damage"]:
        raise ValueError(f"{options.file}: not whole: {'; '.join(found['damage'])}")
    print("whole: all checksums are right")


def summary(index):
    """Return lines on what a VectorIndex is, and what can be expected of its searches."""
    about = index.info()
    mode = about["mode"] if isinstance(about["mode"], str) else "a recipe"
    kept = f" + {about['vector_bytes']:,} of vectors, {about['keep']}" if about["keep"] else ", no vectors"
    lines = [
        f"  vectors     {about['n']:,} of {about['n_features']:,} numbers, {about['metric']}",
        f"  codes       {about['n_bits']} bits, learned by mode {mode}",
        f"  an item     {about['code_bytes']:,} bytes of codes{kept}",
        f"  in memory   {terminal.bytes_of(about['nbytes'])}",
        f"  distances   {about['distances']}",
    ]
    if about["keep"]:
        of = {k: c for k, c in about["candidates"].items() if c is not None and k <= about["n"]}
        if of:
            lines.append(f"  recall .95  of {_listed(of)} results takes")
            lines.append(f"              {_listed(of.values())} candidates")
    else:
        found = {k: steps[k] for k, steps in about["recall"].items() if k in steps}
        if found:
            shares = _listed(f"{each:.2f}" for each in found.values())
            lines.append(f"  recall      {shares} of {_listed(found)} results")
    return lines


def _listed(values):
    return ", ".join(f"{each:,}" if isinstance(each, int) else str(each) for each in values)
