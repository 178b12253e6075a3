#!/usr/bin/env bash
# Builds the extensions with the address and undefined-behaviour sanitizers into a folder of its own, and runs the tests of
# the kernels and of the index with them:
#
#     tests/sanitizers.sh [pytest arguments]
#
# The environment is that of `python` (or $PYTHON), which needs the tests' packages, cython, setuptools and numpy. A report
# ends the tests with an error.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "${PYTHON:-python}")
work=$(mktemp -d)
trap 'cat "$work"/report.* 2>/dev/null || true; rm -rf "$work"' EXIT # pytest takes what a test writes to stderr

flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g"
APHASH_CFLAGS="$flags -O1" LDFLAGS="$flags" "$python" setup.py -q build --build-base "$work" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
built=$(find "$work" -maxdepth 1 -type d -name 'lib*')
PYTHONPATH="$built" "$python" -P -c 'import sys, aphash; assert aphash.__file__.startswith(sys.argv[1]), aphash.__file__' "$built"

tests=(tests/test_search.py tests/test_weighted_kernels.py tests/test_lookup.py tests/test_pairs.py tests/test_index.py
    tests/test_index_changes.py tests/test_index_file.py tests/test_index_interrupts.py tests/test_index_threads.py
    tests/test_linkage.py tests/test_rows.py tests/test_learn_kernels.py tests/test_learn_kernels_affinity.py
    tests/test_scores_kernels.py)
# Leaks are not looked for: the interpreter keeps what it likes. Memory comes from malloc, so that arrays have guards.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:log_path="$work/report" PYTHONMALLOC=malloc
export UBSAN_OPTIONS=print_stacktrace=1:log_path="$work/report"
# Out of memory is tried by a limit of address space, which the sanitizer itself exceeds; and a child that is forked
# beside other threads finds the lock of the sanitizer's own allocator shut.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" PYTHONPATH="$built" \
    "$python" -P -m pytest -p no:cacheprovider --timeout 1200 -k "not out_of_memory and not fork and not at_once" \
    "$@" "${tests[@]}"
