# Types of the public names, which __init__.py loads lazily and type checkers therefore cannot find there.
# tests/test_import.py compares every signature with the implementation's; what things mean stands in the docstrings.
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, Self, TypeAlias, overload

import numpy as np
from _typeshed import SupportsRead, SupportsWrite
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, csr_matrix
from sklearn.pipeline import Pipeline

from aphash import codes as codes
from aphash import index as index
from aphash import interchange as interchange
from aphash import metrics as metrics
from aphash._searching.results import Found as _Found
from aphash._searching.results import Groups as _Groups
from aphash._searching.results import Pairs as _Pairs
from aphash.codes import pack_codes as pack_codes
from aphash.codes import unpack_codes as unpack_codes

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
__version__: str

_Auto: TypeAlias = Literal["auto"]
_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]
_Target: TypeAlias = _Path | SupportsWrite[bytes]
_Source: TypeAlias = _Path | bytearray | memoryview | SupportsRead[bytes]

class APHash:
    n_bits: int
    # fitted
    codes_: NDArray[np.uint64]
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64]
    mean_: NDArray[np.float64]
    scale_: float
    anchors_: NDArray[np.floating]
    items_: Any
    anchor_indices_: NDArray[np.int64]
    anchor_codes_: NDArray[np.uint64]
    thresholds_: NDArray[np.float64]
    objective_: NDArray[np.void]
    expected_recall_: ExpectedRecall
    n_iter_: int
    fingerprint_: str
    n_features_in_: int
    def __init__(
        self,
        n_bits: int = 64,
        *,
        mode: Literal["semantic", "neighbors", "scores", "semantic-scores", "paper"] | Recipe = "semantic",
        n_anchors: int | _Auto = "auto",
        n_neighbors: float | _Auto = "auto",
        q_scale: float | _Auto = "auto",
        q_power: float | _Auto = "auto",
        quantization: float | _Auto = "auto",
        ridge: float | Literal["auto", "gcv"] = "auto",
        last_ridge: float | Literal["auto", "gcv"] = "auto",
        n_rounds: int | _Auto = "auto",
        max_iter: int | _Auto = "auto",
        learning_rate: float | _Auto = "auto",
        whitening: float | _Auto = "auto",
        n_train: int | _Auto = "auto",
        tol: float | _Auto = "auto",
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        n_jobs: int | None = None,
        verbose: int | _Auto = "auto",
    ) -> None: ...
    def fit(self, X: ArrayLike, y: object = None) -> Self: ...
    @property
    def encoder_(self) -> Encoder: ...
    def transform(self, X: ArrayLike) -> NDArray[np.uint64]: ...
    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]: ...
    def score(self, X: ArrayLike, y: object = None) -> float: ...
    def query_projections(self, X: ArrayLike) -> NDArray[np.float32]: ...
    def save(self, path: _Target) -> None: ...
    @classmethod
    def load(cls, path: _Source) -> Self: ...
    # of scikit-learn's base classes
    def fit_transform(self, X: ArrayLike, y: object = None, **fit_params: Any) -> NDArray[np.uint64]: ...
    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]: ...
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **params: Any) -> Self: ...
    def set_output(self, *, transform: str | None = None) -> Self: ...

@dataclass(frozen=True, kw_only=True)
class Recipe:
    n_anchors: int = 300
    n_neighbors: int | float = 0.005
    min_neighbors: int = 100
    q_scale: float = 1.0
    q_scale_per_bit: float = 0.0
    q_power: float = 2.0
    quantization: float = 0.0
    quantization_per_anchor: float = 0.3
    ridge: float | str = 0.01
    last_ridge: float | str = 0.1
    n_rounds: int = 9
    max_iter: int = 5
    learning_rate: float = 0.1
    init: str = "itq"
    whitening: float = 0.75
    rotation: str = "random"
    hash_target: str = "sign"
    fit_hash: str = "all"
    updates: str = "together"
    resample_anchors: bool = True
    tol: float = 0.0
    objective: str = "codes"
    goal: str = "kind"
    @classmethod
    def preset(cls, name: Literal["semantic", "neighbors", "scores", "semantic-scores", "paper"]) -> Recipe: ...
    def replace(self, **changes: Any) -> Self: ...
    def as_dict(self) -> dict[str, Any]: ...

