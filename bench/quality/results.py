"""The lines of results, one for each run: what names a run, where its codes lie, the files in ``bench/results``."""

import json
import re
from pathlib import Path

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
