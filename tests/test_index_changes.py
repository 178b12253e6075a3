"""HammingIndex under change: any sequence of add, remove and update, against a dict; failures leave it as it was."""

import pickle
import resource
import subprocess
import sys
import tempfile
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aphash import HammingIndex, pack_codes
from aphash._searching import _store

EDGE = st.sampled_from([-(2**63), -(2**63) + 1, 2**63 - 2, 2**63 - 1])
ID = st.one_of(st.integers(-20, 40), st.integers(-(2**63), 2**63 - 1), EDGE).filter(lambda i: i != -1)
IDS = st.lists(ID, max_size=30, unique=True)


class AgainstADict(RuleBasedStateMachine):
    """The dict maps each id to its code as a tuple of words."""

    steps = 0

    @initialize(
        n_bits=st.sampled_from([7, 64, 130]),
        seed=st.integers(0, 99),
        small=st.booleans(),
        filled=st.sampled_from([0, 500, 1020]),
    )
    def start(self, n_bits, seed, small, filled):
        self.page_bytes = _store.set_page_bytes(0 if small else 1 << 17)
        self.rng = np.random.default_rng(seed)
        self.n_bits = n_bits
        self.index = HammingIndex(n_bits)
        self.dict = {}
        self.next_id = 0
        self.kept = []  # older snapshots, and what was in them
        if filled:
            self.add_counted(filled)

    def teardown(self):
        if hasattr(self, "page_bytes"):
            _store.set_page_bytes(self.page_bytes)

    def codes(self, n):
        """Few different codes, so that distances tie and order is the ids' business."""
        signs = self.rng.integers(0, 2, (n, min(self.n_bits, 4))).astype(bool)
        return pack_codes(np.pad(signs, ((0, 0), (0, self.n_bits - signs.shape[1]))))

    def enter(self, ids, codes):
        self.dict.update(zip(map(int, ids), map(tuple, codes.tolist())))
        self.next_id = max([self.next_id, *(int(i) + 1 for i in ids)])

    @rule(ids=IDS)
    def add(self, ids):
        codes = self.codes(len(ids))
        known = [i for i in ids if i in self.dict]
        if known:
            with pytest.raises(ValueError, match=f"already: .*{known[0]}"):
                self.index.add(codes, ids)
        else:
            self.index.add(codes, ids)
            self.enter(ids, codes)

    @precondition(lambda self: self.next_id < 2**62)
    @rule(n=st.integers(0, 70))
    def add_counted(self, n):
        codes = self.codes(n)
        ids = self.index.add(codes)
        assert ids.tolist() == list(range(self.next_id, self.next_id + n))
        self.enter(ids, codes)

    @rule(first=st.integers(-600, 3000), n=st.sampled_from([1, 2, 40, 520]))
    def add_range(self, first, n):
        ids = [i for i in range(first, first + n) if i != -1]
        self.add(ids)

    @rule(ids=IDS)
    def upsert(self, ids):
        codes = self.codes(len(ids))
        assert self.index.upsert(codes, ids) == sum(i not in self.dict for i in ids)
        self.enter(ids, codes)

    @rule(ids=st.lists(ID, max_size=10, unique=True), counted=st.sampled_from([0, 3, 600]))
    def merge(self, ids, counted):
        other = HammingIndex(self.n_bits)
        ids += [i for i in range(5000, 5000 + counted) if i not in ids]
        codes = self.codes(len(ids))
        other.add(codes, ids)
        known = [i for i in ids if i in self.dict]
        if known:
            with pytest.raises(ValueError, match=f"both indexes: .*{known[0]}"):
                self.index.merge(other)
        else:
            self.index.merge(other)
            self.enter(ids, codes)
        other.update(codes[::-1], ids)  # the two share no page

    @rule()
    def keep(self):
        self.kept = [*self.kept[-3:], (self.index._store.present, dict(self.dict))]

    @rule(how=st.sampled_from(["compact", "reserve", "clear"]), always=st.integers(0, 3))
    def arrange(self, how, always):
        if how == "compact":
            self.index.compact()
            assert self.index.ids.tolist() == sorted(self.dict)
        elif how == "reserve":
            self.index.reserve(2000)
        elif not always:
            self.index.clear()
            self.dict = {}

    @rule(data=st.data(), share=st.sampled_from([2, 3]))
    def remove_many(self, data, share):
        ids = sorted(self.dict)[data.draw(st.integers(0, share - 1)) :: share]
        assert self.index.remove(ids) == len(ids)
        for i in ids:
            del self.dict[i]

    @rule(data=st.data(), missing=st.sampled_from(["raise", "ignore"]), others=st.lists(ID, max_size=2))
    def remove(self, data, missing, others):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.dict)), unique=True)) if self.dict else []
        ids = list(dict.fromkeys(ids + others))
        unknown = [i for i in ids if i not in self.dict]
        if unknown and missing == "raise":
            with pytest.raises(KeyError, match=str(unknown[0])):
                self.index.remove(ids)
        else:
            assert self.index.remove(ids, missing=missing) == len(ids) - len(unknown)
            for i in ids:
                self.dict.pop(i, None)

    @rule(data=st.data(), others=st.lists(ID, max_size=1))
    def update(self, data, others):
        ids = data.draw(st.lists(st.sampled_from(sorted(self.dict)), unique=True)) if self.dict else []
        ids = list(dict.fromkeys(ids + others))
        codes = self.codes(len(ids))
        if any(i not in self.dict for i in ids):
            with pytest.raises(KeyError, match="not in the index"):
                self.index.update(codes, ids)
        else:
            self.index.update(codes, ids)
            self.enter(ids, codes)

    @rule(ids=st.lists(ID, max_size=5))
    def ask(self, ids):
        assert self.index.contains(ids).tolist() == [i in self.dict for i in ids]
        assert [i in self.index for i in ids] == [i in self.dict for i in ids]
        if all(i in self.dict for i in ids):
            assert list(map(tuple, self.index.get(ids).tolist())) == [self.dict[i] for i in ids]
        else:
            with pytest.raises(KeyError, match="not in the index"):
                self.index.get(ids)

    @rule(k=st.integers(1, 20), some=st.booleans())
    def search(self, k, some):
        query = self.codes(1)[0]
        ids = np.array([i for i in sorted(self.dict) if not some or i % 3], np.int64)
        stored = np.array([self.dict[int(i)] for i in ids], np.uint64).reshape(len(ids), len(query))
        distance = np.bitwise_count(stored ^ query).sum(1).astype(np.int64)
        order = np.lexsort((ids, distance))
        distances, found = self.index.search(query, k, filter=ids if some else None)
        best = order[:k]
        assert found[: len(best)].tolist() == ids[best].tolist()
        assert distances[: len(best)].tolist() == distance[best].tolist()
        assert (found[len(best) :] == -1).all()
        _, distances, found = self.index.radius_search(query, 2, filter=ids if some else None)
        inside = order[distance[order] <= 2]
        assert found.tolist() == ids[inside].tolist() and distances.tolist() == distance[inside].tolist()

    @rule(share=st.sampled_from([0.15, np.inf, None]))
    def look_up(self, share):
        if share is None:
            self.index.drop_lookup()
        else:
            self.index.build_lookup(max_scan_fraction=share)

    @rule(how=st.sampled_from(["load", "map", "pickle"]))
    def come_back(self, how):
        """As after a restart; what follows changes an index that came from a file."""
        if how == "pickle":
            self.index = pickle.loads(pickle.dumps(self.index))
            return
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(f"{folder}/index")
            self.index = HammingIndex.load(f"{folder}/index", mmap=how == "map")

    @invariant()
    def same_content(self):
        if not hasattr(self, "index"):
            return
        assert len(self.index) == len(self.dict)
        ids = self.index.ids
        assert dict(zip(ids.tolist(), map(tuple, self.index.codes.tolist()))) == self.dict
        assert len(np.unique(ids)) == len(ids)
        for snapshot, content in [*self.kept, (self.index._store.present, self.dict)]:
            n = len(snapshot)
            ids = snapshot.load_ids(0, n)
            assert dict(zip(ids.tolist(), map(tuple, snapshot.load(0, n).tolist()))) == content
            assert snapshot.find(ids).tolist() == list(range(n))
            others = [i for i in (-5, 0, 3, 17, 39, 700, 2**62, self.next_id - 1) if -(2**63) <= i < 2**63]
            assert [p >= 0 for p in snapshot.find(np.array(others))] == [i in content for i in others]
        type(self).steps += 1


