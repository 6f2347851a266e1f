"""Time courses at the edge of float32, from the cells to what is written, for a map and for a flow."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import uotcell as uc

METHODS = {
    "icnn": uc.methods.ICNN(hidden=(8,), n_inner=1),
    "flow_matching": uc.methods.FlowMatching(hidden=(8,), n_steps=2),
}
N, M = 60, 50
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 3)), RNG.normal(size=(M, 3)) * 1.2 + 1


def course(x=X, y=Y, growth=None):
    obs = pd.DataFrame({"day": np.r_[np.zeros(N), np.ones(M)]}, index=[f"cell{i}" for i in range(N + M)])
    obs["growth"] = 1.0 if growth is None else np.r_[growth, np.ones(M)]
    return AnnData(np.zeros((N + M, 1), np.float32), obs=obs, obsm={"X_pca": np.concatenate([x, y])})


def fit(adata, method, **kwargs):
    settings = {"epsilon": 0.05, "n_iters": 20, "batch_size": 16, "progress": False, **kwargs}
    return uc.tl.fit_trajectory(adata, "day", method=METHODS[method], **settings)


@pytest.fixture(scope="module", params=list(METHODS))
def plain(request):
    """A fit of ordinary cells, for comparison."""
    adata = course()
    return request.param, adata, fit(adata, request.param)


@pytest.mark.parametrize("factor", [1e-14, 1e-6, 1e8, 1e14])
def test_units_change_nothing(plain, factor):
    method, expected, problem = plain
    adata = course(X * factor, Y * factor)
    found = fit(adata, method)
    for slot in ("uot_push", "uot_velocity"):
        np.testing.assert_allclose(adata.obsm[slot] / factor, expected.obsm[slot], atol=1e-4)
    np.testing.assert_allclose(adata.obs["uot_source_weight"], expected.obs["uot_source_weight"], rtol=1e-4)
    np.testing.assert_allclose(found.pull(Y * factor, 0, 1) / factor, problem.pull(Y, 0, 1), atol=1e-4)
    metrics = [next(iter(a.uns["uot"]["metrics"].values())) for a in (adata, expected)]
    one, other = (pair["held_out_divergence"] for pair in metrics)
    assert one / factor**2 == pytest.approx(other, rel=1e-3)


def test_one_far_outlier_is_written_without_weight(plain):
    method, expected, _ = plain
    x = X.copy()
    x[7] += 1e6
    adata = course(x)
    fit(adata, method, scale_cost="median", valid_fraction=0.0)
    weight = adata.obs["uot_source_weight"].to_numpy()
    assert weight[7] == 0
    others = np.r_[np.arange(7), np.arange(8, N)]
    # Near what they are without it: the median cost is hardly moved.
    clean = expected.obs["uot_source_weight"].to_numpy()
    assert np.corrcoef(weight[others], clean[others])[0, 1] > 0.99
    assert np.isfinite(adata.obsm["uot_push"][:N]).all()
    assert np.abs(adata.obsm["uot_push"][others]).max() < 10


def test_an_outlier_that_must_be_moved_leaves_nothing_behind(plain):
    x = X.copy()
    x[7] += 1e6
    adata = course(x)
    with pytest.raises(ValueError, match=r"1 of `x` too far from the others .first: row 7"):
        fit(adata, plain[0], scale_cost="median", tau=1.0)
    assert list(adata.obsm) == ["X_pca"]
    assert list(adata.obs) == ["day", "growth"]
    assert not adata.uns


def test_cells_without_mass_are_written_with_weight_zero_and_an_image(plain):
    adata = course(growth=np.r_[np.zeros(10), np.ones(N - 10)])
    fit(adata, plain[0], growth_key="growth")
    assert np.all(adata.obs["uot_source_weight"].iloc[:10] == 0)
    assert np.isfinite(adata.obsm["uot_push"][:N]).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float16])
def test_any_number_type_is_written_as_float32(plain, dtype):
    adata = course((X * 10).astype(dtype), (Y * 10).astype(dtype))
    fit(adata, plain[0])
    assert adata.obsm["uot_push"].dtype == np.float32
    assert np.isfinite(adata.obsm["uot_push"][:N]).all()


def test_duplicated_cells_and_a_constant_feature_train(plain):
    twice = np.concatenate([X[: N // 2], X[: N // 2]])
    adata = course(np.c_[twice[:, :2], np.full(N, 1e6)], np.c_[Y[:, :2], np.full(M, 1e6)])
    fit(adata, plain[0])
    push = adata.obsm["uot_push"][:N]
    np.testing.assert_allclose(push[: N // 2], push[N // 2 :], atol=1e-5)
    np.testing.assert_allclose(push[:, 2], 1e6, atol=1.0)
