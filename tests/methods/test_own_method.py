"""A method of the user's own: the page that explains it works as printed, and wrong classes are refused."""

import importlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import uotcell as uc
from uotcell.__main__ import main
from uotcell._disk._directory import _content_hash
from uotcell.benchmark import _cli
from uotcell.benchmark._config import resolve_methods
from uotcell.methods import _registry

PAGE = Path(__file__).parents[2] / "docs" / "own_method.md"
MODULE = "my_methods"

needs_docs = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not there")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Names that the code of the page leaves behind, run in a folder of its own, its class in a module of its own."""
    folder = tmp_path_factory.mktemp("page")
    definition, use = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (folder / f"{MODULE}.py").write_text(definition, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        names = vars(importlib.import_module(MODULE))
        exec(compile(use, str(PAGE), "exec"), names)
        yield {"folder": folder, **names}
    del sys.modules[MODULE], _registry.METHODS["affine"]


@needs_docs
def test_registered(page):
    assert _registry.METHODS["affine"] is page["Affine"]
    assert uc.methods.resolve_method("affine") == page["Affine"]()
    assert page["adata"].uns["uot"]["params"]["method"]["name"] == "affine"
    assert np.isfinite(page["adata"].obsm["uot_push"][page["adata"].obs["day"] < 11]).all()


@needs_docs
def test_the_map_is_the_least_squares_answer_under_the_plan(page):
    coupling = page["problem"][10.5, 11.0].coupling
    fitted, _ = uc.train.fit(page["Affine"](), coupling, n_iters=1_000, valid_fraction=0.0, progress=False)
    a, b, f, g, x, y = (np.asarray(getattr(coupling, name), float) for name in ("a", "b", "f", "g", "x", "y"))
    cost = ((x[:, None] - y) ** 2).sum(-1) / coupling.scale
    plan = np.outer(a, b) * np.exp((f[:, None] + g - cost) / coupling.epsilon)
    mass = plan.sum(1)
    design = np.column_stack([x, np.ones(len(x))]) * np.sqrt(mass)[:, None]
    solution = np.linalg.lstsq(design, plan @ y / np.sqrt(mass)[:, None])[0]
    expected = x @ solution[:-1] + solution[-1]

    def mean_square(vectors):
        return mass @ (vectors**2).sum(1) / mass.sum()

    error = mean_square(fitted.push(x + coupling.shift) - coupling.shift - expected)
    assert error < 0.002 * mean_square(expected - x)
    assert error < 0.001 * mean_square(expected - mass @ expected / mass.sum())


@needs_docs
def test_saved_and_loaded_maps_are_equal_to_the_bit(page):
    fitted, loaded, x = page["fitted"], page["loaded"], page["adata"].obsm["X_pca"]
    assert loaded.method == fitted.method
    np.testing.assert_array_equal(loaded.push(x), fitted.push(x))
    np.testing.assert_array_equal(loaded.pull(x), fitted.pull(x))


@needs_docs
def test_what_the_method_leaves_to_its_base(page):
    fitted, x = page["fitted"], np.asarray(page["adata"].obsm["X_pca"][:20])
    image, matrix = fitted.push(x), np.asarray(fitted.params["matrix"], float)
    np.testing.assert_allclose(fitted.pull(image), x, atol=1e-3)
    np.testing.assert_allclose(fitted.interpolate(x, 0.25), 0.75 * x + 0.25 * image, atol=1e-4)
    np.testing.assert_allclose(fitted.interpolate(image, 0.25, backward=True), 0.75 * x + 0.25 * image, atol=1e-3)
    np.testing.assert_allclose(fitted.velocity(fitted.interpolate(x, 0.25), 0.25), image - x, atol=2e-2)
    np.testing.assert_allclose(fitted.log_density_change(x), -np.linalg.slogdet(matrix)[1], rtol=1e-4)
    np.testing.assert_array_equal(fitted.sample(x, 2), [image, image])
    with pytest.raises(TypeError, match="no conditional variance"):
        fitted.variance(x)


@needs_docs
def test_in_the_table_of_the_benchmark(page):
    families = page["result"].families
    assert {"OT-affine", "UOT-affine", "mean shift"} <= set(families["family"])
    own = families[families["method"] == "affine"]
    assert np.isfinite(own["sinkhorn_divergence"]).all()
    assert "| UOT-affine |" in page["result"].to_markdown()
    settings = json.loads((page["folder"] / "affine_benchmark" / "config.json").read_text(encoding="utf-8"))["methods"]
    assert settings == {"affine": {"name": "affine", "learning_rate": 0.01, "decay": "cosine"}}


@needs_docs
def test_named_on_the_command_line(page, monkeypatch, capsys):
    def stop(screens, *, methods, **settings):
        raise SystemExit(repr(resolve_methods(methods)["affine"]))

    monkeypatch.setattr(_cli, "run_benchmark", stop)
    command = ["benchmark", "perturbation", "--data", "melanoma_4i", "--workers", "0", "--methods", "affine"]
    # As in a process that has not seen the class yet.
    monkeypatch.delitem(sys.modules, MODULE)
    monkeypatch.delitem(_registry.METHODS, "affine")
    with pytest.raises(SystemExit):
        main(command)
    assert "found 'affine'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"^Affine\(learning_rate=0.01"):
        main([*command, "--import", MODULE])


@needs_docs
def test_a_setting_that_is_gone_is_named(page, tmp_path):
    page["fitted"].save(tmp_path / "map")
    path = tmp_path / "map" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["method"]["settings"]["ridge"] = 0.1
    path.write_text(json.dumps({**config, "sha256": _content_hash(config)}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"settings that Affine has, found \['ridge'\]"):
        uc.methods.TransportMap.load(tmp_path / "map")


class Complete(uc.methods.Method):
    """All that a class needs but the decorator, a name and its kind of samples."""

    def init(self, rng, dim, summary=None):
        """Nothing to learn."""

    def update(self, state, batch, rng, progress):
        """Nothing to do."""

    def push(self, params, x):
        """Return the cells."""
        return x


@dataclass(frozen=True, kw_only=True)
class NoName(Complete):
    samples: ClassVar[str] = "pairs"


@dataclass(frozen=True, kw_only=True)
class NoSamples(Complete):
    name: ClassVar[str] = "wrong"


@dataclass(frozen=True, kw_only=True)
class WrongSamples(Complete):
    name: ClassVar[str] = "wrong"
    samples: ClassVar[str] = "pair"


@dataclass(frozen=True, kw_only=True)
class Taken(Complete):
    name: ClassVar[str] = "icnn"
    samples: ClassVar[str] = "pairs"


class NoDataclass(Taken):
    name: ClassVar[str] = "wrong"


@dataclass(frozen=True, kw_only=True)
class NoPush(uc.methods.Method):
    name: ClassVar[str] = "wrong"
    samples: ClassVar[str] = "pairs"
    init, update = Complete.init, Complete.update


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("icnn", TypeError, "derives from `Method`, found 'icnn'"),
        (int, TypeError, "derives from `Method`, found <class 'int'>"),
        (uc.methods.ICNN(), TypeError, r"derives from `Method`, found ICNN\("),
        (NoPush, TypeError, r"Expected NoPush to define \['push'\]"),
        (NoDataclass, TypeError, "Expected NoDataclass to be a frozen dataclass"),
        (NoName, TypeError, "class attribute `name`, found none"),
        (NoSamples, TypeError, "class attribute `samples`, found none"),
        (WrongSamples, ValueError, "'marginals' or 'pairs', found 'pair'"),
        (Taken, ValueError, "found 'icnn' of ICNN"),
    ],
)
def test_wrong_classes(wrong, error, message):
    before = dict(_registry.METHODS)
    with pytest.raises(error, match=message):
        uc.methods.register(wrong)
    assert before == _registry.METHODS


def test_a_class_may_be_defined_again(monkeypatch):
    def define():
        @uc.methods.register
        @dataclass(frozen=True, kw_only=True)
        class Again(Complete):
            name: ClassVar[str] = "again"
            samples: ClassVar[str] = "marginals"

        return Again

    monkeypatch.setattr(_registry, "METHODS", dict(_registry.METHODS))
    first, second = define(), define()
    assert first is not second
    assert uc.methods.resolve_method("again") == second()


def test_a_map_is_not_saved_under_the_name_of_another_class(tmp_path):
    fitted = uc.methods.TransportMap(
        method=Taken(), params={}, shift=np.zeros(2), scale=1.0, target_shift=np.zeros(2), target_scale=1.0
    )
    with pytest.raises(ValueError, match="found Taken with that of ICNN, 'icnn'"):
        fitted.save(tmp_path / "map")
    assert not (tmp_path / "map").exists()
