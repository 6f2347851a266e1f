"""The perturbation problem, step by step; what ends up in AnnData is tested with `uc.tl.fit_perturbation`."""

import anndata as ad
import jax
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from drug_cells import N_CELLS, N_DIMS, N_GENES, N_TEST, N_TRAIN, N_VALID, QUICK, make_cells
from scipy import sparse

import uotcell as uc
from uotcell.problems import FittedPair, PerturbationProblem, _perturbation
from uotcell.problems._held_out import held_out_quality
from uotcell.problems._perturbation_pair import image_slots
from uotcell.problems._splits import SPLITS

LINES = ("a", "b")


def prepared(adata, control="control", **kwargs):
    return PerturbationProblem(adata).prepare("drug", control, **kwargs)


@pytest.fixture
def adata():
    return make_cells()


@pytest.fixture(scope="module")
def solved():
    return prepared(make_cells()).solve(**QUICK)


@pytest.fixture(scope="module")
def by_line():
    return prepared(make_cells(LINES), groupby="line").solve(**QUICK)


@pytest.fixture(scope="module")
def in_genes():
    return prepared(few_genes(make_cells(drugs=("mild",))), use_rep="X").solve(**QUICK)


def splits(problem):
    """Names of the splits by cell."""
    codes = problem._matched.split_codes(problem.adata.n_obs)
    return pd.Series(pd.Categorical.from_codes(codes, SPLITS), index=problem.adata.obs_names)


def unseen_controls(n=7, lines=("a",)):
    """Controls of another draw."""
    cells = make_cells(lines, drugs=(), seed=5)
    return cells[cells.obs["drug"] == "control"][:n].copy()


def few_genes(adata):
    """Make the components the genes: fits have the shapes, and so the programs, of those in components."""
    names = pd.DataFrame(index=[f"gene{i}" for i in range(N_DIMS)])
    return AnnData(sparse.csr_matrix(adata.obsm["X_pca"] + 6), obs=adata.obs, var=names)


