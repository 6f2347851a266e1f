import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from uotcell.problems._representation import align_features, check_representation, representation

CELLS = np.random.default_rng(0).poisson(1.0, size=(12, 5)).astype(np.float32)
ROWS = np.array([1, 4, 5, 11])


@pytest.fixture
def adata():
    names = [f"cell{i}" for i in range(len(CELLS))]
    obsm = {"rep": CELLS, "csr": sparse.csr_matrix(CELLS), "frame": pd.DataFrame(CELLS, index=names).add_prefix("pc")}
    layers = {
        "dense": CELLS,
        "csc": sparse.csc_matrix(CELLS),
        "csr_array": sparse.csr_array(CELLS),
        "int": CELLS.astype(np.int32),
        "bool": CELLS > 0,
        "half": CELLS.astype(np.float16),
        "double": CELLS.astype(np.float64),
    }
    return ad.AnnData(sparse.csr_matrix(CELLS), obs=pd.DataFrame(index=names), obsm=obsm, layers=layers)


def read(adata, use_rep, layer=None, rows=ROWS):
    check_representation(adata, use_rep, layer)
    return representation(adata, rows, use_rep, layer)


SLOTS = [("X", None), ("X", "dense"), ("X", "csc"), ("X", "csr_array"), ("rep", None), ("csr", None), ("frame", None)]


@pytest.mark.parametrize(("use_rep", "layer"), SLOTS)
def test_slots_hold_the_same_cells(adata, use_rep, layer):
    cells = read(adata, use_rep, layer)
    assert type(cells) is np.ndarray
    assert cells.dtype == np.float32
    np.testing.assert_array_equal(cells, CELLS[ROWS])


@pytest.mark.parametrize(("use_rep", "layer"), SLOTS)
def test_views(adata, use_rep, layer):
    every_other = adata[::2]
    assert every_other.is_view
    np.testing.assert_array_equal(read(every_other, use_rep, layer, rows=np.array([0, 3])), CELLS[::2][[0, 3]])
    assert every_other.is_view


@pytest.mark.parametrize("matrix", [np.asarray, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "csr", "csc"])
def test_backed(adata, matrix, tmp_path):
    adata.X = matrix(CELLS)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        np.testing.assert_array_equal(read(backed, "X"), CELLS[ROWS])
        np.testing.assert_array_equal(read(backed, "X", "csc"), CELLS[ROWS])
        np.testing.assert_array_equal(read(backed, "rep"), CELLS[ROWS])
        np.testing.assert_array_equal(read(backed[::2], "X", rows=np.array([0, 3])), CELLS[::2][[0, 3]])
        assert backed.isbacked
    finally:
        backed.file.close()


@pytest.mark.parametrize(
    ("layer", "dtype"), [("int", np.float32), ("bool", np.float32), ("half", np.float32), ("double", np.float64)]
)
def test_numbers_become_floats(adata, layer, dtype):
    cells = read(adata, "X", layer)
    assert cells.dtype == dtype
    np.testing.assert_array_equal(cells, np.asarray(adata.layers[layer])[ROWS].astype(dtype))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slot", ["rep", "csr", "frame"])
def test_cells_that_are_not_finite_are_named(adata, slot, bad):
    cells = CELLS.copy()
    cells[0, 0], cells[4, 2], cells[5] = np.nan, bad, bad  # the first row is not asked for
    adata.obsm[slot] = {
        "rep": cells,
        "csr": sparse.csr_matrix(cells),
        "frame": pd.DataFrame(cells, index=adata.obs_names).add_prefix("pc"),
    }[slot]
    with pytest.raises(
        ValueError, match=rf"adata\.obsm\['{slot}'\].*NaN or inf in 2 cells \(first: 'cell4'\)\. Remove"
    ):
        read(adata, slot)


def test_other_slots_are_named_in_errors(adata):
    adata.X = np.full_like(CELLS, np.nan)
    adata.layers["dense"] = np.full_like(CELLS, np.nan)
    with pytest.raises(ValueError, match=r"adata\.X to be finite, .* 4 cells \(first: 'cell1'\)"):
        read(adata, "X")
    with pytest.raises(ValueError, match=r"adata\.layers\['dense'\] to be finite"):
        read(adata, "X", "dense")


def test_text_is_refused(adata):
    adata.obsm["frame"] = pd.DataFrame({"a": list("abcdefghijkl")}, index=adata.obs_names)
    with pytest.raises(ValueError, match=r"adata\.obsm\['frame'\] to be a numeric matrix, found shape \(4, 1\)"):
        read(adata, "frame")


@pytest.mark.parametrize(
    ("use_rep", "layer", "error", "message"),
    [
        ("X_pca", None, KeyError, r"`use_rep`.*\['csr', 'frame', 'rep'\], found 'X_pca'.*sc\.pp\.pca"),
        ("raw", None, KeyError, r"`use_rep`.*found 'raw'\. Take `adata\.raw\.to_adata\(\)`"),
        ("X_umap", None, KeyError, r"`use_rep`.*\['csr', 'frame', 'rep'\], found 'X_umap'\."),
        ("X", "counts", KeyError, r"`layer`.*'csc'.*found 'counts'"),
        ("rep", "dense", ValueError, r"`use_rep` to be 'X' when `layer`='dense' is given, found 'rep'"),
    ],
)
def test_unknown_slots_are_refused(adata, use_rep, layer, error, message):
    with pytest.raises(error, match=message):
        check_representation(adata, use_rep, layer)


def test_missing_matrix_is_refused():
    with pytest.raises(ValueError, match=r"`adata\.X` to hold a matrix .* found None"):
        check_representation(ad.AnnData(obs=pd.DataFrame(index=["a", "b"])), "X", None)


def test_features_are_found_by_name():
    expected = pd.Index(["a", "b", "c"])
    assert align_features(pd.Index(["a", "b", "c"]), expected) == slice(None)
    assert align_features(pd.Index(["x", "c", "a", "b"]), expected).tolist() == [2, 3, 1]
    assert align_features(pd.Index(["a", "a"]), pd.Index(["a", "a"])) == slice(None)
    with pytest.raises(ValueError, match=r"3 features of the fit, found 1 of them missing: \['b'\]\. Give all"):
        align_features(pd.Index(["c", "a"]), expected)
    with pytest.raises(ValueError, match=r"found 6 of them missing: \['0', '1', '2', '3', '4'\] and more\."):
        align_features(expected, pd.Index(list("012345")))
    with pytest.raises(ValueError, match="repeated names in another order"):
        align_features(pd.Index(["a", "a", "b"]), expected)
