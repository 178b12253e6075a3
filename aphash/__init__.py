"""aphash: learn compact binary codes without labels, and search them exactly by Hamming distance.

The map of the house (a lower layer never imports a higher one; each room's ``__init__`` has its own map):

==================  ====================================================================================
``APHash``          the estimator: learns and encodes (``_learning``)
``Recipe``          how a fit is done, beyond the modes' names (``_learning.recipe``)
``Encoder``         what a fitted model does with new vectors, with numpy alone (``_learning.encoder``)
``HammingIndex``    exact search over packed codes: k nearest, radius (``index``; its parts: ``_searching``)
                    ``HammingNeighbors``: at the end of a scikit-learn Pipeline (``neighbors``)
``VectorIndex``     from vectors to ids: all of the above and below, in one object (``vectors``; ``_vectors``)
``Filter``          which codes take part in searches (``_searching.filters``)
``VectorRescore``   finer distances for a search's candidates: vectors, projections (``rescore``)
``pack_codes`` ...  the packed format that both sides share (``codes``)
``save``, ``load``  a model, or a Pipeline, and an index in one file (``_product``, ``_steps``)
``choose``          which recipe for your data, tried on a sample (``_choose``)
``interchange``     codes from and to faiss, usearch, pgvector, ImageHash, texts, integers (``_interchange``)
``metrics``         tie-aware retrieval measures
``dask``            both classes over dask arrays (their parts: ``_distributed``)
------------------  ------------------------------------------------------------------------------------
``_common``         what all of them use: arrays, arguments, threads, files, progress
``_kernels`` (C)    the C library of csrc, its instruction sets
==================  ====================================================================================

Public names are loaded when they are first used, so that ``import aphash`` costs no more than numpy.
"""

import importlib

from aphash._version import __version__

_HOME = {  # public name -> module that defines it
    "APHash": "aphash._learning.estimator",
    "Choice": "aphash._choose",
    "Encoder": "aphash._learning.encoder",
    "ExpectedRecall": "aphash._measuring.recall",
    "Filter": "aphash._searching.filters",
    "HammingIndex": "aphash.index",
    "HammingNeighbors": "aphash.neighbors",
    "Recipe": "aphash._learning.recipe",
    "VectorIndex": "aphash.vectors",
    "VectorRescore": "aphash.rescore",
    "choose": "aphash._choose",
    "load": "aphash._product",
    "load_encoder": "aphash._product",
    "pack_codes": "aphash.codes",
    "save": "aphash._product",
    "unpack_codes": "aphash.codes",
    "show_versions": "aphash._show_versions",
}
_MODULES = ("codes", "index", "interchange", "metrics")

__all__ = [
    "APHash",
    "Choice",
    "Encoder",
    "ExpectedRecall",
    "Filter",
    "HammingIndex",
    "HammingNeighbors",
    "Recipe",
    "VectorIndex",
    "VectorRescore",
    "__version__",
    "choose",
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
