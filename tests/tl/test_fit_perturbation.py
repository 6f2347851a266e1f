"""One call on a perturbation screen: what it writes, and that bad input changes nothing."""

import inspect
import re
from dataclasses import replace
from importlib.metadata import version

import anndata as ad
import jax
import numpy as np
import pandas as pd
import pytest
from drug_cells import N_CELLS, N_DIMS, N_TEST, N_TRAIN, N_VALID, QUICK, make_cells
from scipy import sparse

import uotcell as uc
from uotcell.problems import PerturbationProblem, _perturbation

LINES = ("a", "b")
SLOTS = ["uot_push_mild", "uot_push_strong"]


def fit(adata, **kwargs):
    return uc.tl.fit_perturbation(adata, **{"perturbation_key": "drug", "control": "control", **QUICK, **kwargs})


@pytest.fixture
def adata():
    return make_cells()


@pytest.fixture(scope="module")
def fitted():
    """A fit to look at, not to change."""
    adata = make_cells()
    return adata, fit(adata)


@pytest.fixture(scope="module")
def by_line():
    adata = make_cells(LINES)
    return adata, fit(adata, groupby="line")


def assert_same(found, expected):
    """Compare nested settings as they come back from disk: strings and numbers may have turned into arrays."""
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert_same(found[name], value)
    elif sparse.issparse(expected):
        np.testing.assert_array_equal(found.toarray(), expected.toarray())
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        expected, found = np.asarray(expected), np.asarray(found)
        assert (found.shape, found.dtype.kind in "biuf") == (expected.shape, expected.dtype.kind in "biuf")
        np.testing.assert_array_equal(found, expected if expected.dtype.kind in "biuf" else expected.astype(object))


def contents(adata):
    """Everything an AnnData holds."""
    mappings = ("obsm", "varm", "layers", "obsp", "varp", "uns")
    return {name: getattr(adata, name) for name in ("obs", "var", "X")} | {
        name: dict(getattr(adata, name)) for name in mappings
    }


def assert_same_fit(adata, expected):
    for slot in SLOTS:
        np.testing.assert_array_equal(adata.obsm[slot], expected.obsm[slot])
    for column in ("uot_split", "uot_target_weight"):
        pd.testing.assert_series_equal(adata.obs[column], expected.obs[column])


def fitted_on(adata, problem):
    """Return a fit as if it were one of these, equal, data."""
    again = PerturbationProblem(adata).prepare("drug", "control")
    again.fitted, again.params = problem.fitted, problem.params
    return again


