"""Workers that others start: each gets its CPUs, none waits for ever, all find what the parent finds."""

import multiprocessing
import os
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request

import numpy as np
import pytest

from aphash import APHash, HammingIndex, _kernels
from aphash._common import threads

N = 60_000  # codes: enough for a batch of 64 queries to be split among threads


@pytest.fixture(scope="module")
def index():
    index = HammingIndex(64)
    index.add(np.random.default_rng(0).integers(0, 2**64, (N, 1), np.uint64))
    return index


@pytest.fixture
def answered(index):
    """The parent has had threads of its own before any worker starts."""
    return index.search(index.codes[:64], 3, n_jobs=2)[1]


def search(index, start):
    return index.search(index.codes[start : start + 64], 3)[1]


def with_threads(index, start):
    return search(index, start), threads.n_threads(None, _kernels.max_threads())


def fit(index, seed):
    X = np.random.default_rng(1).standard_normal((400, 16))
    return APHash(n_bits=16, random_state=0).fit(X).codes_


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(index, answered, backend):
    joblib = pytest.importorskip("joblib")
    work = (joblib.delayed(search)(index, start) for start in (0, 0, 64, 0))
    with joblib.parallel_config(backend, n_jobs=2):
        found = joblib.Parallel()(work)
    assert all(np.array_equal(found[i], answered) for i in (0, 1, 3)) and found[2][0, 0] == 64


def test_joblibs_processes_share_the_cpus(index):
    """loky tells each worker its share by OMP_NUM_THREADS; the two together use no more threads than there are CPUs."""
    joblib = pytest.importorskip("joblib")
    work = [joblib.delayed(with_threads)(index, 0) for _ in range(4)]
    found = joblib.Parallel(n_jobs=2, backend="loky")(work)
    assert {n for _, n in found} == {max(1, joblib.cpu_count() // 2)}


def test_a_grid_search_fits_in_workers(index):
    from sklearn.model_selection import GridSearchCV

    X = np.random.default_rng(1).standard_normal((300, 16))
    hasher = APHash(n_bits=16, random_state=0, n_anchors=50)
    search = GridSearchCV(hasher, {"n_bits": [8, 16]}, cv=2, n_jobs=2).fit(X)
    assert search.best_params_["n_bits"] in (8, 16)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_multiprocessing(index, answered, method):
    """The index goes to a forked worker without a copy; the others get a pickle."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        waiting = pool.starmap_async(search, [(index, 0)] * 4)
        found = waiting.get(120)
        codes = pool.starmap_async(fit, [(None, 0)] * 2).get(120)
    assert all(np.array_equal(each, answered) for each in found)
    assert all(np.array_equal(each, fit(None, 0)) for each in codes)


def test_dask_workers(index, answered):
    distributed = pytest.importorskip("distributed")
    settings = {"n_workers": 2, "threads_per_worker": 2, "dashboard_address": None}
    with distributed.LocalCluster(**settings) as cluster, distributed.Client(cluster) as client:
        found = client.gather([client.submit(search, index, 0, pure=False) for _ in range(4)])
    assert all(np.array_equal(each, answered) for each in found)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_data_loader_of_torch(index, answered, method):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        Queries(index), batch_size=None, num_workers=2, multiprocessing_context=method, timeout=120
    )
    found = [each.numpy() for each in loader]
    assert len(found) == 4 and all(np.array_equal(each, answered) for each in found)


class Queries:
    """What a data set of torch is: batches that are searched for in the worker."""

    def __init__(self, index):
        self.index = index

    def __len__(self):
        return 4

    def __getitem__(self, i):
        if i >= 4:
            raise IndexError(i)
        return search(self.index, 0)


def test_gunicorn(tmp_path):
    """Workers that gunicorn forks from a process that has loaded the index and searched with threads (--preload)."""
    pytest.importorskip("gunicorn")
    (tmp_path / "service.py").write_text(
        textwrap.dedent("""
        import numpy as np
        from aphash import HammingIndex
        index = HammingIndex(64)
        index.add(np.arange(60_000, dtype=np.uint64).reshape(-1, 1))
        index.search(index.codes[:64], 3, n_jobs=2)

        def app(environ, start_response):
            wanted = int(environ["PATH_INFO"][1:])
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(index.search(index.codes[wanted : wanted + 64], 1)[1][0, 0]).encode()]
        """)
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--timeout", "60"]
    command += ["--bind", f"127.0.0.1:{port}", "service:app"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        for wanted in range(0, 400, 50):
            for _ in range(240):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{wanted}", timeout=60) as answer:
                        assert answer.read() == str(wanted).encode()
                    break
                except urllib.error.URLError as error:
                    assert isinstance(error.reason, ConnectionRefusedError)
                    time.sleep(0.25)
            else:
                raise AssertionError("gunicorn did not start")
    finally:
        server.terminate()
        server.wait(30)
