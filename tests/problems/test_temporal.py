"""The temporal problem, step by step; what ends up in AnnData is tested with `uc.tl.fit_trajectory`."""

import jax
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import uotcell as uc
from uotcell.problems import FittedPair, TemporalProblem
from uotcell.train import History

N_CELLS, N_DIMS = 24, 3
# Small enough that compiling is most of a fit; one setting, so that it compiles once.
QUICK = {"method": uc.methods.ICNN(hidden=(8, 8), n_inner=1), "n_iters": 4, "batch_size": 16, "progress": False}


@pytest.fixture
def adata():
    """Three time points of a cloud that drifts along the first axis, in random order."""
    rng = np.random.default_rng(0)
    day = rng.permutation(np.repeat([0.0, 1.0, 3.0], N_CELLS))
    cells = rng.normal(size=(len(day), N_DIMS)) + np.outer(day, [1.0, 0.0, 0.0])
    obs = pd.DataFrame({"day": day}, index=[f"cell{i}" for i in range(len(day))])
    return AnnData(cells.astype(np.float32), obs=obs, obsm={"X_pca": cells.astype(np.float32)})


@pytest.fixture
def solved(adata):
    return TemporalProblem(adata).prepare("day").solve(**QUICK)


def test_steps_return_the_problem_and_leave_the_data_alone(adata):
    problem = TemporalProblem(adata)
    assert problem.prepare("day") is problem
    assert problem.pairs == [(0.0, 1.0), (1.0, 3.0)]
    assert problem.solve(**QUICK) is problem
    assert (list(adata.obs), list(adata.obsm), list(adata.uns)) == (["day"], ["X_pca"], [])
    assert problem.write() is None
    assert "uot_push" in adata.obsm


def test_fitted_pair(adata, solved):
    pair = solved[1.0, 3.0]
    assert isinstance(pair, FittedPair)
    assert (pair.source, pair.target, pair.time_difference, pair.label) == (1.0, 3.0, 2.0, "1.0_3.0")
    np.testing.assert_array_equal(pair.source_rows, np.flatnonzero(adata.obs["day"] == 1.0))
    np.testing.assert_array_equal(pair.target_rows, np.flatnonzero(adata.obs["day"] == 3.0))
    assert isinstance(pair.coupling, uc.ot.UnbalancedCoupling)
    assert pair.coupling.tau == (0.95, 0.95)
    assert isinstance(pair.transport_map, uc.methods.TransportMap)
    assert isinstance(pair.history, History)
    coupling = uc.ot.solve_unbalanced(
        adata.obsm["X_pca"][pair.source_rows], adata.obsm["X_pca"][pair.target_rows], tau=0.95
    )
    np.testing.assert_array_equal(pair.coupling.source_weights, coupling.source_weights)
    np.testing.assert_array_equal(pair.coupling.target_weights, coupling.target_weights)


def test_metrics_of_a_pair(solved):
    pair = solved[0.0, 1.0]
    metrics = pair.metrics
    assert metrics["transported_mass"] == pytest.approx(np.asarray(pair.coupling.source_weights).sum(), rel=1e-5)
    for side, weights in (("source", pair.coupling.source_weights), ("target", pair.coupling.target_weights)):
        expected = uc.metrics.effective_sample_size(weights)
        assert metrics[f"{side}_effective_sample_size"] == pytest.approx(expected, rel=1e-6)
        assert 1 <= expected <= N_CELLS
    assert metrics["converged"] is True
    assert metrics["marginal_error"] <= 1e-3
    assert metrics["epsilon"] == 0.01
    np.testing.assert_allclose(metrics["tau"], 0.95)
    np.testing.assert_allclose(metrics["marginal_penalty"], 0.01 * 0.95 / 0.05)
    assert metrics["held_out_divergence"] == min(pair.history.valid_divergence)