class TestSlots:
    def test_names_and_types(self, fitted):
        adata, problem = fitted
        assert isinstance(problem, PerturbationProblem)
        assert list(adata.obs) == ["drug", "line", "uot_split", "uot_target_weight"]
        assert list(adata.obsm) == ["X_pca", *SLOTS]
        assert list(adata.uns) == ["log", "uot"]
        for slot in SLOTS:
            assert (adata.obsm[slot].shape, adata.obsm[slot].dtype) == ((adata.n_obs, N_DIMS), np.float32)
            assert type(adata.obsm[slot]) is np.ndarray
        assert adata.obs["uot_target_weight"].dtype == np.float32
        assert adata.obs["uot_split"].cat.categories.tolist() == ["train", "valid", "test"]
        assert set(adata.uns["uot"]) == {"params", "pairs", "history", "metrics", "weights"}
        for name in ("history", "metrics", "weights"):
            assert list(adata.uns["uot"][name]) == ["mild", "strong"]

    def test_what_was_there_stays(self, fitted):
        adata, before = fitted[0], make_cells()
        assert_same(adata.X, before.X)
        pd.testing.assert_frame_equal(adata.obs[["drug", "line"]], before.obs)
        np.testing.assert_array_equal(adata.obsm["X_pca"], before.obsm["X_pca"])
        assert adata.uns["log"] == before.uns["log"]

    def test_images_are_of_all_controls(self, fitted):
        adata, problem = fitted
        control = (adata.obs["drug"] == "control").to_numpy()
        for condition, slot in zip(("mild", "strong"), SLOTS, strict=True):
            np.testing.assert_array_equal(np.isfinite(adata.obsm[slot]), np.repeat(control[:, None], N_DIMS, axis=1))
            np.testing.assert_array_equal(adata.obsm[slot][control], problem.push(adata[control], condition))

    def test_groups_share_a_slot(self, by_line):
        adata, problem = by_line
        for condition, slot in zip(("mild", "strong"), SLOTS, strict=True):
            for line in LINES:
                rows = ((adata.obs["drug"] == "control") & (adata.obs["line"] == line)).to_numpy()
                np.testing.assert_array_equal(adata.obsm[slot][rows], problem.push(adata[rows], condition, line))
        assert np.isfinite(adata.obsm["uot_push_mild"]).all(axis=1).sum() == 2 * N_CELLS
        pairs = adata.uns["uot"]["pairs"]
        assert pairs["condition"].tolist() == ["mild", "mild", "strong", "strong"]
        assert pairs["group"].tolist() == ["a", "b", "a", "b"]
        assert pairs["label"].tolist() == list(adata.uns["uot"]["metrics"])
        assert pairs["label"].tolist() == ["mild_a", "mild_b", "strong_a", "strong_b"]
        assert adata.uns["uot"]["params"]["groupby"] == "line"

    def test_splits(self, fitted):
        adata, problem = fitted
        counts = adata.obs.groupby(["drug", "uot_split"], observed=True).size().unstack()
        assert counts.drop_duplicates().to_numpy().tolist() == [[N_TRAIN, N_VALID, N_TEST]]
        train = np.flatnonzero(adata.obs["uot_split"] == "train")
        for condition in ("mild", "strong"):
            pair = problem[condition]
            assert set(pair.source_rows) | set(pair.target_rows) <= set(train)

    def test_unused_cells(self, adata):
        fit(adata, conditions=["mild"])
        unused = adata.obs["drug"] == "strong"
        np.testing.assert_array_equal(adata.obs["uot_split"].isna(), unused)
        np.testing.assert_array_equal(adata.obs["uot_target_weight"].notna(), adata.obs["drug"] == "mild")
        assert list(adata.obsm) == ["X_pca", "uot_push_mild"]

    def test_weights_multiply_mass(self, fitted):
        adata, problem = fitted
        np.testing.assert_array_equal(adata.obs["uot_target_weight"].isna(), adata.obs["drug"] == "control")
        for condition in ("mild", "strong"):
            coupling, weights = problem[condition].coupling, adata.uns["uot"]["weights"][condition]
            for side, expected in (("source", coupling.source_weights), ("target", coupling.target_weights)):
                np.testing.assert_allclose(weights[side], np.asarray(expected) * N_TRAIN, rtol=1e-6)
                assert weights[side].dtype == np.float32
                assert weights[side].mean() == pytest.approx(coupling.transported_mass, rel=1e-5)
            written = adata.obs["uot_target_weight"].to_numpy()
            np.testing.assert_array_equal(written[weights["target_rows"]], weights["target"])
            assert (adata.obs["drug"].iloc[weights["source_rows"]] == "control").all()
            # Held-out cells are weighed by the potentials; for training cells that is the same.
            treated = (adata.obs["drug"] == condition).to_numpy()
            rescaling = coupling.target_rescaling(adata.obsm["X_pca"][treated])
            np.testing.assert_allclose(written[treated], rescaling, rtol=1e-2)

    def test_record(self, fitted):
        adata, problem = fitted
        record, params = adata.uns["uot"], adata.uns["uot"]["params"]
        assert (params["rng"], params["split_rng"]) == (0, 0)
        assert params["device"] == problem["mild"].history.device
        assert params["versions"]["jax"] == version("jax")
        assert (params["perturbation_key"], params["control"], params["use_rep"]) == ("drug", "control", "X_pca")
        assert (params["tau"], params["epsilon"], params["n_iters"], params["batch_size"]) == (0.95, 0.01, 4, 16)
        assert (params["valid_fraction"], params["test_fraction"], params["min_cells"]) == (0.1, 0.1, 20)
        assert params["method"]["name"] == "icnn"
        assert not {"groupby", "layer", "patience", "left_out"} & set(params)
        assert record["pairs"]["condition"].tolist() == ["mild", "strong"]
        assert record["history"]["mild"]["iteration"].tolist() == [1, 2, 3, 4]
        assert set(record["history"]["mild"]["baseline"]) == {"identity", "entropic map"}
        assert record["metrics"]["strong"]["transported_mass"] == problem["strong"].coupling.transported_mass
        assert record["metrics"]["strong"]["test_divergence"] == problem["strong"].metrics["test_divergence"]

    def test_training_curves_can_be_drawn(self, fitted):
        assert uc.pl.history(fitted[0], pairs=["mild", "strong"], show=False).lines

    @pytest.mark.parametrize("kind", ["h5ad", "zarr"])
    @pytest.mark.parametrize("which", ["fitted", "by_line"])
    def test_round_trip(self, request, which, tmp_path, kind):
        adata, path = request.getfixturevalue(which)[0], tmp_path / f"cells.{kind}"
        getattr(adata, f"write_{kind}")(path)
        again = getattr(ad, f"read_{kind}")(path)
        assert_same(again.uns["uot"], adata.uns["uot"])
        assert_same_fit(again, adata)

    def test_labels_with_a_slash(self, adata, tmp_path):
        adata.obs["drug"] = adata.obs["drug"].cat.rename_categories({"mild": "a/b"})
        fit(adata)
        assert list(adata.obsm) == ["X_pca", "uot_push_a-b", "uot_push_strong"]
        assert list(adata.uns["uot"]["metrics"]) == ["a-b", "strong"]
        assert adata.uns["uot"]["pairs"]["condition"].tolist() == ["a/b", "strong"]
        adata.write_h5ad(tmp_path / "cells.h5ad")

    def test_small_conditions_are_recorded(self, adata, tmp_path):
        adata = adata[(adata.obs["drug"] != "strong") | (np.arange(adata.n_obs) < 30)].copy()
        with pytest.warns(UserWarning, match=r"Left out 1 of 2 pairs .*'strong'"):
            fit(adata)
        assert list(adata.obsm) == ["X_pca", "uot_push_mild"]
        assert adata.obs["uot_split"][adata.obs["drug"] == "strong"].isna().all()
        adata.write_h5ad(tmp_path / "cells.h5ad")
        assert ad.read_h5ad(tmp_path / "cells.h5ad").uns["uot"]["params"]["left_out"].tolist() == ["'strong'"]

    @pytest.mark.parametrize(
        ("store", "slots"),
        [("all", SLOTS), (None, []), ([], []), (["strong"], SLOTS[1:]), (np.array(["strong", "mild"]), SLOTS)],
        ids=["all", "none", "empty", "one", "array"],
    )
    def test_store(self, fitted, store, slots, tmp_path):
        adata = make_cells()
        fitted_on(adata, fitted[1]).write(store=store)
        assert list(adata.obsm) == ["X_pca", *slots]
        adata.write_h5ad(tmp_path / "cells.h5ad")

    def test_writing_again_replaces(self, fitted):
        adata = make_cells()
        problem = fitted_on(adata, fitted[1])
        adata.obsm["uot_push_mine"] = adata.obsm["X_pca"]
        problem.write()
        problem.write("other")
        problem.write(store=["mild"])
        others = ["other_push_mild", "other_push_strong"]
        assert list(adata.obsm) == ["X_pca", "uot_push_mine", "uot_push_mild", *others]
        assert set(adata.uns) == {"log", "uot", "other"}
        assert {"uot_split", "other_split", "uot_target_weight", "other_target_weight"} < set(adata.obs)


