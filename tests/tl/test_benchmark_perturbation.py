"""The perturbation benchmark end to end, on a screen of three conditions."""

import shutil

import numpy as np
import pandas as pd
import pytest
from tiny_screen import CALL, ICNN, tiny_screen, tiny_truth

import uotcell as uc
from uotcell.benchmark import BenchmarkResult, _run
from uotcell.benchmark._selection import BASELINE_FAMILIES
from uotcell.benchmark._store import read_json

FAMILIES = {"OT-ICNN", "UOT-ICNN", *BASELINE_FAMILIES, "ceiling"}
N_TASKS = 2 * 3  # seeds × (baselines and two τ)


def call(out, **change):
    return uc.tl.benchmark_perturbation(
        tiny_screen(), "drug", "control", **{**CALL, "truth": tiny_truth(), "out": out, **change}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "new" / "folder"
    return out, call(out)


def test_scores_have_every_row(run):
    _, result = run
    keys = ["dataset", "condition", "group", "seed", "method", "tau", "split", "weighting"]
    scores = result.scores
    assert not scores.duplicated(keys).any()
    # (5 without τ + entropic and icnn at two τ) × conditions × seeds × splits × weightings
    assert len(scores) == 9 * 3 * 2 * 2 * 2
    assert (scores["n_score"] == 12).all()
    assert (scores["error"] == "").all()
    assert scores.groupby(["condition", "seed"])["score_epsilon"].nunique().eq(1).all()
    test = scores[scores["split"] == "test"]
    for metric in ("sinkhorn_divergence", "mmd", "classifier_auc", "discrimination_rank"):
        assert test[metric].notna().all()
    assert test[test["method"] != "ceiling"]["survivor_divergence"].notna().all()
    assert test[(test["method"] == "icnn") & (test["tau"] == 0.9)]["weight_spearman"].notna().all()
    assert test[test["tau"] == 1]["weight_spearman"].isna().all()


def test_true_shifts_are_found(run):
    test = run[1].scores.query("split == 'test' and weighting == 'unweighted'")
    error = test.groupby("method")["map_error"].mean()
    assert error["mean_shift"] < 0.3 * error["identity"]
    divergence = test.groupby("method")["sinkhorn_divergence"].mean()
    assert max(divergence["ceiling"], divergence["mean_shift"]) < 0.5 * divergence["identity"]


def test_unweighted_is_weighted_without_weights(run):
    columns = ["condition", "seed", "method", "split"]
    scores = run[1].scores
    scores = scores[scores["tau"].isna() | (scores["tau"] == 1)]
    sides = [scores[scores["weighting"] == w].set_index([*columns, "tau"]) for w in ("unweighted", "weighted")]
    pd.testing.assert_frame_equal(*(side.drop(columns="weighting") for side in sides))


def test_families_hold_test_cells_only(run):
    families = run[1].families
    assert set(families["family"]) == FAMILIES
    assert set(families["split"]) == {"test"}
    assert not families.duplicated(["condition", "seed", "weighting", "family"]).any()
    assert len(families) == len(FAMILIES) * 3 * 2 * 2
    assert (families[families["family"] == "OT-ICNN"]["tau"] == 1).all()


def test_files(run):
    out, result = run
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "perturbation.md",
        "results.csv",
        "runs.json",
        "tasks",
    }
    assert len(list((out / "tasks").iterdir())) == N_TASKS
    table = pd.read_csv(out / "results.csv")
    assert len(table) == len(result.scores)
    np.testing.assert_allclose(table["mmd"], result.scores["mmd"], rtol=1e-5)
    (ran,) = read_json(out / "runs.json")["runs"]
    assert ran["tasks"] == N_TASKS
    assert ran["seconds"] > 0


def test_report(run):
    out, result = run
    text = (out / "perturbation.md").read_text()
    assert text == result.to_markdown()
    for family in FAMILIES:
        assert f"| {family} |" in text
    for part in ("## data", "Sinkhorn divergence", "Pairwise", "size of the effect", "Against the truth", " of 3 |"):
        assert part in text
    for part in ("device: cpu", f"uotcell {read_json(out / 'config.json')['versions']['uotcell']}", "cores", "6 tasks"):
        assert part in text
    assert "nan" not in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "tasks").iterdir()}


def test_a_second_call_runs_what_is_missing(run, tmp_path):
    earlier, result = run
    out = shutil.copytree(earlier, tmp_path / "out")
    before, (first, second, *_) = times(out), sorted((out / "tasks").iterdir())
    first.unlink()
    second.write_text(second.read_text()[:100])  # as if the disk had been full
    again = call(out)
    after = times(out)
    assert {name for name in after if after[name] != before[name]} == {first.name, second.name}
    pd.testing.assert_frame_equal(again.scores, result.scores)
    assert [ran["tasks"] for ran in read_json(out / "runs.json")["runs"]] == [N_TASKS, 2]
    call(out)
    assert times(out) == after


