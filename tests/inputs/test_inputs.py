"""Every shape of AnnData times every function that takes one: the answer of dense float32, or an error of ours.

After an error `adata` is what it was, and so is what it was read from; after success, what was there before still is.
Whatever stops a function while it writes, `adata` is what it was too. Those tests are in this file because they share
its fits, which take time to compile.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from pathlib import Path

import anndata as ad
import dask.array as da
import matplotlib
import numpy as np
import pandas as pd
import pytest
from input_calls import CALLS, DRUGS, NEW, drugs
from input_shapes import CONTENTS, DRUG, KEPT_IN_SLOTS, OBSM, QUICK, SHAPES, fitted, looking_at, times, view
from matplotlib import pyplot as plt
from scipy import sparse

import uotcell as uc
from uotcell.problems import _slots
from uotcell.problems._slots import write_slots

matplotlib.use("Agg")
MATCHED = ["obs", "var", "obsm", "varm", "obsp", "layers", "uns"]

# Functions by what they need.
CELLRANK = ["to_cellrank, precomputed", "to_cellrank, realtime"]
TIMED = ["TemporalProblem", "tl.evaluate_interpolation", "pp.score_growth", *CELLRANK]
TYPED = ["tl.transitions", "tl.clonal_fate", "tl.cross_boundary_direction"]
TABLE = ["pl.transitions", "pl.sankey"]
STREAM = ["pl.velocity_stream", "pl.velocity_stream, gene"]
WEIGHTS = ["pl.growth", "pl.weight_markers"]
FITTED = [*TYPED, *TABLE, *STREAM, *WEIGHTS, "tl.transition_matrix", "pl.history"]
WRITABLE = [*TIMED, *TYPED, "tl.transition_matrix", "PerturbationProblem", "TranslationProblem"]


def each(calls, message):
    return dict.fromkeys(calls, message)


NO_FIT = each(FITTED, r"Run `uc\.tl\.\w+")
# What raises, by shape and function, and what the error says; all else gives the answer of the dense matrix.
ERRORS = {
    **{
        name: {"pp.score_growth": "log-normalised expression, found whole numbers"}
        for name in SHAPES
        if name.startswith(("int32", "int64", "uint8", "sparse int"))
    },
    "view of backed": each(WRITABLE, "view of a backed one"),
    "no X": {"pl.velocity_stream, gene": "`adata.X` to hold the values"},
    "repeated gene names": each([STREAM[1], WEIGHTS[1]], "one gene of the name .* found 2"),
    "numbered cells": {"pl.interpolation": "hold the cells of the fit, found no 'zelle 0/é'"},
    "missing type": each(TYPED, "to have a label, found 1 missing") | each(TABLE, r"Run `uc\.tl\.transitions"),
    "missing time": NO_FIT | each(TIMED, "to have a time, found 1 missing"),
    "boolean time": NO_FIT | each(TIMED, "to hold finite numbers, dates, ordered categories"),
    "time without numbers": NO_FIT | each(TIMED, "to hold finite numbers, dates, ordered categories"),
    "time: categories of strings": {"pp.score_growth": "found 'h' .* give `days_per_unit=1 / 24`"},
    "no cells": each(WRITABLE, "to have cells, found none")
    | each(STREAM, "to hold finite rows, found none")
    | each(WEIGHTS, "to hold positive weights, found none")
    | {"pl.interpolation": "to hold the cells of the fit", "benchmark.read_screen": r"one of the labels \[\]"},
}
# Principal components by Arnoldi iterations, which round differently for sparse matrices and doubles.
ROUNDING = {"tl.evaluate_interpolation": 2e-4}


def snapshot(value):
    """Everything in nested dicts of arrays."""
    if isinstance(value, Mapping):
        return {name: snapshot(item) for name, item in value.items()}
    if isinstance(value, pd.DataFrame):
        return {"index": np.asarray(value.index), **{name: snapshot(value[name].array) for name in value}}
    if isinstance(value, pd.Categorical):
        return {"codes": value.codes.copy(), "categories": np.asarray(value.categories)}
    if isinstance(value, pd.api.extensions.ExtensionArray):
        value = value.astype(object)
    if isinstance(value, da.Array):
        value = value.compute()
    elif hasattr(value, "to_memory"):
        value = value.to_memory()
    return value.toarray() if sparse.issparse(value) else np.array(value)


def contents(adata):
    found = {name: snapshot(getattr(adata, name)) for name in MATCHED} | {"X": snapshot(adata.X)}
    found["layers"].pop(None, None)
    return found | ({} if adata.raw is None else {"raw": snapshot(adata.raw.X)})


def numbers(value):
    """All numbers, in order; not names, settings or times of a clock."""
    if isinstance(value, Mapping):
        skipped = ("params", "seconds", "steps_per_second", "categories", "n_genes")
        # A file may give names back in another order.
        return [number for name in sorted(value) if name not in skipped for number in numbers(value[name])]
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    array = snapshot(value)
    return [array] if array.dtype.kind in "biuf" else []


def added(after, before):
    """Numbers of what is new, after checking that all else is as before."""
    new = []
    for slot, values in after.items():
        kept = {name: value for name, value in values.items() if name in before[slot]} if slot in MATCHED else values
        assert_equal(kept, before[slot])
        if slot in MATCHED:
            new.append({name: value for name, value in values.items() if name not in kept})
    return numbers(new)


def assert_equal(found, expected):
    if isinstance(expected, dict):
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert_equal(found[name], value)
    else:
        assert found.dtype == expected.dtype
        missing = pd.isna(expected)
        np.testing.assert_array_equal(pd.isna(found), missing)
        np.testing.assert_array_equal(found[~missing], expected[~missing])


@lru_cache(None)
def answer(content, where, call):
    """Numbers of the dense content in memory."""
    adata = looking_at(fitted(content).copy(), where)
    before = contents(adata)
    result = numbers(CALLS[call](adata, where, content))
    return result + added(contents(adata), before)


def cases():
    for shape, call in product(SHAPES, CALLS):
        # Plots of what is in `.uns` see no matrix.
        if not (call in ("pl.history", *TABLE) and shape in KEPT_IN_SLOTS):
            yield pytest.param(shape, call, id=f"{shape}-{call}")


# Writing into a view makes it a copy; names that repeat or are numbers.
@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning", "ignore:Variable names are not unique")
@pytest.mark.parametrize(("shape", "call"), list(cases()))
def test_same_answer_or_an_error(shape, call, tmp_path):
    kept = SHAPES[shape]
    adata = kept.build(tmp_path)
    before = contents(adata)
    expected = ERRORS.get(shape, {}).get(call)
    try:
        result = numbers(CALLS[call](adata, kept.where, kept.same_as))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raised, result = error, None
    else:
        raised, result = None, result + added(contents(adata), before)
    if raised is not None:
        assert_equal(contents(adata), before)
    if adata.isbacked:
        adata.file.close()
        assert (tmp_path / "cells.h5ad").read_bytes() == (tmp_path / "as written.h5ad").read_bytes()
    if expected is not None:
        assert raised is not None, f"no error, expected {expected!r}"
        assert re.search(expected, str(raised)), str(raised)
        assert "Expected" in str(raised)
        return
    assert raised is None, f"{type(raised).__name__}: {raised}"
    if not adata.n_obs:
        assert all(len(one) == 0 for one in result if one.shape[1:] == (4,))  # no images of no cells
        return
    wanted = answer(kept.same_as, kept.where, call)
    assert len(result) == len(wanted)
    for one, other in zip(result, wanted, strict=True):
        tolerance = ROUNDING.get(call, 0)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
@pytest.mark.parametrize("shape", ["dask of csr, X", "csc, X", "backed r+", "view", "time: date"])
def test_fits_from_beginning_to_end(shape, tmp_path):
    kept = SHAPES[shape]
    adata = kept.build(tmp_path)
    uc.tl.fit_trajectory(adata, "day", **kept.where.options, **QUICK)
    uc.tl.fit_perturbation(adata, DRUG, "control", **kept.where.options, **QUICK, **DRUGS, key_added=NEW)
    if adata.isbacked:
        adata.file.close()
    course, screen = times(kept.same_as, kept.where).adata, drugs(kept.same_as, kept.where).adata
    for slot in ("push", "velocity"):
        np.testing.assert_array_equal(adata.obsm[f"uot_{slot}"], course.obsm[f"uot_{slot}"])
    for slot in ("push_drug a", "push_5 µM-b"):
        np.testing.assert_array_equal(adata.obsm[f"{NEW}_{slot}"], screen.obsm[f"uot_{slot}"])
    np.testing.assert_array_equal(adata.obs["uot_target_weight"], course.obs["uot_target_weight"])
    np.testing.assert_array_equal(adata.obs[f"{NEW}_target_weight"], screen.obs["uot_target_weight"])


@pytest.mark.parametrize("n_genes", [1, 1000])
def test_one_gene_and_a_thousand_are_fitted(n_genes):
    adata = CONTENTS["one gene" if n_genes == 1 else "1000 genes"]()
    adata.X = sparse.csr_matrix(adata.X)
    method = uc.methods.FlowMatching(hidden=(4,), solver="euler", n_steps=2)
    uc.tl.fit_trajectory(
        adata, "day", use_rep="X", method=method, policy=[(0, 1)], n_iters=2, valid_fraction=0.0, progress=False
    )
    source = (adata.obs["day"] == 0).to_numpy()
    assert np.isfinite(adata.obsm["uot_push"][source]).all()
    assert adata.obsm["uot_push"].shape == (adata.n_obs, n_genes)


def test_one_gene_has_no_principal_components():
    with pytest.raises(ValueError, match=r"at least two features .* found 1\. Give `use_rep`"):
        uc.tl.evaluate_interpolation(CONTENTS["one gene"](), "day", progress=False)


# Functions that write, and how many slots.
N_SLOTS = {
    "TemporalProblem": 5,
    "PerturbationProblem": 5,
    "TranslationProblem": 4,
    "tl.transitions": 1,
    "tl.clonal_fate": 1,
    "tl.cross_boundary_direction": 1,
    "tl.transition_matrix": 3,
    "tl.evaluate_interpolation": 1,
    "pp.score_growth": 4,
    "to_cellrank, realtime": 1,
    "pl.velocity_stream": 1,
    "pl.interpolation": 2,
}


def stopped(call, adata, at, error, monkeypatch, *, after):
    """Stop a call before or after the `at`-th of all assignments; say whether it made as many."""
    assign, made = _slots._set, []

    def stop_once(*slot):
        made.append(slot)
        if len(made) != at or after:
            assign(*slot)
        if len(made) == at:
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(_slots, "_set", stop_once)
        try:
            CALLS[call](adata, OBSM, "plain")
        except error:
            return True
        finally:
            plt.close("all")
    return False


@pytest.mark.parametrize(("error", "after"), [(ValueError, False), (KeyboardInterrupt, True)], ids=["error", "Ctrl-C"])
@pytest.mark.parametrize(("call", "n_slots"), N_SLOTS.items(), ids=N_SLOTS)
def test_stopped_at_every_assignment(call, n_slots, error, after, monkeypatch):
    adata = looking_at(fitted("plain").copy(), OBSM)
    for earlier in (False, True):  # of the same names, too
        before = contents(adata)
        # Two plots write one slot each: the first has finished when the second is stopped.
        for at in range(1, n_slots + 1) if call != "pl.interpolation" else [1]:
            assert stopped(call, adata, at, error, monkeypatch, after=after)
            assert_equal(contents(adata), before)
        if not earlier:
            assert not stopped(call, adata, n_slots + 1, error, monkeypatch, after=after)


def test_what_is_removed_comes_back():
    adata = ad.AnnData(obsm={"old": np.zeros((3, 2))})
    with pytest.raises(ValueError, match="length"):
        write_slots((adata, {"obsm": {"old": None, "absent": None}, "obs": {"long": np.zeros(5)}}))
    assert list(adata.obsm) == ["old"]
    write_slots((adata, {"obsm": {"old": None}, "obs": {"right": np.zeros(3)}}))
    assert (list(adata.obsm), list(adata.obs)) == ([], ["right"])


def test_kernel_that_fails_takes_its_times_back(monkeypatch):
    adata = looking_at(fitted("plain").copy(), OBSM)
    before = contents(adata)
    monkeypatch.setattr("uotcell.problems._cellrank._replace_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        CALLS["to_cellrank, realtime"](adata, OBSM, "plain")
    assert_equal(contents(adata), before)


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_parent_of_a_view_stays(monkeypatch):
    cells = view(fitted("plain").copy(), None)
    parent = cells._adata_ref
    before, names = contents(parent), list(parent.obs_names)
    assert stopped("pp.score_growth", cells, 2, ValueError, monkeypatch, after=True)
    CALLS["pp.score_growth"](cells, OBSM, "plain")
    assert list(parent.obs_names) == names
    assert_equal(contents(parent), before)
    assert "µ new" in cells.uns


def test_nothing_else_assigns():
    """Results go through `write_slots`, or they could be half-written; data sets are new."""
    package = Path(uc.__file__).parent
    assigned = re.compile(r"\badata\w*\.(obs\w?|uns|layers)(\[[^=\n]*\] = |\.(pop|update)\()")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if assigned.search(line) and "`adata" not in line and ">>>" not in line
    }
    assert {path for path in found if not path.startswith("datasets")} == {"benchmark/_cli.py"}