class TestInputs:
    def test_same_seed_is_bit_equal(self, adata, fitted):
        fit(adata, rng=jax.random.key(0))
        assert_same_fit(adata, fitted[0])

    def test_other_seed_differs(self, adata, fitted):
        fit(adata, rng=1)
        assert (adata.obs["uot_split"] != fitted[0].obs["uot_split"]).any()
        assert not np.array_equal(adata.obsm["uot_push_mild"], fitted[0].obsm["uot_push_mild"], equal_nan=True)

    def test_balanced_weights_are_one(self, adata):
        fit(adata, tau=1.0, conditions=["mild"], key_added="ot")
        weights = adata.uns["ot"]["weights"]["mild"]
        np.testing.assert_allclose(weights["source"], 1.0, rtol=1e-4)
        np.testing.assert_allclose(weights["target"], 1.0, rtol=0.02)

    @pytest.mark.parametrize("slot", ["X", "csc layer", "frame obsm"])
    def test_slot_does_not_matter(self, adata, fitted, slot):
        cells = adata.obsm.pop("X_pca")
        if slot == "X":
            adata = ad.AnnData(sparse.csr_matrix(cells), obs=adata.obs)
            options = {"use_rep": "X"}
        elif slot == "csc layer":
            adata = ad.AnnData(np.zeros_like(cells), obs=adata.obs, layers={"cells": sparse.csc_matrix(cells)})
            options = {"use_rep": "X", "layer": "cells"}
        else:
            adata.obsm["cells"] = pd.DataFrame(cells, index=adata.obs_names).add_prefix("pc")
            options = {"use_rep": "cells"}
        fit(adata, **options)
        assert_same_fit(adata, fitted[0])

    def test_backed(self, adata, fitted, tmp_path):
        cells = ad.AnnData(sparse.csr_matrix(adata.obsm["X_pca"]), obs=adata.obs)
        cells.write_h5ad(tmp_path / "cells.h5ad")
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        try:
            problem = fit(backed, use_rep="X")
            assert backed.isbacked
            assert_same_fit(backed, fitted[0])
            predicted = problem.predict(backed, "mild")
            control = (backed.obs["drug"] == "control").to_numpy()
            np.testing.assert_allclose(predicted.X[control], backed.obsm["uot_push_mild"][control], atol=1e-5)
        finally:
            backed.file.close()

    def test_backed_decoding(self, adata, tmp_path):
        """The mean of a backed matrix is taken in blocks."""
        del adata.var["mean"]
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        try:
            controls = adata[adata.obs["drug"] == "control"]
            predicted = [fit(a, conditions=["mild"]).predict(controls, "mild", decode="pca") for a in (adata, backed)]
            np.testing.assert_allclose(predicted[0].X, predicted[1].X, rtol=1e-5)
        finally:
            backed.file.close()

    # Writing into a view makes it a copy of its own, and anndata says so.
    @pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
    def test_view(self, fitted):
        adata = make_cells()
        both = ad.concat([adata, make_cells(seed=1)], index_unique="-")
        view = both[: adata.n_obs]
        before = both.copy()
        fit(view)
        assert_same_fit(view, ad.AnnData(obs=fitted[0].obs.set_index(view.obs_names), obsm=fitted[0].obsm))
        assert_same(contents(both), contents(before))