AgainstADict.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAgainstADict = AgainstADict.TestCase


def test_ids_as_far_apart_as_can_be(tmp_path):
    """The difference of two ids does not fit into int64."""
    low, high = -(2**63), 2**63 - 1
    for order in ([3, low], [high, low], [low, high], [low, 0, high], [high, 0, low + 1]):
        index = HammingIndex(64)
        codes = np.arange(len(order), dtype=np.uint64)[:, None]
        for i in range(len(order)):
            index.add(codes[i], order[i : i + 1])
        together = HammingIndex(64)
        together.add(codes, order)
        for each in (index, together):
            assert each.contains(order).all() and each.get(order).tolist() == codes.tolist()
            with pytest.raises(ValueError, match="already"):
                each.add(codes[:1], order[-1:])
            found = each.search(np.zeros(1, np.uint64), len(order))[1]
            assert found.tolist() == sorted(order, key=lambda id: (int(order.index(id)).bit_count(), id))
            each.save(tmp_path / "index")
            assert HammingIndex.load(tmp_path / "index").ids.tolist() == order


def test_ids_that_collide_in_the_table():
    """Ids of every stride, entered backwards and removed in another order."""
    rng = np.random.default_rng(0)
    for stride in (2, 64, 2**20, 2**40, 2**53):
        n = 1000
        ids = (np.arange(n) - n // 2) * stride - 8
        index = HammingIndex(64)
        codes = rng.integers(0, 2**63, (n, 1)).astype(np.uint64)
        index.add(codes[::-1], ids[::-1])
        order = rng.permutation(n)
        for part in np.array_split(order[:800], 40):
            index.remove(ids[part])
        assert not index.contains(ids[order[:800]]).any()
        assert np.array_equal(index.get(ids[order[800:]]), codes[order[800:]])
        index.add(codes[order[:800]], ids[order[:800]])
        assert np.array_equal(index.get(ids), codes)


@pytest.mark.parametrize("call", ["add", "update"])
@pytest.mark.parametrize(
    "ids, codes, error",
    [
        ([3, 4], np.zeros((1, 1), np.uint64), ValueError),
        ([3, 3], np.zeros((2, 1), np.uint64), ValueError),
        ([3, -1], np.zeros((2, 1), np.uint64), ValueError),
        ([3, 4], np.zeros((2, 2), np.uint64), ValueError),
        ([3, 4], np.zeros((2, 1)), TypeError),
        ([3.0, 4.0], np.zeros((2, 1), np.uint64), TypeError),
    ],
)
def test_bad_changes_leave_the_index_as_it_was(call, ids, codes, error):
    index = HammingIndex(64)
    index.add(np.array([[5], [6]], np.uint64), [9, 8])
    with pytest.raises(error):
        index.add(codes, ids) if call == "add" else index.update(codes, ids)
    assert index.ids.tolist() == [9, 8] and index.codes.tolist() == [[5], [6]]
    assert index.add(np.array([[7]], np.uint64)).tolist() == [10]


def test_one_id(rng):
    index = HammingIndex(64)
    codes = pack_codes(rng.standard_normal((4, 64)))
    index.add(codes)
    assert np.array_equal(index.get(2), codes[2]) and index.get(2).shape == (1,)
    index.update(codes[0], 2)
    assert np.array_equal(index.get(2), codes[0])
    assert index.remove(2) == 1 and 2 not in index and 3 in index and 2**70 not in index
    with pytest.raises(TypeError, match="contains"):
        [1, 3] in index  # noqa: B015
    with pytest.raises(ValueError, match="missing"):
        index.remove(1, missing="warn")


def test_out_of_memory_leaves_the_index_as_it_was():
    program = textwrap.dedent("""
        import resource
        import numpy as np
        from aphash import HammingIndex
        index = HammingIndex(64)
        codes = np.arange(500_000, dtype=np.uint64)[:, None]
        index.add(codes)
        index.add(codes[:3], [-5, -9, -7])
        index.search(codes[:4], 3, n_jobs=1)
        more, ids = np.zeros((4_000_000, 1), np.uint64), np.arange(4_000_000)[::-1] + 10**9
        pages = int(open("/proc/self/statm").read().split()[0])
        failed = 0
        for spare in range(0, 400 << 20, 8 << 20):  # it fails at each of its allocations in turn
            resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + spare, resource.RLIM_INFINITY))
            try:
                index.add(more, ids)
            except MemoryError:
                failed += 1
            else:
                break
            finally:
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            assert len(index) == 500_003 and not index.contains(ids[:10]).any()
            assert index.get([-9, 0, 499_999])[:, 0].tolist() == [1, 0, 499_999]
            assert index.ids[-3:].tolist() == [-5, -9, -7]
        assert len(index) == 4_500_003 and 10**9 in index, "never enough memory"
        print(failed)
    """)
    if resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("a hard limit of address space is set")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3


if __name__ == "__main__":  # the long run: python tests/test_index_changes.py EXAMPLES STEPS
    examples, steps = map(int, sys.argv[1:])
    long = settings(AgainstADict.TestCase.settings, max_examples=examples, stateful_step_count=steps)
    run_state_machine_as_test(AgainstADict, settings=long)
    print(f"{AgainstADict.steps} steps")
