"""The shipped datasets against the numbers of their sources and against scanpy and scikit-learn."""

from importlib.resources import files

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from uotcell import datasets

CELLS_PER_DAY = {
    "reprogramming": {10.0: 318, 10.5: 316, 11.0: 366},
    "hematopoiesis": {2.0: 34, 4.0: 316, 6.0: 431},
}
# As counted in the published files; for hematopoiesis also in cospar's tests/data/state_info.txt.
CELLS_PER_TYPE = {
    "reprogramming": {"Stromal": 424, "Epithelial": 217, "Trophoblast": 30, "unknown": 325, "IPS": 3, "Neural": 1},
    "hematopoiesis": {
        "undiff": 258,
        "Monocyte": 201,
        "Baso": 130,
        "Neutrophil": 107,
        "Mast": 43,
        "Meg": 18,
        "Erythroid": 8,
        "Lymphoid": 4,
        "pDC": 4,
        "Ccr7_DC": 3,
        "Eos": 3,
        "Neu_Mon": 2,
    },
}
SHAPES = {"reprogramming": (1000, 1479), "hematopoiesis": (781, 2481)}


@pytest.fixture(scope="module", params=["reprogramming", "hematopoiesis"])
def adata(request: pytest.FixtureRequest) -> ad.AnnData:
    return getattr(datasets, request.param)()


@pytest.fixture(scope="module")
def clones() -> ad.AnnData:
    return datasets.hematopoiesis()


def name_of(adata: ad.AnnData) -> str:
    return adata.uns["dataset"]["name"]


def used_genes(adata: ad.AnnData) -> np.ndarray:
    return adata.var["highly_variable"].to_numpy()


def test_cells_per_day_and_type(adata):
    assert adata.shape == SHAPES[name_of(adata)]
    assert adata.obs["day"].dtype == np.float64
    assert adata.obs["day"].value_counts().to_dict() == CELLS_PER_DAY[name_of(adata)]
    assert adata.obs["cell_type"].value_counts().to_dict() == CELLS_PER_TYPE[name_of(adata)]
    assert "state" not in adata.obs


def test_layout(adata):
    n_cells, n_genes = adata.shape
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert all(isinstance(name, str) for name in adata.obs_names)
    assert sparse.issparse(adata.X)
    assert (adata.X.format, adata.X.dtype) == ("csr", np.float32)
    assert all(column.dtype in ("category", np.float64) for _, column in adata.obs.items())
    assert adata.var["highly_variable"].dtype == bool
    slots = [("varm", "PCs", (n_genes, 30)), ("obsm", "X_pca", (n_cells, 30)), ("obsm", "X_umap", (n_cells, 2))]
    if name_of(adata) == "hematopoiesis":
        slots.append(("obsm", "X_spring", (n_cells, 2)))
    for slot, key, shape in slots:
        values = getattr(adata, slot)[key]
        assert (values.shape, values.dtype) == (shape, np.float32)
        assert np.isfinite(values).all()


def test_describes_itself(adata):
    about = adata.uns["dataset"]
    assert set(about) == {
        "name",
        "description",
        "citation",
        "source",
        "license",
        "use_rep",
        "time_key",
        "cell_type_key",
    }
    assert all(isinstance(value, str) for value in about.values())
    assert about["time_key"] in adata.obs
    assert about["cell_type_key"] in adata.obs


def test_expression_is_log_of_counts_per_10000(adata):
    assert adata.X.min() >= 0
    assert adata.X.max() < np.log1p(10_000)
    totals = np.expm1(adata.X.toarray().astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(totals, 10_000, rtol=1e-5)


def test_flagged_genes(adata):
    if name_of(adata) == "reprogramming":
        expected = np.asarray((adata.X > 0).sum(axis=0)).ravel() > 0
        assert expected.sum() == 1_108
    else:
        table = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=1_000, inplace=False)
        expected = table["highly_variable"].to_numpy()
        assert expected.sum() == 1_000
    np.testing.assert_array_equal(used_genes(adata), expected)


def test_pca_is_its_formula(adata):
    used = used_genes(adata)
    loadings = adata.varm["PCs"]
    expression = adata.X.toarray().astype(np.float64)
    np.testing.assert_allclose(adata.var["mean"], expression.mean(axis=0), atol=1e-12)
    projected = (expression[:, used] - adata.var["mean"].to_numpy()[used]) @ loadings[used]
    np.testing.assert_allclose(adata.obsm["X_pca"], projected, atol=1e-4)
    assert not loadings[~used].any()
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(30), atol=1e-5)


def test_pca_is_centred_ordered_and_signed(adata):
    scores = adata.obsm["X_pca"].astype(np.float64)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)
    covariance = np.cov(scores, rowvar=False)
    variance = np.diag(covariance)
    assert (np.diff(variance) < 0).all()
    np.testing.assert_allclose(covariance - np.diag(variance), 0, atol=1e-4 * variance[0])
    loadings = adata.varm["PCs"]
    assert (loadings[np.abs(loadings).argmax(axis=0), np.arange(30)] > 0).all()


