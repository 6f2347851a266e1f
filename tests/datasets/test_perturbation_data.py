"""The shipped perturbation datasets against the numbers of their sources and against scikit-learn."""

from importlib.resources import files

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.decomposition import PCA

from uotcell import datasets

SHAPES = {"crispr_screens": (5961, 500), "melanoma_4i": (3441, 50), "glioblastoma": (1500, 300)}
N_COMPONENTS = {"crispr_screens": 50, "glioblastoma": 30}
DATA = files("uotcell.datasets") / "data"


@pytest.fixture(scope="module", params=list(SHAPES))
def adata(request: pytest.FixtureRequest) -> ad.AnnData:
    return getattr(datasets, request.param)()


@pytest.fixture(scope="module", params=list(N_COMPONENTS))
def expression(request: pytest.FixtureRequest) -> ad.AnnData:
    return getattr(datasets, request.param)()


@pytest.fixture(scope="module")
def screens() -> ad.AnnData:
    return datasets.crispr_screens()


def name_of(adata: ad.AnnData) -> str:
    return adata.uns["dataset"]["name"]


def dense(adata: ad.AnnData) -> np.ndarray:
    return np.asarray(adata.X.toarray() if sparse.issparse(adata.X) else adata.X, np.float64)


def test_layout(adata):
    assert adata.shape == SHAPES[name_of(adata)]
    assert adata.X.dtype == np.float32
    assert np.isfinite(dense(adata)).all()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    assert all(column.dtype in ("category", np.float64) for _, column in adata.obs.items())
    assert not adata.obs.isna().any(axis=None)
    for values in (*adata.obsm.values(), *adata.varm.values()):
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_describes_itself(adata):
    about = adata.uns["dataset"]
    assert {"name", "description", "citation", "source", "license", "perturbation_key"} <= set(about)
    assert all(isinstance(value, str) for value in about.values())
    keys = [value for name, value in about.items() if name.endswith("_key")]
    assert set(keys) <= set(adata.obs)
    assert about.get("control", adata.obs[about["perturbation_key"]].iloc[0]) in set(
        adata.obs[about["perturbation_key"]]
    )


def test_calls_return_independent_objects(adata):
    load = getattr(datasets, name_of(adata))
    first = load()
    (first.X.data if sparse.issparse(first.X) else first.X)[:] = 0
    first.uns["dataset"]["name"] = "changed"
    second = load()
    np.testing.assert_array_equal(dense(second), dense(adata))
    assert name_of(second) == name_of(adata)


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_round_trip(adata, store, tmp_path):
    path = tmp_path / f"copy.{store}"
    getattr(adata, f"write_{store}")(path)
    back = getattr(ad, f"read_{store}")(path)
    assert back.obs.equals(adata.obs)
    assert back.var.equals(adata.var)
    assert dict(back.uns["dataset"]) == dict(adata.uns["dataset"])
    np.testing.assert_array_equal(dense(back), dense(adata))
    assert set(back.obsm) == set(adata.obsm)


def test_pca_is_its_formula(expression):
    loadings, values = expression.varm["PCs"].astype(np.float64), dense(expression)
    n_components = N_COMPONENTS[name_of(expression)]
    assert loadings.shape == (expression.n_vars, n_components)
    assert expression.var["highly_variable"].all()
    np.testing.assert_allclose(expression.var["mean"], values.mean(axis=0), atol=1e-12)
    projected = (values - expression.var["mean"].to_numpy()) @ loadings
    np.testing.assert_allclose(expression.obsm["X_pca"], projected, atol=1e-4)
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(n_components), atol=1e-5)
    assert (loadings[np.abs(loadings).argmax(axis=0), np.arange(n_components)] > 0).all()


def test_pca_agrees_with_sklearn(expression):
    n_components = N_COMPONENTS[name_of(expression)]
    peer = PCA(n_components=n_components, svd_solver="covariance_eigh").fit(dense(expression))
    np.testing.assert_allclose(expression.obsm["X_pca"].var(axis=0, ddof=1), peer.explained_variance_, rtol=1e-4)
    scores = peer.transform(dense(expression))
    for k in range(5):
        assert abs(np.corrcoef(scores[:, k], expression.obsm["X_pca"][:, k])[0, 1]) > 0.999


def test_cells_per_line_and_perturbation(screens):
    obs = screens.obs
    lines = obs.groupby("cell_type", observed=True).size().to_dict()
    assert lines == {"A172": 850, "T98G": 871, "U87MG": 865, "k562": 3375}
    controls = obs[obs["perturbation"] == "control"].groupby("cell_type", observed=True).size()
    assert controls.to_dict() == dict.fromkeys(lines, 100)
    perturbed = obs[obs["perturbation"] != "control"]
    names = perturbed.groupby("cell_type", observed=True)["perturbation"].agg(lambda column: set(column))
    assert [len(names[line]) for line in lines] == [9, 9, 9, 33]
    assert sum("+" in name for name in names["k562"]) == 15
    assert names["A172"] <= names["k562"]
    kinds = obs.groupby(["dataset", "perturbation_type"], observed=True).size().to_dict()
    assert kinds == {("mcfaline23", "CRISPRi"): 2586, ("norman19", "CRISPRa"): 3375}


def test_components_hold_variation_within_lines(screens):
    """Nearly as much as the best 50 components of cells centred by line."""
    within = dense(screens)
    for line in screens.obs["cell_type"].cat.categories:
        rows = (screens.obs["cell_type"] == line).to_numpy()
        within[rows] -= within[rows].mean(axis=0)
    values = np.linalg.eigvalsh(within.T @ within)
    held = ((within @ screens.varm["PCs"]) ** 2).sum() / values.sum()
    assert held == pytest.approx(0.417, abs=1e-3)
    assert values[-50:].sum() / values.sum() == pytest.approx(0.419, abs=1e-3)


def test_melanoma_hours_and_features():
    adata = datasets.melanoma_4i()
    assert adata.obs["hour"].value_counts().to_dict() == {8.0: 1962, 48.0: 1479}
    assert set(adata.obs["drug"]) == {"trametinib_erlotinib"}
    assert set(adata.obs["drug"]) <= set(datasets.melanoma_4i_drug_counts().index)
    for stain in ("pERK", "Ki67", "ClCasp3", "Sox9", "MelA", "PCNA"):
        assert f"Nuclei_Intensity_mean_{stain}" in adata.var_names
        assert f"Intensity_mean_{stain}" in adata.var_names


def test_drug_counts():
    counts = datasets.melanoma_4i_drug_counts()
    assert counts.shape == (35, 3)
    assert counts.index.is_unique
    assert list(counts.dtypes) == [np.int64, np.float64, np.float64]
    assert counts["ratio_48h_to_8h"].min() == 0.053831
    assert counts["ratio_48h_to_8h"].max() == 2.205625
    pd.testing.assert_frame_equal(counts, datasets.melanoma_4i_drug_counts())


def test_glioblastoma_is_balanced():
    adata = datasets.glioblastoma()
    counts = adata.obs.groupby(["patient", "condition"], observed=True).size()
    assert len(counts) == 10
    assert (counts == 150).all()
    assert list(adata.obs["condition"].cat.categories) == ["control", "panobinostat"]
    assert adata.var["symbol"].is_unique
    assert all(name.startswith("ENSG") for name in adata.var_names)


def test_glioblastoma_transform():
    """Undoing the logarithm must give whole counts times one factor per cell: 0.2 / size factor."""
    values = dense(datasets.glioblastoma())[:50]
    scaled = np.expm1(values * np.sqrt(0.05))
    for cell in scaled:
        seen = cell[cell > 0]
        factor = seen.min()
        ratios = [seen * k / factor for k in range(1, 40)]
        assert min(np.abs(ratio - ratio.round()).max() / ratio.max() for ratio in ratios) < 1e-3


def test_shipped_files_are_small_and_licensed():
    limits = {"crispr_screens.h5ad": 1_600_000, "melanoma_4i.h5ad": 800_000, "glioblastoma.h5ad": 1_000_000}
    for name, limit in limits.items():
        assert len((DATA / name).read_bytes()) < limit
    licences = (DATA / "LICENSES.md").read_text(encoding="utf-8")
    holders = ["(c) 2024, Altos Labs", "(c) 2023 Matteo Pariset", "(c) 2023 lemur authors"]
    for text in [*limits, "melanoma_4i_drug_counts.csv", *holders]:
        assert text in licences
    assert licences.count("THE SOFTWARE IS PROVIDED") == 5
    assert licences.count("Redistributions of source code must retain") == 2