def test_other_settings_are_refused(run):
    with pytest.raises(ValueError, match=r"n_iters\.icnn was 10 and is 11"):
        call(run[0], n_iters=11)


def test_results_can_be_read_without_the_data(run, tmp_path):
    result = BenchmarkResult.load(shutil.copytree(run[0], tmp_path / "out"), tune="condition")
    assert set(result.families["tuned_for"]) == {"", "condition"}
    assert set(run[1].families["tuned_for"]) == {"", "dataset"}
    with pytest.raises(FileNotFoundError, match="Run a benchmark first"):
        BenchmarkResult.load(run[0] / "tasks")


def test_failed_tasks_are_named_and_the_others_kept(tmp_path, monkeypatch):
    def fail(task, screen, config):
        if task.seed == 1:
            raise MemoryError("too many cells")
        return run_task(task, screen, config)

    small, run_task = {"methods": (), "tau_grid": (1.0,), "conditions": ["drug0"]}, _run.run_task
    monkeypatch.setattr(_run, "run_task", fail)
    with pytest.raises(
        RuntimeError, match=r"1 of 2 tasks failed.*\n.*data_baselines_seed1_chunk0: MemoryError: too many"
    ):
        call(tmp_path, **small)
    assert [path.name for path in (tmp_path / "tasks").iterdir()] == ["data_baselines_seed0_chunk0.json"]
    monkeypatch.undo()
    assert set(call(tmp_path, **small).scores["seed"]) == {0, 1}


def test_a_fit_that_diverges_costs_its_condition_only(tmp_path, monkeypatch):
    from uotcell.benchmark import _grid

    calls, fit_many = [], _grid.fit_many

    def sometimes(method, couplings, *, rng, valid, **settings):
        calls.append(len(couplings))
        if any(valid_target[:, 0].mean() > 2.5 for _, valid_target in valid):  # drug2, around 3
            raise uc.ConvergenceError("Expected finite losses, found loss=nan.")
        return fit_many(method, couplings, rng=rng, valid=valid, **settings)

    monkeypatch.setattr(_grid, "fit_many", sometimes)
    result = call(tmp_path, tau_grid=(1.0,), seeds=1, conditions=["drug1", "drug2"])
    assert calls == [2, 1, 1]
    rows = result.scores[result.scores["method"] == "icnn"].groupby("condition")
    assert rows["error"].first().to_dict() == {
        "drug1": "", "drug2": "Expected finite losses, found loss=nan."
    }  # fmt: skip
    assert rows["sinkhorn_divergence"].count().to_dict() == {"drug1": 4, "drug2": 0}
    assert "1 of 14 maps do not exist or have no divergence (1 of icnn)" in result.to_markdown()


def test_several_data_sets_and_groups(tmp_path):
    data = {"first": tiny_screen(2, lines=("A", "B")), "second": tiny_screen(1, seed=1)}
    result = uc.tl.benchmark_perturbation(
        data,
        "drug",
        "control",
        **{**CALL, "methods": (), "tau_grid": (1.0,), "seeds": 1, "groupby": "line"},
        out=tmp_path,
    )
    found = set(result.scores[["dataset", "condition", "group"]].itertuples(index=False, name=None))
    assert found == {
        ("first", "drug0", "A"), ("first", "drug0", "B"), ("first", "drug1", "A"), ("first", "drug1", "B"),
        ("second", "drug0", ""),
    }  # fmt: skip
    ranks = result.scores[result.scores["split"] == "test"].groupby("dataset")["discrimination_rank"].count()
    assert ranks["second"] == 0  # one condition cannot be told from others
    assert ranks["first"] > 0
    text = (tmp_path / "perturbation.md").read_text()
    assert "## first" in text
    assert "## second" in text


def test_methods_under_names_of_ones_choice(tmp_path):
    methods = {"narrow": ICNN}
    result = call(tmp_path, methods=methods, tau_grid=(1.0,), seeds=1, conditions=["drug0"], n_iters={"narrow": 10})
    assert {"OT-narrow", "UOT-narrow"} <= set(result.families["family"])


def test_the_data_are_not_changed(tmp_path):
    adata = tiny_screen(1)
    before = adata.copy()
    uc.tl.benchmark_perturbation(adata, "drug", "control", **{**CALL, "methods": (), "seeds": 1}, out=tmp_path)
    np.testing.assert_array_equal(adata.X, before.X)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns
