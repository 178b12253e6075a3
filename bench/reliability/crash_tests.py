"""What happens to files and indexes when things go wrong, counted.

    python bench/reliability/crash_tests.py             2,000 damaged files of each kind, 200 kills; ours and peers
    python bench/reliability/crash_tests.py --files 100000 --kills 1000 --parts flips kills
    python bench/reliability/crash_tests.py --out bench/measurements/crash_tests.jsonl

Every load runs in a forked child, so that a crash is an outcome and not the end. Outcomes of a load:

    refused     a ValueError or OSError that names the file (of a peer: any exception)
    same        accepted, and the content is what was saved (of usearch: the codes and their keys)
    accepted    and usable, where any content is right: what the file says was made up
    DIFFERENT   accepted with other content     UNNAMED, OTHER   another exception     CRASH   killed by a signal

What is in capitals is wrong; the exit status is 1 if aphash shows any of it.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import platform
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from crash_subjects import OURS, PEERS, Index, same

import aphash
from aphash import HammingIndex

RIGHT = {"refused", "same", "accepted", "old file whole", "old or new, whole", "unchanged"}
SPARE = 64 << 20  # what a hostile file may need


# ---- outcomes -------------------------------------------------------------------------------------------------------


def isolated(action, items):
    """Yield ``action(item)``, a line of text, for each item, run in forked children; CRASH for those that kill one."""
    items = list(items)
    done = 0
    while done < len(items):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)  # what an aborting library says
            try:
                with os.fdopen(write, "w") as pipe:
                    for item in items[done:]:
                        print(action(item), file=pipe, flush=True)
            except BaseException:
                os._exit(1)  # at once: the parent's temporary folder is not the child's to clean up
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            for line in pipe:
                yield line.rstrip("\n")
                done += 1
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if done < len(items):
            yield f"CRASH {signal.Signals(-status).name}" if status < 0 else f"CRASH exit {status}"
            done += 1


def outcome(subject, load, path, wanted=None, use=False):
    """Load a file, and say what came of it."""
    try:
        loaded = load(path)
        found = subject.content(loaded)
        if use:
            with contextlib.suppress(ValueError, TypeError):  # a made-up n_jobs is found only when it is used
                subject.use(loaded)
    except Exception as error:
        if subject in PEERS:
            return "refused"
        if not isinstance(error, ValueError | OSError):
            return f"OTHER {type(error).__name__}: {error}".replace("\n", " ")
        return "refused" if str(path) in str(error) else f"UNNAMED {type(error).__name__}: {error}".replace("\n", " ")
    if wanted is None:
        return "accepted"
    return "same" if same(found, wanted) else "DIFFERENT"


def saved(subject, folder, seed=0):
    """Return the bytes of a saved file, and its content."""
    thing, path = subject.make(seed), Path(folder) / "whole"
    subject.save(thing, path)
    return path.read_bytes(), subject.content(thing)


# ---- the faults -----------------------------------------------------------------------------------------------------


def flips(subject, folder, options):
    """1 to 3 flipped bits anywhere."""
    whole, wanted = saved(subject, folder)
    path = Path(folder) / "damaged"

    def damaged(load, seed):
        draw = random.Random(seed)
        data = bytearray(whole)
        for bit in draw.sample(range(8 * len(data)), draw.randint(1, 3)):
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        return outcome(subject, load, path, wanted)

    for name, load in subject.loads().items():
        yield name, collections.Counter(isolated(functools.partial(damaged, load), range(options.files)))


def truncations(subject, folder, options):
    """Cut at every length of the header's region and the end, and at random ones between."""
    whole, wanted = saved(subject, folder)
    path = Path(folder) / "damaged"
    lengths = {*range(min(1500, len(whole))), *range(max(0, len(whole) - 300), len(whole))}
    lengths |= set(random.Random(0).choices(range(len(whole)), k=500))

    def damaged(load, length):
        path.write_bytes(whole[:length])
        return outcome(subject, load, path, wanted, use=True)

    loads = subject.loads()
    if issubclass(subject, Index):
        loads["mapped, not verified"] = functools.partial(HammingIndex.load, mmap=True)
    for name, load in loads.items():
        yield name, collections.Counter(isolated(functools.partial(damaged, load), sorted(lengths)))


