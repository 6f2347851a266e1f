"""Settings, and the refusal to mix results of different ones."""

import json

import pytest
from tiny_screen import ICNN, tiny_screen

import uotcell as uc
from uotcell.benchmark import read_screen
from uotcell.benchmark._config import differences, make_config
from uotcell.benchmark._grid import make_tasks
from uotcell.benchmark._store import read_task, task_path, write_json

DEFAULTS = {
    "methods": [ICNN], "tau_grid": (1.0, 0.9), "seeds": 2, "epsilon": 0.01, "n_iters": 10, "batch_size": 32,
    "n_score_cells": 50, "conditions_per_task": 2, "fit_options": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def screens():
    return [read_screen(tiny_screen(3), "drug", "control", use_rep="X")]


def test_settings_are_kept_and_accepted_again(screens, tmp_path):
    config = make_config(screens, **DEFAULTS)
    config.claim(tmp_path)
    config.claim(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["methods"]["icnn"]["hidden"] == [8]
    assert saved["seeds"] == [0, 1]
    assert saved["datasets"]["data"]["n_cells"] == 240
    assert saved["versions"]["uotcell"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.02}, r"epsilon was 0\.01 and is 0\.02"),
        ({"seeds": 3}, r"seeds was \[0, 1\] and is \[0, 1, 2\]"),
        ({"methods": [uc.methods.ICNN(hidden=(9,), n_inner=1)]}, r"methods\.icnn\.hidden was \[8\] and is \[9\]"),
        ({"methods": {"other": ICNN}}, r"methods\.icnn was .* and is 'absent'"),
        ({"fit_options": {"patience": 3}}, r"fit_options\.patience was 'absent' and is 3"),
    ],
)
def test_other_settings_are_refused(screens, tmp_path, change, message):
    make_config(screens, **DEFAULTS).claim(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*Choose another `out`, or delete"):
        make_config(screens, **{**DEFAULTS, **change}).claim(tmp_path)


def test_other_data_are_refused(screens, tmp_path):
    make_config(screens, **DEFAULTS).claim(tmp_path)
    other = [read_screen(tiny_screen(3, seed=1), "drug", "control", use_rep="X")]
    with pytest.raises(ValueError, match=r"datasets\.data\.sha256 was"):
        make_config(other, **DEFAULTS).claim(tmp_path)


def test_other_versions_warn(screens, tmp_path):
    config = make_config(screens, **DEFAULTS)
    config.claim(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["versions"]["jax"] = "0.0.1"
    write_json(tmp_path / "config.json", saved)
    with pytest.warns(UserWarning, match=r"jax was 0\.0\.1 and is"):
        config.claim(tmp_path)


def test_results_without_settings_are_refused(screens, tmp_path):
    (tmp_path / "tasks").mkdir()
    with pytest.raises(ValueError, match=r"config\.json"):
        make_config(screens, **DEFAULTS).claim(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau_grid": (0.9,)}, "`tau_grid`"),
        ({"tau_grid": (1.0, 1.0)}, "`tau_grid`"),
        ({"tau_grid": (1.0, 1.1)}, "`tau_grid`"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"epsilon": 0.0}, "`epsilon`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"n_iters": 0}, "n_iters of 'icnn'"),
        ({"n_iters": {"monge_gap": 10}}, "`n_iters` for the methods"),
        ({"methods": ["icnn", ICNN]}, "different names"),
        ({"methods": ["icn"]}, "`method`"),
        ({"methods": {"entropic": "icnn"}}, "none of a baseline"),
        ({"fit_options": {"epochs": 3}}, "`fit_options`.*epochs"),
    ],
)
def test_bad_settings(screens, change, message):
    with pytest.raises(ValueError, match=message):
        make_config(screens, **{**DEFAULTS, **change})


def test_default_methods(screens):
    config = make_config(screens, **{**DEFAULTS, "methods": None, "n_iters": 400})
    assert config.n_iters == {"monge_gap": 400, "icnn": 400}


def test_data_sets_need_different_names(screens):
    with pytest.raises(ValueError, match="different names"):
        make_config(screens * 2, **DEFAULTS)


def test_differences_name_nested_fields():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == [
        ("a.c", 2, 3),
        ("d", "absent", 4),
    ]


def test_tasks_cover_the_grid_once(screens):
    tasks = make_tasks(screens, make_config(screens, **DEFAULTS))
    assert len({task.id for task in tasks}) == len(tasks) == 2 * 2 * 3  # seeds × chunks × (baselines + 2 τ)
    assert {task.conditions for task in tasks} == {(("drug0", ""), ("drug1", "")), (("drug2", ""),)}
    assert [task.method for task in tasks[:2]] == ["baselines", "baselines"]


def test_broken_files_are_not_results(tmp_path):
    path = task_path(tmp_path, "some_task")
    assert read_task(tmp_path, "some_task") is None
    write_json(path, {"task": "some_task", "rows": []})
    assert read_task(tmp_path, "some_task") == {"task": "some_task", "rows": []}
    path.write_text(path.read_text()[:-5])
    assert read_task(tmp_path, "some_task") is None
    assert [file.name for file in path.parent.iterdir()] == ["some_task.json"]
