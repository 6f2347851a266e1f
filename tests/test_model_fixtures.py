"""Models of every schema, written by the releases that wrote them: each must be read, and answer as it did then."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from safetensors.numpy import load_file

import uotcell as uc
from uotcell._disk import SCHEMA

FOLDER = Path(__file__).parent / "fixtures"
METHODS = ("icnn", "monge_gap", "flow_matching", "genot")
# Other processors and versions of jax round and sum otherwise.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def stored(schema, name):
    """Read a model with what it answered."""
    path = FOLDER / f"schema_{schema}" / name
    assert json.loads((path / "config.json").read_text(encoding="utf-8"))["schema"] == schema
    return path, load_file(path.with_suffix(".safetensors"))


@pytest.mark.parametrize("schema", range(1, SCHEMA + 1))
@pytest.mark.parametrize("name", METHODS)
def test_maps(schema, name):
    path, answers = stored(schema, name)
    loaded = uc.methods.TransportMap.load(path)
    assert loaded.method.name == name
    np.testing.assert_allclose(loaded.push(answers["x"]), answers["push"], **CLOSE)
    weights = loaded.rescaling.source_rescaling(answers["x"])
    np.testing.assert_allclose(weights, answers["source_rescaling"], **CLOSE)


def check_pair(pair, answers):
    coupling = pair.coupling
    for name in ("source_weights", "target_weights"):
        np.testing.assert_allclose(getattr(coupling, name), answers[name], **CLOSE)
    unseen = np.asarray(coupling.x + coupling.shift) + 0.1
    np.testing.assert_allclose(coupling.source_rescaling(unseen), answers["source_rescaling"], rtol=1e-3)
    assert pair.history.iteration[-1] == 3
    assert pair.metrics["converged"]


def with_cells(cells):
    return AnnData(obs=pd.DataFrame(index=[f"cell{i}" for i in range(len(cells))]), obsm={"X_pca": cells})


@pytest.mark.parametrize("schema", range(2, SCHEMA + 1))
def test_temporal_problem(schema):
    path, answers = stored(schema, "temporal")
    problem = uc.load(path)
    check_pair(problem["E8.5", "E9.0"], answers)
    np.testing.assert_allclose(problem.push(answers["cells"], "E8.5", "E9.0"), answers["push"], **CLOSE)
    np.testing.assert_allclose(problem.pull(answers["cells"], "E8.5", "E9.0"), answers["pull"], **CLOSE)
    halfway = problem.interpolate(8.75)
    np.testing.assert_allclose(halfway.obsm["X_pca"], answers["halfway"], **CLOSE)
    np.testing.assert_allclose(halfway.obs["weight"], answers["halfway_weight"], **CLOSE)
    adata = with_cells(answers["cells"])
    uc.load(path, adata).write()
    assert np.isfinite(adata.obsm["uot_push"]).all(axis=1).sum() == 40


@pytest.mark.parametrize("schema", range(2, SCHEMA + 1))
def test_perturbation_problem(schema):
    path, answers = stored(schema, "perturbation")
    problem = uc.load(path)
    check_pair(problem["E9.0"], answers)
    np.testing.assert_allclose(problem.push(answers["cells"], "E9.0"), answers["push"], **CLOSE)
    adata = with_cells(answers["cells"])
    uc.load(path, adata).write()
    assert adata.obs["uot_split"].value_counts().to_dict() == {"train": 64, "valid": 8, "test": 8}


@pytest.mark.parametrize("schema", range(2, SCHEMA + 1))
def test_translation_problem(schema):
    path, answers = stored(schema, "translation")
    problem = uc.load(path)
    check_pair(problem.pair, answers)
    cells = np.concatenate([answers["cells_x"], answers["shared_x"]], axis=1)
    np.testing.assert_allclose(problem.push(cells), answers["push"], **CLOSE)