class TestPrepare:
    def test_pairs(self, adata):
        problem = PerturbationProblem(adata)
        assert problem.prepare("drug", "control") is problem
        assert problem.pairs == [("mild", None), ("strong", None)]
        assert problem.conditions == ["mild", "strong"]
        assert prepared(adata, conditions=["strong"]).pairs == [("strong", None)]
        assert prepared(adata, conditions=np.array(["strong", "mild"])).conditions == ["strong", "mild"]

    def test_pairs_within_groups(self):
        adata = make_cells(LINES)
        everywhere = [("mild", "a"), ("mild", "b"), ("strong", "a"), ("strong", "b")]
        assert prepared(adata, groupby="line").pairs == everywhere
        assert prepared(adata).pairs == [("mild", None), ("strong", None)]
        only_in_a = adata[(adata.obs["drug"] != "strong") | (adata.obs["line"] == "a")].copy()
        assert prepared(only_in_a, groupby="line").pairs == everywhere[:-1]
        # Controls without treated cells of their group are of no use, and no error.
        no_drug_in_b = adata[(adata.obs["drug"] == "control") | (adata.obs["line"] == "a")].copy()
        assert prepared(no_drug_in_b, groupby="line").pairs == [("mild", "a"), ("strong", "a")]

    @pytest.mark.parametrize("dtype", [object, "category", "string"])
    def test_kind_of_labels_does_not_matter(self, adata, dtype):
        expected = splits(prepared(adata))
        adata.obs["drug"] = adata.obs["drug"].astype(dtype)
        pd.testing.assert_series_equal(splits(prepared(adata)), expected)

    def test_numbers_as_labels(self, adata):
        adata.obs["drug"] = adata.obs["drug"].map({"control": 0, "mild": 10, "strong": 100}).astype(int)
        assert prepared(adata, control=0).pairs == [(10, None), (100, None)]

    def test_splits_are_stratified(self):
        adata = make_cells(LINES)
        found = adata.obs.groupby(["drug", "line", splits(prepared(adata, groupby="line"))], observed=True).size()
        assert found.unstack()[list(SPLITS)].drop_duplicates().to_numpy().tolist() == [[N_TRAIN, N_VALID, N_TEST]]

    def test_cells_of_no_pair_are_in_no_split(self, adata):
        found = splits(prepared(adata, conditions=["mild"]))
        np.testing.assert_array_equal(found.isna(), adata.obs["drug"] == "strong")

    def test_splits_do_not_depend_on_other_conditions(self):
        adata = make_cells(LINES)
        for groupby in (None, "line"):
            everything = splits(prepared(adata, groupby=groupby))
            listed = splits(prepared(adata, groupby=groupby, conditions=["strong"]))
            fewer = adata[adata.obs["drug"] != "mild"].copy()
            for other in (listed.dropna(), splits(prepared(fewer, groupby=groupby))):
                pd.testing.assert_series_equal(other, everything[other.index])

    def test_splits_depend_on_the_seed(self, adata):
        first = splits(prepared(adata, rng=1))
        pd.testing.assert_series_equal(splits(prepared(adata, rng=jax.random.key(1))), first)
        assert (splits(prepared(adata, rng=2)) != first).any()

    def test_cells_without_a_label_are_left_out(self):
        adata = make_cells(LINES)
        adata.obs["drug"] = adata.obs["drug"].where(np.arange(adata.n_obs) % 10 > 0)
        with pytest.warns(UserWarning, match=r"Left out 27 cells without a label in 'drug'\."):
            found = splits(prepared(adata))
        np.testing.assert_array_equal(found.isna(), adata.obs["drug"].isna())
        adata.obs["line"] = adata.obs["line"].where(np.arange(adata.n_obs) % 10 != 1)
        with pytest.warns(UserWarning, match=r"Left out 54 cells without a label in 'drug' or 'line'\."):
            found = splits(prepared(adata, groupby="line"))
        np.testing.assert_array_equal(found.isna(), adata.obs[["drug", "line"]].isna().any(axis=1))

    def test_small_conditions_are_left_out_and_named(self, adata):
        few = adata.obs["drug"] == "mild"
        adata = adata[~few | (few.cumsum() <= 24)].copy()  # 20 to train on
        assert prepared(adata, min_cells=20).left_out == []
        with pytest.warns(UserWarning, match=r"Left out 1 of 2 pairs .* 21 training cells .*'mild' \(20 treated, 36"):
            problem = prepared(adata, min_cells=21)
        assert (problem.pairs, problem.left_out) == ([("strong", None)], [("mild", None)])
        assert splits(problem)[adata.obs["drug"] == "mild"].isna().all()
        with pytest.raises(ValueError, match=r"at least 21 .*, found fewer in 1 of 2 pairs: 'mild' .*\. Merge"):
            prepared(adata, min_cells=21, on_small="error")
        with pytest.raises(ValueError, match=r"at least 37 training cells a side, found fewer in 2 of 2 pairs"):
            prepared(adata, min_cells=37)

    def test_few_controls_of_a_group_are_small_too(self):
        adata = make_cells(LINES)
        few = (adata.obs["drug"] == "control") & (adata.obs["line"] == "b")
        adata = adata[~few | (few.cumsum() <= 10)].copy()
        with pytest.warns(UserWarning, match=r"'mild' in 'b' \(36 treated, 8 control\), 'strong' in 'b' \(36"):
            assert prepared(adata, groupby="line").pairs == [("mild", "a"), ("strong", "a")]

    def test_failure_keeps_what_was_prepared(self, adata):
        problem = prepared(adata)
        before = (problem.pairs, dict(problem.params))
        with pytest.raises(ValueError, match="`control`"):
            problem.prepare("drug", "DMSO")
        assert (problem.pairs, problem.params) == before


# What is wrong, how the labels are spoilt, arguments, the error, and what its message says.
BAD_LABELS = {
    "missing key": (None, {"perturbation_key": "dose"}, KeyError, r"`perturbation_key`.*\['drug', 'line'\].*'dose'"),
    "missing group": (None, {"groupby": "patient"}, KeyError, r"`groupby`.*\['drug', 'line'\].*found 'patient'"),
    "missing use_rep": (None, {"use_rep": "X_scvi"}, KeyError, r"`use_rep`.*\['X_pca'\], found 'X_scvi'"),
    "missing layer": (None, {"use_rep": "X", "layer": "raw"}, KeyError, "`layer`.*found 'raw'"),
    "no control": (None, {"control": "DMSO"}, ValueError, r"`control`.*\['control', 'mild', 'strong'\].*found 'DMSO'"),
    "only control": (lambda drug: "control", {}, ValueError, r"other labels.*found only 'control'.*`perturbation_key`"),
    "no controls in a group": (
        lambda drug: drug.where((drug != "control") | (np.arange(len(drug)) % 2 == 0), "mild"),
        {"groupby": "side"},
        ValueError,
        r"control cells in every group.*found none labelled 'control' in \[1\]\. Leave out `groupby`",
    ),
    "unknown condition": (None, {"conditions": ["mild", "x"]}, ValueError, r"\['mild', 'strong'\], found 'x'"),
    "control as condition": (None, {"conditions": ["control"]}, ValueError, "found 'control', the control itself"),
    "conditions twice": (None, {"conditions": ["mild", "mild"]}, ValueError, "distinct labels"),
    "conditions as a string": (None, {"conditions": "mild"}, ValueError, "`conditions` to be a list.*found 'mild'"),
    "no conditions": (None, {"conditions": []}, ValueError, r"`conditions` to be a list.*found \[\]"),
    "on_small": (None, {"on_small": "skip"}, ValueError, "`on_small` to be 'warn' or 'error', found 'skip'"),
    "min_cells": (None, {"min_cells": 0}, ValueError, "`min_cells` to be an integer of at least 1, found 0"),
    "no training cells": (None, {"valid_fraction": 0.5, "test_fraction": 0.6}, ValueError, "leave cells to train on"),
    "one slot for two": (
        lambda drug: drug.map({"control": "control", "mild": "a/b", "strong": "a-b"}),
        {},
        ValueError,
        r"distinct slots, found that 'a-b' and 'a/b' would both be written as 'a-b'\. Rename",
    ),
    "no name": (lambda drug: drug.replace("mild", ""), {}, ValueError, "can name a slot, found ''"),
    "unknown keyword": (None, {"group_by": "line"}, TypeError, "unexpected keyword argument 'group_by'"),
}