class TestCall:
    def test_every_option_of_the_problem_is_there(self):
        def options(function):
            parameters = inspect.signature(function).parameters.values()
            return {p.name: (p.default, p.annotation) for p in parameters if p.name not in ("self", "adata")}

        problem = PerturbationProblem
        steps = options(problem.prepare) | options(problem.solve) | options(problem.write)
        assert options(uc.tl.fit_perturbation) == steps

    def test_only_three_arguments_are_positional(self):
        parameters = inspect.signature(uc.tl.fit_perturbation).parameters
        positional = [name for name, p in parameters.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert positional == ["adata", "perturbation_key", "control"]

    def test_progress(self, adata, capsys):
        fit(adata, conditions=["mild"], progress=False)
        assert capsys.readouterr() == ("", "")
        fit(adata, conditions=["mild"], progress=True)
        out, err = capsys.readouterr()
        assert out == ""
        assert "couplings: 100%" in err
        assert "4/4" in err


def _spoil_cell(adata):
    adata.obsm["X_pca"][17, 1] = np.nan


def _coincide(adata):
    adata.obsm["X_pca"][:] = 1.0


# What is wrong, how the data are spoilt, arguments, the error, and what its message says. Labels that cannot be matched
# are tested with the problem; here one of them stands for all.
BAD_INPUT = {
    "labels": (None, {"control": "DMSO"}, ValueError, "`control` to be one of the labels"),
    "small": (None, {"min_cells": 40, "on_small": "error"}, ValueError, "at least 40 training cells"),
    "nan": (_spoil_cell, {}, ValueError, r"obsm\['X_pca'\] to be finite.*first: 'cell17'"),
    "no cost": (_coincide, {}, ValueError, "positive mean cost"),
    "tau": (None, {"tau": 1.5}, ValueError, r"`tau` to be in \(0, 1\], found 1\.5"),
    "tau and penalty": (None, {"tau": 0.9, "marginal_penalty": 0.1}, ValueError, "one of `tau` and `marginal_penalty`"),
    "method": (
        None,
        {"method": "gan"},
        ValueError,
        r"\['flow_matching', 'genot', 'icnn', 'monge_gap'\] or a `Method`, found 'gan'",
    ),
    "rescaling": (None, {"rescaling": "local"}, ValueError, "`rescaling` to be 'global' or 'minibatch'"),
    "fraction": (None, {"test_fraction": 1.0}, ValueError, r"`test_fraction` to be in \[0, 1\)"),
    "n_iters": (None, {"n_iters": 0}, ValueError, "`n_iters` to be"),
    "group_size": (None, {"group_size": 0}, ValueError, "`group_size` to be"),
    "key_added": (None, {"key_added": "a/b"}, ValueError, "`key_added` to be"),
    "store": (None, {"store": "mild"}, ValueError, "`store` to be 'all', None or a list of conditions, found 'mild'"),
    "unknown store": (None, {"store": ["x"]}, ValueError, r"conditions from \['mild', 'strong'\], found 'x'"),
    "unknown keyword": (None, {"n_iter": 10}, TypeError, "unexpected keyword argument 'n_iter'"),
    "not converged": (
        None,
        {"tau": 1.0, "epsilon": 3e-7},
        uc.ConvergenceError,
        r"coupling of 'mild' failed.*Raise .*`epsilon`",
    ),
    "learning rate": (
        None,
        {"method": replace(QUICK["method"], learning_rate=1e30)},
        uc.ConvergenceError,
        "Lower `learning_rate`",
    ),
}


@pytest.mark.parametrize(("spoil", "arguments", "error", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_explained_and_changes_nothing(adata, spoil, arguments, error, message):
    if spoil is not None:
        spoil(adata)
    before = adata.copy()
    with pytest.raises(error) as raised:
        fit(adata, **arguments)
    assert re.search(message, str(raised.value)), raised.value
    assert_same(contents(adata), contents(before))


@pytest.mark.parametrize("step", ["held_out_quality", "record"])
def test_failure_half_way_changes_nothing(adata, monkeypatch, step):
    calls = []

    def fail(*args, **kwargs):
        calls.append(args)
        raise MemoryError

    monkeypatch.setattr(_perturbation, step, fail)
    before = adata.copy()
    with pytest.raises(MemoryError):
        fit(adata)
    assert calls
    assert_same(contents(adata), contents(before))


def test_images_that_overflow_are_not_written(adata, monkeypatch):
    problem = PerturbationProblem(adata).prepare("drug", "control").solve(**QUICK)
    before = adata.copy()
    nan = lambda self, x: np.full(np.shape(x), np.nan, np.float32)  # noqa: E731
    monkeypatch.setattr(uc.methods.TransportMap, "push", nan)
    with pytest.raises(uc.ConvergenceError, match="images of all control cells, found NaN for 'mild'"):
        problem.write()
    assert_same(contents(adata), contents(before))
