"""Puts load on serve.py and replaces its file meanwhile: how long answers take, and whether each is right.

    python examples/load.py                       three workers, eight clients, 10 seconds, the file replaced twice

An answer is right if it is that of a file that was in place at some moment between the request and the answer.
"""

import argparse
import http.client
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import aphash

K = 10


def products(options):
    """Yield (hasher, index) of other vectors each: what a service serves on successive days."""
    for day in range(options.replacements + 1):
        X = np.random.default_rng(day).standard_normal((options.items, options.features), np.float32)
        hasher = aphash.APHash(options.bits, n_rounds=1, n_train=min(options.items, 5000), random_state=day).fit(X)
        index = aphash.HammingIndex(options.bits)
        index.add(hasher.transform(X), np.arange(options.items) + day * options.items)
        yield hasher, index


def client(url, queries, until, seed):
    """Ask one query after the other; return a list of (sent, answered, query, ids or what went wrong)."""
    address, done, rng = urlsplit(url).netloc, [], np.random.default_rng(seed)
    while (sent := time.monotonic()) < until:
        at = int(rng.integers(len(queries)))
        try:
            connection = http.client.HTTPConnection(address, timeout=60)
            connection.request("POST", f"/?k={K}", queries[at].tobytes())
            response = connection.getresponse()
            answer = json.load(response)
            ids = answer["ids"][0] if response.status == 200 else answer["error"]
        except (OSError, http.client.HTTPException, ValueError) as error:
            ids = repr(error)
        finally:
            connection.close()
        done.append((sent, time.monotonic(), at, ids))
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("workers", 3), ("clients", 8), ("replacements", 2), ("items", 100_000), ("features", 384)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    days = list(products(options))
    queries = np.random.default_rng(2**32).standard_normal((200, options.features), np.float32)
    right = [index.search(hasher.transform(queries), K)[1].tolist() for hasher, index in days]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product"
        aphash.save(path, *days[0])
        command = [sys.executable, Path(__file__).with_name("serve.py"), path, "0", str(options.workers)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            url = server.stdout.readline().strip()
            begun = time.monotonic()
            in_place = [(begun, begun)]  # of each file: when its saving began and was done
            with multiprocessing.get_context("spawn").Pool(options.clients) as pool:
                pool.map(time.sleep, [0] * options.clients)  # they have started
                begun = time.monotonic()
                asked = [(url, queries, begun + options.seconds, seed) for seed in range(options.clients)]
                waiting = pool.starmap_async(client, asked, chunksize=1)
                for day in range(1, len(days)):
                    time.sleep(max(0, begun + day * options.seconds / len(days) - time.monotonic()))
                    before = time.monotonic()
                    aphash.save(path, *days[day])
                    in_place.append((before, time.monotonic()))
                requests = [each for done in waiting.get() for each in done]
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()
    in_place.append((np.inf, np.inf))
    errors, wrong, served = [], 0, [0] * len(days)
    for sent, answered, at, ids in requests:
        if isinstance(ids, str):
            errors.append(ids)
            continue
        may = [d for d in range(len(days)) if in_place[d][0] <= answered and sent <= in_place[d + 1][1]]
        found = [d for d in may if right[d][at] == ids]
        wrong += not found
        for day in found[:1]:
            served[day] += 1
    took = 1000 * np.array([answered - sent for sent, answered, *_ in requests])
    print(f"requests {len(requests)}, {len(requests) / options.seconds:.0f} a second; by file {served}")
    print("milliseconds: " + ", ".join(f"p{p} {np.percentile(took, p):.1f}" for p in (50, 99, 100)))
    print(f"errors {len(errors)}{': ' + errors[0] if errors else ''}; wrong answers {wrong}")
    return bool(errors or wrong or not all(served))


if __name__ == "__main__":
    sys.exit(main())
