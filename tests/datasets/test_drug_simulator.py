"""The simulated drug screen: true maps are Monge maps, survival has the real means, and cells are kept apart."""

import anndata as ad
import numpy as np
import pytest
from scipy import stats

import uotcell as uc
from uotcell.datasets import drug_responses, melanoma_4i, melanoma_4i_drug_counts, simulate_drug_screen

DRUGS = ["everolimus", "crizotinib", "sorafenib", "melphalan"]


@pytest.fixture(scope="module")
def responses():
    return drug_responses()


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    adata = melanoma_4i()
    return np.asarray(adata[adata.obs["hour"] == 8].X, np.float64)


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    return simulate_drug_screen()


def jacobian(push, x: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Central differences: entry (i, j) is the derivative of output j by input i."""
    moves = step * np.eye(len(x))
    return (push(x + moves) - push(x - moves)) / (2 * step)


def test_responses_cover_the_table(responses):
    counts = melanoma_4i_drug_counts()
    assert list(responses) == list(counts.index)
    assert all(response.name == name for name, response in responses.items())
    assert {len(response.mechanism.split()) for response in responses.values()} == {1, 2}


def test_maps_are_gradients_of_strictly_convex_functions(responses, cells):
    rng = np.random.default_rng(0)
    # Real cells, the farthest ones, and points far away: there the steps are flat and the stretch alone remains.
    far = np.argsort(((cells - cells.mean(axis=0)) ** 2).sum(axis=1))[-1:]
    points = np.concatenate([cells[rng.choice(len(cells), 2)], cells[far], 20 * rng.normal(size=(1, 50))])
    for response in responses.values():
        for x in points:
            slopes = jacobian(response.push, x)
            np.testing.assert_allclose(slopes, slopes.T, atol=1e-7)
            assert np.linalg.eigvalsh((slopes + slopes.T) / 2).min() > 0.39


def test_steepest_contraction_stays_monotone(responses):
    """The bound that holds everywhere: least stretch minus the largest slope of the falling step."""
    for response in responses.values():
        contraction = -response.heights.min() / (4 * response.lengths[response.heights.argmin()])
        assert np.linalg.eigvalsh(response.stretch).min() - contraction > 0.39
        np.testing.assert_allclose((response.ridges**2).sum(axis=1), 1)
        np.testing.assert_allclose(response.stretch, response.stretch.T)


def test_images_are_cheapest_in_pairs(responses, cells):
    """Cyclical monotonicity: swapping the images of two cells never shortens the way."""
    source = cells[:200]
    for response in responses.values():
        image = response.push(source)
        inner = source @ image.T
        gain = np.diag(inner)[:, None] + np.diag(inner)[None, :] - inner - inner.T
        assert gain[~np.eye(200, dtype=bool)].min() > 0


def test_mean_survival_is_the_real_ratio(responses, cells):
    ratios = melanoma_4i_drug_counts()["ratio_48h_to_8h"]
    for name, response in responses.items():
        survival = response.survival(cells)
        assert response.mean_survival == ratios[name]
        assert survival.mean() == pytest.approx(ratios[name], rel=1e-9)
        assert survival.min() >= 0
        assert survival.max() <= min(4, 4 * ratios[name])


def test_strength_follows_the_real_counts(responses, cells):
    moved = [np.linalg.norm((r.push(cells) - cells).mean(axis=0)) for r in responses.values()]
    selectivity = [np.std(r.survival(cells)) / r.mean_survival for r in responses.values()]
    ratios = melanoma_4i_drug_counts()["ratio_48h_to_8h"]
    assert stats.spearmanr(moved, -ratios)[0] > 0.9
    assert stats.spearmanr(selectivity, -ratios)[0] > 0.5
    assert max(moved) / min(moved) > 4
    # The scale is that of the real shift from 8 to 48 hours under one of these drugs.
    adata = melanoma_4i()
    shift = np.linalg.norm(adata[adata.obs["hour"] == 48].X.mean(axis=0) - cells.mean(axis=0))
    assert 0.75 * shift < moved[list(responses).index("trametinib_erlotinib")] < 1.25 * shift


def test_markers_move_as_their_mechanism_says(responses, cells):
    names = list(melanoma_4i().var_names)
    moved = (responses["trametinib"].push(cells) - cells).mean(axis=0)
    assert moved[names.index("Nuclei_Intensity_mean_Ki67")] < 0 < moved[names.index("Intensity_mean_MelA")]
    survival = responses["cisplatin"].survival(cells)
    assert stats.spearmanr(survival, cells[:, names.index("Nuclei_Intensity_mean_Ki67")])[0] < -0.5
    survival = responses["panobinostat"].survival(cells)
    assert stats.spearmanr(survival, cells[:, names.index("Intensity_mean_ClCasp3")])[0] < -0.5


def test_responses_depend_on_the_seed_alone(cells):
    first, again, other = (drug_responses(rng) for rng in (0, np.int64(0), 1))
    for name in DRUGS:
        np.testing.assert_array_equal(first[name].push(cells), again[name].push(cells))
        np.testing.assert_array_equal(first[name].survival(cells), again[name].survival(cells))
        assert np.abs(first[name].push(cells) - other[name].push(cells)).max() > 0.01
        assert np.abs(first[name].survival(cells) - other[name].survival(cells)).max() > 0.01


def test_responses_name_bad_cells(responses):
    response = responses["cisplatin"]
    for function in (response.push, response.survival):
        with pytest.raises(ValueError, match="the features of uotcell"):
            function(np.zeros((3, 49)))
        with pytest.raises(ValueError, match="Expected `x` to be finite"):
            function(np.full((3, 50), np.nan))


def test_layout(screen):
    names = list(melanoma_4i_drug_counts().index)
    assert screen.shape == (500 * 36, 50)
    assert list(screen.var_names) == list(melanoma_4i().var_names)
    assert list(screen.obs["drug"].cat.categories) == ["control", *names]
    assert (screen.obs["drug"].value_counts() == 500).all()
    assert screen.X.dtype == screen.layers["untreated"].dtype == np.float32
    assert np.isfinite(screen.X).all()
    assert list(screen.uns["simulation"]["drugs"]) == names
    np.testing.assert_array_equal(
        screen.uns["simulation"]["mean_survival"], melanoma_4i_drug_counts()["ratio_48h_to_8h"]
    )
    truth = screen.obsm["true_survival"]
    assert truth.shape == (500 * 36, 35)
    np.testing.assert_array_equal(np.isfinite(truth).all(axis=1), screen.obs["drug"] == "control")


def test_controls_are_real_cells_and_never_treated(screen):
    source = melanoma_4i()
    control = screen[screen.obs["drug"] == "control"]
    np.testing.assert_array_equal(control.X, source[control.obs["origin"].to_numpy()].X)
    assert control.obs["origin"].is_unique
    treated = screen[screen.obs["drug"] != "control"]
    assert not set(control.obs["origin"]) & set(treated.obs["origin"])
    assert (source.obs.loc[screen.obs["origin"], "hour"] == 8).all()
    np.testing.assert_array_equal(screen.layers["untreated"], source[screen.obs["origin"].to_numpy()].X)


def test_treated_cells_are_the_true_images_and_noise(screen, responses, cells):
    spread = np.sqrt(cells.var(axis=0).sum())
    for name in DRUGS:
        treated = screen[screen.obs["drug"] == name]
        error = treated.X - responses[name].push(treated.layers["untreated"])
        assert np.sqrt((error**2).sum(axis=1).mean()) == pytest.approx(0.1 * spread, rel=0.1)
        assert np.abs(error.mean(axis=0)).max() < 0.03 * spread


def test_stored_survival_is_the_true_one(screen, responses):
    control = screen[screen.obs["drug"] == "control"]
    for column, response in enumerate(responses.values()):
        np.testing.assert_allclose(control.obsm["true_survival"][:, column], response.survival(control.X), rtol=1e-4)


def test_survivors_are_another_population(screen, responses, cells):
    """Hidden cells are drawn by survival: the mean survival of drawn cells is E[s²]/E[s], well above E[s]."""
    for response in responses.values():
        drawn = screen[screen.obs["drug"] == response.name].layers["untreated"]
        survival = response.survival(cells)
        expected = (survival**2).mean() / survival.mean()
        assert response.survival(drawn).mean() == pytest.approx(expected, rel=0.12)
        assert expected > 1.15 * survival.mean()


def test_balanced_weights_are_flat_and_unbalanced_ones_follow_survival(screen, responses):
    """On four drugs that move cells less than they select them; the docstring says where this must fail."""
    control = np.asarray(screen[screen.obs["drug"] == "control"].X)
    for name in DRUGS:
        treated = np.asarray(screen[screen.obs["drug"] == name].X)
        weights = uc.ot.solve_unbalanced(control, treated, epsilon=0.05, tau=0.95).source_weights
        assert stats.spearmanr(weights, responses[name].survival(control))[0] > 0.8


def test_balanced_map_confuses_death_with_movement(screen, responses):
    name = "everolimus"
    control, treated = (np.asarray(screen[screen.obs["drug"] == label].X) for label in ("control", name))
    response = responses[name]
    survival = response.survival(control)
    share = survival / survival.sum()
    errors = []
    for tau in (1.0, 0.9):
        coupling = uc.ot.solve_unbalanced(control, treated, epsilon=0.05, tau=tau)
        errors.append(np.linalg.norm(share @ (coupling.push(control) - response.push(control))))
    assert errors[1] < 0.7 * errors[0]


def test_same_seed_same_cells(screen):
    small = {"n_control": 50, "n_treated": 20}
    first, again = (simulate_drug_screen(drugs=DRUGS, rng=3, **small) for _ in range(2))
    other = simulate_drug_screen(drugs=DRUGS, rng=4, **small)
    np.testing.assert_array_equal(first.X, again.X)
    assert first.obs.equals(again.obs)
    assert not np.array_equal(first.X, other.X)
    # A drug's cells are the same whatever is simulated beside it.
    alone = simulate_drug_screen(drugs=DRUGS[2:3], rng=3, **small)
    np.testing.assert_array_equal(alone[alone.obs["drug"] == DRUGS[2]].X, first[first.obs["drug"] == DRUGS[2]].X)
    np.testing.assert_array_equal(alone.X[:50], first.X[:50])


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_round_trip(store, tmp_path):
    adata = simulate_drug_screen(n_control=30, n_treated=20, drugs=DRUGS)
    path = tmp_path / f"screen.{store}"
    getattr(adata, f"write_{store}")(path)
    back = getattr(ad, f"read_{store}")(path)
    assert back.obs.equals(adata.obs)
    np.testing.assert_array_equal(back.X, adata.X)
    np.testing.assert_array_equal(back.layers["untreated"], adata.layers["untreated"])
    np.testing.assert_array_equal(back.obsm["true_survival"], adata.obsm["true_survival"])
    for key, value in adata.uns["simulation"].items():
        np.testing.assert_array_equal(back.uns["simulation"][key], value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_control": 0}, "`n_control` to be an integer from 1 to 981, half of the real cells, found 0"),
        ({"n_control": 982}, "found 982"),
        ({"n_treated": 1.5}, "`n_treated` to be a positive integer, found 1.5"),
        ({"n_treated": True}, "found True"),
        ({"rng": -1}, "`rng` to be a seed, an integer of at least 0, found -1"),
        ({"rng": 0.5}, "found 0.5"),
        ({"drugs": "cisplatin"}, "a sequence of names, found the string 'cisplatin'"),
        ({"drugs": ["aspirin"]}, r"out of \['cisplatin', .*found \['aspirin'\]"),
        ({"drugs": []}, "at least one"),
        ({"drugs": ["cisplatin", "cisplatin"]}, "different names"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_drug_screen(**arguments)
