"""show_versions: what a report of a bug needs to say about the machine and what is installed."""

import importlib.metadata
import os
import platform
import sys

from aphash._common.threads import n_affine_cpus
from aphash._kernels import has_openmp, isa, isa_names, max_threads
from aphash._version import __version__

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "threadpoolctl", "tqdm")
_OPTIONAL = ("safetensors", "matplotlib", "dask", "distributed", "faiss-cpu", "usearch", "torch")


def versions():
    """Return what :func:`show_versions` prints, as a dict of str to str."""
    return {
        "aphash": __version__,
        "python": sys.version.replace("\n", " "),
        "executable": sys.executable,
        "platform": platform.platform(),
        "CPU": f"{_cpu()}, {n_affine_cpus()} of {os.cpu_count()} CPUs",
        **{name: _version(name) for name in _LIBRARIES},
        **{name: found for name in _OPTIONAL if (found := _version(name)) != "not installed"},
        "OpenMP": f"yes, {max_threads()} threads" if has_openmp() else "no: one thread",
        "instruction set": f"{isa()} of {', '.join(isa_names())}",
        **_thread_pools(),
        **{name: os.environ[name] for name in sorted(os.environ) if name.startswith(("APHASH_", "OMP_", "OPENBLAS_"))},
    }


def show_versions():
    """Print versions, CPU, instruction sets and threads; put it into reports of bugs.

    Examples
    --------
    >>> import aphash
    >>> aphash.show_versions()  # doctest: +ELLIPSIS
    aphash: ...
    """
    found = versions()
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:>{width}}: {value}")


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu():
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


def _thread_pools():
    """BLAS and OpenMP libraries in this process: scipy may bring its own copy of each."""
    import scipy.linalg  # noqa: F401  its libraries are listed only once they are loaded
    import threadpoolctl

    pools = {}
    for number, pool in enumerate(threadpoolctl.threadpool_info(), 1):
        threads = f"{pool['num_threads']} threads"
        what = (pool["user_api"], pool["internal_api"], pool["version"], pool.get("architecture"), threads)
        pools[f"thread pool {number}"] = ", ".join(str(w) for w in what if w) + f" ({pool['filepath']})"
    return pools
