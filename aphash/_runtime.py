"""How many threads, and BLAS with one: what work asks of its surroundings."""

import numbers
import os
import threading
from concurrent.futures import ThreadPoolExecutor

_forked = False


def _note_fork():
    global _forked, one_blas_thread
    _forked, one_blas_thread = True, _BlasLimit()  # the old one's thread is gone, and its lock may be held


os.register_at_fork(after_in_child=_note_fork)


def n_threads(n_jobs, openmp_threads):
    """Turn ``n_jobs`` into a number of threads.

    Parameters
    ----------
    n_jobs : int or None
        None: as many threads as OpenMP would use, which is the number of CPUs this process may run on, or
        ``OMP_NUM_THREADS`` where it is set (joblib's worker processes set it, so nested work does not oversubscribe).
        A positive number: that many. A negative one: CPUs + 1 + n_jobs, at least 1, as in scikit-learn.
    openmp_threads : int
        What OpenMP would use; 1 in a build without it.

    Returns
    -------
    int
        At least 1. In a process that was forked from another one it is 1: the OpenMP runtime's threads do not survive
        a fork, and a team of several would wait for them forever.

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
    if _forked:
        return 1
    if n_jobs is None:
        return max(1, openmp_threads)
    if n_jobs > 0:
        return int(n_jobs)
    return max(1, len(os.sched_getaffinity(0)) + 1 + int(n_jobs))


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
