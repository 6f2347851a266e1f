"""One call on AnnData: what it writes, from which inputs, and that bad input changes nothing."""

import inspect
import re
from dataclasses import replace
from importlib.metadata import version

import anndata as ad
import jax
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import uotcell as uc
from uotcell.problems import TemporalProblem, _temporal

N_CELLS, N_DIMS = 24, 3
# Small enough that compiling is most of a fit; one setting and one shape, so that little is compiled twice.
QUICK = {"method": uc.methods.ICNN(hidden=(8, 8), n_inner=1), "n_iters": 4, "batch_size": 16, "progress": False}


def make_cells():
    """Three time points of a cloud that drifts along the first axis, in random order; the last is two units away."""
    rng = np.random.default_rng(0)
    day = rng.permutation(np.repeat([0, 1, 3], N_CELLS))
    cells = (rng.normal(size=(len(day), N_DIMS)) + np.outer(day, [1.0, 0.0, 0.0])).astype(np.float32)
    obs = pd.DataFrame({"day": day}, index=[f"cell{i}" for i in range(len(day))])
    obs["group"] = pd.Categorical(np.where(rng.random(len(day)) < 0.3, "fast", "slow"))
    uns = {"log": {"steps": np.arange(3), "by": "hand"}}
    return ad.AnnData(sparse.csr_matrix(cells), obs=obs, obsm={"X_pca": cells, "X_umap": cells[:, :2]}, uns=uns)


def fit(adata, time_key="day", **kwargs):
    return uc.tl.fit_trajectory(adata, time_key, **{**QUICK, **kwargs})


@pytest.fixture
def adata():
    return make_cells()


@pytest.fixture(scope="module")
def fitted():
    """A fit to look at, not to change."""
    adata = make_cells()
    return adata, fit(adata)


