"""Time points left out: what is compared, against whom, and that the left-out cells stay out."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import uotcell as uc
from uotcell.benchmark._interpolation import left_out_points, without_time_point
from uotcell.methods import FlowMatching

SMALL = {"methods": {"flow": FlowMatching(hidden=(32, 32))}, "n_iters": 400, "batch_size": 128, "progress": False}
NAMES = [
    "earlier point", "later point", "random coupling", "random coupling with growth", "entropic OT", "entropic UOT",
    "flow OT", "flow UOT", "noise floor",
]  # fmt: skip


def course(n=120, n_genes=4, seed=0):
    """Two groups that move apart: at random, half of all pairs would cross."""
    rng = np.random.default_rng(seed)
    days = np.repeat([0.0, 1.0, 2.0], n)
    group = np.tile([-1.0, 1.0], 3 * n // 2)
    cells = 0.25 * rng.normal(size=(3 * n, n_genes))
    cells[:, 0] += group * (0.5 + 0.5 * days)
    cells[:, 1] += 2 * days
    obs = pd.DataFrame({"day": days, "growth": np.where(group > 0, 2.0, 1.0)}, index=[f"cell{i}" for i in range(3 * n)])
    return ad.AnnData(cells.astype(np.float32), obs=obs, obsm={"X_rep": cells})


@pytest.fixture(scope="module")
def adata():
    return course()


@pytest.fixture(scope="module")
def table(adata):
    return uc.tl.evaluate_interpolation(adata, "day", use_rep="X_rep", seeds=(3, 4), **SMALL)


def test_rows_and_slot(adata, table):
    assert table["prediction"].unique().tolist() == NAMES
    assert len(table) == 2 * len(NAMES)
    assert set(table["time"]) == {1.0}
    slot = adata.uns["uot_interpolation"]
    np.testing.assert_array_equal(slot["wasserstein"], table["wasserstein"])
    assert slot["params"]["methods"]["flow"]["name"] == "flow_matching"
    assert slot["params"]["seeds"].tolist() == [3, 4]


def test_what_should_be_close_is_close(table):
    # W1 keeps the distance between two samples of one population, which all predictions share; the divergence does not.
    for metric, ratio in (("wasserstein", 0.9), ("sinkhorn_divergence", 0.5)):
        score = table.groupby("prediction")[metric].mean()
        for name in ("flow UOT", "entropic UOT"):
            assert score[name] < ratio * score["random coupling"]
            assert score[name] < ratio * score["earlier point"]
            assert score[name] < ratio * score["later point"]
    # The middle of a group's way is where its cells were: 2 from either end along the second axis, 0.5 along the first.
    ends = table.set_index("prediction")["wasserstein"][["earlier point", "later point"]]
    np.testing.assert_allclose(ends, np.sqrt(4.25), rtol=0.03)


def test_the_same_seed_gives_the_same_table(adata, table):
    again = uc.tl.evaluate_interpolation(adata.copy(), "day", use_rep="X_rep", seeds=[4], **SMALL)
    expected = table[table["seed"] == 4].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, expected)


def test_growth_weighs_sources(adata):
    (point,) = left_out_points(adata, "day", "X_rep", None, 5, None, "growth")
    assert point.mass.sum() == pytest.approx(1.0)
    grows = (adata.obs["growth"] == 2)[adata.obs["day"] == 0].to_numpy()
    assert point.mass[grows].sum() == pytest.approx(2 / 3)
    assert point.share == 0.5


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_components_have_not_seen_the_left_out_cells(adata, kind):
    left_out = (adata.obs["day"] == 1.0).to_numpy()
    matrix = adata.X.copy()
    scores = without_time_point(kind(matrix), left_out, 3)
    matrix[left_out] *= 100
    other = without_time_point(kind(matrix), left_out, 3)
    np.testing.assert_allclose(other[~left_out], scores[~left_out], atol=1e-4)
    assert scores.shape == (len(matrix), 3)
    centred = adata.X - adata.X[~left_out].mean(axis=0)
    axes = np.linalg.svd(centred[~left_out], full_matrices=False)[2][:3]
    np.testing.assert_allclose(np.abs(scores), np.abs(centred @ axes.T), atol=1e-3)


def test_components_are_the_default(adata):
    table = uc.tl.evaluate_interpolation(adata.copy(), "day", n_comps=2, seeds=1, tau=1.0, **(SMALL | {"n_iters": 5}))
    assert "flow OT" in set(table["prediction"])
    assert "flow UOT" not in set(table["prediction"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"time_key": "hour"}, KeyError, "`time_key` to be a column"),
        ({"growth_key": "rate"}, KeyError, "`growth_key` to be a column"),
        ({"use_rep": "X_umap"}, KeyError, "`use_rep` to be"),
        ({"time_points": [0.0]}, ValueError, r"`time_points` among the interior ones \[1.0\], found \[0.0\]"),
        ({"methods": "unknown"}, ValueError, "`method` to be one of"),
        ({"seeds": 0}, ValueError, "positive number of seeds"),
        ({"n_comps": 0, "use_rep": None}, ValueError, "`n_comps` to be a positive integer"),
        ({"tau": 0.9, "marginal_penalty": 1.0}, ValueError, "found both"),
        ({"key_added": ""}, ValueError, "`key_added`"),
        ({"fit_options": {"no_such": 1}}, TypeError, "no_such"),
    ],
)
def test_bad_input_writes_nothing(options, error, message):
    adata = course(n=20)
    settings = {"time_key": "day", "use_rep": "X_rep", "seeds": 1, **SMALL, "n_iters": 2} | options
    with pytest.raises(error, match=message):
        uc.tl.evaluate_interpolation(adata, settings.pop("time_key"), **settings)
    assert not adata.uns


def test_two_time_points_are_too_few(adata):
    with pytest.raises(ValueError, match="at least three time points"):
        uc.tl.evaluate_interpolation(adata[adata.obs["day"] < 2].copy(), "day", use_rep="X_rep", **SMALL)