@pytest.mark.parametrize(("spoil", "arguments", "error", "message"), BAD_LABELS.values(), ids=BAD_LABELS)
def test_what_cannot_be_matched_is_explained(adata, spoil, arguments, error, message):
    if spoil is not None:
        adata.obs["drug"] = spoil(adata.obs["drug"].astype(str))
    if arguments.get("groupby") == "side":
        adata.obs["side"] = np.arange(adata.n_obs) % 2
    with pytest.raises(error, match=message):
        PerturbationProblem(adata).prepare(**{"perturbation_key": "drug", "control": "control", **arguments})


def test_long_lists_are_cut(adata):
    adata.obs["drug"] = [f"drug{i % 40}" for i in range(adata.n_obs)]
    with pytest.raises(ValueError, match=r"'drug0', .* and 20 more in"):
        prepared(adata)


class TestSolve:
    def test_pair(self, solved):
        adata, pair = solved.adata, solved["strong"]
        assert isinstance(pair, FittedPair)
        assert (pair.source, pair.target, pair.group, pair.label) == ("control", "strong", None, "strong")
        assert pair.coupling.tau == (0.95, 0.95)
        assert isinstance(pair.transport_map, uc.methods.TransportMap)
        for rows, label in ((pair.source_rows, "control"), (pair.target_rows, "strong")):
            expected = (adata.obs["drug"] == label) & (splits(solved) == "train")
            np.testing.assert_array_equal(rows, np.flatnonzero(expected))

    def test_couplings_see_training_cells_of_one_group(self, by_line):
        adata, split = by_line.adata, splits(by_line)
        for condition, line in by_line.pairs:
            pair = by_line[condition, line]
            assert (pair.target, pair.group, pair.label) == (condition, line, f"{condition}_{line}")
            for label, points in (("control", pair.coupling.x), (condition, pair.coupling.y)):
                rows = (adata.obs["drug"] == label) & (adata.obs["line"] == line) & (split == "train")
                assert len(points) == rows.sum() == N_TRAIN
                expected = adata.obsm["X_pca"][rows]
                np.testing.assert_allclose(np.asarray(points) + pair.coupling.shift, expected, atol=1e-5)

    def test_valid_cells_choose_and_test_cells_measure(self, solved):
        """What neither step may depend on can be spoilt without consequences."""
        adata, split = solved.adata.copy(), splits(solved)
        adata.obsm["X_pca"][split == "test"] += 10
        tested = prepared(adata).solve(**QUICK)
        assert tested["mild"].history.valid_divergence == solved["mild"].history.valid_divergence
        np.testing.assert_array_equal(tested.push(solved.adata, "mild"), solved.push(solved.adata, "mild"))
        assert tested["mild"].metrics["test_divergence"] != solved["mild"].metrics["test_divergence"]
        adata = solved.adata.copy()
        adata.obsm["X_pca"][split == "valid"] += 1
        validated = prepared(adata).solve(**QUICK)
        assert validated["mild"].history.valid_divergence != solved["mild"].history.valid_divergence
        np.testing.assert_array_equal(validated["mild"].coupling.source_weights, solved["mild"].coupling.source_weights)

    def test_metrics(self, solved):
        pair, split, adata = solved["strong"], splits(solved), solved.adata
        metrics, coupling = pair.metrics, pair.coupling
        assert metrics["transported_mass"] == coupling.transported_mass
        assert metrics["converged"] is True
        assert metrics["held_out_divergence"] == min(pair.history.valid_divergence)
        x, y = (
            adata.obsm["X_pca"][(split == "test") & (adata.obs["drug"] == label)] for label in ("control", "strong")
        )
        weights = {"a": coupling.source_rescaling(x), "b": coupling.target_rescaling(y)}
        images = {"": pair.transport_map.push(x), "_identity": x, "_entropic_map": coupling.push(x)}
        for name, image in images.items():
            expected = uc.metrics.sinkhorn_divergence(image, y, epsilon=pair.history.valid_epsilon, **weights)
            assert metrics[f"test_divergence{name}"] == pytest.approx(expected, rel=1e-3)
        assert metrics["test_divergence"] < metrics["test_divergence_identity"]

    def test_without_cells_to_validate_on(self, adata):
        problem = prepared(adata, valid_fraction=0, conditions=["mild"]).solve(**QUICK)
        pair = problem["mild"]
        assert len(pair.coupling.x) == N_CELLS - N_TEST
        assert pair.history.best_iteration == QUICK["n_iters"]
        assert np.isnan(pair.metrics["held_out_divergence"])
        assert pair.metrics["test_divergence"] > 0
        with pytest.raises(ValueError, match="`valid_fraction` above 0 with `patience`"):
            problem.solve(**QUICK, patience=2)

    def test_without_cells_to_test_on(self, solved):
        pair, nobody = solved["mild"], np.zeros((0, N_DIMS))
        quality = held_out_quality(pair.coupling, pair.transport_map, nobody, nobody, 1.0)
        assert set(quality) < set(pair.metrics)
        assert np.isnan(list(quality.values())).all()

    def test_a_pair_does_not_depend_on_others(self, adata, solved):
        alone = prepared(adata, conditions=["strong"]).solve(**QUICK)
        np.testing.assert_array_equal(alone.push(adata, "strong"), solved.push(adata, "strong"))

    def test_key_and_seed_are_one_choice(self, adata, solved):
        for rng in (jax.random.key(0), np.int64(0)):
            again = prepared(adata, rng=rng).solve(**QUICK, rng=rng)
            np.testing.assert_array_equal(again.push(adata, "mild"), solved.push(adata, "mild"))
        other = prepared(adata).solve(**QUICK, rng=1)
        assert not np.array_equal(other.push(adata, "mild"), solved.push(adata, "mild"))

    def test_defaults(self, adata, monkeypatch):
        given = {}
        monkeypatch.setattr(_perturbation, "fit_many", lambda *args, **kwargs: given.update(kwargs, args=args) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepared(adata).solve(progress=False)
        method, couplings = given["args"]
        assert method == uc.methods.MongeGap()
        assert given["n_iters"] == method.default_n_iters
        assert [coupling.tau for coupling in couplings] == [(0.95, 0.95)] * 2
        assert given["names"] == ["'mild'", "'strong'"]

    def test_failure_names_the_pair_and_keeps_the_fit_before(self, adata):
        problem = prepared(adata).solve(**QUICK)
        before = problem["mild"]
        with pytest.raises(uc.ConvergenceError, match=r"coupling of 'mild' failed\. .*Raise .*`epsilon`"):
            problem.solve(**QUICK, tau=1.0, epsilon=3e-7)
        with pytest.raises(ValueError, match="`batch_size`"):
            problem.solve(**{**QUICK, "batch_size": 0})
        assert problem["mild"] is before
        assert problem.params["epsilon"] == 0.01

    def test_preparing_again_forgets_the_fit(self, adata):
        problem = prepared(adata).solve(**QUICK).prepare("drug", "mild")
        with pytest.raises(RuntimeError, match=r"Run `\.solve\(\.\.\.\)` first"):
            problem["strong"]


class TestAccess:
    @pytest.mark.parametrize(
        ("call", "step"),
        [
            (lambda problem: problem.solve(), "prepare"),
            (lambda problem: problem.write(), "solve"),
            (lambda problem: problem["mild"], "solve"),
            (lambda problem: problem.push(np.zeros((1, N_DIMS)), "mild"), "solve"),
            (lambda problem: problem.predict(np.zeros((1, N_DIMS)), "mild"), "solve"),
        ],
        ids=["solve", "write", "getitem", "push", "predict"],
    )
    def test_steps_out_of_order_name_the_missing_one(self, adata, call, step):
        with pytest.raises(RuntimeError, match=rf"Run `\.{step}\(\.\.\.\)` first"):
            call(PerturbationProblem(adata))

    def test_unknown_pairs_are_refused(self, solved, by_line):
        assert solved["mild"] is solved["mild", None]
        with pytest.raises(KeyError, match=r"one of \['mild', 'strong'\], found 'weak'"):
            solved["weak"]
        with pytest.raises(KeyError, match=r"one of \['mild', 'strong'\], found \('mild', 'a'\)"):
            solved["mild", "a"]
        with pytest.raises(KeyError, match=r"a group with 'mild', one of \['a', 'b'\]: `problem\['mild', group\]`"):
            by_line["mild"]
        with pytest.raises(KeyError, match=r"one of \[\('mild', 'a'\), .*found \('mild', 'c'\)"):
            by_line.push(np.zeros((1, N_DIMS)), "mild", "c")

    def test_push_and_pull(self, solved, by_line):
        cells = unseen_controls()
        for problem, group in ((solved, None), (by_line, "b")):
            transport_map = problem["mild", group].transport_map
            for function, expected in ((problem.push, transport_map.push), (problem.pull, transport_map.pull)):
                moved = function(cells, "mild", group)
                assert (moved.shape, moved.dtype) == ((7, N_DIMS), np.float32)
                np.testing.assert_array_equal(moved, expected(cells.obsm["X_pca"]))
                np.testing.assert_array_equal(moved, function(cells.obsm["X_pca"].tolist(), "mild", group))
                np.testing.assert_allclose(moved, function(cells, "mild", group, batch_size=3), atol=1e-5)


class TestPredict:
    def test_unseen_cells(self, solved):
        cells = unseen_controls()
        cells.obs["predicted_mass"] = "old"
        before = cells.copy()
        predicted = solved.predict(cells, "strong")
        images = solved.push(cells, "strong")
        np.testing.assert_array_equal(predicted.obsm["X_pca"], images)
        np.testing.assert_array_equal(predicted.X, images)
        assert predicted.X.dtype == np.float32
        assert predicted.var_names.tolist() == ["X_pca_0", "X_pca_1", "X_pca_2"]
        assert predicted.obs_names.tolist() == cells.obs_names.tolist()
        assert predicted.obs["line"].tolist() == cells.obs["line"].tolist()
        assert predicted.obs["drug"].tolist() == ["strong"] * 7
        mass = solved["strong"].coupling.source_rescaling(cells.obsm["X_pca"])
        np.testing.assert_array_equal(predicted.obs["predicted_mass"], mass)
        assert predicted.obs["predicted_mass"].dtype == np.float32
        assert "negative_fraction" not in predicted.uns
        # The cells given stay as they were.
        pd.testing.assert_frame_equal(cells.obs, before.obs)
        assert list(cells.obsm) == list(before.obsm)

    def test_array(self, solved):
        cells = unseen_controls()
        predicted = solved.predict(cells.obsm["X_pca"].astype(np.float64), "mild")
        np.testing.assert_array_equal(predicted.X, solved.push(cells, "mild"))
        assert list(predicted.obs) == ["drug", "predicted_mass"]
        assert solved.predict(np.zeros((0, N_DIMS)), "mild").shape == (0, N_DIMS)

    def test_result_can_be_stored(self, solved, tmp_path):
        predicted = solved.predict(unseen_controls(), "mild", decode="pca")
        predicted.write_h5ad(tmp_path / "predicted.h5ad")
        predicted.write_zarr(tmp_path / "predicted.zarr")

    def test_every_cell_by_the_map_of_its_group(self, by_line):
        cells = unseen_controls(n=60, lines=LINES)
        predicted = by_line.predict(cells, "mild")
        for line in LINES:
            rows = (cells.obs["line"] == line).to_numpy()
            assert rows.any()
            alone = by_line.predict(cells[rows], "mild", group=line)
            np.testing.assert_allclose(predicted.X[rows], alone.X, atol=1e-5)
            np.testing.assert_allclose(predicted.obs["predicted_mass"][rows], alone.obs["predicted_mass"], rtol=1e-4)
        by_a = by_line.predict(cells, "mild", group="a")
        np.testing.assert_array_equal(by_a.X, by_line.push(cells, "mild", "a"))

    def test_groups_that_cannot_be_told_are_refused(self, by_line, solved):
        cells = unseen_controls()
        with pytest.raises(KeyError, match=r"a group with 'mild', one of \['a', 'b'\]"):
            by_line.predict(cells.obsm["X_pca"], "mild")
        cells.obs["line"] = "c"
        with pytest.raises(ValueError, match=r"groups \['a', 'b'\].*to 'mild', found \['c'\] in 7 cells\. .*`group`"):
            by_line.predict(cells, "mild")
        assert by_line.predict(cells, "mild", group="a").shape == (7, N_DIMS)
        cells.obs["line"] = None
        with pytest.raises(ValueError, match=r"found \[None\] in 7 cells"):
            by_line.predict(cells, "mild")
        with pytest.raises(KeyError, match="found 'weak'"):
            by_line.predict(cells, "weak")
        with pytest.raises(KeyError, match=r"found \('mild', 'a'\)"):
            solved.predict(cells, "mild", group="a")

    def test_cells_unlike_those_of_the_fit_are_refused(self, solved):
        with pytest.raises(ValueError, match="`cells` to have 3 dimensions, as in the fit, found 4"):
            solved.predict(np.zeros((2, 4)), "mild")
        with pytest.raises(ValueError, match=r"`cells` to be a dense numeric array .* found shape \(\)"):
            solved.predict(sparse.csr_matrix(np.zeros((2, N_DIMS))), "mild")
        with pytest.raises(KeyError, match=r"`use_rep`.*found 'X_pca'"):
            solved.predict(AnnData(np.zeros((2, 4), np.float32)), "mild")
        cells = unseen_controls()
        cells.obsm["X_pca"][4] = np.inf
        with pytest.raises(ValueError, match="found NaN or inf in 1 cells"):
            solved.predict(cells, "mild")

    def test_images_that_overflow_are_refused(self, solved, monkeypatch):
        nan = lambda self, x, batch_size: np.full(np.shape(x), np.nan, np.float32)  # noqa: E731
        monkeypatch.setattr(uc.methods.TransportMap, "push", nan)
        with pytest.raises(uc.ConvergenceError, match="finite images"):
            solved.predict(unseen_controls(), "mild")


class TestFeatures:
    def test_features_are_found_by_name(self, in_genes):
        cells = few_genes(unseen_controls())
        predicted = in_genes.predict(cells, "mild")
        np.testing.assert_array_equal(predicted.X, in_genes.push(cells.X.toarray(), "mild"))
        pd.testing.assert_index_equal(predicted.var_names, cells.var_names)
        assert list(predicted.obsm) == []
        assert predicted.uns["negative_fraction"] == 0.0
        one = AnnData(np.ones((7, 1), np.float32), obs=cells.obs, var=pd.DataFrame(index=["other"]))
        more = ad.concat([one, cells], axis="var")
        for other in (cells[:, ::-1], more):
            np.testing.assert_array_equal(in_genes.predict(other, "mild").X, predicted.X)
            np.testing.assert_array_equal(in_genes.push(other, "mild"), predicted.X)

    def test_missing_features_are_counted_and_named(self, in_genes):
        with pytest.raises(ValueError, match=r"3 features of the fit, found 2 of them missing: \['gene0', 'gene1'\]\."):
            in_genes.predict(few_genes(unseen_controls())[:, 2:], "mild")

    @pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
    def test_repeated_names(self, in_genes):
        cells = few_genes(unseen_controls())
        cells.var_names = ["gene0"] * N_DIMS
        with pytest.raises(ValueError, match="found repeated names in another order"):
            in_genes.predict(cells, "mild")

    def test_clip(self, in_genes):
        below = few_genes(unseen_controls())
        below.X = below.X.toarray() - 6
        predicted, clipped = (in_genes.predict(below, "mild", clip=clip) for clip in (False, True))
        assert predicted.uns["negative_fraction"] == (predicted.X < 0).mean() > 0.1
        assert clipped.uns["negative_fraction"] == predicted.uns["negative_fraction"]
        np.testing.assert_array_equal(clipped.X, np.maximum(predicted.X, 0))

    def test_decoding_features_is_refused(self, in_genes):
        with pytest.raises(ValueError, match="`decode`=None with `use_rep`='X', found 'pca'"):
            in_genes.predict(few_genes(unseen_controls()), "mild", decode="pca")


class TestDecode:
    def test_pca(self, solved):
        cells = unseen_controls()
        predicted = solved.predict(cells, "mild", decode="pca")
        adata, images = solved.adata, solved.push(cells, "mild")
        expected = images @ adata.varm["PCs"].T + adata.var["mean"].to_numpy()
        np.testing.assert_allclose(predicted.X, expected, rtol=1e-5)
        assert predicted.X.dtype == np.float32
        pd.testing.assert_index_equal(predicted.var_names, adata.var_names)
        np.testing.assert_array_equal(predicted.obsm["X_pca"], images)
        assert predicted.uns["negative_fraction"] == 0.0

    @pytest.fixture
    def with_scanpy(self, solved, request):
        """Give the data of the fit a PCA of scanpy's, with as many components; decode without moving a cell."""

        def run(change=None, **kwargs):
            adata = solved.adata.copy()
            for mapping, name in ((adata.var, "mean"), (adata.varm, "PCs"), (adata.obsm, "X_pca")):
                del mapping[name]
            noise = np.random.default_rng(3).gamma(1.0, size=adata.shape).astype(np.float32)
            adata.X = sparse.csr_matrix(adata.X.toarray() + noise)
            adata.layers["scaled"] = adata.X.copy() * 2
            adata.var["some"] = np.arange(N_GENES) % 4 > 0
            if change is not None:
                change(adata)
            sc.pp.pca(adata, n_comps=N_DIMS, **kwargs)
            return adata

        return run

    @staticmethod
    def decoded(adata, use_rep="X_pca"):
        """Decode the components of the cells themselves."""
        from uotcell.problems._decode import resolve_decoder

        return resolve_decoder(adata, use_rep, "pca", N_DIMS)(adata.obsm[use_rep])

    @pytest.mark.parametrize(
        ("options", "matrix"),
        [
            ({}, lambda adata: adata.X.toarray()),
            ({"layer": "scaled"}, lambda adata: adata.layers["scaled"].toarray()),
            ({"svd_solver": "covariance_eigh"}, lambda adata: adata.X.toarray()),
        ],
        ids=["X", "layer", "solver"],
    )
    def test_scanpy(self, with_scanpy, options, matrix):
        """Equal to the inverse transform of scikit-learn's PCA, which scanpy runs."""
        from sklearn.decomposition import PCA

        adata = with_scanpy(**options)
        values = matrix(adata).astype(np.float64)
        pca = PCA(N_DIMS).fit(values)
        expected = pca.inverse_transform(pca.transform(values))
        np.testing.assert_allclose(self.decoded(adata), expected, rtol=1e-4, atol=1e-4)

    def test_scanpy_on_some_genes(self, with_scanpy):
        adata = with_scanpy(mask_var="some")
        decoded, used = self.decoded(adata), adata.var["some"].to_numpy()
        values = adata.X.toarray().astype(np.float64)
        np.testing.assert_allclose(decoded[:, ~used] - values[:, ~used].mean(axis=0), 0, atol=1e-4)
        loadings = adata.varm["PCs"][used]
        centred = values[:, used] - values[:, used].mean(axis=0)
        expected = centred @ loadings @ loadings.T + values[:, used].mean(axis=0)
        np.testing.assert_allclose(decoded[:, used], expected, atol=1e-3)

    def test_scanpy_under_another_name(self, with_scanpy):
        adata = with_scanpy(key_added="mine")
        expected = self.decoded(with_scanpy())
        np.testing.assert_allclose(self.decoded(adata, "mine"), expected, atol=1e-4)

    def test_scanpy_of_scaled_data(self, with_scanpy):
        """`sc.pp.scale` leaves the mean before scaling in `.var["mean"]`; the PCA did not subtract it."""

        def scale(adata):
            adata.X = adata.X.toarray()
            sc.pp.scale(adata)
            assert adata.var["mean"].min() > 4

        adata = with_scanpy(scale)
        np.testing.assert_allclose(self.decoded(adata).mean(axis=0), 0, atol=1e-4)

    def test_scanpy_without_centring(self, with_scanpy):
        adata = with_scanpy(zero_center=False)
        values, inverse = adata.X.toarray(), adata.obsm["X_pca"] @ adata.varm["PCs"].T
        assert 0 < np.linalg.norm(self.decoded(adata) - values) <= np.linalg.norm(inverse - values)

    def test_subset_of_the_cells_of_the_pca(self, with_scanpy):
        adata = with_scanpy()
        expected = self.decoded(adata)
        some = (adata.obs["drug"] == "control").to_numpy()
        # Components of the subset are not centred; what they decode to has the mean of the subset.
        decoded = self.decoded(adata[some].copy())
        np.testing.assert_allclose(decoded.mean(axis=0), adata.X[some].toarray().mean(axis=0), atol=1e-4)
        loadings = adata.varm["PCs"]
        np.testing.assert_allclose(decoded @ loadings, expected[some] @ loadings, atol=1e-3)

    def test_a_function(self, solved):
        cells = unseen_controls()
        predicted = solved.predict(cells, "mild", decode=lambda images: images[:, :2] - 100)
        np.testing.assert_array_equal(predicted.X, solved.push(cells, "mild")[:, :2] - 100)
        assert predicted.var_names.tolist() == ["decoded_0", "decoded_1"]
        assert predicted.uns["negative_fraction"] == 1.0
        with pytest.raises(ValueError, match=r"`decode` to return .* shape \(7, n_genes\), found shape \(3,\)"):
            solved.predict(cells, "mild", decode=lambda images: images[0])

    @pytest.mark.parametrize(
        ("spoil", "arguments", "message"),
        [
            (None, {"decode": "scvi"}, "`decode` to be 'pca', a function or None, found 'scvi'"),
            (None, {"clip": True}, "`decode` with `clip`=True, found None"),
            (lambda a: a.varm.clear(), {"decode": "pca"}, r"in `adata\.varm\['PCs'\]`, found \[\]\. Run `sc\.pp\.pca"),
            (
                lambda a: a.varm.update(PCs=np.zeros((N_GENES, 5))),
                {"decode": "pca"},
                r"loadings of 3 components .*found shape \(8, 5\)\. Give `decode` a function",
            ),
            (
                lambda a: a.varm.update(PCs=a.varm["PCs"][:, ::-1]),
                {"decode": "pca"},
                r"to be \(adata\.X − mean\) @ loadings, found a difference of .*Run `sc\.pp\.pca",
            ),
            (lambda a: setattr(a, "X", a.X.power(2)), {"decode": "pca"}, r"adata\.X was changed"),
        ],
        ids=["unknown", "clip alone", "no loadings", "other width", "other order", "other matrix"],
    )
    def test_what_cannot_be_decoded_is_explained(self, solved, monkeypatch, spoil, arguments, message):
        adata = solved.adata.copy()
        if spoil is not None:
            spoil(adata)
        monkeypatch.setattr(solved, "adata", adata)
        with pytest.raises(ValueError, match=message):
            solved.predict(unseen_controls(), "mild", **arguments)

    def test_without_the_matrix_the_stored_mean_counts(self, solved, monkeypatch):
        adata = solved.adata.copy()
        monkeypatch.setattr(solved, "adata", adata)
        expected = solved.predict(unseen_controls(), "mild", decode="pca").X
        adata.X = None
        np.testing.assert_allclose(solved.predict(unseen_controls(), "mild", decode="pca").X, expected, rtol=1e-5)
        del adata.var["mean"]
        with pytest.raises(ValueError, match=r"or its mean .*, found neither"):
            solved.predict(unseen_controls(), "mild", decode="pca")


def test_a_patient_left_out():
    """On as few cells and components as the other tests, for their compiled programs."""
    adata = uc.datasets.glioblastoma()
    adata.obsm["X_pca"], adata.varm["PCs"] = (
        adata.obsm["X_pca"][:, :N_DIMS].copy(),
        adata.varm["PCs"][:, :N_DIMS].copy(),
    )
    unseen = (adata.obs["patient"] == "PW040").to_numpy()
    rank = adata.obs.groupby(["patient", "condition"], observed=True).cumcount()
    others = adata[~unseen & (rank < N_CELLS // 4).to_numpy()].copy()
    problem = PerturbationProblem(others).prepare("condition", "control").solve(**{**QUICK, "n_iters": 40}, tau=1.0)
    control, treated = (adata[unseen & (adata.obs["condition"] == c).to_numpy()] for c in ("control", "panobinostat"))
    predicted = problem.predict(control, "panobinostat", decode="pca", clip=True)
    assert predicted.shape == control.shape
    assert predicted.obs["patient"].eq("PW040").all()
    assert predicted.X.min() >= 0
    before, after, observed = (cells.obsm["X_pca"].mean(axis=0) for cells in (control, predicted, treated))
    # Forty cells of four patients cannot tell how far, but in which direction.
    assert (after - before) @ (observed - before) > 0.5 * np.linalg.norm(observed - before) ** 2


def test_only_anndata_is_taken():
    with pytest.raises(TypeError, match="`adata` to be an AnnData, found ndarray"):
        PerturbationProblem(np.zeros((30, 2)))


def test_an_earlier_record_names_no_slots_of_others():
    assert image_slots({"pairs": {"slots": np.array(["X_pca", "uot_push_a", "uot2_push_a"])}}, "uot") == {"uot_push_a"}
    for record in (None, "pairs", {"pairs": 3}, {"pairs": {"slots": [["a"], 3]}}, {"pairs": {"slots": np.array({})}}):
        assert image_slots(record, "uot") == set()