def mapped_garbage(subject, folder, options):
    """Flipped bits in a mapped file that nobody verified, then a search: other results, but never a crash."""
    if not issubclass(subject, Index):
        return
    whole, _ = saved(subject, folder)
    path = Path(folder) / "damaged"

    def damaged(seed):
        draw = random.Random(seed)
        data = bytearray(whole)
        for at in draw.sample(range(len(data) // 2, len(data)), 20):
            data[at] = draw.randrange(256)
        path.write_bytes(data)
        return outcome(subject, functools.partial(HammingIndex.load, mmap=True), path, use=True)

    yield "mapped, not verified", collections.Counter(isolated(damaged, range(options.files)))


def hostile(subject, folder, options):
    """Headers with hostile values whose checksum was computed anew; each in 1 s and 64 MiB."""
    if subject in PEERS:
        return
    whole, _ = saved(subject, folder)
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    path = Path(folder) / "damaged"
    numbers = [-1, 0, 1, 2, 3, 63, 64, 65, 255, 65537, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, 1.5, 1e300]
    others = [None, True, "", "x" * 1000, [], {}, [[]], {"a": 1}, "nan", "-1", "APHash", "HammingIndex", "aphash",
              "U64", "I64", "F64", "F32", "U8"]  # fmt: skip

    def places(value, at=()):
        yield at
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield from places(value[key], (*at, key))

    def change(tree, draw):
        at = draw.choice([p for p in places(tree) if p])
        parent = tree
        for key in at[:-1]:
            parent = parent[key]
        kind = draw.randrange(4)
        if kind == 0:
            del parent[at[-1]]
        elif kind == 1 and isinstance(parent, dict):
            name = draw.choice(list(parent))
            parent[name] = parent.pop(at[-1])
        else:
            parent[at[-1]] = draw.choice(numbers if kind == 2 else others)

    def crafted(load, seed):
        draw = random.Random(seed)
        tree = json.loads(json.dumps(header))
        for name in ("params", "crc32"):
            tree["__metadata__"][name] = json.loads(tree["__metadata__"][name])
        for _ in range(draw.randint(1, 3)):
            change(tree, draw)
        meta = tree.get("__metadata__")
        if isinstance(meta, dict):
            for name in ("params", "crc32"):
                if isinstance(meta.get(name), dict | list):
                    meta[name] = json.dumps(meta[name])
        text = json.dumps(tree, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % 64)
        data = bytearray(len(text).to_bytes(8, "little") + text + whole[8 + length :])
        at = data.find(b'"header_crc32":"') + len(b'"header_crc32":"')
        data[at : at + 8] = b"0" * 8
        data[at : at + 8] = b"%08x" % zlib.crc32(data[: 8 + len(text)])
        path.write_bytes(data)
        start = time.perf_counter()
        said = outcome(subject, load, path, use=True)
        return said if time.perf_counter() - start < 1 else f"SLOW {said}"

    def limited(load, seed):
        if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
            subject.use(subject.make(0))  # what is loaded and started once is not what a file costs
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + SPARE, size + SPARE))
        return crafted(load, seed)

    for name, load in subject.loads().items():
        yield name, collections.Counter(isolated(functools.partial(limited, load), range(options.files)))


def kills(subject, folder, options):
    """kill -9 while it saves over an existing file."""
    path = Path(folder) / "file"
    things = [subject.make(seed) for seed in (0, 1)]
    contents = [subject.content(thing) for thing in things]
    subject.save(things[0], path)
    draw, counts, changes, before = random.Random(0), collections.Counter(), 0, 0
    for _ in range(options.kills):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"x")
            number = before
            while True:
                number = 1 - number
                subject.save(things[number], path)
        os.read(read, 1)
        time.sleep(draw.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)
        try:
            found = subject.content(next(iter(subject.loads().values()))(path))
            which = [same(found, content) for content in contents]
        except Exception:
            which = []
        counts["old or new, whole" if any(which) else "DAMAGED"] += 1
        if any(which):
            changes += which.index(True) != before
            before = which.index(True)
        else:
            subject.save(things[before], path)
    for left in Path(folder).glob(".aphash-*.tmp"):
        left.unlink()
    yield f"{changes} of {options.kills} ended with the other file", counts


