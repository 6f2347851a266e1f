"""The demo: balanced and unbalanced maps on embedded data, as a table, an h5ad and a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from anndata import AnnData

from uotcell import datasets, metrics, pl, tl
from uotcell.problems import FittedPair

LINEAGES = ("Epithelial", "Stromal", "Trophoblast")
TAU = 0.95
# Held-out fit of these data is best well before; more steps only cost time.
N_ITERS = 1_500
# A few hundred cells in 30 dimensions: without noise the networks learn the training cells by heart.
SOURCE_NOISE = 0.5


def run_demo(data: str = "reprogramming", out: str | Path = "uotcell_demo", *, rng: int = 0) -> list[dict]:
    """Fit OT-ICNN and UOT-ICNN, print how they compare with simpler maps, and leave the fit and a picture.

    Parameters
    ----------
    data
        ``"reprogramming"`` or ``"hematopoiesis"``.
    out
        Folder for ``trajectory.h5ad`` and ``velocity_stream.png``.
    rng
        Seed.

    Returns
    -------
    The rows of the printed table.
    """
    import matplotlib

    matplotlib.use("Agg")
    started = time.perf_counter()
    adata, score = (
        (datasets.reprogramming(), _lineage_scores)
        if data == "reprogramming"
        else (datasets.hematopoiesis(), _clonal_scores)
    )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {"n_iters": N_ITERS, "source_noise": SOURCE_NOISE, "rng": rng}
    balanced = tl.fit_trajectory(adata, "day", tau=1.0, key_added="ot", **settings)
    unbalanced = tl.fit_trajectory(adata, "day", tau=TAU, key_added="uot", **settings)
    rows = []
    for source, target in balanced.pairs:
        rows += _compare(adata, balanced[source, target], unbalanced[source, target], score)
    _print_table(adata, rows)
    adata.write_h5ad(out / "trajectory.h5ad")
    axes = pl.velocity_stream(adata, color="cell_type", title="", show=False)
    axes.figure.savefig(out / "velocity_stream.png", dpi=150, bbox_inches="tight")
    seconds = time.perf_counter() - started
    print(f"\nWrote {out / 'trajectory.h5ad'} and {out / 'velocity_stream.png'} after {seconds:.0f} s.")
    return rows


def _compare(adata: AnnData, ot: FittedPair, uot: FittedPair, score: Callable) -> list[dict]:
    """One row per map of a pair."""
    cells = np.asarray(adata.obsm["X_pca"])[ot.source_rows]
    maps = {
        "identity": (ot, cells, ot.history.baseline["identity"]),
        "entropic OT": (ot, ot.coupling.push(cells), ot.history.baseline["entropic map"]),
        "entropic UOT": (uot, uot.coupling.push(cells), uot.history.baseline["entropic map"]),
        "OT-ICNN": (ot, ot.transport_map.push(cells), ot.metrics["held_out_divergence"]),
        "UOT-ICNN": (uot, uot.transport_map.push(cells), uot.metrics["held_out_divergence"]),
    }
    return [
        {
            "pair": f"day {ot.source:g} → {ot.target:g}",
            "map": name,
            "mass": pair.coupling.transported_mass,
            "ESS source": pair.coupling.effective_sample_size[0],
            "ESS target": pair.coupling.effective_sample_size[1],
            "held-out": divergence,
            **score(adata, pair, pushed),
        }
        for name, (pair, pushed, divergence) in maps.items()
    ]


def _lineage_scores(adata: AnnData, pair: FittedPair, pushed: np.ndarray) -> dict[str, float]:
    """Share of every lineage's mass that lands in its lineage."""
    labels, cells = adata.obs["cell_type"].to_numpy(), np.asarray(adata.obsm["X_pca"])
    source, target = labels[pair.source_rows], labels[pair.target_rows]
    weights = np.asarray(pair.coupling.source_weights)
    return {
        name: metrics.transition_share(pushed, source, cells[pair.target_rows], target, name, name, weights=weights)
        for name in LINEAGES
    }


def _clonal_scores(adata: AnnData, pair: FittedPair, pushed: np.ndarray) -> dict[str, float]:
    """Share of cells that land in a state their clone really reached."""
    clones, cells = adata.obsm["X_clone"], np.asarray(adata.obsm["X_pca"])
    accuracy = metrics.clonal_fate_accuracy(
        pushed,
        clones[pair.source_rows],
        cells[pair.target_rows],
        clones[pair.target_rows],
        adata.obs["cell_type"].to_numpy()[pair.target_rows],
    )
    return {"clonal fate": accuracy}


def _print_table(adata: AnnData, rows: list[dict]) -> None:
    columns = [name for name in rows[0] if name not in ("pair", "map")]
    widths = {name: max(len(name), 8) for name in columns}
    days = adata.obs["day"].value_counts().sort_index()
    counts = ", ".join(f"day {day:g}: {n}" for day, n in days.items())
    print(f"\n{adata.n_obs:,} cells, {adata.uns['dataset']['name']}: {counts}")
    previous = None
    for row in rows:
        if row["pair"] != previous:
            print(f"\n{row['pair']:<16}" + "".join(f"{name:>{widths[name] + 2}}" for name in columns))
            previous = row["pair"]
        values = (f"{row[name]:.0f}" if name.startswith("ESS") else f"{row[name]:.3g}" for name in columns)
        values = ("-" if value == "nan" else value for value in values)
        print(f"{row['map']:<16}" + "".join(f"{v:>{widths[c] + 2}}" for v, c in zip(values, columns, strict=True)))
    print(
        f"\nmass: transported share of the source, τ = 1 (OT) and {TAU} (UOT). ESS: effective number of cells.\n"
        "held-out: Sinkhorn divergence between pushed held-out source cells and held-out target cells, both rescaled\n"
        "(so OT and UOT rows have different targets); the identity is measured against the target as it is."
    )
    if "clonal fate" in columns:
        print("clonal fate: share of cells that land in a state their clone really reached, for clones of both days.")
    else:
        print("Lineages: share of the pushed mass of a cell type whose 10 nearest target cells are of its type.")
