"""How many threads, and which instruction set: the two things that a kernel asks of its surroundings."""

import contextlib
import numbers
import os
import threading

ISA_NAMES = ("base", "avx2", "avx512")  # in the order of enum aph_isa in csrc/isa.h

_forked = False


def _note_fork():
    global _forked
    _forked = True


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


_blas_lock = threading.Lock()
_blas_users, _blas_limit = 0, None


@contextlib.contextmanager
def one_blas_thread():
    """Keep BLAS at one thread inside: blocks are the parallel units, and a sum's order must not depend on a pool.

    BLAS has one limit for the whole process, so it is set by the first that enters and restored by the last that
    leaves: fits that run side by side in Python threads do not undo each other's.
    """
    from threadpoolctl import threadpool_limits

    global _blas_users, _blas_limit
    with _blas_lock:
        if _blas_users == 0:
            _blas_limit = threadpool_limits(1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _blas_limit.restore_original_limits()


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