class Choice:
    what: Literal["neighbors", "kind"]
    trials_: list[dict[str, Any]]
    best_index_: int
    n_: int
    n_rows_: int
    n_queries_: int
    def __init__(
        self, what: str, trials: list[dict[str, Any]], best: int, n: int, n_rows: int, n_queries: int
    ) -> None: ...
    @property
    def best_params_(self) -> dict[str, Any]: ...
    @property
    def best_score_(self) -> float: ...
    @property
    def best_estimator_(self) -> APHash: ...

class ExpectedRecall(dict[int, NDArray[np.float64]]):
    n: int
    n_queries: int
    def __init__(self, recall: Any = (), n: int = 0, n_queries: int = 0) -> None: ...
    def at(self, candidates: float, k: int = 10) -> float: ...

class Encoder:
    n_bits: int
    n_features: int
    fingerprint: str
    coef: NDArray[np.float64]
    intercept: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: float
    feature_names: Sequence[str] | None
    n_jobs: int | None
    items: Any
    def __init__(
        self,
        coef: NDArray[np.float64],
        intercept: NDArray[np.float64],
        mean: NDArray[np.float64],
        scale: float,
        *,
        feature_names: Sequence[str] | None = None,
        n_jobs: int | None = None,
        items: Any = None,
    ) -> None: ...
    def transform(self, X: ArrayLike) -> NDArray[np.uint64]: ...
    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]: ...
    def query_projections(self, X: ArrayLike) -> NDArray[np.float32]: ...
    @classmethod
    def load(cls, path: _Source) -> Self: ...

class Filter:
    def __init__(self, *_: object) -> None: ...
    @classmethod
    def from_ids(cls, ids: ArrayLike) -> Self: ...
    @classmethod
    def excluding(cls, ids: ArrayLike) -> Self: ...
    @classmethod
    def from_mask(cls, mask: ArrayLike) -> Self: ...
    @classmethod
    def from_bitmap(cls, words: NDArray[np.uint64]) -> Self: ...
    def bitmap(self, snapshot: Any) -> NDArray[np.uint64]: ...
    def belong_to(self, arrangement: object, n: int) -> int: ...

