"""What crash_tests.py damages: files of aphash and of its peers, each made, saved, loaded and used in one way."""

import functools
import warnings

import numpy as np

from aphash import APHash, HammingIndex, pack_codes


class Model:
    """A fitted APHash."""

    name = "APHash"

    @staticmethod
    def loads():
        return {"load": APHash.load}

    @staticmethod
    def make(seed):
        X = np.random.default_rng(seed).standard_normal((200, 12)).astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return APHash(16, n_anchors=20, n_neighbors=10, n_rounds=1, random_state=seed).fit(X)

    @staticmethod
    def save(model, path):
        model.save(path)

    @staticmethod
    def content(model):
        return {"params": repr(model.get_params()), **{k: v for k, v in vars(model).items() if k.endswith("_")}}

    @staticmethod
    def use(model):
        model.transform(np.zeros((3, model.n_features_in_), np.float32))


class Index:
    """A HammingIndex."""

    name = "HammingIndex"

    @staticmethod
    def loads():
        mapped = functools.partial(HammingIndex.load, mmap=True, verify=True)
        return {"load": HammingIndex.load, "mapped, verified": mapped}

    @staticmethod
    def make(seed, n=300):
        rng = np.random.default_rng(seed)
        index = HammingIndex(70)
        index.add(pack_codes(rng.random((n, 70)) < 0.5), ids=rng.choice(10 * n, n, replace=False))
        return index

    @staticmethod
    def save(index, path):
        index.save(path)

    @staticmethod
    def content(index):
        return {"n_bits": index.n_bits, "codes": index.codes, "ids": index.ids}

    @staticmethod
    def use(index):
        index.search(index.codes[:3], 5, n_jobs=1)


class Tabled(Index):
    """A HammingIndex with a lookup that every search tries."""

    name = "HammingIndex with lookup"

    @staticmethod
    def make(seed, n=300):
        index = Index.make(seed, n)
        index.build_lookup(max_scan_fraction=np.inf)
        index.remove(index.ids[:3])  # some of the tables are stale
        return index

    @staticmethod
    def content(index):
        present = index._store.present
        lookup = present.lookup
        arrays = {} if lookup is None else lookup.arrays() | {"stale": present.stale_positions()}
        return Index.content(index) | arrays | {"share": None if lookup is None else lookup.max_scan_fraction}

    @staticmethod
    def use(index):
        Index.use(index)
        index.radius_search(index.codes[:3], 2, n_jobs=1)


class Faiss:
    """faiss.IndexBinaryFlat."""

    name = "faiss IndexBinaryFlat"

    @staticmethod
    def loads():
        import faiss

        return {"load": lambda path: faiss.read_index_binary(str(path))}

    @staticmethod
    def make(seed):
        import faiss

        index = faiss.IndexBinaryFlat(64)
        index.add(np.random.default_rng(seed).integers(0, 256, (300, 8), dtype=np.uint8))
        return index

    @staticmethod
    def save(index, path):
        import faiss

        faiss.write_index_binary(index, str(path))

    @staticmethod
    def content(index):
        import faiss

        return {"d": index.d, "codes": faiss.vector_to_array(index.xb)}

    @staticmethod
    def use(index):
        index.search(np.zeros((3, 8), np.uint8), 5)


class Usearch:
    """usearch, b1 and Hamming."""

    name = "usearch b1"

    @staticmethod
    def loads():
        from usearch.index import Index as Graph

        return {"load": lambda path: Graph.restore(str(path))}

    @staticmethod
    def make(seed):
        from usearch.index import Index as Graph

        graph = Graph(ndim=64, metric="hamming", dtype="b1")
        graph.add(np.arange(300), np.random.default_rng(seed).integers(0, 256, (300, 8), dtype=np.uint8))
        return graph

    @staticmethod
    def save(graph, path):
        graph.save(str(path))

    @staticmethod
    def content(graph):
        if graph is None:
            raise ValueError("no index in the file")
        keys = np.arange(300)
        return {"n": len(graph), "ndim": graph.ndim, "codes": np.array([graph.get(int(k)) for k in keys])}

    @staticmethod
    def use(graph):
        graph.search(np.zeros((3, 8), np.uint8), 5)


OURS, PEERS = [Model, Index, Tabled], [Faiss, Usearch]


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(np.asarray(one[k]), np.asarray(other[k])) for k in one)
