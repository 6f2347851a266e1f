"""Transport between modalities: what is written, what it finds, and bad input."""

import warnings

import anndata as ad
import mudata
import numpy as np
import pytest

import uotcell as uc
from uotcell.methods import GENOT
from uotcell.metrics import foscttm

SMALL = {"method": GENOT(hidden=(64, 64), n_samples=8), "anchors": 150, "n_iters": 400, "progress": False}


@pytest.fixture(scope="module")
def sides():
    """The same cells twice: as they are, and rotated into two more dimensions, in another order."""
    cells = uc.datasets.emt()[::10].copy()
    rng = np.random.default_rng(0)
    y = cells.obsm["X_embedding"].astype(float)
    rotation = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    order = rng.permutation(len(y))
    x = (np.c_[y, np.zeros((len(y), 2))] @ rotation)[order]
    noise = 0.1 * y[:, :2].std(axis=0)
    common = y[order, :2] + noise * rng.normal(size=(len(y), 2))
    source = ad.AnnData(obs=cells.obs.iloc[order], obsm={"X_a": x, "X_common": common})
    target = ad.AnnData(obs=cells.obs.copy(), obsm={"X_b": y, "X_common": y[:, :2]})
    return source, target, order


def multimodal(sides):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # mudata 0.3 announces what 0.4 does
        return mudata.MuData({"rna": sides[0].copy(), "atac": sides[1].copy()})


@pytest.fixture(scope="module")
def quadratic(sides):
    source, target = sides[0].copy(), sides[1].copy()
    return uc.tl.fit_translation(source, target, use_rep=("X_a", "X_b"), tau=0.99, **SMALL), source, target


@pytest.fixture(scope="module")
def fused(sides):
    mdata = multimodal(sides)
    problem = uc.tl.fit_translation(
        mdata, modalities=("rna", "atac"), use_rep=("X_a", "X_b"), shared_rep="X_common", learn_rescaling=True, **SMALL
    )
    return problem, mdata


def test_rotated_cells_find_themselves(quadratic, sides):
    _, source, target = quadratic
    truth = target.obsm["X_b"][sides[2]]
    assert foscttm(source.obsm["uot_push"], truth) <= 0.15


def test_shared_features_help(fused, sides):
    _, mdata = fused
    truth = sides[1].obsm["X_b"][sides[2]]
    assert foscttm(mdata.mod["rna"].obsm["uot_push"], truth) <= 0.05


def test_slots(quadratic, tmp_path):
    problem, source, target = quadratic
    n = source.n_obs
    assert source.obsm["uot_push"].shape == (n, 10)
    assert source.obsm["uot_push"].dtype == np.float32
    for name in ("uot_uncertainty", "uot_source_weight"):
        assert source.obs[name].dtype == np.float32
        assert (source.obs[name] > 0).all()
    mass = problem.pair.coupling.transported_mass
    assert source.obs["uot_source_weight"].mean() == pytest.approx(mass, rel=1e-4)
    assert target.obs["uot_target_weight"].mean() == pytest.approx(mass, rel=1e-4)
    assert set(source.uns["uot"]) == {"params", "history", "metrics"}
    assert "identity" not in source.uns["uot"]["history"]["baseline"]
    assert set(target.obsm) == {"X_b", "X_common"}
    source.write_h5ad(tmp_path / "x.h5ad")
    again = ad.read_h5ad(tmp_path / "x.h5ad")
    assert again.uns["uot"]["params"]["use_rep"].tolist() == ["X_a", "X_b"]


def test_unseen_cells_as_annotated_data_and_as_arrays(quadratic, fused, sides):
    source = sides[0]
    problem = quadratic[0]
    np.testing.assert_array_equal(problem.push(source[:50].copy()), problem.push(source.obsm["X_a"][:50]))
    problem, mdata = fused
    both = np.c_[source.obsm["X_a"], source.obsm["X_common"]]
    np.testing.assert_allclose(problem.push(both), mdata.mod["rna"].obsm["uot_push"], atol=1e-5)
    draws = problem.sample(both[:20], 400, rng=1)
    assert draws.shape == (400, 20, 10)
    error = np.abs(draws.mean(axis=0) - problem.push(both[:20]))
    assert error.max() < 6 * draws.std(axis=0).max() / np.sqrt(8)
    assert problem.pair.transport_map.rescaling is not None


def test_the_same_seed_gives_the_same_bits(sides):
    settings = SMALL | {"n_iters": 20, "anchors": 60}
    pushes = []
    for seed in (0, 0, 1):
        source, target = sides[0].copy(), sides[1].copy()
        uc.tl.fit_translation(source, target, use_rep=("X_a", "X_b"), rng=seed, **settings)
        pushes.append(source.obsm["uot_push"])
    np.testing.assert_array_equal(pushes[0], pushes[1])
    assert np.abs(pushes[0] - pushes[2]).max() > 1e-3


def test_distances_along_the_data(sides):
    source, target = sides[0].copy(), sides[1].copy()
    problem = uc.tl.fit_translation(
        source, target, use_rep=("X_a", "X_b"), cost=(uc.ot.Geodesic(n_neighbors=20), "geodesic"), key_added="path",
        **(SMALL | {"n_iters": 200}),
    )  # fmt: skip
    assert foscttm(source.obsm["path_push"], target.obsm["X_b"][sides[2]]) <= 0.15
    assert source.uns["path"]["params"]["cost"]["0"]["n_neighbors"] == 20
    with pytest.raises(ValueError, match="geodesic one, which needs the graph"):
        problem.solve(**(SMALL | {"rescaling": "minibatch", "cost": "geodesic", "anchors": 100}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "icnn"}, ValueError, "maps between spaces"),
        ({"use_rep": "X_pca"}, KeyError, "`use_rep` to be 'X' or one of"),
        ({"use_rep": ("X_a", "X_b", "X_c")}, ValueError, "a tuple of two"),
        ({"shared_rep": ("X_common", None)}, ValueError, "both sides or for none"),
        ({"shared_rep": ("X_common", "X_b")}, ValueError, "one number of features, found 2 and 10"),
        ({"fused_weight": 0.5}, ValueError, "fused_weight"),
        ({"tau": 2.0}, ValueError, "`tau` to be in"),
        ({"key_added": "a/b"}, ValueError, "without a slash"),
        ({"modalities": ("rna", "atac")}, TypeError, "both of `adata_y` and `modalities`"),
    ],
)
def test_bad_input_leaves_both_as_they_were(sides, options, error, message):
    source, target = sides[0].copy(), sides[1].copy()
    settings = SMALL | {"n_iters": 5, "anchors": 50, "use_rep": ("X_a", "X_b")}
    with pytest.raises(error, match=message):
        uc.tl.fit_translation(source, target, **(settings | options))
    for side, original in ((source, sides[0]), (target, sides[1])):
        assert list(side.obs) == list(original.obs)
        assert set(side.obsm) == set(original.obsm)
        assert not side.uns


def test_bad_modalities(sides):
    mdata = multimodal(sides)
    with pytest.raises(KeyError, match="modality among"):
        uc.tl.fit_translation(mdata, modalities=("rna", "protein"))
    with pytest.raises(TypeError, match="to be a MuData, found AnnData"):
        uc.tl.fit_translation(sides[0], modalities=("rna", "protein"))
    with pytest.raises(TypeError, match="neither of"):
        uc.tl.fit_translation(mdata)
    with pytest.raises(RuntimeError, match=r"Run `\.solve"):
        uc.problems.TranslationProblem(sides[0], sides[1]).prepare(use_rep=("X_a", "X_b")).write()
