"""The lines of results, one for each run: what names a run, where its codes lie, the files in ``bench/results``.

And the table of their measures, with means over seeds.
"""

import json
import re
from pathlib import Path

import numpy as np
from methods import BY_WEIGHTS, order_of

BENCH = Path(__file__).resolve().parents[1]
KEY = ("dataset", "checksum", "protocol", "seed", "n", "method", "n_bits")


def key_of(record):
    return tuple(record[name] for name in KEY)


def codes_path(work, key):
    words = [str(key[name]) for name in ("dataset", "checksum", "protocol", "seed", "n", "method", "n_bits")]
    return Path(work) / "codes" / (re.sub(r"[^\w.=-]+", "_", "-".join(words)) + ".npz")


class Results:
    """The lines of one folder, a file a data set; a line that is written again replaces the one with its key."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.records = {}
        for path in sorted(self.folder.glob("*.jsonl")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    record = json.loads(line)
                    self.records[key_of(record)] = record
                except (ValueError, KeyError) as error:
                    raise SystemExit(f"{path}:{number}: not a line of results ({error})") from None

    def __contains__(self, key):
        return key_of(key) in self.records

    def add(self, record):
        replaces = key_of(record) in self.records
        self.records[key_of(record)] = record
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{record['dataset']}.jsonl"
        if not replaces:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            return
        lines = [json.dumps(r) + "\n" for r in self.records.values() if r["dataset"] == record["dataset"]]
        partial = path.with_suffix(".part")
        partial.write_text("".join(lines))
        partial.replace(path)


class Table:
    """Measures by data set, length and method, with a value a seed; a method's name says if it is asked by weights.

    Parameters
    ----------
    records : iterable of dict
        Lines of :class:`Results`. Those of validation queries are left out.
    """

    def __init__(self, records):
        self.records = [r for r in records if "measures" in r and r["protocol"] != "validation"]
        self.records += [
            r | {"method": r["method"] + BY_WEIGHTS, "measures": r["by_weights"]}
            for r in self.records
            if "by_weights" in r
        ]
        self.full = {}  # (dataset, protocol) -> n of the whole database: smaller ones are for growth
        self.groups = {}
        for r in self.records:
            self.groups.setdefault((r["dataset"], r["protocol"], r["n"], r["n_bits"], r["method"]), []).append(r)
            key = r["dataset"], r["protocol"]
            self.full[key] = max(self.full.get(key, 0), r["n"])

    def one(self, dataset, n_bits, method, n=None, seeds=None):
        """The records of a method: of the whole database, or of n rows; of all seeds, or of those given."""
        for (name, protocol, rows, bits, spec), records in self.groups.items():
            wanted = self.full[name, protocol] if n is None else n
            if (name, bits, spec, rows) == (dataset, n_bits, method, wanted):
                return [r for r in records if seeds is None or r["seed"] in seeds]
        return []

    def values(self, dataset, n_bits, method, measure, **which):
        records = self.one(dataset, n_bits, method, **which)
        return np.array([r["measures"][measure] for r in records if measure in r["measures"]])

    def mean(self, *args, **which):
        """The mean over seeds of what :meth:`values` has, None where that is nothing."""
        values = self.values(*args, **which)
        return float(values.mean()) if values.size else None

    def methods(self, dataset, n_bits):
        found = {spec for (name, protocol, n, bits, spec) in self.groups
                 if (name, bits) == (dataset, n_bits) and n == self.full[name, protocol]}  # fmt: skip
        return sorted(found, key=order_of)

    def lengths(self, dataset):
        return sorted({bits for (name, protocol, n, bits, _) in self.groups
                       if name == dataset and n == self.full[name, protocol]})  # fmt: skip