def test_pca_agrees_with_sklearn(adata):
    expression = adata.X.toarray().astype(np.float64)[:, used_genes(adata)]
    peer = PCA(n_components=30, svd_solver="full").fit(expression)
    np.testing.assert_allclose(adata.obsm["X_pca"].var(axis=0, ddof=1), peer.explained_variance_, rtol=1e-4)
    scores = peer.transform(expression)
    for k in range(5):
        assert abs(np.corrcoef(scores[:, k], adata.obsm["X_pca"][:, k])[0, 1]) > 0.999


def test_pca_agrees_with_scanpy(adata):
    peer = ad.AnnData(adata.X.copy(), var=adata.var[["highly_variable"]].copy())
    sc.pp.pca(peer, n_comps=10, mask_var="highly_variable", svd_solver="arpack")
    for k in range(5):
        assert abs(np.corrcoef(peer.obsm["X_pca"][:, k], adata.obsm["X_pca"][:, k])[0, 1]) > 0.999


def test_umap_keeps_neighbours(adata):
    """Far above a layout with the same points in another order, which scores one half."""
    scores, layout = adata.obsm["X_pca"], adata.obsm["X_umap"]
    shuffled = np.random.default_rng(0).permutation(layout)
    assert trustworthiness(scores, layout, n_neighbors=15) > 0.8
    assert trustworthiness(scores, shuffled, n_neighbors=15) < 0.55


def test_every_cell_carries_one_barcode(clones):
    barcodes = clones.obsm["X_clone"]
    assert sparse.issparse(barcodes)
    assert (barcodes.format, barcodes.dtype, barcodes.shape) == ("csr", np.float32, (781, 339))
    assert (barcodes.data == 1).all()
    np.testing.assert_array_equal(np.diff(barcodes.indptr), 1)
    assert len(np.unique(barcodes.indices)) == 339


def test_clones_seen_on_two_days(clones):
    carried = clones.obsm["X_clone"].indices
    on_day = {day: carried[clones.obs["day"] == day] for day in (2.0, 4.0, 6.0)}
    assert {day: len(set(seen)) for day, seen in on_day.items()} == {2.0: 32, 4.0: 213, 6.0: 228}
    both = set(on_day[4.0]) & set(on_day[6.0])
    assert len(both) == 113
    assert [int(np.isin(on_day[day], list(both)).sum()) for day in (4.0, 6.0)] == [180, 247]
    assert len(both & set(on_day[2.0])) == 8


def test_lane_is_in_the_name_of_the_cell():
    adata = datasets.reprogramming()
    lane = adata.obs["lane"]
    names = [f"D{day:g}_serum_{label}_" for day, label in zip(adata.obs["day"], lane, strict=True)]
    assert all(name.startswith(start) for name, start in zip(adata.obs_names, names, strict=True))
    counts = adata.obs.groupby("day", observed=True)["lane"].value_counts().sort_index().to_list()
    assert list(lane.cat.categories) == ["C1", "C2"]
    assert counts == [193, 125, 162, 154, 203, 163]
    assert "batch" not in adata.obs


def test_calls_return_independent_objects(adata):
    load = getattr(datasets, name_of(adata))
    first = load()
    first.obsm["X_pca"][:] = 0
    first.X.data[:] = 0
    first.obs["day"] = 0.0
    first.uns["dataset"]["name"] = "changed"
    second = load()
    np.testing.assert_array_equal(second.obsm["X_pca"], adata.obsm["X_pca"])
    np.testing.assert_array_equal(second.X.data, adata.X.data)
    assert (second.obs["day"] > 0).all()
    assert name_of(second) == name_of(adata)
    assert not second.isbacked


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_round_trip(adata, store, tmp_path):
    path = tmp_path / f"copy.{store}"
    getattr(adata, f"write_{store}")(path)
    back = getattr(ad, f"read_{store}")(path)
    assert back.obs.equals(adata.obs)
    assert back.var.equals(adata.var)
    assert dict(back.uns["dataset"]) == dict(adata.uns["dataset"])
    assert (back.X != adata.X).nnz == 0
    assert set(back.obsm) == set(adata.obsm)
    for key, values in [*adata.obsm.items(), ("PCs", adata.varm["PCs"])]:
        other = back.varm[key] if key == "PCs" else back.obsm[key]
        assert other.dtype == values.dtype
        if sparse.issparse(values):
            values, other = values.toarray(), other.toarray()
        np.testing.assert_array_equal(other, values)


def test_shipped_files_are_small_and_licensed():
    data = files("uotcell.datasets") / "data"
    shipped = [f"{name}.h5ad" for name in CELLS_PER_DAY]
    assert sum(len((data / name).read_bytes()) for name in shipped) < 3_000_000
    licences = (data / "LICENSES.md").read_text(encoding="utf-8")
    for text in [*shipped, "Copyright (c) 2022, Theis Lab", "Copyright (c) 2020 Shou-Wen Wang"]:
        assert text in licences
