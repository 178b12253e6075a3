"""How many threads: n_jobs, the CPUs that the process may use, and forks."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from aphash import HammingIndex, _show_versions
from aphash._common import threads
from aphash._common.threads import n_threads


@pytest.fixture
def four_cpus(monkeypatch):
    """A process that may use 4 CPUs and has set nothing."""
    for name in ("OMP_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "_APHASH_MAX_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5, 8})
    monkeypatch.setattr(threads, "_quota", lambda: sys.maxsize)
    return monkeypatch


def test_n_jobs(four_cpus):
    expected = {None: 4, 1: 1, 3: 3, 4: 4, 5: 4, 100_000: 4, 2**70: 4, -1: 4, -2: 3, -4: 1, -9: 1, np.int8(2): 2}
    assert {n_jobs: n_threads(n_jobs, 4) for n_jobs in expected} == expected
    for bad, error in ((0, ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)):
        with pytest.raises(error, match="n_jobs"):
            n_threads(bad, 4)


def test_none_follows_openmp(four_cpus):
    assert n_threads(None, 64) == 4  # it knows nothing of quotas
    assert n_threads(None, 2) == 2  # as inside threadpoolctl's limits
    four_cpus.setenv("OMP_NUM_THREADS", "6")
    assert n_threads(None, 6) == 6 and n_threads(6, 6) == 4


def test_cpus_are_the_least_of_all_limits(four_cpus):
    four_cpus.setattr(threads, "_quota", lambda: 3)
    assert threads.n_cpus() == 3
    four_cpus.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert threads.n_cpus() == 2 and n_threads(None, 8) == n_threads(7, 8) == n_threads(-1, 8) == 2
    four_cpus.setenv("LOKY_MAX_CPU_COUNT", "99")
    assert threads.n_cpus() == 3


def test_cpus_where_processes_have_no_affinity(four_cpus):
    """As on macOS."""
    four_cpus.delattr("os.sched_getaffinity")
    four_cpus.setattr("os.cpu_count", lambda: 6)
    assert threads.n_cpus() == 6 and n_threads(None, 8) == 6 and n_threads(-1, 1) == 6
    assert ", 6 of 6 CPUs" in _show_versions.versions()["CPU"]
    four_cpus.setattr("os.cpu_count", lambda: None)
    assert threads.n_cpus() == 1


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, sys.maxsize),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, sys.maxsize),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, sys.maxsize),
        ({}, sys.maxsize),
    ],
)
def test_quotas_of_control_groups(tmp_path, files, cpus):
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert threads._quota(str(tmp_path)) == cpus


def test_cpus_are_those_that_joblib_counts():
    joblib = pytest.importorskip("joblib")
    assert threads.n_cpus() == joblib.cpu_count()


def test_a_huge_n_jobs_is_no_crash():
    program = """
        import numpy as np
        from aphash import HammingIndex
        index = HammingIndex(64)
        index.add(np.arange(20_000, dtype=np.uint64).reshape(-1, 1))
        print(index.search(index.codes[:40], 1, n_jobs=100_000)[1][39, 0])
    """
    environment = {name: value for name, value in os.environ.items() if name != "_APHASH_MAX_THREADS"}
    program = "\n".join(line.strip() for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "39\n", done.stderr


def test_tests_use_the_threads_that_they_ask_for():
    assert [n_threads(n, 1) for n in (2, 3, 7)] == [2, 3, 7]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_thread_of_a_forked_child_searches_with_several(rng):
    """The thread that came through the fork uses one, after its team; those that the child starts use what they ask."""
    index = HammingIndex(64)
    index.add(rng.integers(0, 2**64, (100_000, 1), np.uint64))
    queries = index.codes[:40]
    expected = index.search(queries, 5, n_jobs=3)[1]
    for _ in range(5):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            found = [(n_threads(3, 1), index.search(queries, 5, n_jobs=3)[1])]
            with ThreadPoolExecutor(3) as pool:
                found += pool.map(lambda _: (n_threads(3, 1), index.search(queries, 5, n_jobs=3)[1]), range(9))
            right = [threads for threads, _ in found] == [1] + [3] * 9
            os._exit(0 if right and all(np.array_equal(ids, expected) for _, ids in found) else 1)
        assert os.waitpid(child, 0)[1] == 0
