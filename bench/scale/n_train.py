"""What learning from fewer rows costs: quality and seconds of a fit against n_train, for each mode.

    python bench/scale/n_train.py --data-dir DATA [--datasets cnn fashion wordnet --bits 64 --seeds 0 --n-jobs 1]
                            [--n-train 2000 4000 8000 16000 32000 all] [--json bench/measurements/n_train.jsonl]

Queries and database are those of ``run.py``; the database is the codes of all rows by ``transform``. Measured are mAP,
P@100 and recall10, and the seconds of ``fit``, encoding the rows that did not learn among them.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "quality"))
import datasets
from run import Split

import aphash

FIGURES = ("mAP", "P@100", "recall10@10", "recall10@100")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--cache", default=None)
    parser.add_argument("--datasets", nargs="+", default=["cnn", "fashion", "wordnet"])
    parser.add_argument("--modes", nargs="+", default=["semantic", "neighbors"])
    parser.add_argument("--n-train", nargs="+", default=["2000", "4000", "8000", "16000", "32000", "all"])
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n-jobs", type=int, default=None)
    parser.add_argument("--json")
    options = parser.parse_args()
    for name in options.datasets:
        dataset = datasets.load(name, options.data_dir, options.cache)
        for seed in options.seeds:
            split = Split(dataset, "auto", seed)
            for mode in options.modes:
                for given in options.n_train:
                    n_train = len(split.X) if given == "all" else min(int(given), len(split.X))
                    hasher = aphash.APHash(
                        options.bits, mode=mode, n_train=n_train, random_state=seed, n_jobs=options.n_jobs, verbose=0
                    )
                    begun = time.perf_counter()
                    hasher.fit(split.X)
                    seconds = time.perf_counter() - begun
                    figures = split.truth.of_codes(hasher.transform(split.X), hasher.transform(split.Q))
                    kept = {key: figures[key] for key in FIGURES if key in figures}
                    record = {
                        "dataset": name, "n": len(split.X), "bits": options.bits, "mode": mode, "seed": seed,
                        "n_train": n_train, "seconds": round(seconds, 2),
                        **kept,
                    }  # fmt: skip
                    print(json.dumps(record), flush=True)
                    if options.json:
                        with open(options.json, "a") as file:
                            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