def test_held_out_divergence_is_nan_without_a_split(adata):
    problem = TemporalProblem(adata).prepare("day", policy=[(0.0, 1.0)]).solve(**QUICK, valid_fraction=0.0)
    assert np.isnan(problem[0.0, 1.0].metrics["held_out_divergence"])


def test_labels_with_a_slash_name_no_group(adata):
    adata.obs["stage"] = ["stage/" + str(day) for day in adata.obs["day"]]
    problem = TemporalProblem(adata).prepare("stage", policy=[("stage/0.0", "stage/3.0")]).solve(**QUICK)
    problem.write()
    assert list(adata.uns["uot"]["history"]) == ["stage-0.0_stage-3.0"]
    assert adata.uns["uot"]["pairs"]["source"].tolist() == ["stage/0.0"]


def test_push_and_pull_of_arrays_and_anndata(adata, solved):
    unseen = np.random.default_rng(1).normal(loc=[1.0, 0.0, 0.0], size=(7, N_DIMS))
    other = AnnData(np.zeros((7, 1), np.float32), obsm={"X_pca": unseen})
    pair = solved[0.0, 1.0]
    for function, expected in ((solved.push, pair.transport_map.push), (solved.pull, pair.transport_map.pull)):
        moved = function(unseen, 0.0, 1.0)
        assert (moved.shape, moved.dtype) == (unseen.shape, np.float32)
        assert np.isfinite(moved).all()
        np.testing.assert_array_equal(moved, expected(unseen))
        np.testing.assert_array_equal(moved, function(other, 0.0, 1.0))
        np.testing.assert_array_equal(moved, function(unseen.tolist(), 0.0, 1.0))
    # At its start the map is that between the Gaussians of both sides, and the clouds differ by a shift.
    there_and_back = solved.pull(solved.push(unseen, 0.0, 1.0), 0.0, 1.0)
    assert np.linalg.norm(there_and_back - unseen) < 0.5 * np.linalg.norm(solved.push(unseen, 0.0, 1.0) - unseen)


@pytest.mark.parametrize("direction", ["push", "pull"])
@pytest.mark.parametrize("batch_size", [1, 5, 24, 1_000])
def test_chunks_change_nothing(adata, solved, direction, batch_size):
    cells, function = adata.obsm["X_pca"], getattr(solved, direction)
    chunked = function(cells, 1.0, 3.0, batch_size=batch_size)
    np.testing.assert_allclose(chunked, function(cells, 1.0, 3.0), atol=1e-5)


def test_key_and_seed_are_one_choice(adata):
    images = [
        TemporalProblem(adata).prepare("day").solve(**QUICK, rng=rng).push(adata, 0.0, 1.0)
        for rng in (3, jax.random.key(3), np.int64(3))
    ]
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[0], images[2])


def test_a_pair_does_not_depend_on_the_cells_of_others(adata, solved):
    alone = TemporalProblem(adata).prepare("day", policy=[(0.0, 1.0)]).solve(**QUICK)
    np.testing.assert_array_equal(alone.push(adata, 0.0, 1.0), solved.push(adata, 0.0, 1.0))


def test_unused_time_points_may_be_small(adata):
    few = adata[(adata.obs["day"] < 3) | (np.arange(adata.n_obs) < 20)].copy()
    assert 0 < (few.obs["day"] == 3).sum() < 10
    assert TemporalProblem(few).prepare("day", policy=[(0.0, 1.0)]).pairs == [(0.0, 1.0)]


def test_preparing_again_forgets_the_fit(solved):
    solved.prepare("day", policy="star")
    with pytest.raises(RuntimeError, match=r"Run `\.solve\(\.\.\.\)` first"):
        solved[0.0, 1.0]


def test_failed_solve_keeps_the_fit_before(solved):
    before = solved[0.0, 1.0]
    with pytest.raises(ValueError, match="tau"):
        solved.solve(**QUICK, tau=2.0)
    assert solved[0.0, 1.0] is before
    assert solved.params["tau"] == 0.95


