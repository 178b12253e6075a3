"""How many threads, and which instruction set: the two things that a kernel asks of its surroundings."""

import functools
import numbers
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

ISA_NAMES = ("base", "avx2", "avx512")  # in the order of enum aph_isa in csrc/isa.h

_thread = threading.local()  # forked: whether the thread came through a fork


def _note_fork():
    global one_blas_thread
    _thread.forked, one_blas_thread = True, _BlasLimit()  # the old one's thread is gone, and its lock may be held


os.register_at_fork(after_in_child=_note_fork)


def n_threads(n_jobs, openmp_threads):
    """Turn ``n_jobs`` into a number of threads.

    Parameters
    ----------
    n_jobs : int or None
        None: ``OMP_NUM_THREADS`` where it is set (joblib's worker processes set it, so nested work does not
        oversubscribe), otherwise the CPUs that this process may use, see :func:`n_cpus`, or fewer where OpenMP was
        limited at run time (threadpoolctl). A positive number: that many, but at most the CPUs. A negative one: CPUs
        + 1 + n_jobs, at least 1, as in scikit-learn.
    openmp_threads : int
        What OpenMP would use; 1 in a build without it.

    Returns
    -------
    int
        At least 1. After a fork it is 1 in the one thread that the child begins with: the OpenMP runtime believes that
        this thread has a team, whose other threads did not survive the fork, and would wait for them forever. Threads
        that the child starts are not concerned and use as many as elsewhere.

    Raises
    ------
    ValueError
        When n_jobs is 0.
    TypeError
        When it is neither an integer nor None.
    """
    if n_jobs is not None:
        if isinstance(n_jobs, bool) or not isinstance(n_jobs, numbers.Integral):
            raise TypeError(f"n_jobs must be an integer or None, got {n_jobs!r}")
        if n_jobs == 0:
            raise ValueError("n_jobs must not be 0: use None for all CPUs, or a number of threads")
    if n_jobs == 1 or getattr(_thread, "forked", False):
        return 1
    if n_jobs is None:
        return max(1, openmp_threads if os.environ.get("OMP_NUM_THREADS") else min(openmp_threads, n_cpus()))
    cpus = n_cpus()
    if n_jobs > cpus:  # tests split work whatever the machine
        return min(int(n_jobs), int(os.environ.get("_APHASH_MOST_THREADS", cpus)))
    return int(n_jobs) if n_jobs > 0 else max(1, cpus + 1 + int(n_jobs))


def n_cpus():
    """Return how many CPUs this process may use, counted as joblib does; at least 1.

    The least of its affinity, of the CPU quota of its control group, rounded up, and of ``LOKY_MAX_CPU_COUNT``. The
    quota is read once.
    """
    most = os.environ.get("LOKY_MAX_CPU_COUNT")
    return max(1, min(len(os.sched_getaffinity(0)), _quota(), int(most) if most else sys.maxsize))


@functools.cache
def _quota(root="/sys/fs/cgroup"):
    """Return the CPU quota of the control group (version 2 or 1) in CPUs, rounded up; sys.maxsize without one."""
    v1 = f"{root}/cpu/cpu.cfs_quota_us", f"{root}/cpu/cpu.cfs_period_us"
    for paths in (f"{root}/cpu.max",), v1:
        try:
            quota, period = " ".join(map(_read, paths)).split()
            quota, period = int(quota), int(period)
        except (OSError, ValueError):  # no such file; or "max", which is no quota
            continue
        if quota > 0 and period > 0:  # -1 is none, too
            return -(-quota // period)
    return sys.maxsize


def _read(path):
    with open(path) as file:
        return file.read()


class _BlasLimit:
    """One BLAS thread for as long as anyone is inside; the process has one limit, and fits may run side by side.

    The first that enters sets the limit, the last that leaves restores it. Both happen in a thread of their own:
    threadpoolctl lets only the thread that set OpenBLAS's limit change it again, and ignores all others silently.
    """

    def __init__(self):
        self.lock, self.users, self.worker, self.limits = threading.Lock(), 0, None, None

    def __enter__(self):
        with self.lock:
            if self.users == 0:
                if self.worker is None:
                    self.worker = ThreadPoolExecutor(1, thread_name_prefix="aphash-blas-limit")
                self.limits = self.worker.submit(self._limit).result()
            self.users += 1

    def __exit__(self, *error):
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.worker.submit(self.limits.restore_original_limits).result()

    @staticmethod
    def _limit():
        import threadpoolctl

        controller = threadpoolctl.OpenBLASController
        if hasattr(controller, "clear_controlling_thread"):  # since threadpoolctl 3.7
            controller.clear_controlling_thread(force=True)
        return threadpoolctl.threadpool_limits(1, user_api="blas")


one_blas_thread = _BlasLimit()


def choose_isa(supported):
    """Return the number of the instruction set to use: the best one, or what ``APHASH_ISA`` names.

    Parameters
    ----------
    supported : callable
        ``supported(isa) -> bool`` for the numbers of ISA_NAMES.

    Raises
    ------
    ValueError
        When APHASH_ISA names an unknown set, or one that this CPU or build cannot run.
    """
    usable = [name for isa, name in enumerate(ISA_NAMES) if supported(isa)]
    wanted = os.environ.get("APHASH_ISA", "").strip().lower() or usable[-1]
    if wanted not in usable:
        raise ValueError(f"APHASH_ISA={wanted!r}: expected one of {', '.join(usable)} on this machine")
    return ISA_NAMES.index(wanted)
