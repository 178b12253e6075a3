"""Codes from and to texts and integers, beside the loop of imagehash that does the same: formats.py [--n 1000000].

Every round takes ours and the loop in turn, the loop on 1 / 50 of the items; both make the same bits. Medians of the
rounds, in millions of items a second.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import imagehash
import numpy as np

from aphash import interchange, pack_codes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="add a line a measurement to this file")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    for n_bits in (64, 49, 256):
        bits = rng.random((arguments.n, n_bits)) < 0.5
        codes = pack_codes(bits)
        for name, to, back, one in (
            ("hex", interchange.to_hex, interchange.from_hex, imagehash.hex_to_hash),
            (
                "integers",
                interchange.to_integers,
                interchange.from_integers,
                lambda value, n_bits=n_bits: _of_integer(value, n_bits),
            ),
            ("bits", interchange.to_bit_strings, lambda texts, _: interchange.from_bit_strings(texts), _of_bits),
        ):
            seconds = {"to": [], "from": [], "loop": []}
            for _ in range(arguments.rounds):
                items = _timed(seconds["to"], to, codes, n_bits)
                again = _timed(seconds["from"], back, items, n_bits)
                some = items[: max(1, arguments.n // 50)]
                loop = _timed(seconds["loop"], lambda one, some: [one(each) for each in some], one, some)
                assert np.array_equal(again, codes)
                assert np.array_equal([np.ravel(getattr(each, "hash", each)) for each in loop], bits[: len(some)])
            millions = {
                what: (len(some) if what == "loop" else arguments.n) / statistics.median(took) / 1e6
                for what, took in seconds.items()
            }
            line = {"format": name, "n_bits": n_bits, "n": arguments.n} | {
                f"{what}_millions_a_second": round(value, 3) for what, value in millions.items()
            }
            print(json.dumps(line), flush=True)
            if arguments.json:
                with open(arguments.json, "a") as file:
                    file.write(json.dumps(line) + "\n")


def _of_integer(value, n_bits):
    return [digit == "1" for digit in f"{value:0{n_bits}b}"]


def _of_bits(text):
    return [digit == "1" for digit in text]


def _timed(seconds, call, *arguments):
    began = time.perf_counter()
    result = call(*arguments)
    seconds.append(time.perf_counter() - began)
    return result


if __name__ == "__main__":
    main()
