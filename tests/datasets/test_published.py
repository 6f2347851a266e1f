"""Published files become the layout of the package: values by hand, other files by their errors."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import published_files
import pytest
import scanpy as sc

from uotcell import datasets
from uotcell.datasets._published import choose_genes

READERS = ["pancreas", "sciplex2", "reprogramming_serum", "embryoid_body"]
H5AD = READERS[:3]


def test_pancreas_keeps_two_days(tmp_path):
    path = published_files.pancreas(tmp_path)
    raw, adata = ad.read_h5ad(path), datasets.pancreas(path)
    rows = raw.obs["day"].isin(["14.5", "15.5"]).to_numpy()
    assert adata.obs["day"].value_counts().to_dict() == {14.5: 14, 15.5: 16}
    assert list(adata.obs_names) == list(raw.obs_names[rows])
    assert list(adata.obs) == ["day", "cell_type", "cell_type_fine"]
    np.testing.assert_array_equal(adata.X.toarray(), raw.X[rows].toarray())
    for key in ("X_pca", "X_umap"):
        np.testing.assert_allclose(adata.obsm[key], raw.obsm[key][rows], rtol=1e-6)
    assert "PCs" not in adata.varm
    assert not adata.obsp
    expected = raw.obs["clusters_fig6_broad_final"][rows].astype(object).fillna("unknown")
    assert list(adata.obs["cell_type"]) == list(expected)
    assert adata.obs["cell_type"].iloc[-1] == "unknown"


def test_pancreas_in_the_format_of_2019(tmp_path):
    adata = datasets.pancreas(published_files.old_pancreas(tmp_path))
    assert list(adata.obs_names) == ["c2", "c3", "c6", "c7", "c10", "c11"]
    assert list(adata.obs["day"]) == [14.5, 15.5] * 3
    assert list(adata.obs["cell_type"]) == ["Beta", "Ductal"] * 3
    np.testing.assert_array_equal(adata.X.toarray(), published_files.counts(12).toarray()[[2, 3, 6, 7, 10, 11]])
    assert list(adata.obsm) == ["X_pca", "X_umap"]


def test_pancreas_days_are_chosen(tmp_path):
    path = published_files.pancreas(tmp_path)
    assert datasets.pancreas(path, days=None).n_obs == 47
    assert set(datasets.pancreas(path, days=[13.5]).obs["day"]) == {13.5}
    for days in ([16.5], [], [14.5, 16.5]):
        with pytest.raises(ValueError, match=r"Expected `days` to be some of \[12.5, 13.5, 14.5, 15.5\]"):
            datasets.pancreas(path, days=days)


def test_missing_components_are_computed(tmp_path):
    adata = datasets.pancreas(published_files.pancreas(tmp_path, with_pca=False))
    check_components(adata)


def check_components(adata):
    """By their formula, and by scanpy on the dense matrix with another solver."""
    used = adata.var["highly_variable"].to_numpy()
    loadings = adata.varm["PCs"]
    dense = adata.X.toarray().astype(np.float64)
    np.testing.assert_allclose(adata.var["mean"], dense.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(
        adata.obsm["X_pca"], (dense - adata.var["mean"].to_numpy()) @ loadings, atol=1e-4 * np.abs(dense).max()
    )
    assert not loadings[~used].any()
    peer = sc.pp.pca(dense[:, used], n_comps=3, svd_solver="full")
    for k in range(3):
        assert abs(np.corrcoef(peer[:, k], adata.obsm["X_pca"][:, k])[0, 1]) > 0.999


def test_sciplex2_conditions(tmp_path):
    path = published_files.sciplex2(tmp_path)
    raw, adata = ad.read_h5ad(path), datasets.sciplex2(path)
    assert adata.n_obs == raw.n_obs - 3
    obs = adata.obs
    assert list(obs["perturbation"].cat.categories) == ["control", "BMS", "Dex", "Nutlin", "SAHA"]
    assert obs["perturbation"].value_counts().to_dict() == {
        "control": 16,
        "BMS": 12,
        "Dex": 12,
        "Nutlin": 12,
        "SAHA": 12,
    }
    assert list(obs["condition"].cat.categories[:4]) == ["control", "BMS 0.1", "BMS 0.5", "BMS 100"]
    assert (obs["condition"].value_counts() == [16] + 12 * [4]).all()
    np.testing.assert_array_equal(obs["dose"] == 0, obs["perturbation"] == "control")
    assert obs.groupby("drug_series", observed=True).size().to_dict() == dict.fromkeys(
        ["BMS", "Dex", "Nutlin", "SAHA"], 16
    )
    assert set(obs["cell_type"]) == {"A549"}


def test_sciplex2_values(tmp_path):
    path = published_files.sciplex2(tmp_path)
    adata = datasets.sciplex2(path)
    counted = ad.read_h5ad(path)[adata.obs_names].X.toarray().astype(np.float64)
    np.testing.assert_allclose(
        adata.X.toarray(), np.log1p(1e4 * counted / counted.sum(axis=1, keepdims=True)), rtol=1e-5
    )
    check_components(adata)


def test_reprogramming_reads_what_it_needs(tmp_path):
    path = published_files.reprogramming_serum(tmp_path)
    raw, adata = ad.read_h5ad(path), datasets.reprogramming_serum(path)
    assert adata.obs["day"].value_counts().to_dict() == {10.0: 12, 10.5: 12, 11.0: 12, 18.0: 12}
    assert list(adata.obs["cell_type"]) == list(raw.obs["cell_sets"])
    np.testing.assert_array_equal(adata.X.toarray(), raw.X.toarray())
    np.testing.assert_allclose(adata.obsm["X_force_directed"], raw.obsm["X_force_directed"], rtol=1e-6)
    np.testing.assert_array_equal(adata.var["highly_variable"], raw.var["highly_variable"])
    assert not adata.obsp
    check_components(adata)


def test_reprogramming_days_are_chosen(tmp_path):
    path = published_files.reprogramming_serum(tmp_path)
    adata = datasets.reprogramming_serum(path, days=(18, 10.5))
    raw = ad.read_h5ad(path)
    rows = raw.obs["day"].isin(["10.5", "18.0"]).to_numpy()
    assert list(adata.obs_names) == list(raw.obs_names[rows])
    np.testing.assert_array_equal(adata.X.toarray(), raw.X[rows].toarray())
    with pytest.raises(ValueError, match=r"Expected `days` to be some of \[10.0, 10.5, 11.0, 18.0\].*found \[12\]"):
        datasets.reprogramming_serum(path, days=[12])


def test_reprogramming_dense_and_without_flags(tmp_path):
    adata = datasets.reprogramming_serum(published_files.reprogramming_serum(tmp_path, dense=True, flagged=False))
    assert adata.X.format == "csr"
    check_components(adata)


def test_embryoid_body_values(tmp_path):
    path = published_files.embryoid_body(tmp_path)
    adata = datasets.embryoid_body(path)
    with np.load(path) as raw:
        np.testing.assert_allclose(adata.obsm["X_pca"], raw["pcs"], rtol=1e-6)
        np.testing.assert_allclose(adata.obsm["velocity_pca"], raw["pcs_delta"], rtol=1e-6)
        np.testing.assert_allclose(adata.obsm["X_phate"], raw["phate"], rtol=1e-6)
        np.testing.assert_array_equal(adata.obs["time"], raw["sample_labels"])
    np.testing.assert_array_equal(adata.X, adata.obsm["X_pca"])
    assert not np.shares_memory(adata.X, adata.obsm["X_pca"])
    assert list(adata.var_names[:2]) == ["pc1", "pc2"]


def test_embryoid_body_needs_only_components_and_times(tmp_path):
    path = published_files.embryoid_body(tmp_path, phate=None, pcs_delta=None)
    assert set(datasets.embryoid_body(path).obsm) == {"X_pca"}


def test_variable_genes_are_those_of_scanpy(tmp_path):
    adata = datasets.sciplex2(published_files.sciplex2(tmp_path))
    assert adata.var["highly_variable"].all()  # 60 genes are few
    choose_genes(adata, n_genes=20)
    expected = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=20, inplace=False)["highly_variable"]
    np.testing.assert_array_equal(adata.var["highly_variable"], expected)
    assert expected.sum() == 20


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pcs": None}, r"to hold \['pcs'\], found \["),
        ({"sample_labels": None}, r"to hold \['sample_labels'\]"),
        ({"sample_labels": np.arange(9)}, r"'sample_labels' .* one row per cell, found shape \(9,\)"),
        ({"pcs": np.ones(50)}, r"'pcs' .* numbers of 2 dimensions"),
        ({"phate": np.full((50, 2), np.nan)}, "'phate' .* to be finite"),
        ({"sample_labels": np.array(["day"] * 50)}, "'sample_labels' .* dtype <U3"),
    ],
)
def test_other_arrays(tmp_path, arrays, message):
    path = published_files.embryoid_body(tmp_path, **arrays)
    with pytest.raises(ValueError, match=message):
        datasets.embryoid_body(path)


def test_nothing_is_unpickled(tmp_path):
    path = published_files.embryoid_body(tmp_path, pcs=np.array([{}] * 50, dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        datasets.embryoid_body(path)


@pytest.mark.parametrize("name", READERS)
def test_a_page_instead_of_the_file(name, tmp_path):
    path = tmp_path / "page"
    path.write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match=rf"Expected .*(HDF5|npz).*pass its path: uotcell\.datasets\.{name}\(path\)"):
        getattr(datasets, name)(path)


@pytest.mark.parametrize("name", H5AD)
def test_hdf5_of_another_kind(name, tmp_path):
    path = tmp_path / "other.h5ad"
    with h5py.File(path, "w") as file:
        file["cells"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"to hold X, obs and var, as h5ad files do, found \['cells'\]"):
        getattr(datasets, name)(path)


@pytest.mark.parametrize("name", H5AD)
def test_other_columns(name, tmp_path):
    adata = ad.AnnData(np.ones((3, 2), np.float32), obs=pd.DataFrame({"stage": ["a"] * 3}, index=list("abc")))
    path = published_files.write(adata, tmp_path / "other.h5ad")
    with pytest.raises(ValueError, match=r"to have columns \[.*found none called \[.*among \['stage'\]"):
        getattr(datasets, name)(path)


def test_days_that_are_no_numbers(tmp_path):
    path = published_files.pancreas(tmp_path)
    adata = ad.read_h5ad(path)
    adata.obs["day"] = "E14.5"
    with pytest.raises(ValueError, match=r".obs\['day'\] of .* to be numbers, found \['E14.5'\] in 47 of 47 cells"):
        datasets.pancreas(published_files.write(adata, path))


def test_doses_without_controls(tmp_path):
    path = published_files.sciplex2(tmp_path)
    adata = ad.read_h5ad(path)
    adata = adata[adata.obs["dose_value"] == "100"].copy()
    with pytest.raises(ValueError, match=r"to hold cells at dose 0 and above, found doses \[100\.\]"):
        datasets.sciplex2(published_files.write(adata, path))
