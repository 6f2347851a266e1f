"""Transition tables and scores: by hand, against a plain loop, on a real course, and through files."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from written_by_hand import write_fit

import uotcell as uc

# Four source cells, six target cells; images by hand, so that each lands on one side alone.
SOURCE = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
TARGET = np.array([[0.0, 9.0], [1.0, 9.0], [2.0, 9.0], [10.0, 9.0], [11.0, 9.0], [12.0, 9.0]])
IMAGES = np.array([[1.0, 9.0], [1.0, 9.0], [11.0, 9.0], [1.0, 9.0]])
WEIGHTS = np.array([1.0, 0.25, 0.75, 0.4])
SOURCE_TYPES, TARGET_TYPES = ["stem", "stem", "stem", "left"], ["left"] * 3 + ["right"] * 2 + ["left"]
ALLOWED = {"all": {"stem": ["right"], "left": ["left"]}, "stems": {"stem": ["left", "right"]}}


def by_hand(*, solve=False):
    obs = pd.DataFrame(
        {"day": np.repeat([1, 2], [4, 6]), "kind": SOURCE_TYPES + TARGET_TYPES}, index=[f"c{i}" for i in range(10)]
    )
    adata = ad.AnnData(obs=obs, obsm={"X_pca": np.concatenate([SOURCE, TARGET]).astype(np.float32)})
    source, _ = write_fit(adata, "day", (1, 2), IMAGES, solve=solve)
    weight = adata.obs["uot_source_weight"].to_numpy().copy()
    weight[source] = WEIGHTS
    adata.obs["uot_source_weight"] = weight
    return adata


def scores_of(adata, slot="uot_transitions"):
    return pd.DataFrame(adata.uns[slot]["scores"]).set_index(["lineage", "map"])


class TestByHand:
    def test_shares_of_mass(self):
        adata = by_hand()
        table = uc.tl.transitions(adata, "kind", n_neighbors=3)
        # Three stem cells: masses 1 and .25 land at the left; .75 lands two thirds right.
        expected = pd.DataFrame(
            [[1.0, 0.0], [(1.25 + 0.25) / 2, 0.5 / 2]],
            index=pd.Index(["left", "stem"], name="source"),
            columns=pd.Index(["left", "right"], name="target"),
        )
        pd.testing.assert_frame_equal(table, expected)
        slot = adata.uns["uot_transitions"]
        np.testing.assert_array_equal(slot["table"], table)
        assert (slot["rows"].tolist(), slot["columns"].tolist()) == (["left", "stem"], ["left", "right"])
        assert (slot["groupby"], slot["normalize"], slot["weighted"], slot["key"]) == ("kind", True, True, "uot")
        assert {side: labels.tolist() for side, labels in slot["pairs"].items()} == {"source": ["1"], "target": ["2"]}
        assert "scores" not in slot

    def test_masses(self):
        table = uc.tl.transitions(by_hand(), "kind", normalize=False, n_neighbors=3)
        np.testing.assert_allclose(table, [[0.1, 0.0], [1.5 / 4, 0.5 / 4]], rtol=1e-6)
        assert table.to_numpy().sum() == pytest.approx(WEIGHTS.mean())
        table = uc.tl.transitions(by_hand(), "kind", normalize=False, weighted=False, n_neighbors=3)
        np.testing.assert_allclose(table, [[1 / 4, 0.0], [(2 + 1 / 3) / 4, 2 / 3 / 4]])

    def test_order_of_categories(self):
        adata = by_hand()
        adata.obs["kind"] = pd.Categorical(adata.obs["kind"], categories=["stem", "right", "unused", "left"])
        table = uc.tl.transitions(adata, "kind")
        assert (list(table.index), list(table.columns)) == (["stem", "left"], ["right", "left"])

    def test_scores(self):
        adata = by_hand()
        uc.tl.transitions(adata, "kind", allowed=ALLOWED, controls=["shuffled"], n_neighbors=3, n_bootstrap=4_000)
        scores = scores_of(adata)
        # Right are two thirds of the third stem cell and the cell that stays left.
        assert scores.loc[("all", "fit"), "score"] == pytest.approx((0.5 + 0.4) / 2.4)
        assert scores.loc[("stems", "fit"), "score"] == 1.0
        assert scores["n_cells"].tolist() == [4, 4, 3, 3]
        assert scores.loc[("stems", "fit"), ["low", "high"]].tolist() == [1.0, 1.0]
        # Chance: two of six target cells are right, four left.
        base_rate = (2.0 * 2 / 6 + 0.4 * 4 / 6) / 2.4
        shuffled = scores.loc[("all", "shuffled")]
        assert shuffled["score"] == pytest.approx(base_rate, abs=0.01)
        assert shuffled["low"] < base_rate < shuffled["high"]

    def test_unweighted_scores(self):
        adata = by_hand()
        uc.tl.transitions(adata, "kind", allowed=ALLOWED, controls=[], n_neighbors=3, weighted=False)
        assert scores_of(adata).loc[("all", "fit"), "score"] == pytest.approx((2 / 3 + 1) / 4)

    def test_twin(self):
        adata = by_hand()
        write_fit(adata, "day", (1, 2), IMAGES[::-1], key="ot")
        uc.tl.transitions(adata, "kind", allowed=ALLOWED, twin="ot", controls=[], n_neighbors=3)
        scores = scores_of(adata)
        # Weights of its own, all one: the second stem cell lands right by two thirds, the left cell left.
        assert scores.loc[("all", "twin"), "score"] == pytest.approx((2 / 3 + 1) / 4)
        assert adata.uns["uot_transitions"]["twin"] == "ot"

    def test_nothing_is_transported(self):
        adata = by_hand()
        adata.obs.loc[adata.obs["kind"] == "stem", "uot_source_weight"] = 0.0
        table = uc.tl.transitions(adata, "kind", allowed=ALLOWED, controls=["shuffled"], n_bootstrap=20)
        assert table.loc["stem"].isna().all()
        assert table.loc["left"].sum() == 1.0
        assert scores_of(adata).loc["stems", ["score", "low", "high"]].isna().all().all()

    def test_a_type_that_may_go_nowhere(self):
        adata = by_hand()
        uc.tl.transitions(adata, "kind", allowed={"all": {"stem": []}}, controls=["shuffled"], n_bootstrap=5)
        assert scores_of(adata)["score"].tolist() == [0.0, 0.0]


def test_several_pairs_are_added_up():
    """Two days that each send half their cells ahead; each day's masses sum to what it transports."""
    day, side = np.repeat([0.0, 1.0, 2.0], 4), np.tile(["a", "a", "b", "b"], 3)
    cells = np.column_stack([np.where(side == "a", 0.0, 50.0) + np.tile(np.arange(4), 3), 100 * day])
    adata = ad.AnnData(
        obs=pd.DataFrame({"day": day, "kind": side}, index=[f"c{i}" for i in range(12)]), obsm={"X_pca": cells}
    )
    images = cells + np.array([0.0, 100.0])
    images[1, 0] += 50.0  # one of day 0 crosses over
    for pair in ((0.0, 1.0), (1.0, 2.0)):
        write_fit(adata, "day", pair, images[day == pair[0]], key=f"fit{pair[0]:.0f}")
    both, first, second = (adata.uns[key] for key in ("fit0", "fit0", "fit1"))
    both["pairs"] = {name: np.concatenate([first["pairs"][name], second["pairs"][name]]) for name in first["pairs"]}
    for slot, name in (("obsm", "push"), ("obsm", "velocity"), ("obs", "source_weight")):
        old, new = (np.asarray(getattr(adata, slot)[f"{key}_{name}"]) for key in ("fit0", "fit1"))
        getattr(adata, slot)[f"fit0_{name}"] = np.where(np.isnan(old), new, old)
    table = uc.tl.transitions(adata, "kind", key="fit0", n_neighbors=1)
    np.testing.assert_allclose(table, [[0.75, 0.25], [0.0, 1.0]])
    for pair, expected in (((0.0, 1.0), [[0.5, 0.5], [0.0, 1.0]]), ((1.0, 2.0), np.eye(2))):
        np.testing.assert_allclose(uc.tl.transitions(adata, "kind", key="fit0", pair=pair, n_neighbors=1), expected)
    assert uc.tl.transitions(adata, "kind", key="fit0", normalize=False).to_numpy().sum() == pytest.approx(2.0)


