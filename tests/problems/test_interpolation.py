"""Positions at times between two time points, uncertainty and learned weights, as a time course gives them."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import uotcell as uc
from uotcell.methods import GENOT, ICNN, FlowMatching, MongeGap

SMALL = {"n_iters": 300, "batch_size": 128, "progress": False}
METHODS = {
    "flow_matching": FlowMatching(hidden=(32, 32)),
    "icnn": ICNN(hidden=(16,), n_inner=2),
    "genot": GENOT(hidden=(32, 32), n_samples=8),
    "monge_gap": MongeGap(hidden=(32,)),
}


def course(n=150, seed=0):
    """A cloud that moves by (2, 0) per day, measured at days 0, 1 and 3."""
    rng = np.random.default_rng(seed)
    days = np.repeat([0.0, 1.0, 3.0], n)
    cells = rng.normal(size=(3 * n, 2)) + days[:, None] * [2.0, 0.0]
    return ad.AnnData(obs=pd.DataFrame({"day": days}, index=[f"cell{i}" for i in range(3 * n)]), obsm={"X_pca": cells})


@pytest.fixture(scope="module", params=METHODS)
def solved(request):
    return uc.problems.TemporalProblem(course()).prepare("day").solve(METHODS[request.param], **SMALL)


def test_a_moving_cloud_is_found_on_its_way(solved):
    population = solved.interpolate(2.0)
    positions, weights = population.obsm["X_pca"], population.obs["weight"].to_numpy()
    assert positions.dtype == np.float32
    assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights @ positions, [4.0, 0.0], atol=0.4)
    if not solved[1.0, 3.0].transport_map.method.is_stochastic:  # whose mean images are contracted
        spread = np.sqrt(weights @ (positions - weights @ positions) ** 2)
        assert np.all((spread > 0.6) & (spread < 1.2))
    assert (population.obs["day"] == 2.0).all()


def test_cells_of_both_sides_where_there_is_an_inverse(solved):
    population = solved.interpolate(1.5)
    method = solved[1.0, 3.0].transport_map.method.name
    both = method in ("flow_matching", "icnn")
    assert population.n_obs == (300 if both else 150)
    assert population.obs_names.is_unique
    forward = population.obs["direction"] == "forward"
    assert (forward.sum(), (~forward).sum()) == (150, 150 if both else 0)
    assert population.obs.loc[forward, "weight"].sum() == pytest.approx(0.75 if both else 1.0)
    day = solved.adata.obs["day"]
    assert (day[population.obs.loc[forward, "origin"]] == 1.0).all()
    assert (day[population.obs.loc[~forward, "origin"]] == 3.0).all()


def test_at_a_measured_time_cells_stand_where_they_were(solved):
    population = solved.interpolate(0.0)
    rows = solved.adata.obs_names.get_indexer(population.obs["origin"])
    np.testing.assert_allclose(population.obsm["X_pca"], solved.adata.obsm["X_pca"][rows], atol=1e-5)


def test_times_out_of_reach(solved):
    for t in (-0.1, 3.5, np.nan):
        with pytest.raises(ValueError, match="`t` to be within one of the fitted pairs"):
            solved.interpolate(t)


def test_before_the_fit():
    with pytest.raises(RuntimeError, match=r"Run `\.solve"):
        uc.problems.TemporalProblem(course()).prepare("day").interpolate(0.5)


def test_the_shortest_of_several_pairs_counts():
    problem = uc.problems.TemporalProblem(course()).prepare("day", policy=[(0.0, 3.0), (0.0, 1.0)])
    problem.solve(METHODS["flow_matching"], **(SMALL | {"n_iters": 5}))
    origin = problem.interpolate(0.5).obs["origin"]
    assert set(problem.adata.obs["day"][origin]) == {0.0, 1.0}


def test_expression_stays_expression():
    adata = course()
    adata = ad.AnnData(adata.obsm["X_pca"].astype(np.float32), obs=adata.obs, var=pd.DataFrame(index=["g1", "g2"]))
    problem = uc.problems.TemporalProblem(adata).prepare("day", use_rep="X")
    population = problem.solve(METHODS["flow_matching"], **(SMALL | {"n_iters": 5})).interpolate(0.5)
    assert population.var_names.tolist() == ["g1", "g2"]
    assert population.shape == (300, 2)


def test_uncertainty_is_written_where_a_method_has_one(solved):
    adata = solved.adata
    solved.write("fit")
    is_stochastic = solved[0.0, 1.0].transport_map.method.is_stochastic
    assert ("fit_uncertainty" in adata.obs) == is_stochastic
    if is_stochastic:
        known = adata.obs["fit_uncertainty"].notna().to_numpy()
        np.testing.assert_array_equal(known, adata.obs["day"] < 3)
        assert adata.obs["fit_uncertainty"].dtype == np.float32
        assert (adata.obs["fit_uncertainty"][known] > 0).all()


def test_learned_weights_travel_with_the_map(tmp_path):
    adata = course()
    settings = {"method": METHODS["flow_matching"], "policy": [(0.0, 1.0)], "learn_rescaling": True}
    problem = uc.tl.fit_trajectory(adata, "day", **settings, **(SMALL | {"n_iters": 5}))
    fitted = problem[0.0, 1.0].transport_map
    fitted.save(tmp_path / "map")
    new = np.random.default_rng(5).normal(size=(200, 2))
    loaded = uc.methods.TransportMap.load(tmp_path / "map").rescaling.source_rescaling(new)
    expected = problem[0.0, 1.0].coupling.source_rescaling(new)
    assert np.corrcoef(loaded, expected)[0, 1] > 0.9
    assert bool(adata.uns["uot"]["params"]["learn_rescaling"]) is True
