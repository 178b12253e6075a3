"""aphash: learn compact binary codes without labels, and search them exactly by Hamming distance.

The map of the house (a lower layer never imports a higher one):

==================  ====================================================================================
``APHash``          the estimator: validates, calls the method's steps, keeps the results (``_hasher``)
``Encoder``         what a fitted model does with new vectors, without scikit-learn (``_encoder``)
``HammingIndex``    exact search over packed codes: k nearest, radius (``index``)
                    ``HammingNeighbors``: at the end of a scikit-learn Pipeline (``neighbors``)
``Filter``          which codes take part in searches (``_filters``)
``VectorRescore``   finer distances for a search's candidates: vectors, projections (``rescore``)
``pack_codes`` ...  the packed format that both sides share (``codes``)
``interchange``     codes from and to faiss, usearch, pgvector, Hugging Face
``metrics``         tie-aware retrieval measures
------------------  ------------------------------------------------------------------------------------
``_optimize``       rounds of alternating descent on H and B, objective, stopping
``_affinity``       distances -> thresholds -> P (sparse)
``_linear``         PCA, rotation, ridge hash function, by blocks    ``_safeguard``  data that would ruin them
``_store``          snapshots of an index, its changes               ``_engines``    what answers a search
``_learn`` (C)      nearest rows, KL passes, projection              ``_search`` (C) scan, tables, pairs
``_kernels`` (C)    the C library, its instruction sets              ``_runtime``    threads    ``_io``  files
==================  ====================================================================================

Public names are loaded when they are first used, so that ``import aphash`` costs no more than numpy.
"""

import importlib

from aphash._version import __version__

_HOME = {  # public name -> module that defines it
    "APHash": "aphash._hasher",
    "Encoder": "aphash._encoder",
    "Filter": "aphash._filters",
    "HammingIndex": "aphash.index",
    "HammingNeighbors": "aphash.neighbors",
    "ProjectionRescore": "aphash.rescore",
    "VectorRescore": "aphash.rescore",
    "load": "aphash._bundle",
    "load_encoder": "aphash._bundle",
    "pack_codes": "aphash.codes",
    "save": "aphash._bundle",
    "unpack_codes": "aphash.codes",
    "show_versions": "aphash._show_versions",
}
_MODULES = ("codes", "index", "interchange", "metrics")

__all__ = [
    "APHash",
    "Encoder",
    "Filter",
    "HammingIndex",
    "HammingNeighbors",
    "ProjectionRescore",
    "VectorRescore",
    "__version__",
    "interchange",
    "load",
    "load_encoder",
    "metrics",
    "pack_codes",
    "save",
    "show_versions",
    "unpack_codes",
]


def __getattr__(name):
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"aphash.{name}")
    else:
        raise AttributeError(f"module 'aphash' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_MODULES})
