"""Write models of this release for the tests; every later release must read them.

Run as ``python scripts/write_model_fixtures.py``. They go to ``tests/fixtures/schema_<n>/<model>``, what they answer to
``<model>.safetensors`` beside them. Run it once for every new schema, with the release that writes it, and never over
files that are there: nobody could say any more whether they are what an older release wrote.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from safetensors.numpy import save_file

import uotcell as uc
from uotcell._disk import SCHEMA

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures" / f"schema_{SCHEMA}"
QUICK = {"n_iters": 3, "batch_size": 16, "progress": False}
METHODS = {
    "icnn": uc.methods.ICNN(hidden=(6, 6), n_inner=1),
    "monge_gap": uc.methods.MongeGap(hidden=(6,), activation="silu"),
    "flow_matching": uc.methods.FlowMatching(hidden=(6,), n_steps=3, noise=0.1, noise_schedule="bridge"),
    "genot": uc.methods.GENOT(hidden=(6,), n_steps=3, n_samples=4),
}


def write_maps() -> None:
    """Write a map of every method, with networks of the mass beside it; that of GENOT leads to another space."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)) * 2 + 10, rng.normal(size=(36, 3)) + 12
    same = uc.ot.solve_unbalanced(x, y, tau=0.95)
    across = uc.ot.solve_quadratic(x, y[:, :2], tau=0.95, n_starts=1)
    for name, method in METHODS.items():
        coupling = across if name == "genot" else same
        fitted, _ = uc.train.fit(method, coupling, **QUICK)
        fitted = fitted.with_rescaling(uc.train.fit_rescaling(coupling, n_iters=2, hidden=(4,)))
        fitted.save(FOLDER / name)
        answers = {"x": x, "push": fitted.push(x), "source_rescaling": fitted.rescaling.source_rescaling(x)}
        save_file(answers, FOLDER / f"{name}.safetensors")


def write_problems() -> None:
    """Write a problem of every class, with its cells beside it in their order in the AnnData."""
    rng = np.random.default_rng(1)
    label = rng.permutation(np.repeat(["E8.5", "E9.0"], 40))
    cells = (rng.normal(size=(80, 3)) + 2.0 * (label == "E9.0")[:, None]).astype(np.float32)
    obs = pd.DataFrame({"label": label, "growth": 1.0 + (cells[:, 0] > 0)}, index=[f"cell{i}" for i in range(80)])
    adata = AnnData(obs=obs, obsm={"X_pca": cells})
    quick = {**QUICK, "method": METHODS["icnn"]}
    temporal = uc.problems.TemporalProblem(adata).prepare("label", growth_key="growth")
    temporal.solve(**quick, learn_rescaling=True).save(FOLDER / "temporal")
    pair = temporal["E8.5", "E9.0"]
    halfway = temporal.interpolate(8.75)
    _write_answers(
        "temporal", pair, cells=cells, push=temporal.push(cells, "E8.5", "E9.0"),
        pull=temporal.pull(cells, "E8.5", "E9.0"), halfway=halfway.obsm["X_pca"],
        halfway_weight=halfway.obs["weight"].to_numpy(),
    )  # fmt: skip
    perturbation = uc.problems.PerturbationProblem(adata).prepare("label", "E8.5", min_cells=10).solve(**quick)
    perturbation.save(FOLDER / "perturbation")
    _write_answers("perturbation", perturbation["E9.0"], cells=cells, push=perturbation.push(cells, "E9.0"))
    sides = adata[label == "E8.5"].copy(), adata[label == "E9.0"].copy()
    sides[1].obsm["X_pca"], sides[1].obsm["shared"] = (
        sides[1].obsm["X_pca"][:, :2].copy(),
        sides[1].obsm["X_pca"][:, 2:],
    )
    sides[0].obsm["shared"] = sides[0].obsm["X_pca"][:, 2:]
    translation = uc.problems.TranslationProblem(*sides).prepare(shared_rep="shared")
    translation.solve(METHODS["genot"], cost=("geodesic", "sqeuclidean"), **QUICK).save(FOLDER / "translation")
    _write_answers("translation", translation.pair, push=translation.push(sides[0]), **{
        f"{name}_{side}": adata.obsm[key]
        for side, adata in zip("xy", sides, strict=True) for name, key in (("cells", "X_pca"), ("shared", "shared"))
    })  # fmt: skip


def _write_answers(name: str, pair: uc.problems.FittedPair, **answers: np.ndarray) -> None:
    coupling = pair.coupling
    rescaling = coupling.source_rescaling(np.asarray(coupling.x + coupling.shift) + 0.1)
    weights = {"source_weights": coupling.source_weights, "target_weights": coupling.target_weights}
    answers |= {key: np.asarray(weight) for key, weight in weights.items()} | {"source_rescaling": rescaling}
    save_file({key: np.ascontiguousarray(array) for key, array in answers.items()}, FOLDER / f"{name}.safetensors")


if __name__ == "__main__":
    if FOLDER.exists():
        raise SystemExit(f"Expected no {FOLDER}, found it: models of an older release are not written again.")
    write_maps()
    write_problems()