@pytest.fixture(scope="module")
def reprogramming():
    """Short real fits, unbalanced and balanced; they share one program."""
    adata = uc.datasets.reprogramming()
    settings = {"policy": [(10.5, 11.0)], "n_iters": 100, "batch_size": 128, "valid_fraction": 0.0, "progress": False}
    method = uc.methods.ICNN(hidden=(16,), n_inner=1)
    problem = uc.tl.fit_trajectory(adata, "day", method=method, tau=0.95, **settings)
    uc.tl.fit_trajectory(adata, "day", method=method, tau=1.0, key_added="ot", **settings)
    return adata, problem


FATES = {"somatic": {"Stromal": ["Stromal"], "Epithelial": ["Epithelial", "Trophoblast"]}}


class TestReprogramming:
    def test_plain_loop(self, reprogramming):
        adata, problem = reprogramming
        fitted = problem[10.5, 11.0]
        table = uc.tl.transitions(adata, "cell_type", normalize=False, n_neighbors=7)
        expected = pd.DataFrame(0.0, table.index, table.columns)
        types, cells = adata.obs["cell_type"].astype(str).to_numpy(), adata.obsm["X_pca"]
        weights = np.asarray(fitted.coupling.source_weights)
        for i, row in enumerate(fitted.source_rows):
            distance = np.linalg.norm(cells[fitted.target_rows] - adata.obsm["uot_push"][row], axis=1)
            for j in np.argsort(distance)[:7]:
                expected.loc[types[row], types[fitted.target_rows[j]]] += weights[i] / 7
        np.testing.assert_allclose(table, expected, atol=1e-6)
        assert table.to_numpy().sum() == pytest.approx(fitted.coupling.transported_mass, rel=1e-5)

    def test_entries_are_transition_shares(self, reprogramming):
        adata, problem = reprogramming
        fitted = problem[10.5, 11.0]
        table = uc.tl.transitions(adata, "cell_type")
        np.testing.assert_allclose(table.sum(axis=1), 1.0)
        source, target = adata[fitted.source_rows], adata[fitted.target_rows]
        for origin, destination in (("Epithelial", "Stromal"), ("Stromal", "Stromal"), ("unknown", "Trophoblast")):
            share = uc.metrics.transition_share(
                source.obsm["uot_push"], source.obs["cell_type"], target.obsm["X_pca"], target.obs["cell_type"], origin,
                destination, weights=source.obs["uot_source_weight"],
            )  # fmt: skip
            assert table.loc[origin, destination] == pytest.approx(share, rel=1e-5)

    def test_unbalanced_leaks_less(self, reprogramming):
        """Epithelial mass that lands nearest to stromal cells; docs/benchmarks.md has .037 and .125, entropic maps."""
        adata, leaks = reprogramming[0], {}
        for key in ("uot", "ot"):
            arguments = {"allowed": {"leak": {"Epithelial": ["Stromal"]}}, "n_neighbors": 1, "n_bootstrap": 20}
            table = uc.tl.transitions(adata, "cell_type", key=key, controls=["entropic"], **arguments, key_added="leak")
            leaks[key] = scores_of(adata, "leak").loc["leak", "score"]
            assert leaks[key]["fit"] == pytest.approx(table.loc["Epithelial", "Stromal"])
        assert leaks["uot"]["fit"] < 0.8 * leaks["ot"]["fit"]
        assert leaks["uot"]["entropic"] == pytest.approx(0.037, abs=5e-4)
        assert leaks["ot"]["entropic"] == pytest.approx(0.125, abs=5e-4)

    def test_scores_of_fit_twin_and_controls(self, reprogramming):
        adata, problem = reprogramming
        fitted = problem[10.5, 11.0]
        uc.tl.transitions(adata, "cell_type", allowed=FATES, twin="ot", n_bootstrap=300)
        scores = scores_of(adata).loc["somatic"]
        assert list(scores.index) == ["fit", "twin", "entropic", "shuffled"]
        assert scores.loc["fit", "score"] > scores.loc["twin", "score"]
        assert (scores["low"] <= scores["score"]).all()
        assert (scores["score"] <= scores["high"]).all()
        # The entropic map of the fit's own coupling.
        source = adata.obs["cell_type"].astype(str).to_numpy()[fitted.source_rows]
        target = adata.obs["cell_type"].astype(str).to_numpy()[fitted.target_rows]
        y, weights = adata.obsm["X_pca"][fitted.target_rows], np.asarray(fitted.coupling.source_weights, float)
        shares, labels = uc.metrics.landing_shares(
            fitted.coupling.push(fitted.coupling.x + fitted.coupling.shift), y, target
        )
        moves = FATES["somatic"]
        right = [shares[i] @ np.isin(labels, moves[kind]) if kind in moves else np.nan for i, kind in enumerate(source)]
        cells = np.isin(source, list(moves))
        expected = np.average(np.array(right)[cells], weights=weights[cells])
        assert scores.loc["entropic", "score"] == pytest.approx(expected, abs=1e-4)
        # Shuffled: what a target cell drawn at random would score.
        chance = {kind: np.isin(target, targets).mean() for kind, targets in moves.items()}
        base_rate = np.average([chance[kind] for kind in source[cells]], weights=weights[cells])
        assert scores.loc["shuffled", "score"] == pytest.approx(base_rate, abs=0.01)
        assert scores.loc["shuffled", "high"] < scores.loc["entropic", "low"]

    def test_seed_and_what_else_is_asked_for(self, reprogramming):
        adata, _ = reprogramming
        arguments = {"allowed": FATES, "n_bootstrap": 50}
        uc.tl.transitions(adata, "cell_type", **arguments, controls=["shuffled"], rng=3, key_added="some")
        uc.tl.transitions(adata, "cell_type", **arguments, twin="ot", rng=3, key_added="more")
        uc.tl.transitions(adata, "cell_type", **arguments, controls=["shuffled"], rng=4, key_added="other")
        some, more, other = (scores_of(adata, name) for name in ("some", "more", "other"))
        pd.testing.assert_frame_equal(some, more.loc[some.index])
        assert (some["low"] != other["low"]).any()


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_from_a_file_and_back(kind, tmp_path):
    adata = by_hand(solve=True)
    write_fit(adata, "day", (1, 2), IMAGES, key="ot")
    arguments = {"allowed": ALLOWED, "twin": "ot", "n_bootstrap": 20}
    table = uc.tl.transitions(adata, "kind", **arguments)
    getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
    read = getattr(ad, f"read_{kind}")(tmp_path / f"cells.{kind}")
    stored, expected = read.uns["uot_transitions"], adata.uns["uot_transitions"]
    np.testing.assert_array_equal(stored["table"], table)
    assert set(stored) == set(expected)
    for name in ("scores", "allowed", "pairs"):
        for column, values in expected[name].items():
            np.testing.assert_array_equal(np.asarray(stored[name][column]).astype(values.dtype), values)
    pd.testing.assert_frame_equal(uc.tl.transitions(read, "kind", **arguments), table)
    pd.testing.assert_frame_equal(scores_of(read), scores_of(adata))
    assert set(scores_of(read).index.get_level_values("map")) == {"fit", "twin", "entropic", "shuffled"}


