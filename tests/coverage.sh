#!/usr/bin/env bash
# Builds the extensions with line counters into a folder of its own, runs the tests with them, and prints which lines of
# Python and of C (of csrc, whatever the instruction set) the tests run:
#
#     tests/coverage.sh [pytest arguments]
#
# The environment is that of `python` (or $PYTHON), with `pip install -e ".[test,dask,coverage]" cython "setuptools>=77"`. Of
# .pyx files nothing is counted.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Counters of threads that run at once may lose a few counts; that a line was run stays true.
APHASH_CFLAGS="--coverage -O1" LDFLAGS="--coverage" "$python" setup.py -q build --build-base "$work" >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
built=$(find "$work" -maxdepth 1 -type d -name 'lib*')
PYTHONPATH="$built" "$python" -P -c 'import sys, aphash; assert aphash.__file__.startswith(sys.argv[1]), aphash.__file__' "$built"
status=0
export PYTHONPATH="$built" COVERAGE_FILE="$work/coverage"
"$python" -P -m coverage run -m pytest -q -p no:cacheprovider --timeout 1200 "$@" || status=$?
"$python" -P -m coverage report
"$python" -m gcovr --root . --object-directory "$work" --filter 'csrc/' --sort uncovered-percent \
    --gcov-ignore-parse-errors=negative_hits.warn_once_per_file --gcov-ignore-parse-errors=suspicious_hits.warn_once_per_file
exit $status
