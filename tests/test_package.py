"""The house rules that no single module can keep: who imports whom, what importing does, what is documented."""

import ast
import doctest
import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import uotcell
from uotcell.methods import _registry

ROOT = Path(uotcell.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = ["uotcell", *(info.name for info in pkgutil.walk_packages(uotcell.__path__, "uotcell."))]
PUBLIC = ["uotcell", *(f"uotcell.{name}" for name in uotcell.__all__ if inspect.ismodule(getattr(uotcell, name)))]
# Layers by what they may not know; arrows of the design run pp, tl, pl → benchmark → problems → train → methods →
# networks, ot.
ABOVE = {
    "_disk": {"networks", "ot", "methods", "train", "metrics", "problems", "benchmark", "tl", "pl"},
    "networks": {"ot", "methods", "train", "metrics", "problems", "benchmark", "tl", "pl"},
    "ot": {"networks", "methods", "train", "metrics", "problems", "benchmark", "tl", "pl"},
    "methods": {"train", "metrics", "problems", "benchmark", "tl", "pl"},
    "train": {"metrics", "problems", "benchmark", "tl", "pl"},
    "metrics": {"networks", "methods", "train", "problems", "benchmark", "tl", "pl"},
    "problems": {"benchmark", "tl", "pl"},
    "benchmark": {"tl", "pl"},
    "pp": {"benchmark", "tl", "pl"},
    "datasets": {"networks", "ot", "methods", "train", "metrics", "problems", "benchmark", "tl", "pl"},
}
ON_ARRAYS = {"_disk", "ot", "networks", "methods", "train", "metrics"}
HEAVY = {"matplotlib", "scanpy", "scvelo", "cellrank", "dask", "distributed"}


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(name):
    """Subpackage of a module of ours, or the module itself where it is in none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def only_for_types(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path, *, at_import_time=False):
    """Full names of everything a file imports; names taken from a package count as its submodules."""
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found, nodes = set(), list(ast.parse(path.read_text(encoding="utf-8")).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
                if node.level
                else [node.module]
            )
            found |= {".".join([*base, alias.name]) for alias in node.names}
        elif not (at_import_time and (isinstance(node, ast.FunctionDef) or only_for_types(node))):
            nodes += ast.iter_child_nodes(node)
    return found


def test_imports_are_read_right(tmp_path, monkeypatch):
    path = tmp_path / "pkg" / "sub" / "mod.py"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "pkg")
    path.write_text("import a.b\nfrom . import c\nfrom ..d import e\nfrom f import g\ndef h():\n    import i\n")
    assert imports(path) == {"a.b", "pkg.sub.c", "pkg.d.e", "f.g", "i"}
    assert imports(path, at_import_time=True) == {"a.b", "pkg.sub.c", "pkg.d.e", "f.g"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_layers(path):
    here = layer(module_name(path))
    ours = {layer(name) for name in imports(path) if name.startswith("uotcell.")}
    assert not ours & ABOVE.get(here, set())
    if here not in {"pp", "tl", "pl", "_demo", "__main__", "__init__"}:
        assert not ours & {"pp", "tl", "pl"}
    others = {name.split(".")[0] for name in imports(path)}
    if here in ON_ARRAYS:
        assert not others & {"anndata", "pandas", "scanpy"}
    assert not {name.split(".")[0] for name in imports(path, at_import_time=True)} & HEAVY


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "__init__.py"], ids=module_name)
def test_inits_only_import_and_list(path):
    docstring, *rest = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value.value, str)
    for node in rest:
        is_all = isinstance(node, ast.Assign) and [target.id for target in node.targets] == ["__all__"]
        assert is_all or isinstance(node, (ast.Import, ast.ImportFrom))
    module = importlib.import_module(module_name(path))
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not name.startswith("_")
        assert getattr(module, name) is not None


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def test_importing_touches_nothing():
    third_party = {name.split(".")[0] for path in FILES for name in imports(path, at_import_time=True)}
    third_party -= {"uotcell"} | set(sys.stdlib_module_names)
    # Some packages we import set variables of their own (scikit-learn, jax): they come first, and we are left to blame.
    program = f"""
import json, os, sys
for name in {sorted(third_party)!r}:
    __import__(name)
before, loaded = dict(os.environ), set(sys.modules)
import uotcell
import jax
print(json.dumps({{
    "x64": jax.config.jax_enable_x64,
    "environment": dict(os.environ) == before,
    "modules": sorted(set(sys.modules)),
    "ours": sorted(set(sys.modules) - loaded),
}}))
"""
    # A platform that does not exist: whatever asks jax for a device fails.
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["x64"] is False
    assert result["environment"] is True
    assert not {"scvelo", "cellrank", "dask.distributed", "distributed", "ot"} & set(result["modules"])
    assert not {"scanpy", "matplotlib.pyplot"} & set(result["ours"])


def test_the_module_runs_as_a_command():
    command = [sys.executable, "-m", "uotcell", "walk"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: python -m uotcell" in done.stderr


def public_objects():
    for module in PUBLIC:
        for name in importlib.import_module(module).__all__:
            value = getattr(importlib.import_module(module), name)
            if callable(value):
                yield f"{module}.{name}", value


def public_methods(cls):
    for name, value in vars(cls).items():
        value = getattr(value, "__func__", value)
        if inspect.isfunction(value) and not name.startswith("_"):
            yield name, value


FUNCTIONS = {name: value for name, value in public_objects() if inspect.isfunction(value)}
CLASSES = {name: value for name, value in public_objects() if inspect.isclass(value)}
METHODS = {f"{name}.{method}": value for name, cls in CLASSES.items() for method, value in public_methods(cls)}


def section(docstring, title):
    """Text of a numpydoc section, None where there is none."""
    lines = inspect.cleandoc(docstring).split("\n")
    starts = [i for i in range(len(lines) - 1) if lines[i + 1] and set(lines[i + 1]) == {"-"}]
    for start, end in zip(starts, [*starts, len(lines)][1:], strict=True):
        if lines[start] == title:
            return "\n".join(lines[start + 2 : end])
    return None


def documented(docstring):
    """Names in the section of parameters."""
    names = (line.split(":")[0] for line in (section(docstring, "Parameters") or "").split("\n"))
    return [part.strip() for name in names if name and not name.startswith(" ") for part in name.split(",")]


def arguments(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def test_there_is_something_public():
    assert {"uotcell.tl.fit_trajectory", "uotcell.ot.solve_unbalanced", "uotcell.train.fit"} <= set(FUNCTIONS)
    assert {"uotcell.problems.TemporalProblem", "uotcell.ConvergenceError"} <= set(CLASSES)
    assert "uotcell.tl.transition_matrix" in FUNCTIONS
    assert {"uotcell.problems.TemporalProblem.push", "uotcell.problems.TemporalProblem.to_cellrank"} <= set(METHODS)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_document_arguments_and_results(function):
    assert set(documented(function.__doc__)) == set(arguments(function))
    assert section(function.__doc__, "Returns").strip()


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_classes_are_documented(cls):
    assert "__doc__" in vars(cls)
    assert not cls.__doc__.startswith(f"{cls.__name__}(")  # what dataclasses and named tuples make up


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_methods_are_documented(method):
    assert method.__doc__
    if section(method.__doc__, "Parameters") is not None:
        assert set(documented(method.__doc__)) == set(arguments(method))
        assert section(method.__doc__, "Returns").strip()


EXAMPLES = {
    test.name: test
    for name in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name)
    if any(doctest.SKIP not in example.options for example in test.examples)
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name, monkeypatch):
    monkeypatch.setattr(_registry, "METHODS", dict(_registry.METHODS))  # an example may register its own
    report = []
    outcome = doctest.DocTestRunner().run(EXAMPLES[name], out=report.append)
    assert outcome.attempted > 0
    assert outcome.failed == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_have_an_example_that_runs(name):
    function = FUNCTIONS[name]
    assert f"{function.__module__}.{function.__qualname__}" in EXAMPLES


def test_metadata():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version("uotcell"))
    assert metadata("uotcell")["Requires-Python"] == ">=3.11"