def full_disks(subject, folder, options):
    """A limit on the file's size, a full file system, folder or file without permission: the old file stays."""
    if subject in PEERS:
        return
    path, thing, old = Path(folder) / "file", subject.make(1), subject.make(0)
    subject.save(old, path)
    wanted, size = subject.content(old), path.stat().st_size
    load = subject.loads()["load"]

    def attempt(prepare, path=path):
        def action(_):
            prepare()
            try:
                subject.save(thing, path)
            except OSError as error:
                return "" if str(path) in str(error) else f"UNNAMED {error}"
            return "SAVED"

        (said,) = isolated(action, [0])
        files = sorted(p.name for p in path.parent.iterdir())
        if not said and (outcome(subject, load, path, wanted), files) == ("same", [path.name]):
            return "old file whole"
        return said or f"DAMAGED {files}"

    def limit(room):
        return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    rooms = [0, 1, 63, *random.Random(0).choices(range(size), k=60), size - 1]
    yield "limit on the file's size", collections.Counter(attempt(limit(room)) for room in rooms)
    if os.geteuid() != 0:
        print("full file system, no permission: need root, left out", file=sys.stderr)
        return

    def nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    for above in (path.parent, path.parent.parent):
        above.chmod(0o755)
    yield "read-only folder", collections.Counter([attempt(nobody)])
    path.parent.chmod(0o777)
    path.chmod(0o444)
    yield "read-only file", collections.Counter([attempt(nobody)])
    path.unlink()
    with contextlib.ExitStack() as stack:
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pages = -(-size // 4096)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={4 * (pages + pages // 2)}k", "none", disk]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            print("full file system: cannot mount a tmpfs, left out", file=sys.stderr)
            return
        stack.callback(subprocess.run, ["umount", disk], check=True)
        subject.save(old, disk / "file")
        yield "full file system", collections.Counter([attempt(lambda: None, disk / "file")])
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield "read-only file system", collections.Counter([attempt(lambda: None, disk / "file")])


def failed_adds(subject, folder, options):
    """add that fails: the index is as it was."""
    if subject is not Index:
        return
    index = Index.make(0)
    before, codes = Index.content(index), index.codes
    known, spoilt = int(index.ids[5]), codes.copy()
    spoilt[7, -1] |= np.uint64(1 << 63)
    calls = {
        "shape": (codes[:, :1], None), "dtype": (codes.astype(np.int64), None), "padding bits": (spoilt, None),
        "duplicate in the index": (codes[:2], [-9, known]), "duplicate in the call": (codes[:2], [-9, -9]),
        "id -1": (codes[:1], [-1]), "ids too few": (codes, [-9]), "ids of floats": (codes[:1], [0.5]),
        "out of memory": (np.broadcast_to(codes[:1], (40_000_000, 2)), None),
    }  # fmt: skip

    def action(name):
        if name == "out of memory":
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20) * 900, size + (1 << 20) * 900))
        try:
            index.add(calls[name][0], ids=calls[name][1])
        except (ValueError, TypeError, MemoryError):
            Index.use(index)
            return "unchanged" if same(Index.content(index), before) else f"CHANGED {name}"
        return f"ADDED {name}"

    yield ", ".join(calls), collections.Counter(isolated(action, calls))


PARTS = {"flips": flips, "truncations": truncations, "mapped": mapped_garbage, "hostile": hostile, "kills": kills,
         "disks": full_disks, "adds": failed_adds}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=2000, help="damaged files of each kind (default %(default)s)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--subjects", nargs="+", default=[s.name for s in OURS + PEERS], metavar="NAME")
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    parser.add_argument("--out", help="append JSON lines to this file")
    options = parser.parse_args()
    machine = {"aphash": aphash.__version__, "python": platform.python_version(), "machine": platform.platform()}
    failed = False
    print("| fault | of | how | outcomes | seconds |\n|---|---|---|---|---|")
    for part in options.parts:
        for subject in (s for s in OURS + PEERS if s.name in options.subjects):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                start = time.perf_counter()
                for how, counts in PARTS[part](subject, folder, options):
                    seconds = round(time.perf_counter() - start, 1)
                    text = ", ".join(f"{n} {what}" for what, n in counts.most_common(6))
                    print(f"| {part} | {subject.name} | {how} | {text} | {seconds} |", flush=True)
                    failed |= subject in OURS and any(what not in RIGHT for what in counts)
                    if options.out:
                        line = {"part": part, "subject": subject.name, "how": how, "outcomes": counts}
                        with open(options.out, "a") as out:
                            print(json.dumps(line | {"seconds": seconds} | machine), file=out)
                    start = time.perf_counter()
    sys.exit(failed)


if __name__ == "__main__":
    main()
