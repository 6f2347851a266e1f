"""``python -m uotcell benchmark perturbation``."""

import numpy as np
import pytest
from tiny_screen import ICNN, tiny_screen

import uotcell as uc
from uotcell.__main__ import main
from uotcell.benchmark._cli import LOADERS
from uotcell.benchmark._store import read_json
from uotcell.methods import _registry

COMMAND = ["benchmark", "perturbation"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "tiny.h5ad"
    tiny_screen().write_h5ad(path)
    return path


def test_quick_run_of_a_file(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(_registry.METHODS, "icnn", lambda: ICNN)
    out = tmp_path / "out"
    command = [*COMMAND, "--data", str(file), "--perturbation-key", "drug", "--groupby", "line", "--out", str(out)]
    main([*command, "--quick", "--methods", "icnn", "--n-iters", "10", "--tau", "1", "--workers", "0"])
    printed = capsys.readouterr().out
    assert (out / "perturbation.md").read_text() in printed
    assert "| UOT-ICNN |" in printed
    assert f"`python -m uotcell {' '.join(command)} --quick" in printed
    config = read_json(out / "config.json")
    assert (config["n_iters"], config["tau_grid"], config["seeds"]) == ({"icnn": 10}, [1.0], [0])
    assert config["datasets"]["tiny"]["conditions"] == [["drug0", ""], ["drug1", ""]]
    assert (out / "results.csv").exists()


def test_conditions_and_methods(file, tmp_path):
    command = [*COMMAND, "--data", str(file), "--perturbation-key", "drug", "--use-rep", "X", "--out", str(tmp_path)]
    main([*command, "--conditions", "drug2", "--methods", "--tau", "1", "--seeds", "1", "--workers", "0"])
    config = read_json(tmp_path / "config.json")
    assert (config["datasets"]["tiny"]["conditions"], config["methods"]) == ([["drug2", ""]], {})


def test_cellot_file(tmp_path):
    adata = tiny_screen(1)
    adata.write_h5ad(tmp_path / "8h.h5ad")
    (tmp_path / "features.txt").write_text("2\n0\n1\n")
    command = [*COMMAND, "--data", str(tmp_path / "8h.h5ad"), "--features", str(tmp_path / "features.txt")]
    main([*command, "--methods", "--tau", "1", "--seeds", "1", "--workers", "0", "--out", str(tmp_path / "out")])
    assert read_json(tmp_path / "out" / "config.json")["datasets"]["8h"]["n_dims"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "no_such_data"], "found 'no_such_data'"),
        (["--data", "melanoma_4i", "--conditions", "aspirin"], "found ['aspirin']"),
        (["--data", "melanoma_4i", "--workers", "2", "--scheduler", "tcp://localhost:8786"], "not both"),
        (["--data", "melanoma_4i", "--workers", "-1"], "found -1"),
        (["--data", "melanoma_4i", "--tune", "seed"], "invalid choice"),
    ],
)
def test_refusals(options, message, capsys):
    with pytest.raises(SystemExit):
        main([*COMMAND, *options])
    assert message in capsys.readouterr().err


def test_embedded_screens():
    screens = {name: load() for name, load in LOADERS.items()}
    assert {name: len(screen.conditions) for name, screen in screens.items()} == {
        "crispr_screens": 60, "drug_simulator": 35, "melanoma_4i": 1
    }  # fmt: skip
    assert all(name == screen.name for name, screen in screens.items())
    simulator = screens["drug_simulator"]
    assert set(simulator.truth) == {label for label, _ in simulator.conditions}
    treated = simulator.cells[simulator.rows("cisplatin", "")]
    controls = simulator.cells[simulator.rows("control", "")]
    response = simulator.truth["cisplatin"]
    image, survival = response.push(controls), response.survival(controls)
    gap = np.average(image, axis=0, weights=survival) - treated.mean(axis=0)
    assert np.linalg.norm(gap) < 0.2 * np.linalg.norm(treated.mean(axis=0) - controls.mean(axis=0))


def test_demo_is_still_there(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert "--data {reprogramming,hematopoiesis}" in capsys.readouterr().out
    assert uc.__doc__
