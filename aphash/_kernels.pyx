"""The C library: the one module that links it. Which instruction set is used, how many threads there are, the kernels.

The other Cython modules ``cimport`` the tables of kernels from here. The set in use is the process's: the best one that
this CPU can run, or what the environment variable ``APHASH_ISA`` names when the library is loaded.
"""

import os

from aphash._kernels cimport APH_OPENMP, aph_isa, aph_portable, omp_get_max_threads


cdef extern from "isa.h":
    int aph_isa_count() noexcept nogil
    const aph_isa *aph_isa_at(int) noexcept nogil


cdef extern from "search/portable.h":
    const aph_portable aph_portable_functions


cdef const aph_isa *_chosen = NULL


cdef const aph_isa *const *chosen_isa() noexcept nogil:
    return &_chosen


cdef const aph_portable *portable() noexcept nogil:
    return &aph_portable_functions


def isa_names():
    """Return the names of the instruction sets that this machine and build can run, the best one last."""
    return tuple(aph_isa_at(i).name.decode() for i in range(aph_isa_count()) if aph_isa_at(i).runs_here)


def isa():
    """Return the name of the instruction set in use."""
    return _chosen.name.decode()


def set_isa(name):
    """Use the named instruction set from now on, in every thread; ValueError where it cannot run."""
    global _chosen
    if name not in isa_names():
        raise ValueError(f"isa must be one of {', '.join(isa_names())} on this machine, got {name!r}")
    for i in range(aph_isa_count()):
        if aph_isa_at(i).name.decode() == name:
            _chosen = aph_isa_at(i)


def scan_costs(weighted=False):
    """Return the nanoseconds that a scan by codes, or by weights, costs for each word of a code: of a query alone, and of
    one in a batch."""
    if weighted:
        return _chosen.weighted_alone, _chosen.weighted_batch
    return _chosen.scan_alone, _chosen.scan_batch


def max_threads():
    """Return how many threads OpenMP would use; 1 in a build without it."""
    return omp_get_max_threads()


def has_openmp():
    """Return whether this build has OpenMP."""
    return bool(APH_OPENMP)


def _choose():
    wanted = os.environ.get("APHASH_ISA", "").strip().lower() or isa_names()[len(isa_names()) - 1]
    if wanted not in isa_names():
        raise ValueError(f"APHASH_ISA={wanted!r}: expected one of {', '.join(isa_names())} on this machine")
    set_isa(wanted)


_choose()