@pytest.mark.parametrize(
    ("call", "step"),
    [
        (lambda problem: problem.solve(), "prepare"),
        (lambda problem: problem.write(), "solve"),
        (lambda problem: problem[0.0, 1.0], "solve"),
        (lambda problem: problem.push(np.zeros((1, N_DIMS)), 0.0, 1.0), "solve"),
    ],
    ids=["solve", "write", "getitem", "push"],
)
def test_steps_out_of_order_name_the_missing_one(adata, call, step):
    with pytest.raises(RuntimeError, match=rf"Run `\.{step}\(\.\.\.\)` first"):
        call(TemporalProblem(adata))


@pytest.mark.parametrize("pair", [(0.0, 3.0), (1.0, 0.0), ("0.0", "1.0")])
def test_unknown_pairs_are_refused(solved, pair):
    with pytest.raises(KeyError, match=r"one of the pairs \[\(0\.0, 1\.0\), \(1\.0, 3\.0\)\], found"):
        solved[pair]
    with pytest.raises(KeyError, match="one of the pairs"):
        solved.push(np.zeros((1, N_DIMS)), *pair)


def test_cells_unlike_those_of_the_fit_are_refused(adata, solved):
    with pytest.raises(ValueError, match=r"shape \(n, 3\), as in the fit, found \(2, 4\)"):
        solved.push(np.zeros((2, 4)), 0.0, 1.0)
    with pytest.raises(KeyError, match=r"`use_rep`.*found 'X_pca'"):
        solved.push(AnnData(np.zeros((2, 4), np.float32)), 0.0, 1.0)
    with pytest.raises(ValueError, match="`batch_size` to be at least 1, found 0"):
        solved.pull(adata, 0.0, 1.0, batch_size=0)
    broken = adata.copy()
    broken.obsm["X_pca"][5] = np.nan
    with pytest.raises(ValueError, match="first: 'cell5'"):
        solved.push(broken, 0.0, 1.0)


def test_images_that_overflow_are_not_written(adata, solved, monkeypatch):
    keys = [*adata.obs, *adata.obsm, *adata.uns]
    monkeypatch.setattr(uc.methods.TransportMap, "push", lambda self, x: np.full(x.shape, np.nan, np.float32))
    with pytest.raises(uc.ConvergenceError, match="finite images of all source cells"):
        solved.write()
    assert [*adata.obs, *adata.obsm, *adata.uns] == keys


def test_only_anndata_is_taken():
    with pytest.raises(TypeError, match="`adata` to be an AnnData, found ndarray"):
        TemporalProblem(np.zeros((30, 2)))


@pytest.mark.parametrize(
    ("growth", "message"),
    [
        (lambda day: np.where(day == 0, -1.0, 1.0), "found minimum -1, sum -24, 0 NaN"),
        (lambda day: np.where(day == 0, 0.0, 1.0), "found minimum 0, sum 0, 0 NaN"),
        (lambda day: np.where(day == 0, np.nan, 1.0), "found minimum inf, sum 0, 24 NaN"),
        (lambda day: np.where(day == 1, np.inf, 1.0), "found minimum inf, sum inf, 0 NaN"),
    ],
    ids=["negative", "zero", "missing", "infinite"],
)
def test_growth_that_is_no_mass_is_refused(adata, growth, message):
    adata.obs["growth"] = growth(adata.obs["day"].to_numpy())
    with pytest.raises(ValueError, match=rf"adata\.obs\['growth'\].*{message}.*exponentiate"):
        TemporalProblem(adata).prepare("day", growth_key="growth")


def test_growth_counts_for_sources_alone(adata):
    adata.obs["growth"] = np.where(adata.obs["day"] == 3, np.nan, 1.0)
    TemporalProblem(adata).prepare("day", growth_key="growth")


def test_growth_must_be_numeric(adata):
    adata.obs["growth"] = "fast"
    with pytest.raises(ValueError, match=r"adata\.obs\['growth'\]` to be numeric, found dtype"):
        TemporalProblem(adata).prepare("day", growth_key="growth")