def assert_same(found, expected):
    """Compare nested settings as they come back from disk: strings and numbers may have turned into arrays."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    elif sparse.issparse(expected):
        assert sparse.issparse(found)
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        expected, found = np.asarray(expected), np.asarray(found)
        assert (found.shape, found.dtype.kind in "biuf") == (expected.shape, expected.dtype.kind in "biuf")
        np.testing.assert_array_equal(found, expected if expected.dtype.kind in "biuf" else expected.astype(object))


def slots(adata):
    """Everything an AnnData holds."""
    names = ("obs", "var", "X")
    mappings = ("obsm", "varm", "layers", "obsp", "varp", "uns")
    return {name: getattr(adata, name) for name in names} | {name: dict(getattr(adata, name)) for name in mappings}


class TestSlots:
    def test_types(self, fitted):
        adata, problem = fitted
        assert isinstance(problem, TemporalProblem)
        assert problem.pairs == [(0, 1), (1, 3)]
        for name in ("uot_push", "uot_velocity"):
            assert (adata.obsm[name].shape, adata.obsm[name].dtype) == ((adata.n_obs, N_DIMS), np.float32)
            assert type(adata.obsm[name]) is np.ndarray
        for name in ("uot_source_weight", "uot_target_weight"):
            assert adata.obs[name].dtype == np.float32
        assert set(adata.obs) == {"day", "group", "uot_source_weight", "uot_target_weight"}
        assert set(adata.obsm) == {"X_pca", "X_umap", "uot_push", "uot_velocity"}
        assert set(adata.uns) == {"log", "uot"}
        assert set(adata.uns["uot"]) == {"params", "pairs", "history", "metrics"}

    def test_what_was_there_stays(self, fitted):
        adata, before = fitted[0], make_cells()
        assert_same(adata.X, before.X)
        pd.testing.assert_frame_equal(adata.obs[["day", "group"]], before.obs)
        for name in before.obsm:
            np.testing.assert_array_equal(adata.obsm[name], before.obsm[name])
        assert_same(adata.uns["log"], before.uns["log"])

    def test_nan_where_a_cell_has_no_part(self, fitted):
        adata, day = fitted[0], fitted[0].obs["day"].to_numpy()
        for name in ("uot_push", "uot_velocity"):
            finite = np.isfinite(adata.obsm[name])
            np.testing.assert_array_equal(finite, np.repeat((day < 3)[:, None], N_DIMS, axis=1))
        np.testing.assert_array_equal(adata.obs["uot_source_weight"].notna(), day < 3)
        np.testing.assert_array_equal(adata.obs["uot_target_weight"].notna(), day > 0)

    def test_velocity_is_displacement_by_time(self, fitted):
        adata, day = fitted[0], fitted[0].obs["day"].to_numpy()
        displacement = adata.obsm["uot_push"] - adata.obsm["X_pca"]
        for time, difference in ((0, 1.0), (1, 2.0)):
            velocity = adata.obsm["uot_velocity"][day == time]
            np.testing.assert_allclose(velocity, displacement[day == time] / difference, rtol=1e-5, atol=1e-6)

    def test_push_is_that_of_the_problem(self, fitted):
        adata, problem = fitted
        day = adata.obs["day"].to_numpy()
        for source, target in problem.pairs:
            cells, written = adata.obsm["X_pca"][day == source], adata.obsm["uot_push"][day == source]
            np.testing.assert_array_equal(problem.push(cells, source, target), written)
            np.testing.assert_array_equal(problem.push(adata[day == source], source, target), written)
            np.testing.assert_allclose(problem.push(cells, source, target, batch_size=7), written, atol=1e-5)
            np.testing.assert_allclose(problem.push(cells[:5], source, target), written[:5], atol=1e-5)

    def test_weights_multiply_mass(self, fitted):
        adata, problem = fitted
        day = adata.obs["day"].to_numpy()
        for source, target in problem.pairs:
            coupling = problem[source, target].coupling
            for name, time, weights in (
                ("uot_source_weight", source, coupling.source_weights),
                ("uot_target_weight", target, coupling.target_weights),
            ):
                written = adata.obs[name].to_numpy()[day == time]
                np.testing.assert_allclose(written, np.asarray(weights) * N_CELLS, rtol=1e-6)
                assert written.mean() == pytest.approx(coupling.transported_mass, rel=1e-5)
            rescaling = coupling.source_rescaling(adata.obsm["X_pca"][day == source])
            np.testing.assert_allclose(adata.obs["uot_source_weight"][day == source], rescaling, rtol=1e-3)

    def test_balanced_weights_are_one(self, adata):
        fit(adata, tau=1.0)
        # Row sums are exact after the last half-step; columns may be off by the threshold of the solve.
        np.testing.assert_allclose(adata.obs["uot_source_weight"].dropna(), 1.0, rtol=1e-4)
        assert (adata.obs["uot_target_weight"].dropna() - 1.0).abs().groupby(adata.obs["day"]).mean().max() <= 1e-3
        # The cloud drifts by one unit of its first axis per unit of time, and a balanced map moves all of it.
        np.testing.assert_allclose(np.nanmean(adata.obsm["uot_velocity"], axis=0), [1.0, 0.0, 0.0], atol=0.3)

    def test_record(self, fitted):
        adata, problem = fitted
        record, params = adata.uns["uot"], adata.uns["uot"]["params"]
        assert params["rng"] == 0
        assert params["device"] == problem[0, 1].history.device
        assert params["device"].startswith(jax.devices()[0].platform)
        assert set(params["versions"]) == {"uotcell", "jax", "flax", "optax", "ott-jax", "anndata", "numpy"}
        assert params["versions"]["anndata"] == version("anndata")
        assert params["versions"]["jax"] == jax.__version__
        assert (params["time_key"], params["use_rep"], params["policy"]) == ("day", "X_pca", "sequential")
        assert (params["tau"], params["epsilon"], params["n_iters"], params["batch_size"]) == (0.95, 0.01, 4, 16)
        assert params["method"]["name"] == "icnn"
        assert params["method"]["hidden"].tolist() == [8, 8]
        assert record["pairs"]["source"].tolist() == ["0", "1"]
        assert record["pairs"]["target"].tolist() == ["1", "3"]
        assert record["pairs"]["time_difference"].tolist() == [1.0, 2.0]
        assert set(record["history"]) == set(record["metrics"]) == {"0_1", "1_3"}
        assert record["history"]["0_1"]["iteration"].tolist() == [1, 2, 3, 4]
        assert set(record["history"]["0_1"]["baseline"]) == {"identity", "entropic map"}
        assert record["metrics"]["1_3"]["transported_mass"] == problem[1, 3].coupling.transported_mass

    def test_other_settings_are_recorded(self, adata):
        penalty = (0.19, 0.19)
        fit(adata, policy=[(0, 1)], marginal_penalty=penalty, patience=2, rng=jax.random.key(7))
        params = adata.uns["uot"]["params"]
        assert params["policy"] == "explicit"
        assert "tau" not in params
        np.testing.assert_array_equal(params["marginal_penalty"], penalty)
        np.testing.assert_array_equal(params["rng"], jax.random.key_data(jax.random.key(7)))
        assert params["patience"] == 2
        np.testing.assert_allclose(adata.uns["uot"]["metrics"]["0_1"]["tau"], [0.95, 0.95])

    @pytest.mark.parametrize("kind", ["h5ad", "zarr"])
    def test_round_trip(self, fitted, tmp_path, kind):
        adata, path = fitted[0], tmp_path / f"cells.{kind}"
        getattr(adata, f"write_{kind}")(path)
        again = getattr(ad, f"read_{kind}")(path)
        assert_same(again.uns["uot"], adata.uns["uot"])
        for name in ("uot_push", "uot_velocity"):
            np.testing.assert_array_equal(again.obsm[name], adata.obsm[name])
            assert again.obsm[name].dtype == np.float32
        for name in ("uot_source_weight", "uot_target_weight"):
            np.testing.assert_array_equal(again.obs[name], adata.obs[name])
            assert again.obs[name].dtype == np.float32

    def test_two_fits_coexist(self, adata, fitted):
        fit(adata)
        first = {name: adata.obsm[name].copy() for name in ("uot_push", "uot_velocity")}
        fit(adata, tau=1.0, key_added="ot")
        assert set(adata.obsm) == {"X_pca", "X_umap", "uot_push", "uot_velocity", "ot_push", "ot_velocity"}
        assert {"uot_source_weight", "uot_target_weight", "ot_source_weight", "ot_target_weight"} < set(adata.obs)
        for name, values in first.items():
            np.testing.assert_array_equal(adata.obsm[name], values)
        assert_same(
            {**adata.uns["uot"], "history": None}, {**fitted[0].uns["uot"], "history": None}
        )  # without the speed of this very run
        assert adata.uns["ot"]["params"]["tau"] == 1.0
        assert not np.array_equal(adata.obsm["ot_push"], adata.obsm["uot_push"], equal_nan=True)

    def test_fitting_again_replaces(self, adata):
        fit(adata, rng=1)
        first = adata.obsm["uot_push"]
        fit(adata, policy=[(0, 1)])
        day = adata.obs["day"].to_numpy()
        assert np.isnan(adata.obsm["uot_push"][day == 1]).all()
        assert np.isfinite(first[day == 1]).all()
        assert set(adata.uns["uot"]["metrics"]) == {"0_1"}


class TestSeed:
    def test_same_seed_is_bit_equal(self, adata, fitted):
        fit(adata)
        for name in ("uot_push", "uot_velocity"):
            np.testing.assert_array_equal(adata.obsm[name], fitted[0].obsm[name])
        for name in ("uot_source_weight", "uot_target_weight"):
            np.testing.assert_array_equal(adata.obs[name], fitted[0].obs[name])

    def test_other_seed_differs(self, adata, fitted):
        fit(adata, rng=1)
        finite = np.isfinite(adata.obsm["uot_push"])
        assert (adata.obsm["uot_push"][finite] != fitted[0].obsm["uot_push"][finite]).mean() > 0.9
        # The coupling of all cells involves no chance.
        np.testing.assert_array_equal(adata.obs["uot_source_weight"], fitted[0].obs["uot_source_weight"])


class TestInputs:
    @pytest.fixture(params=["X", "csr layer", "csc layer", "sparse obsm", "frame obsm", "double obsm"])
    def slot(self, request, adata):
        """Put the cells into another slot and say which."""
        cells = adata.obsm.pop("X_pca")
        if request.param == "X":
            return {"use_rep": "X"}
        if "layer" in request.param:
            adata.layers["cells"] = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[request.param[:3]](cells)
            adata.X = None
            return {"use_rep": "X", "layer": "cells"}
        adata.obsm["cells"] = {
            "sparse obsm": sparse.csr_matrix(cells),
            "frame obsm": pd.DataFrame(cells, index=adata.obs_names).add_prefix("pc"),
            "double obsm": cells.astype(np.float64),
        }[request.param]
        return {"use_rep": "cells"}

    @staticmethod
    def assert_same_fit(adata, expected, rows=slice(None)):
        for name in ("uot_source_weight", "uot_target_weight"):
            np.testing.assert_array_equal(adata.obs[name], expected.obs[name].iloc[rows])
        np.testing.assert_array_equal(adata.obsm["uot_push"], expected.obsm["uot_push"][rows])
        np.testing.assert_allclose(adata.obsm["uot_velocity"], expected.obsm["uot_velocity"][rows], rtol=1e-6)

    def test_slot_does_not_matter(self, adata, slot, fitted):
        fit(adata, **slot)
        self.assert_same_fit(adata, fitted[0])
        params = adata.uns["uot"]["params"]
        assert {name: params[name] for name in ("use_rep", "layer") if name in params} == slot

    @pytest.mark.parametrize("matrix", [np.asarray, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "csr", "csc"])
    def test_backed(self, adata, fitted, tmp_path, matrix):
        adata.X = matrix(adata.obsm["X_pca"])
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        try:
            fit(backed, use_rep="X")
            assert backed.isbacked
            self.assert_same_fit(backed, fitted[0])
        finally:
            backed.file.close()

    def test_subset(self, adata, fitted):
        early = np.flatnonzero(adata.obs["day"] < 3)
        subset = adata[early].copy()
        problem = fit(subset)
        assert problem.pairs == [(0, 1)]
        day = subset.obs["day"].to_numpy()
        np.testing.assert_array_equal(subset.obsm["uot_push"][day == 0], fitted[0].obsm["uot_push"][early][day == 0])

    # Writing into a view makes it a copy of its own, and anndata says so.
    @pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
    def test_view(self, adata, fitted):
        early = np.flatnonzero(adata.obs["day"] < 3)
        view, subset, before = adata[early], adata[early].copy(), adata.copy()
        fit(view)
        fit(subset)
        self.assert_same_fit(view, subset)
        assert_same(slots(adata), slots(before))

    @pytest.mark.parametrize(
        "day",
        [
            pytest.param(lambda day: day.astype(float), id="float"),
            pytest.param(lambda day: day.map("E{}.0".format), id="string"),
            pytest.param(lambda day: day.astype("category"), id="unordered numbers"),
            pytest.param(lambda day: pd.Categorical(day, categories=[0, 1, 2, 3], ordered=True), id="ordered numbers"),
            pytest.param(
                lambda day: pd.Categorical(day.map("{}h".format), categories=["0h", "1h", "3h"], ordered=True),
                id="ordered strings",
            ),
        ],
    )
    def test_kind_of_time_does_not_matter(self, adata, fitted, day):
        adata.obs["day"] = day(adata.obs["day"])
        fit(adata)
        self.assert_same_fit(adata, fitted[0])
        assert adata.uns["uot"]["pairs"]["time_difference"].tolist() == [1.0, 2.0]

    def test_ranks_without_numbers(self, adata, fitted):
        order = ["embryo", "pup", "adult"]
        adata.obs["day"] = pd.Categorical(adata.obs["day"].map(dict(zip((0, 1, 3), order, strict=True))), order, True)
        assert fit(adata).pairs == [("embryo", "pup"), ("pup", "adult")]
        np.testing.assert_array_equal(adata.obsm["uot_push"], fitted[0].obsm["uot_push"])
        assert adata.uns["uot"]["pairs"]["time_difference"].tolist() == [1.0, 1.0]


class TestPairs:
    @pytest.mark.parametrize("policy", ["star", [(0, 3), (0, 1)]], ids=["star", "explicit"])
    def test_nearest_target_wins(self, adata, policy):
        problem = fit(adata, policy=policy)
        day = adata.obs["day"].to_numpy()
        cells = adata.obsm["X_pca"][day == 0]
        near, far = problem.push(cells, 0, 1), problem.push(cells, 0, 3)
        np.testing.assert_array_equal(adata.obsm["uot_push"][day == 0], near)
        assert not np.array_equal(near, far)
        np.testing.assert_allclose(adata.obsm["uot_velocity"][day == 0], near - cells, rtol=1e-5, atol=1e-6)
        weights = np.asarray(problem[0, 1].coupling.source_weights) * N_CELLS
        np.testing.assert_allclose(adata.obs["uot_source_weight"][day == 0], weights, rtol=1e-6)
        np.testing.assert_array_equal(adata.obs["uot_source_weight"].notna(), day == 0)
        np.testing.assert_array_equal(adata.obs["uot_target_weight"].notna(), day > 0)
        assert set(adata.uns["uot"]["metrics"]) == {"0_1", "0_3"}

    def test_nearest_source_wins(self, adata):
        problem = fit(adata, policy=[(1, 3), (0, 3)])
        day = adata.obs["day"].to_numpy()
        weights = np.asarray(problem[1, 3].coupling.target_weights) * N_CELLS
        np.testing.assert_allclose(adata.obs["uot_target_weight"][day == 3], weights, rtol=1e-6)

    def test_star_of_a_later_reference(self, adata):
        assert fit(adata, policy="star", reference=1).pairs == [(1, 3)]


class TestMass:
    def test_growth_of_one_changes_nothing(self, adata, fitted):
        adata.obs["growth"] = 1.0
        fit(adata, growth_key="growth")
        TestInputs.assert_same_fit(adata, fitted[0])

    def test_growth_counts_relative_to_the_time_point(self, adata):
        other = adata.copy()
        adata.obs["growth"] = np.where(adata.obs["group"] == "fast", 2.0, 1.0)
        other.obs["growth"] = np.where(other.obs["group"] == "fast", 8, 4)
        fit(adata, growth_key="growth")
        fit(other, growth_key="growth")
        TestInputs.assert_same_fit(other, adata)

    def test_growth_multiplies_balanced_mass(self, adata):
        growth = np.where(adata.obs["group"] == "fast", 2.0, 1.0)
        adata.obs["growth"] = growth
        fit(adata, growth_key="growth", tau=1.0)
        for day in (0, 1):
            rows = (adata.obs["day"] == day).to_numpy()
            expected = growth[rows] / growth[rows].mean()
            np.testing.assert_allclose(adata.obs["uot_source_weight"][rows], expected, rtol=1e-4)

    def test_growth_raises_unbalanced_mass(self, adata, fitted):
        fast = (adata.obs["group"] == "fast").to_numpy()
        adata.obs["growth"] = np.where(fast, 2.0, 1.0)
        problem = fit(adata, growth_key="growth")
        for day, pair in zip((0, 1), problem.pairs, strict=True):
            rows = (adata.obs["day"] == day).to_numpy()
            shares = []
            for result in (adata, fitted[0]):
                weight = result.obs["uot_source_weight"].to_numpy()
                shares.append(weight[rows & fast].sum() / weight[rows].sum())
            prior = np.asarray(problem[pair].coupling.a)
            assert prior[fast[rows]].min() == pytest.approx(2 * prior[~fast[rows]].max(), rel=1e-5)
            assert shares[0] > 1.2 * shares[1]

    def test_tau_and_penalty_are_one_choice(self, adata, fitted):
        fit(adata, marginal_penalty=0.95 * 0.01 / 0.05)
        for name in ("uot_source_weight", "uot_target_weight"):
            np.testing.assert_allclose(adata.obs[name], fitted[0].obs[name], rtol=1e-3)
        params, metrics = adata.uns["uot"]["params"], adata.uns["uot"]["metrics"]["0_1"]
        assert params["marginal_penalty"] == pytest.approx(0.19)
        np.testing.assert_allclose(metrics["tau"], 0.95)
        np.testing.assert_allclose(metrics["marginal_penalty"], 0.19)


class TestCall:
    def test_every_option_of_the_problem_is_there(self):
        def options(function):
            parameters = inspect.signature(function).parameters.values()
            return {p.name: (p.default, p.annotation) for p in parameters if p.name not in ("self", "adata")}

        steps = options(TemporalProblem.prepare) | options(TemporalProblem.solve) | options(TemporalProblem.write)
        assert options(uc.tl.fit_trajectory) == steps

    def test_only_two_arguments_are_positional(self, adata):
        parameters = inspect.signature(uc.tl.fit_trajectory).parameters
        positional = [name for name, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert positional == ["adata", "time_key"]

    def test_default_number_of_steps_is_that_of_the_method(self, adata, monkeypatch):
        monkeypatch.setattr(uc.methods.ICNN, "default_n_iters", 4)
        fit(adata, n_iters=None)
        assert adata.uns["uot"]["params"]["n_iters"] == 4

    def test_progress(self, adata, capsys):
        fit(adata, progress=False)
        assert capsys.readouterr() == ("", "")
        fit(adata, progress=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("4/4") >= 2
        assert f"icnn [{adata.uns['uot']['params']['device']}]" in err
        assert "held-out=" in err


def _set(name, values):
    def spoil(adata):
        adata.obs[name] = values(adata.obs["day"]) if callable(values) else values

    return spoil


def _spoil_cell(value):
    def spoil(adata):
        adata.obsm["X_pca"][17, 1] = value

    return spoil


def _few_cells(adata):
    few = adata.obs["day"].to_numpy() == 3
    adata._inplace_subset_obs(~few | (np.cumsum(few) < 10))


def _duplicate_names(adata):
    adata.obs_names = ["cell0", *adata.obs_names[:-1]]


def _far_apart(adata):
    adata.obsm["X_pca"][adata.obs["day"].to_numpy() == 3] += 1e3


# What is wrong, how the data are spoilt, arguments, the error, and what its message says: what was expected, what was
# found, and what to do or what there is to choose from.
BAD_INPUT = {
    "missing time key": (None, {"time_key": "hour"}, KeyError, ["`time_key`", r"\['day', 'group'\]", "found 'hour'"]),
    "missing growth key": (None, {"growth_key": "rate"}, KeyError, ["`growth_key`", "'group'", "found 'rate'"]),
    "missing use_rep": (
        lambda adata: adata.obsm.pop("X_pca"),
        {},
        KeyError,
        ["`use_rep`", r"\['X_umap'\]", "found 'X_pca'", r"Run `sc\.pp\.pca\(adata\)`"],
    ),
    "missing layer": (None, {"use_rep": "X", "layer": "raw"}, KeyError, ["`layer`", "one of", "found 'raw'"]),
    "one time": (_set("day", 2), {}, ValueError, ["at least two time points", r"found \[2\]", "Choose .*`time_key`"]),
    "missing time": (
        _set("day", lambda day: day.where(day > 0)),
        {},
        ValueError,
        ["every cell to have a time", "found 24 missing", "Subset `adata`"],
    ),
    "no times": (
        _set("day", lambda day: day.map({0: "early", 1: "mid", 3: "late"})),
        {},
        ValueError,
        ["numbers, dates, ordered categories, or strings", "found .*'early'", "Make it an ordered categorical"],
    ),
    "nan": (_spoil_cell(np.nan), {}, ValueError, [r"obsm\['X_pca'\] to be finite", "first: 'cell17'", "Remove"]),
    "inf": (_spoil_cell(-np.inf), {}, ValueError, [r"obsm\['X_pca'\] to be finite", "in 1 cells", "Remove"]),
    "few cells": (_few_cells, {}, ValueError, ["at least 10 cells", "found 9 at 3", "Merge .* or leave it out"]),
    "duplicate names": (
        _duplicate_names,
        {},
        ValueError,
        ["to be unique", "found 'cell0' more than once", r"Run `adata\.obs_names_make_unique\(\)`"],
    ),
    **{
        f"tau {tau}": (
            None,
            {"tau": tau},
            ValueError,
            [r"`tau` to be in \(0, 1\]", f"found {re.escape(str(tau))}", "1 keeps"],
        )
        for tau in (0, -1.0, 1.5, np.nan, (0.9, 0.0))
    },
    "negative penalty": (
        None,
        {"marginal_penalty": -0.1},
        ValueError,
        ["`marginal_penalty` to be positive", r"inf is balanced", r"found -0\.1"],
    ),
    "tau and penalty": (
        None,
        {"tau": 0.9, "marginal_penalty": 0.1},
        ValueError,
        [
            "one of `tau` and `marginal_penalty`",
            r"found both \(0\.9 and 0\.1\)",
            r"tau = penalty / \(penalty \+ epsilon\)",
        ],
    ),
    "unknown keyword": (None, {"n_iter": 10}, TypeError, ["unexpected keyword argument 'n_iter'"]),
    "unknown method": (
        None,
        {"method": "icn"},
        ValueError,
        ["`method`", r"\['flow_matching', 'genot', 'icnn', 'monge_gap'\] or a `Method`", "found 'icn'"],
    ),
    "method class": (None, {"method": uc.methods.ICNN}, ValueError, ["`method`", "or a `Method`", "found <class"]),
    "unknown rescaling": (
        None,
        {"rescaling": "local"},
        ValueError,
        ["`rescaling` to be 'global' or 'minibatch'", "found 'local'"],
    ),
    "unknown policy": (
        None,
        {"policy": "chain"},
        ValueError,
        ["'sequential', 'star' or a list of pairs", "found 'chain'"],
    ),
    "unknown pair": (None, {"policy": [(0, 2)]}, ValueError, [r"pairs of \[0, 1, 3\]", r"found 2 in \(0, 2\)"]),
    "unknown cost": (
        None,
        {"cost": "l1"},
        ValueError,
        ["`cost`", "'cosine', 'euclidean', 'sqeuclidean'", "found 'l1'"],
    ),
    "unknown scale": (
        None,
        {"scale_cost": "max"},
        ValueError,
        ["`scale_cost` to be 'mean', 'median' or", "found 'max'"],
    ),
    "zero scale": (None, {"scale_cost": 0.0}, ValueError, ["`scale_cost` to be a positive number", r"found 0\.0"]),
    "zero epsilon": (None, {"epsilon": 0.0}, ValueError, ["`epsilon` to be a positive number", r"found 0\.0"]),
    "negative n_iters": (None, {"n_iters": -1}, ValueError, ["`n_iters` to be", "found -1"]),
    "zero batch_size": (None, {"batch_size": 0}, ValueError, ["`batch_size` to be", "found 0"]),
    "valid_fraction 1": (None, {"valid_fraction": 1}, ValueError, [r"`valid_fraction` to be in \[0, 1\)", "found 1"]),
    "ema_decay 1": (None, {"ema_decay": 1.0}, ValueError, [r"`ema_decay` to be in \[0, 1\)", r"found 1\.0"]),
    "patience without a split": (
        None,
        {"valid_fraction": 0.0, "patience": 2},
        ValueError,
        ["`valid_fraction` above 0 with `patience`"],
    ),
    # float32 does not resolve a balanced problem of this ε.
    "not converged": (
        None,
        {"tau": 1.0, "epsilon": 3e-7},
        uc.ConvergenceError,
        ["epsilon=3e-07, tau=", "after 10000 sweeps", r"expected at most 0\.001", "Raise .*`epsilon`"],
    ),
    # A thousand standard deviations apart, with mass that is cheap to destroy.
    "no mass": (
        _far_apart,
        {"tau": 0.3, "policy": [(1, 3)]},
        uc.ConvergenceError,
        [r"tau=\(0\.3, 0\.3\)", r"transports .*e-\d+ of a mass of 1", "Raise `tau` or `epsilon`"],
    ),
    "learning rate": (
        None,
        {"method": replace(QUICK["method"], learning_rate=1e30)},
        uc.ConvergenceError,
        ["Lower `learning_rate`"],
    ),
}


# anndata warns about names that are not unique; so do we, with an error.
@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
@pytest.mark.parametrize(("spoil", "arguments", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_explained_and_changes_nothing(adata, spoil, arguments, error, message):
    if spoil is not None:
        spoil(adata)
    before = adata.copy()
    with pytest.raises(error) as raised:
        fit(adata, **arguments)
    for words in message:
        assert re.search(words, str(raised.value)), f"{words!r} not in {raised.value}"
    assert_same(slots(adata), slots(before))


def test_failure_half_way_changes_nothing(adata, monkeypatch):
    """The first pair is fitted; training the second fails."""
    fit(adata, rng=1)
    before, trained = adata.copy(), []

    def fail_second(method, couplings, **kwargs):
        trained.append(couplings)
        method = replace(method, learning_rate=1e30) if len(trained) == 2 else method
        return uc.train.fit_many(method, couplings, **kwargs)

    monkeypatch.setattr(_temporal, "fit_many", fail_second)
    with pytest.raises(uc.ConvergenceError, match="Lower `learning_rate`"):
        fit(adata)
    assert len(trained) == 2
    assert_same(slots(adata), slots(before))


def test_view_of_a_backed_file_is_refused_before_the_fit(adata, tmp_path):
    """Nothing can be written into it, as anndata would say only at the end."""
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    try:
        with pytest.raises(ValueError, match=r"found a view of a backed one\. Run `adata\.to_memory\(\)`"):
            fit(backed[backed.obs["day"] < 3])
    finally:
        backed.file.close()


def test_not_anndata():
    with pytest.raises(TypeError, match="`adata` to be an AnnData, found DataFrame"):
        fit(pd.DataFrame())
