"""A model with its index in one file, files of earlier versions, and the command that describes files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import aphash
from aphash import APHash, HammingIndex
from aphash._common import container

DATA = Path(__file__).parent / "data"
# What tests/data holds, in each version of the format: a model of 24 bits fitted to QUERIES, an index of its codes
# under the ids 10, 11, ..., both in one file, and the index with a lookup and without the id 20. They must open for
# ever; never write them again.
QUERIES = (np.add.outer(7 * np.arange(40), np.arange(5) ** 2) % 11 * np.array([1.0, 2, 3, 5, 8])).astype(np.float32)


def product():
    hasher = APHash(24, n_anchors=10, n_neighbors=5, n_rounds=2, random_state=0)
    with pytest.warns(UserWarning, match="independent directions"):
        hasher.fit(QUERIES)
    index = HammingIndex(24)
    index.add(hasher.transform(QUERIES), np.arange(10, 50))
    return hasher, index


def test_saved_and_loaded_together(tmp_path):
    hasher, index = product()
    aphash.save(tmp_path / "product", hasher, index)
    assert [each.name for each in tmp_path.iterdir()] == ["product"]
    for mmap in (False, True):
        again, found = aphash.load(tmp_path / "product", mmap=mmap)
        codes = again.transform(QUERIES)
        np.testing.assert_array_equal(codes, hasher.transform(QUERIES))
        np.testing.assert_array_equal(again.codes_, hasher.codes_)
        for one, other in zip(found.search(codes, 3), index.search(codes, 3), strict=True):
            np.testing.assert_array_equal(one, other)
        found.add(codes[:1])
        assert len(found) == 41


def test_what_does_not_belong_together_is_refused(tmp_path):
    hasher, index = product()
    with pytest.raises(TypeError, match="HammingIndex, got APHash and str"):
        aphash.save(tmp_path / "x", hasher, "index")
    with pytest.raises(ValueError, match="n_bits=25, hasher 24"):
        aphash.save(tmp_path / "x", hasher, HammingIndex(25))
    with pytest.raises(NotFittedError):
        aphash.save(tmp_path / "x", APHash(24), index)
    other = HammingIndex(24)
    with pytest.warns(UserWarning, match="independent directions"):
        other.add(APHash(24, n_anchors=10, n_neighbors=5, n_rounds=2, random_state=1).fit(-QUERIES).codes_)
    with pytest.raises(ValueError, match="codes of another model"):
        aphash.save(tmp_path / "x", hasher, other)
    assert not list(tmp_path.iterdir())
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match=r"index.*APHash"):
        aphash.load(tmp_path / "index")
    container.write(tmp_path / "x", {}, kind="APHash+HammingIndex", version=1, params={})
    with pytest.raises(ValueError, match=r"x.*parameters"):
        aphash.load(tmp_path / "x")
    container.write(tmp_path / "x", {}, kind="APHash+HammingIndex", version=3, params={})
    with pytest.raises(ValueError, match=r"x.*version 3"):
        aphash.load(tmp_path / "x")


@pytest.mark.parametrize("version", [1, 2])
def test_files_of_old_versions_open_for_ever(version):
    hasher, index = APHash.load(DATA / "model-1.aphash"), HammingIndex.load(DATA / f"index-{version}.aphash")
    codes = hasher.transform(QUERIES)
    np.testing.assert_array_equal(index.ids, np.arange(10, 50))
    np.testing.assert_array_equal(index.codes, codes)
    assert hasher.n_bits == 24 and hasher.codes_.shape == (40, 1) and hasher.anchors_.shape == (10, 5)
    assert index.add(codes[:1]) == [50]
    for mmap in (False, True):
        tabled = HammingIndex.load(DATA / f"index-lookup-{version}.aphash", mmap=mmap, verify=True)
        present = tabled._store.present
        assert (present.lookup.share, present.lookup.n_indexed, present.n_stale) == (0.25, 40, 1)
        np.testing.assert_array_equal(tabled.get(tabled.ids), index.get(tabled.ids))
        for one, other in zip(tabled.search(codes, 3), index.search(codes, 3, filter=tabled.ids), strict=True):
            np.testing.assert_array_equal(one, other)
        again, found = aphash.load(DATA / f"product-{version}.aphash", mmap=mmap, verify=True)
        np.testing.assert_array_equal(again.transform(QUERIES), codes)
        np.testing.assert_array_equal(found.codes, codes)


def info(*arguments):
    return subprocess.run([sys.executable, "-m", "aphash", "info", *arguments], capture_output=True, text=True)


def test_info_describes_a_file_and_finds_damage(tmp_path):
    found = info(str(DATA / "product-1.aphash"))
    assert found.returncode == 0, found.stderr
    assert "APHash+HammingIndex, version 1" in found.stdout and "whole" in found.stdout
    assert "hasher.coef_" in found.stdout and "24 x 5" in found.stdout
    damaged = bytearray((DATA / "product-1.aphash").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "bad").write_bytes(damaged)
    found = info(str(tmp_path / "bad"))
    assert found.returncode == 1 and "not whole" in found.stderr
    for path, message in [(tmp_path / "none", "No such file"), (tmp_path, "directory")]:
        found = info(str(path))
        assert found.returncode == 1 and message in found.stderr and "Traceback" not in found.stderr


if __name__ == "__main__":  # how a new version's files in tests/data are made, once: python test_product.py VERSION
    model, codes = APHash.load(DATA / "model-1.aphash"), HammingIndex.load(DATA / "index-1.aphash")
    codes.save(DATA / f"index-{sys.argv[1]}.aphash")
    aphash.save(DATA / f"product-{sys.argv[1]}.aphash", model, codes)
    codes.build_lookup(share=0.25)
    codes.remove([20])
    codes.save(DATA / f"index-lookup-{sys.argv[1]}.aphash")
