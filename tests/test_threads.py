"""Threads at the end of the interpreter, and the limit of BLAS, whatever interrupts it."""

import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from aphash import APHash
from aphash._common import threads
from aphash._common.threads import map_ordered


class Stop(Exception):
    pass


def blas_threads():
    return [each.get_num_threads() for each in threads._blas_libraries()]


@pytest.fixture
def three_threads():
    """BLAS with three threads, so that one is another number on every machine."""
    import scipy.linalg  # noqa: F401  its BLAS is another one

    before = [(each, each.get_num_threads()) for each in threads._blas_libraries()]
    threads._set_threads([(each, 3) for each, _ in before])
    yield blas_threads()
    threads._set_threads(before)


def test_blas_has_one_thread_inside_and_what_it_had_outside(three_threads):
    assert set(three_threads) == {3}
    for _ in range(3):
        with threads.one_blas_thread():
            assert set(blas_threads()) == {1}
            with threads.one_blas_thread():
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {1}
        assert blas_threads() == three_threads


def test_blas_is_limited_until_the_last_of_several_threads_leaves(three_threads):
    inside, leave = threading.Barrier(4), [threading.Event() for _ in range(3)]
    numbers = []

    def use(mine):
        with threads.one_blas_thread():
            inside.wait()
            mine.wait()
            numbers.append(set(blas_threads()))

    users = [threading.Thread(target=use, args=(each,)) for each in leave]
    for thread in users:
        thread.start()
    inside.wait()
    for mine, thread in zip(leave, users):
        assert set(blas_threads()) == {1}
        mine.set()
        thread.join()
    assert numbers == [{1}] * 3 and blas_threads() == three_threads
    # The right to change it, which threadpoolctl gives to one thread, is free again.
    found = []

    def limit():
        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            found.append(set(blas_threads()))

    thread = threading.Thread(target=limit)
    thread.start()
    thread.join()
    assert found == [{2}]


def test_blas_gets_its_threads_back_wherever_an_interrupt_strikes(three_threads):
    """Raise at each bytecode in turn, as a signal's handler may."""
    count, limit = 0, 0

    def trace(frame, event, argument):
        nonlocal count
        if frame.f_code.co_filename != threads.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == limit:
                raise Stop
        return trace

    struck = 0
    while True:
        count, limit = 0, limit + 1
        sys.settrace(trace)
        try:
            with threads.one_blas_thread():
                pass
        except Stop:
            struck += 1
        finally:
            sys.settrace(None)
        assert blas_threads() == three_threads, f"after an interrupt at bytecode {limit}"
        assert not threads._BlasLimit._users and threads._BlasLimit._before is None
        if count < limit:
            break
    assert struck > 20


@pytest.mark.filterwarnings(  # where the interrupt strikes in threadpoolctl, while it reads a file
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_blas_gets_its_threads_back_after_interrupted_fits(three_threads):
    X = np.random.default_rng(0).standard_normal((400, 8))
    draw = np.random.default_rng(0)

    def stop(*_):
        raise Stop

    count, before = _thread._count(), signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(40):
            with pytest.raises(Stop):
                signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.001, 0.02))
                while True:
                    APHash(4, n_rounds=1, max_iter=1, n_anchors=20, n_jobs=2).fit(X)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert blas_threads() == three_threads
    end = time.monotonic() + 10
    while _thread._count() > count:
        assert time.monotonic() < end, "threads of interrupted fits are left"
        time.sleep(0.01)


def test_a_forked_child_of_a_limited_parent_can_enter(three_threads):
    with threads.one_blas_thread():
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            with threads.one_blas_thread():
                inside = set(blas_threads())
            os._exit(inside != {1})
        assert os.waitpid(child, 0)[1] == 0
    assert blas_threads() == three_threads


def test_a_crew_does_jobs_in_order_and_passes_errors_on():
    together = threading.Barrier(3)

    def who(_):
        together.wait(60)
        return threading.get_ident()

    with threads.Crew(3) as crew:
        assert list(crew.map(lambda i: i * i, range(50))) == [i * i for i in range(50)]
        assert crew.submit(divmod, 7, 2).result() == (3, 1)
        with pytest.raises(ZeroDivisionError):
            crew.submit(divmod, 7, 0).result()
        crew_members = set(crew.map(who, range(3)))
        assert len(crew_members) == 3 and threading.get_ident() not in crew_members
    end = time.monotonic() + 10
    while crew_members & set(sys._current_frames()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_crew_that_gets_no_threads_does_the_jobs_itself(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with threads.Crew(3) as crew:
        assert crew.submit(threading.get_ident).result() == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            crew.submit(divmod, 7, 0).result()
    assert list(map_ordered(divmod, ((i, 3) for i in range(20)), 4)) == [divmod(i, 3) for i in range(20)]


def test_jobs_that_have_not_begun_are_dropped_after_an_error():
    done = []

    def job(i):
        if i == 0:
            raise ValueError("the first")
        time.sleep(0.01)
        done.append(i)

    with pytest.raises(ValueError, match="the first"):
        list(map_ordered(job, ((i,) for i in range(1000)), 2))
    assert len(done) < 10


def test_what_is_a_threads_own_is_left_alone():
    """Another library's OpenMP: its number is limited by no fit, and restored in no other thread."""
    pytest.importorskip("faiss", reason="faiss is not installed")
    program = """
        import faiss, threadpoolctl
        from aphash._common import threads
        count = lambda: [p["num_threads"] for p in threadpoolctl.threadpool_info()
                         if p.get("threading_layer") == "openmp" or p["user_api"] == "openmp"]
        faiss.omp_set_num_threads(3)
        before = count()
        with threads.one_blas_thread():
            inside = count()
        print(before == inside == count(), faiss.omp_get_max_threads())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True 3\n", done.stderr


@pytest.mark.parametrize("when", ["in a thread that outlives the main one", "in atexit", "in a daemon thread"])
def test_fit_and_transform_while_the_interpreter_ends(when):
    program = f"""
        import atexit, threading, time, numpy as np
        from aphash import APHash
        X = np.random.default_rng(0).standard_normal((3000, 16))
        hasher = APHash(16, n_rounds=1, random_state=0, n_jobs=2).fit(X)
        def work():
            if threading.current_thread() is not threading.main_thread():
                threading.main_thread().join()
            same = (APHash(16, n_rounds=1, random_state=0, n_jobs=2).fit(X).codes_ == hasher.codes_).all()
            print(hasher.transform(X).shape, hasher.decision_function(X[:1]).shape, same, flush=True)
        if {when!r} == "in atexit":
            atexit.register(work)
        else:
            thread = threading.Thread(target=work, daemon="daemon" in {when!r})
            thread.start()
            if thread.daemon:
                atexit.register(thread.join)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "(3000, 1) (1, 16) True\n", done.stderr