BAD = {
    "groupby": ({"groupby": "type"}, KeyError, r"`groupby` to be a column .*\['day', 'kind', .*found 'type'"),
    "fit": ({"key": "ot"}, KeyError, "`key_added` of a time course"),
    "controls": ({"controls": ["identity"]}, ValueError, r"some of \['entropic', 'shuffled'\], found \['identity'\]"),
    "control": ({"controls": "shuffled"}, ValueError, "a list of some of"),
    "confidence": ({"confidence": 95}, ValueError, r"`confidence` to be in \(0, 1\), .*found 95"),
    "bootstrap": ({"n_bootstrap": 0}, ValueError, "`n_bootstrap` to be a positive integer, found 0"),
    "neighbors": ({"n_neighbors": 0}, ValueError, "`n_neighbors` to be a positive integer, found 0"),
    "twin alone": ({"twin": "ot"}, ValueError, "`allowed` transitions to score the `twin`"),
    "flat": ({"allowed": {"stem": ["right"]}}, ValueError, r"map lineages to mappings .*found {'stem': \['right'\]}"),
    "no list": ({"allowed": {"all": {"stem": "right"}}}, ValueError, "to lists of target types"),
    "no mapping": ({"allowed": ["stem"]}, ValueError, "map lineages to mappings"),
    "empty": ({"allowed": {}}, ValueError, "map lineages to mappings"),
    "no cell": (
        {"allowed": {"R": {"right": ["right"]}}},
        ValueError,
        r"lineage 'R', .*\['right'\].*\['left', 'stem'\]",
    ),
    "slot": ({"key_added": "a/b"}, ValueError, "without a slash"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_changes_nothing(arguments, error, message):
    adata = by_hand()
    before = set(adata.uns)
    with pytest.raises(error, match=message):
        uc.tl.transitions(adata, **{"groupby": "kind"} | arguments)
    assert set(adata.uns) == before


def test_cells_without_a_label():
    adata = by_hand()
    adata.obs["kind"] = adata.obs["kind"].where(adata.obs["kind"] != "right")
    with pytest.raises(ValueError, match=r"found 2 missing in `adata.obs\['kind'\]`. Give them one"):
        uc.tl.transitions(adata, "kind")


def test_a_twin_of_other_cells():
    adata = by_hand()
    write_fit(adata, "day", (1, 2), IMAGES, key="ot")
    adata.obsm["ot_push"][0] = np.nan
    with pytest.raises(ValueError, match=r"`twin` to be a fit of the same pairs, cells .* as 'uot', found 'ot'"):
        uc.tl.transitions(adata, "kind", allowed=ALLOWED, twin="ot", controls=[])


def test_types_that_no_cell_has():
    adata = by_hand()
    allowed = {"all": {"stem": ["right", "rihgt"], "left": ["left"]}}
    with pytest.warns(UserWarning, match=r"No cell is of the types \['rihgt'\].* \['left', 'right', 'stem'\]"):
        uc.tl.transitions(adata, "kind", allowed=allowed, controls=[], n_bootstrap=5)


def test_transitions_of_the_pancreas():
    """By name, every type of the published data is in one lineage, and every target is a type."""
    allowed = uc.datasets.pancreas_transitions()
    assert list(allowed) == ["EB", "Ngn3 EP", "NEB"]
    sources = [source for moves in allowed.values() for source in moves]
    published = (
        "Acinar, Alpha, Beta, Delta, Ductal, Epsilon, Fev+ Alpha, Fev+ Beta, Fev+ Delta, Fev+ Epsilon, Fev+ Pyy, "
        "Multipotent, Ngn3 High early, Ngn3 High late, Ngn3 low EP, Tip, Trunk"
    )
    assert sorted(sources) == published.split(", ")
    for moves in allowed.values():
        for source, targets in moves.items():
            assert source in targets
            assert set(targets) <= set(sources)
    allowed["EB"]["Alpha"].append("Beta")
    assert uc.datasets.pancreas_transitions()["EB"]["Alpha"] == ["Alpha"]
