"""The reader of CellOT's 4i file on small files of the same layout, and on files that are something else."""

import re

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from uotcell.datasets import read_cellot_4i

FEATURES = ["intensity-Ki67", "intensity-pERK", "morphology-area"]


def screen(**columns) -> ad.AnnData:
    drug = ["control", "trametinib", "cisplatin", "control", "cisplatin"]
    obs = pd.DataFrame({"drug": drug, "plate": [1, 1, 2, 2, 2]} | columns, index=[f"c{k}" for k in range(5)])
    values = np.random.default_rng(0).normal(size=(5, 3))
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=FEATURES))
    adata.obsm["X_umap"] = values[:, :2]
    adata.uns["anything"] = {"of": "no use"}
    return adata


@pytest.fixture
def written(tmp_path):
    def write(adata: ad.AnnData):
        path = tmp_path / "8h.h5ad"
        adata.write_h5ad(path)
        return path

    return write


def test_reads(written):
    raw = screen()
    adata = read_cellot_4i(written(raw))
    np.testing.assert_allclose(adata.X, raw.X, rtol=1e-6)
    assert adata.X.dtype == np.float32
    assert list(adata.var_names) == FEATURES
    assert list(adata.obs["drug"]) == list(raw.obs["drug"])
    assert list(adata.obs["drug"].cat.categories) == ["control", "cisplatin", "trametinib"]
    assert list(adata.obs["plate"]) == [1, 1, 2, 2, 2]
    assert not adata.obsm
    assert set(adata.uns) == {"dataset"}
    assert all(isinstance(value, str) for value in adata.uns["dataset"].values())


def test_sparse_values_and_path_as_text(written):
    raw = screen()
    raw.X = sparse.csr_matrix(raw.X)
    adata = read_cellot_4i(str(written(raw)))
    np.testing.assert_allclose(adata.X, raw.X.toarray(), rtol=1e-6)


@pytest.mark.parametrize("as_file", [True, False])
def test_features_are_chosen_and_ordered(written, tmp_path, as_file):
    chosen = ["morphology-area", "intensity-Ki67"]
    raw = screen()
    path = written(raw)
    listing = tmp_path / "features.txt"
    listing.write_text("\n".join(chosen) + "\n")
    adata = read_cellot_4i(path, features=listing if as_file else chosen)
    assert list(adata.var_names) == chosen
    np.testing.assert_allclose(adata.X, raw[:, chosen].X, rtol=1e-6)


def test_a_chosen_subset_may_leave_bad_features_behind(written):
    raw = screen()
    raw.X[1, 2] = np.nan
    path = written(raw)
    assert read_cellot_4i(path, features=FEATURES[:2]).n_vars == 2
    with pytest.raises(ValueError, match=r"1 of 5 cells, in \['morphology-area'\]"):
        read_cellot_4i(path)


def test_result_can_be_written(written, tmp_path):
    adata = read_cellot_4i(written(screen()))
    adata.write_h5ad(tmp_path / "copy.h5ad")
    assert ad.read_h5ad(tmp_path / "copy.h5ad").obs.equals(adata.obs)


def expect(error, *parts):
    return pytest.raises(error, match=".*".join([*map(re.escape, parts), re.escape("10.3929/ethz-b-000609681")]))


def test_no_such_file(tmp_path, written):
    written(screen())
    with expect(FileNotFoundError, "Expected `path` to be a file", "8h.h5ad"):
        read_cellot_4i(tmp_path / "9h.h5ad")
    with expect(FileNotFoundError, "no such folder"):
        read_cellot_4i(tmp_path / "nowhere" / "8h.h5ad")


def test_not_hdf5(tmp_path):
    path = tmp_path / "8h.h5ad"
    path.write_text("<!DOCTYPE html>")
    with expect(ValueError, "is not HDF5", "<!DOCTYP"):
        read_cellot_4i(path)


def test_hdf5_of_another_kind(tmp_path):
    path = tmp_path / "8h.h5ad"
    with h5py.File(path, "w") as file:
        file["cells"] = np.zeros(3)
    with expect(ValueError, "to hold X, obs and var", "['cells']"):
        read_cellot_4i(path)


def test_no_drug(written):
    raw = screen()
    raw.obs = raw.obs.rename(columns={"drug": "treatment"})
    with expect(ValueError, "a column 'drug'", "'treatment', 'plate'"):
        read_cellot_4i(written(raw))


def test_missing_drug(written):
    drug = pd.Categorical(["control", "cisplatin", None, "control", "cisplatin"])
    with expect(ValueError, "1 of 5 missing"):
        read_cellot_4i(written(screen(drug=drug)))


@pytest.mark.parametrize("drugs", [["dmso", "cisplatin"], ["control", "control"]])
def test_no_control_or_only_control(written, drugs):
    with expect(ValueError, "to hold 'control' and at least one drug", drugs[0]):
        read_cellot_4i(written(screen(drug=[*drugs, *drugs, drugs[0]])))


def test_unknown_features(written, tmp_path):
    path = written(screen())
    with expect(ValueError, "none or several for ['ki67']", "intensity-Ki67"):
        read_cellot_4i(path, features=["ki67", "intensity-pERK"])
    with expect(FileNotFoundError, "`features` to be names or the path of a text file", "list.txt"):
        read_cellot_4i(path, features=tmp_path / "list.txt")
    for names in ([], ["intensity-pERK"] * 2):
        with expect(ValueError, "different names, at least one"):
            read_cellot_4i(path, features=names)


def test_long_lists_are_cut(written):
    raw = screen(**{f"column{k:02d}": range(5) for k in range(20)})
    raw.obs = raw.obs.drop(columns="drug")
    with expect(ValueError, "'column10'] and 9 more"):
        read_cellot_4i(written(raw))
