"""The time courses shipped as embeddings against the numbers of their sources."""

from importlib.resources import files
from itertools import pairwise

import anndata as ad
import numpy as np
import pytest

import uotcell as uc
from uotcell import datasets

TIME_KEYS = {"emt": "time", "ipsc_cardio": "day"}
SHAPES = {"emt": (3133, 10), "ipsc_cardio": (1896, 4)}
# As counted in the published files.
CELLS_PER_TIME = {
    "emt": {0.0: 577, 1.0: 885, 2.0: 788, 3.0: 883},
    "ipsc_cardio": {0.0: 231, 1.0: 166, 1.5: 93, 2.0: 211, 2.5: 122, 3.0: 258, 4.0: 456, 5.0: 359},
}
# First and last cell as printed in the published files, first three axes, and their times.
CORNERS = {
    "emt": ([[0.8000637, 0.48150474, 0.3328521], [0.27875516, 0.38753277, 0.19505785]], [3.0, 0.0]),
    "ipsc_cardio": ([[0.59822404, -0.47641316, 0.93945533], None], [0.0, 5.0]),
}
DATA = files("uotcell.datasets") / "data"


@pytest.fixture(scope="module", params=list(SHAPES))
def adata(request: pytest.FixtureRequest) -> ad.AnnData:
    return getattr(datasets, request.param)()


def name_of(adata: ad.AnnData) -> str:
    return adata.uns["dataset"]["name"]


def test_cells_per_time(adata):
    assert adata.shape == SHAPES[name_of(adata)]
    key = TIME_KEYS[name_of(adata)]
    assert list(adata.obs) == [key]
    assert adata.obs[key].dtype == np.float64
    assert adata.obs[key].value_counts().to_dict() == CELLS_PER_TIME[name_of(adata)]


def test_layout(adata):
    embedding = adata.obsm["X_embedding"]
    assert list(adata.obsm) == ["X_embedding"]
    for values in (adata.X, embedding):
        assert isinstance(values, np.ndarray)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    np.testing.assert_array_equal(embedding, adata.X)
    assert not np.shares_memory(embedding, adata.X)
    assert adata.obs_names.is_unique
    assert list(adata.var_names) == [f"x{k + 1}" for k in range(adata.n_vars)]


def test_coordinates_are_those_published(adata):
    points, times = CORNERS[name_of(adata)]
    for row, point, time in zip((0, -1), points, times, strict=True):
        assert adata.obs[TIME_KEYS[name_of(adata)]].iloc[row] == time
        if point is not None:
            np.testing.assert_allclose(adata.X[row, :3], point, rtol=1e-6)


def test_axes_are_as_documented(adata):
    values = adata.obsm["X_embedding"].astype(np.float64)
    np.testing.assert_allclose(np.corrcoef(values, rowvar=False), np.eye(adata.n_vars), atol=1e-5)
    if name_of(adata) == "emt":
        np.testing.assert_array_equal([values.min(axis=0), values.max(axis=0)], [[0] * 10, [1] * 10])
    else:
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(np.ptp(values, axis=0), 3, rtol=1e-6)


def test_cells_move(adata):
    """Neighbouring times differ by more than two halves of one time."""
    times = adata.obs[TIME_KEYS[name_of(adata)]].to_numpy()
    values = adata.obsm["X_embedding"]
    labels = np.unique(times)
    for early, late in pairwise(labels):
        x, y = values[times == early], values[times == late]
        shuffled = np.random.default_rng(0).permutation(y)
        halves = uc.metrics.energy_distance(shuffled[::2], shuffled[1::2])
        assert uc.metrics.energy_distance(x, y) > 2 * halves


def test_describes_itself(adata):
    about = adata.uns["dataset"]
    assert set(about) == {"name", "description", "citation", "source", "license", "use_rep", "time_key"}
    assert all(isinstance(value, str) for value in about.values())
    assert about["time_key"] == TIME_KEYS[about["name"]]


def test_calls_return_independent_objects(adata):
    load = getattr(datasets, name_of(adata))
    first = load()
    first.X[:] = 0
    first.obsm["X_embedding"][:] = 0
    first.obs[TIME_KEYS[name_of(adata)]] = -1.0
    first.uns["dataset"]["name"] = "changed"
    second = load()
    np.testing.assert_array_equal(second.X, adata.X)
    np.testing.assert_array_equal(second.obsm["X_embedding"], adata.obsm["X_embedding"])
    assert second.obs.equals(adata.obs)
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
    np.testing.assert_array_equal(back.X, adata.X)
    np.testing.assert_array_equal(back.obsm["X_embedding"], adata.obsm["X_embedding"])


def test_can_be_prepared(adata):
    problem = uc.problems.TemporalProblem(adata).prepare(TIME_KEYS[name_of(adata)], use_rep="X_embedding")
    assert problem is not None


def test_shipped_files_are_small_and_licensed():
    licences = (DATA / "LICENSES.md").read_text(encoding="utf-8")
    for name in SHAPES:
        assert len((DATA / f"{name}.h5ad").read_bytes()) < 250_000
        assert f"## {name}.h5ad: licence of" in licences
    for holder in ("(c) 2025 Zhenyi Zhang", "Yutong Sha, Yuchi Qiu, Peijie Zhou and Qing Nie"):
        assert holder in licences
