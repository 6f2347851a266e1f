"""Write models of this release for the tests; every later release must read them.

Run as ``python scripts/write_model_fixtures.py``. They go to ``tests/fixtures/schema_<n>/<model>``, what they answer to
``<model>.safetensors`` beside them. Run it once for every new schema, with the release that writes it, and never over
files that are there: nobody could say any more whether they are what an older release wrote.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
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


if __name__ == "__main__":
    if FOLDER.exists():
        raise SystemExit(f"Expected no {FOLDER}, found it: models of an older release are not written again.")
    write_maps()