class HammingIndex:
    @property
    def n_bits(self) -> int: ...
    def __init__(self, n_bits: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def codes(self) -> NDArray[np.uint64]: ...
    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def fingerprint(self) -> str | None: ...
    @property
    def nbytes(self) -> int: ...
    def snapshot(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]: ...
    def add(self, codes: NDArray[np.uint64], ids: ArrayLike | None = None) -> NDArray[np.int64]: ...
    def update(self, codes: NDArray[np.uint64], ids: ArrayLike) -> None: ...
    def upsert(self, codes: NDArray[np.uint64], ids: ArrayLike) -> int: ...
    def remove(self, ids: ArrayLike, *, missing: Literal["raise", "ignore"] = "raise") -> int: ...
    def merge(self, other: HammingIndex) -> None: ...
    def clear(self) -> None: ...
    def reserve(self, n: int) -> None: ...
    def compact(self) -> None: ...
    def get(self, ids: ArrayLike) -> NDArray[np.uint64]: ...
    def contains(self, ids: ArrayLike) -> NDArray[np.bool_]: ...
    def __contains__(self, id: int) -> bool: ...
    def build_lookup(self, *, max_scan_fraction: float = 0.1) -> None: ...
    def save(self, path: _Target) -> None: ...
    @classmethod
    def load(cls, path: _Source, *, mmap: bool = False, verify: bool | None = None) -> Self: ...
    def drop_lookup(self) -> None: ...
    @overload
    def search(
        self,
        queries: NDArray[np.uint64],
        k: int,
        *,
        filter: Filter | ArrayLike | None = None,
        expand: Literal[0] = 0,
        expand_weight: float = 1.0,
        rescore: None = None,
        rescore_queries: None = None,
        n_jobs: int | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]: ...
    @overload
    def search(
        self,
        queries: NDArray[np.floating],
        k: int,
        *,
        filter: Filter | ArrayLike | None = None,
        expand: int = 0,
        expand_weight: float = 1.0,
        rescore: VectorRescore | None = None,
        rescore_queries: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
    @overload
    def search(
        self,
        queries: NDArray[np.uint64],
        k: int,
        *,
        filter: Filter | ArrayLike | None = None,
        expand: Literal[0] = 0,
        expand_weight: float = 1.0,
        rescore: VectorRescore,
        rescore_queries: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
    @overload
    def search(
        self,
        queries: NDArray[np.uint64] | NDArray[np.floating],
        k: int,
        *,
        filter: Filter | ArrayLike | None = None,
        expand: int = 0,
        expand_weight: float = 1.0,
        rescore: VectorRescore | None = None,
        rescore_queries: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> tuple[NDArray[np.int32] | NDArray[np.float32], NDArray[np.int64]]: ...
    @overload
    def radius_search(
        self,
        queries: NDArray[np.uint64],
        radius: int,
        *,
        filter: Filter | ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]: ...
    @overload
    def radius_search(
        self,
        queries: NDArray[np.floating],
        radius: float,
        *,
        filter: Filter | ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]: ...
    def pairs(
        self, radius: int, *, filter: Filter | ArrayLike | None = None, n_jobs: int | None = None, verbose: int = 0
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]]: ...
    def groups(
        self, radius: int, *, filter: Filter | ArrayLike | None = None, n_jobs: int | None = None, verbose: int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def knn_graph(self, k: int, *, n_jobs: int | None = None) -> tuple[NDArray[np.int64], csr_array]: ...

class HammingNeighbors:
    index_: HammingIndex
    n_samples_fit_: int
    n_features_in_: int
    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        radius: int | None = None,
        mode: Literal["distance", "connectivity"] = "distance",
        n_jobs: int | None = None,
    ) -> None: ...
    def fit(self, X: NDArray[np.uint64], y: object = None) -> Self: ...
    def kneighbors(
        self,
        X: NDArray[np.uint64] | NDArray[np.floating] | None = None,
        n_neighbors: int | None = None,
        return_distance: bool = True,
    ) -> tuple[NDArray[np.int32] | NDArray[np.float32], NDArray[np.int64]] | NDArray[np.int64]: ...
    def kneighbors_graph(
        self,
        X: NDArray[np.uint64] | NDArray[np.floating] | None = None,
        n_neighbors: int | None = None,
        mode: Literal["connectivity", "distance"] = "connectivity",
    ) -> csr_matrix: ...
    def radius_neighbors(
        self,
        X: NDArray[np.uint64] | NDArray[np.floating] | None = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> tuple[NDArray[np.object_], NDArray[np.object_]] | NDArray[np.object_]: ...
    def radius_neighbors_graph(
        self,
        X: NDArray[np.uint64] | NDArray[np.floating] | None = None,
        radius: float | None = None,
        mode: Literal["connectivity", "distance"] = "connectivity",
        sort_results: bool = False,
    ) -> csr_matrix: ...
    def transform(self, X: NDArray[np.uint64] | NDArray[np.floating]) -> csr_matrix: ...
    def fit_transform(self, X: NDArray[np.uint64], y: object = None) -> csr_matrix: ...
    # of scikit-learn's base classes
    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]: ...
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **params: Any) -> Self: ...
    def set_output(self, *, transform: str | None = None) -> Self: ...

_Metric: TypeAlias = Literal["cosine", "l2"]

class VectorIndex:
    n_bits: int
    metric: _Metric
    keep: Literal["float32", "float16", "int8"] | None
    def __init__(
        self,
        n_bits: int = 64,
        *,
        mode: Literal["semantic", "neighbors", "scores", "semantic-scores", "paper"] | Recipe = "scores",
        metric: _Metric = "cosine",
        keep: Literal["float32", "float16", "int8"] | None = None,
        n_train: int | _Auto = "auto",
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        n_jobs: int | None = None,
        verbose: int | _Auto = "auto",
    ) -> None: ...
    def fit(self, X: ArrayLike, y: object = None, *, ids: ArrayLike | None = None) -> Self: ...
    @property
    def encoder_(self) -> Encoder: ...
    @property
    def codes_(self) -> HammingIndex: ...
    @property
    def n_features_in_(self) -> int: ...
    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: int) -> bool: ...
    def get_params(self, deep: bool = True) -> dict[str, Any]: ...
    def set_params(self, **params: Any) -> Self: ...
    def info(self) -> dict[str, Any]: ...
    def add(self, X: ArrayLike, ids: ArrayLike | None = None) -> NDArray[np.int64]: ...
    def upsert(self, X: ArrayLike, ids: ArrayLike) -> int: ...
    def remove(self, ids: ArrayLike, *, missing: Literal["raise", "ignore"] = "raise") -> int: ...
    def compact(self) -> None: ...
    def attach_vectors(self, X: ArrayLike | None, ids: ArrayLike | None = None) -> Self: ...
    def get(self, ids: ArrayLike) -> NDArray[np.floating]: ...
    def search(
        self,
        Q: ArrayLike,
        k: int,
        *,
        filter: Filter | ArrayLike | None = None,
        recall: float | None = None,
        candidates: int | None = None,
        expand: int = 0,
        expand_weight: float = 1.0,
        n_jobs: int | None = None,
    ) -> _Found: ...
    def radius_search(
        self,
        Q: ArrayLike,
        distance: float,
        *,
        filter: Filter | ArrayLike | None = None,
        recall: float = 0.95,
        n_jobs: int | None = None,
    ) -> _Found: ...
    def pairs(
        self,
        distance: float,
        *,
        recall: float = 0.95,
        filter: Filter | ArrayLike | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> _Pairs: ...
    def groups(
        self,
        distance: float,
        *,
        linkage: Literal["single", "complete"] = "single",
        recall: float = 0.95,
        filter: Filter | ArrayLike | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> _Groups: ...
    def knn_graph(
        self, k: int, *, recall: float | None = None, n_jobs: int | None = None
    ) -> tuple[NDArray[np.int64], csr_array]: ...
    def save(self, path: _Target) -> None: ...
    @classmethod
    def load(cls, path: _Source, *, mmap: bool = False, verify: bool | None = None) -> Self: ...

class VectorRescore:
    def __init__(
        self,
        X: ArrayLike,
        ids: ArrayLike | None = None,
        *,
        metric: Literal["l2", "ip", "cosine"] = "l2",
        factor: int = 10,
    ) -> None: ...

def choose(
    X: ArrayLike,
    *,
    n_bytes: int = 8,
    what: Literal["neighbors", "kind"] = "neighbors",
    n_rows: int = 20_000,
    random_state: int | np.random.RandomState | np.random.Generator | None = None,
    n_jobs: int | None = None,
    verbose: int | _Auto = "auto",
) -> Choice: ...
def show_versions() -> None: ...
def save(path: _Target, hasher: APHash | Pipeline, index: HammingIndex) -> None: ...
def load(path: _Source, *, mmap: bool = False, verify: bool | None = None) -> tuple[Any, HammingIndex]: ...
def load_encoder(path: _Source, *, mmap: bool = False, verify: bool | None = None) -> tuple[Encoder, HammingIndex]: ...
