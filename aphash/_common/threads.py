"""The number of threads, threads for jobs, and a limit of one thread for BLAS."""

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

_local = threading.local()  # `forked` says whether the thread came through a fork


def _note_fork():
    _local.forked = True
    _BlasLimit.forget_users()


os.register_at_fork(after_in_child=_note_fork)


def n_threads(n_jobs, openmp_threads, split=True):
    """Turn ``n_jobs`` into a number of threads.

    Parameters
    ----------
    n_jobs : int or None
        With None, ``OMP_NUM_THREADS`` where it is set (joblib's worker processes set it, so that nested work does not
        start too many threads), otherwise the CPUs that this process may use, see :func:`n_cpus`, or fewer where OpenMP
        was limited at run time (threadpoolctl). A positive number is the number of threads, but at most that of the
        CPUs. With a negative number it is CPUs + 1 + n_jobs, at least 1, as in scikit-learn.
    openmp_threads : int
        The number that OpenMP would use; 1 in a build without it.
    split : bool
        False where the work is too small for more than one thread. Then n_jobs is checked, but CPUs are not counted.

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
    if n_jobs > cpus:  # tests split work on any machine
        return min(int(n_jobs), int(os.environ.get("_APHASH_MAX_THREADS", cpus)))
    return int(n_jobs) if n_jobs > 0 else max(1, cpus + 1 + int(n_jobs))


def n_cpus():
    """Return how many CPUs this process may use, counted as joblib does; at least 1.

    It is the smallest of three numbers: the CPUs of its affinity, the CPU quota of its control group, rounded up, and
    ``LOKY_MAX_CPU_COUNT``. The quota is read once.
    """
    loky_max = os.environ.get("LOKY_MAX_CPU_COUNT")
    return max(1, min(n_affine_cpus(), _quota(), int(loky_max) if loky_max else sys.maxsize))


def n_affine_cpus():
    """Return how many CPUs this process may run on: its affinity, or all of the machine where there is none (macOS)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@functools.cache
def _quota(root="/sys/fs/cgroup"):
    """Return the CPU quota of the control group (version 2 or 1) in CPUs, rounded up; sys.maxsize without one."""
    v1 = f"{root}/cpu/cpu.cfs_quota_us", f"{root}/cpu/cpu.cfs_period_us"
    for paths in (f"{root}/cpu.max",), v1:
        try:
            quota, period = " ".join(map(_read, paths)).split()
            quota, period = int(quota), int(period)
        except (OSError, ValueError):  # there is no such file, or it says "max", which is no quota
            continue
        if quota > 0 and period > 0:  # -1 is no quota, too
            return -(-quota // period)
    return sys.maxsize


def _read(path):
    with open(path) as file:
        return file.read()


class Crew:
    """Threads that do jobs, like ``ThreadPoolExecutor``, but also after the main thread has ended.

    The threads of a service may live longer than the main thread, and functions of ``atexit`` run after it. Where
    Python no longer starts threads, the caller does the jobs itself.
    """

    def __init__(self, n_threads):
        self._jobs, self._ended, self._n = queue.SimpleQueue(), queue.SimpleQueue(), 0
        weakref.finalize(self, self._jobs.put, None).atexit = False  # for the case that Ctrl-C comes before __exit__
        for _ in range(n_threads):
            try:  # not threading.Thread: its start() never works again if a signal handler raises in it
                _thread.start_new_thread(_work, (self._jobs, self._ended))
            except RuntimeError:  # the interpreter is ending, or there is no room for a thread
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
        """Yield ``function(argument)`` for each of the arguments, in their order. All are submitted at once."""
        jobs = [self.submit(function, each) for each in arguments]
        return (job.result() for job in jobs)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._jobs.put(None)
        for _ in range(self._n):
            self._ended.get()


class Job:
    """A call whose result a thread of the crew hands over.

    It does what a Future does. But a Future has locks of Python, and an exception that a signal handler raises during a
    wait may leave them held, or release them twice. A SimpleQueue puts and gets within one call of C.
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
        """Drop the job if it has not begun. Then it has no result."""
        self._call = None

    def result(self):
        """Wait for the job, and return what its function returned, or raise what it raised. Can be called once."""
        result, error = self._outcome.get()
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # because it holds this frame


def _work(jobs, ended):
    while (job := jobs.get()) is not None:
        job.do()
        del job  # so that a result does not live longer than needed
    jobs.put(None)  # for the next thread
    ended.put(None)


def map_ordered(function, arguments, n_threads):
    """Yield ``function(*args)`` for each of the arguments, in their order. At most 2 n_threads calls run ahead."""
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
        finally:  # after an error or Ctrl-C, calls that have not begun are dropped
            for job in waiting:
                job.cancel()


class _BlasLimit:
    """A limit of one BLAS thread while anyone is inside. The process has one limit, and fits may run side by side.

    The first user that enters sets the limit, and the last that leaves restores it. Ctrl-C may come between any two
    steps. So each step leaves a state from which the next one, or the end of the object, can restore the old numbers.
    The users inside are a set of ids. The old numbers are noted before they are changed, and forgotten after they were
    restored.
    """

    _lock = threading.RLock()
    _users = frozenset()
    _before = None  # [(library, its number of threads)] while the limit holds

    def __enter__(self):
        # An exception may come before __exit__, or in it. Then the object ends, and its finaliser leaves.
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
        """Forget the users, in a forked child. The next user that leaves restores the limit."""
        cls._lock, cls._users = threading.RLock(), frozenset()


def one_blas_thread():
    """Return a context in which BLAS uses one thread, since the order of its sums depends on the number of threads."""
    return _BlasLimit()


def _blas_libraries():
    """Return the BLAS libraries that have one number of threads for the whole process.

    Where a library uses OpenMP, each thread has a number of its own, which its other OpenMP code shares. Such a library
    is left alone, because the thread that leaves last need not be the one that entered first.
    """
    import threadpoolctl

    found = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return [library for library in found if getattr(library, "threading_layer", None) != "openmp"]


def _set_threads(wanted):
    """Set the numbers of threads: [(library, number)].

    threadpoolctl (3.7) lets one thread of the process change the number of OpenBLAS, and silently ignores other threads
    until that right is given up. Here the right is taken from whichever thread has it, and given up afterwards.
    """
    for library, number in wanted:
        clear = getattr(library, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)
        if number is not None:
            library.set_num_threads(number)
        if clear is not None:
            clear(force=True)
