"""How many threads, and BLAS with one: what work asks of its surroundings."""

import _thread
import functools
import numbers
import os
import queue
import sys
import threading
import weakref
from collections import deque

from aphash._common.arrays import shown

_local = threading.local()  # forked: whether the thread came through a fork


def _note_fork():
    _local.forked = True
    _BlasLimit.forget_users()


os.register_at_fork(after_in_child=_note_fork)


def n_threads(n_jobs, openmp_threads, split=True):
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
    split : bool
        False: the work is too small for more than one thread, and CPUs need not be counted; n_jobs is checked.

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
            raise TypeError(f"n_jobs must be an integer or None, got {shown(n_jobs)}")
        if n_jobs == 0:
            raise ValueError("n_jobs must not be 0: use None for all CPUs, or a number of threads")
    if not split or n_jobs == 1 or getattr(_local, "forked", False):
        return 1
    if n_jobs is None:
        return max(1, openmp_threads if os.environ.get("OMP_NUM_THREADS") else min(openmp_threads, n_cpus()))
    cpus = n_cpus()
    if n_jobs > cpus:  # tests split work whatever the machine
        return min(int(n_jobs), int(os.environ.get("_APHASH_MAX_THREADS", cpus)))
    return int(n_jobs) if n_jobs > 0 else max(1, cpus + 1 + int(n_jobs))


def n_cpus():
    """Return how many CPUs this process may use, counted as joblib does; at least 1.

    The least of its affinity, of the CPU quota of its control group, rounded up, and of ``LOKY_MAX_CPU_COUNT``. The
    quota is read once.
    """
    loky_max = os.environ.get("LOKY_MAX_CPU_COUNT")
    return max(1, min(len(os.sched_getaffinity(0)), _quota(), int(loky_max) if loky_max else sys.maxsize))


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


class Crew:
    """Threads that do jobs, as ``ThreadPoolExecutor``, which refuses them once the main thread has ended.

    A service's threads may outlive the main one, and functions of ``atexit`` run after it. Where Python starts no
    thread any more, the caller does the jobs itself.
    """

    def __init__(self, n_threads):
        self._jobs, self._ended, self._n = queue.SimpleQueue(), queue.SimpleQueue(), 0
        weakref.finalize(self, self._jobs.put, None).atexit = False  # where Ctrl-C strikes before __exit__
        for _ in range(n_threads):
            try:  # not threading.Thread, whose start() fails for good where a signal's handler raises in it
                _thread.start_new_thread(_work, (self._jobs, self._ended))
            except RuntimeError:  # the interpreter ends, or there is no room for a thread
                break
            self._n += 1

    def submit(self, function, *args):
        """Return the :class:`Job` that is ``function(*args)``."""
        job = Job(function, args)
        if self._n:
            self._jobs.put(job)
        else:
            job.do()
        return job

    def map(self, function, arguments):
        """Yield ``function(argument)`` of each of the arguments, in their order; all are begun at once."""
        jobs = [self.submit(function, each) for each in arguments]
        return (job.result() for job in jobs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._jobs.put(None)
        for _ in range(self._n):
            self._ended.get()


class Job:
    """A call whose result its crew hands over.

    It does what a Future does, whose locks are Python's: an exception that a signal's handler raises while one waits
    may leave them held, or release them twice. A SimpleQueue gives and takes within one call of C.
    """

    def __init__(self, function, args):
        self._call, self._outcome = (function, args), queue.SimpleQueue()

    def do(self):
        """Call the function, unless the job was cancelled, and hand over what it returns or raises."""
        call, self._call = self._call, None
        if call is not None:
            function, args = call
            try:
                self._outcome.put((function(*args), None))
            except BaseException as error:
                self._outcome.put((None, error))

    def cancel(self):
        """Drop the job if it has not begun; then it has no result."""
        self._call = None

    def result(self):
        """Wait for the job, and return what its function returned or raise what it raised; once."""
        result, error = self._outcome.get()
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # which holds this frame


def _work(jobs, ended):
    while (job := jobs.get()) is not None:
        job.do()
        del job  # a result lives no longer than the job
    jobs.put(None)  # for the next one
    ended.put(None)


def map_ordered(function, arguments, n_threads):
    """Yield ``function(*args)`` for each of the arguments, in their order, at most 2 n_threads of them ahead."""
    if n_threads == 1:
        for args in arguments:
            yield function(*args)
        return
    with Crew(n_threads) as pool:
        waiting = deque()
        try:
            for args in arguments:
                waiting.append(pool.submit(function, *args))
                if len(waiting) >= 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # an error or Ctrl-C: what has not begun never does
            for job in waiting:
                job.cancel()


class _BlasLimit:
    """One BLAS thread for as long as anyone is inside; the process has one limit, and fits may run side by side.

    The first that enters sets the limit, the last that leaves restores it. Ctrl-C may strike between any two steps, so
    each step leaves a state from which the next one, or the end of the object, restores what was there: who is inside
    is a set of ids, and what was there is written down before it is changed and forgotten after it was restored.
    """

    _lock = threading.RLock()
    _users = frozenset()
    _before = None  # [(library, its number of threads)] while it is limited

    def __enter__(self):
        # An exception may strike before __exit__ is reached, or in it: then the object ends, and with it its use.
        self._end = weakref.finalize(self, _BlasLimit._leave, id(self))
        self._end.atexit = False
        with _BlasLimit._lock:
            _BlasLimit._users |= {id(self)}
            if _BlasLimit._before is None:
                _BlasLimit._before = [(library, library.get_num_threads()) for library in _blas_libraries()]
                _set_threads([(library, 1) for library, _ in _BlasLimit._before])

    def __exit__(self, *error):
        _BlasLimit._leave(id(self))
        self._end.detach()

    @staticmethod
    def _leave(user):
        with _BlasLimit._lock:
            _BlasLimit._users -= {user}
            if not _BlasLimit._users and _BlasLimit._before is not None:
                _set_threads(_BlasLimit._before)
                _BlasLimit._before = None

    @classmethod
    def forget_users(cls):
        """In a forked child, where the lock may be held by no one: the next that leaves restores the limit."""
        cls._lock, cls._users = threading.RLock(), frozenset()


def one_blas_thread():
    """Return a context in which BLAS uses one thread: the order of its sums depends on their number."""
    return _BlasLimit()


def _blas_libraries():
    """Return the BLAS libraries whose number of threads is the process's.

    With OpenMP's threads each thread has a number of its own, which its other OpenMP code shares: it is left alone, as
    the thread that leaves last need not be the one that entered first.
    """
    import threadpoolctl

    found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in found if getattr(library, "threading_layer", None) != "openmp"]


def _set_threads(wanted):
    """Set the numbers of threads: [(library, number)].

    threadpoolctl (3.7) lets one thread of the process change OpenBLAS's number and silently ignores the others, until
    that right is given up: it is taken for the moment, from whichever thread has it.
    """
    for library, number in wanted:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)
        if number is not None:
            library.set_num_threads(number)
        if clear is not None:
            clear(force=True)
