"""What ``import aphash`` costs beyond numpy: medians of interleaved fresh processes. The target is 30 ms.

python bench/speed/import_time.py [--runs 21]
"""

import argparse
import statistics
import subprocess
import sys
import time


def seconds(statement):
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    pairs = [(seconds("import numpy"), seconds("import numpy, aphash")) for _ in range(runs + 1)][1:]
    differences = [ours - numpy for numpy, ours in pairs]
    print(
        f"import numpy {1e3 * statistics.median(p[0] for p in pairs):.0f} ms, "
        f"numpy and aphash {1e3 * statistics.median(p[1] for p in pairs):.0f} ms, "
        f"median difference {1e3 * statistics.median(differences):.1f} ms over {runs} pairs (target: 30)"
    )


if __name__ == "__main__":
    main()
