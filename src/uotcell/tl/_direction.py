"""Whether the velocities of a fit point from a type into the one that follows it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
from anndata import AnnData

from uotcell.metrics._direction import boundary_steps, check_edges, check_field, mean_or_nan
from uotcell.metrics._resampling import bootstrap_means, percentile_interval
from uotcell.ot._settings import check_count
from uotcell.problems._base import check_adata, check_key_added, plain_rng
from uotcell.problems._representation import check_representation, representation
from uotcell.problems._slots import write_slots
from uotcell.problems._written import written_fit
from uotcell.tl._scores import as_columns, check_controls, check_resampling, group_labels, stream

OVERALL = "overall"


def cross_boundary_direction(
    adata: AnnData,
    groupby: str,
    edges: Sequence[tuple[str, str]],
    *,
    key: str = "uot",
    use_rep: str | None = None,
    controls: Sequence[str] = ("shuffled", "reversed"),
    n_neighbors: int = 30,
    n_bootstrap: int = 1_000,
    confidence: float = 0.95,
    rng: jax.Array | int = 0,
    key_added: str | None = None,
) -> pd.DataFrame:
    """Score whether the velocities of a fit point into the type that follows (CBDir; Qiao and Huang, PNAS 2021).

    See :func:`uotcell.metrics.cross_boundary_direction`. Neighbours are sought among the cells of all times.

    Parameters
    ----------
    adata
        Annotated data with the slots of :func:`uotcell.tl.fit_trajectory`.
    groupby
        Column of ``.obs`` with the type of every cell.
    edges
        Pairs (A, B) of types of which B follows A.
    key
        The `key_added` of the fit.
    use_rep
        Key of ``.obsm``, or ``"X"``, with the positions of the cells; that of the fit by default. Its dimensions must
        be those of the velocities.
    controls
        What else is scored: ``"shuffled"``, velocities permuted among the cells that have one; ``"reversed"``, the
        velocities run backward.
    n_neighbors
        Other cells to look at.
    n_bootstrap
        Number of samples for an interval, and of permutations.
    confidence
        Of the intervals.
    rng
        Key or seed of the samples and permutations.
    key_added
        Name of the slot; ``"<key>_cross_boundary_direction"`` by default.

    Returns
    -------
    A row for every edge and "overall", their mean, and for every map ("fit", "shuffled", "reversed"): ``edge``
    ("A -> B"), ``map``, ``score`` in [−1, 1], ``low`` and ``high``, and ``n_cells``, cells of A with a velocity and a
    neighbour of B. The score is NaN where there are none, which the mean leaves out. Sets
    ``adata.uns["<key>_cross_boundary_direction"]``: dict of ``scores``, the columns of this table as arrays, and the
    settings ``groupby``, ``key``, ``use_rep``, ``n_neighbors``, ``n_bootstrap``, ``confidence`` and ``rng``.

    Raises
    ------
    KeyError
        If the fit, the column or the representation does not exist.
    ValueError
        If an edge is not a pair of two types that exist, dimensions differ, or an option is none of the above.

    Notes
    -----
    Intervals are percentiles of samples of the cells at each boundary, with replacement, given the fitted map. For
    "shuffled" the score is the mean over permutations and the interval theirs: where all cells move alike, it is as
    good as the fit.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> _ = uc.tl.fit_trajectory(adata, "day", policy=[(10.5, 11.0)], n_iters=20, progress=False)
    >>> scores = uc.tl.cross_boundary_direction(adata, "cell_type", [("Epithelial", "Trophoblast")], n_bootstrap=50)
    >>> scores["map"].tolist()
    ['fit', 'shuffled', 'reversed', 'fit', 'shuffled', 'reversed']
    """
    slot = f"{key}_cross_boundary_direction" if key_added is None else key_added
    check_adata(adata, "adata")
    check_key_added(slot)
    check_count("n_neighbors", n_neighbors)
    check_resampling(n_bootstrap, confidence)
    check_controls(controls, ("shuffled", "reversed"))
    params = written_fit(adata, key)["params"]
    use_rep, layer = (params["use_rep"], params.get("layer")) if use_rep is None else (use_rep, None)
    check_representation(adata, use_rep, layer)
    every = np.arange(adata.n_obs)
    labels, _ = group_labels(adata, groupby, every)
    x, v = representation(adata, every, use_rep, layer), np.asarray(adata.obsm[f"{key}_velocity"])
    if x.shape != v.shape:
        raise ValueError(
            f"Expected `use_rep` with the {v.shape[1]} dimensions of the velocities, found {x.shape[1]} in "
            f"{use_rep!r}. Leave it out to use that of the fit."
        )
    x, directions, labels = check_field(x, v, labels)
    edges = check_edges(edges, labels)
    moves = ~np.isnan(directions).any(axis=1)
    steps = boundary_steps(x, moves, labels, edges, n_neighbors=n_neighbors)
    cosines = [(directions[rows] * step).sum(axis=1) for rows, step in steps]
    draws = {"fit": _bootstrap(cosines, n_bootstrap, rng)}
    if "shuffled" in controls:
        draws["shuffled"] = _permuted(directions, moves, steps, n_bootstrap, rng)
    if "reversed" in controls:
        draws["reversed"] = -draws["fit"]
    means = np.array([mean_or_nan(values) for values in cosines])
    scores = {"fit": means, "reversed": -means}
    scores = _table(edges, scores, draws, [len(values) for values in cosines], confidence)
    record = {
        "scores": as_columns(scores), "groupby": groupby, "key": key, "use_rep": use_rep, "n_neighbors": n_neighbors,
        "n_bootstrap": n_bootstrap, "confidence": confidence, "rng": plain_rng(rng),
    }  # fmt: skip
    write_slots((adata, {"uns": {slot: record}}))
    return scores


def _bootstrap(cosines: list[np.ndarray], n_draws: int, rng: jax.Array | int) -> np.ndarray:
    """Scores of sampled cells, shape ``(n_edges, n_draws)``, NaN for an edge without cells."""
    draws = np.full((len(cosines), n_draws), np.nan)
    for i, values in enumerate(cosines):
        if len(values):
            generator = stream(rng, "bootstrap", i)
            draws[i] = bootstrap_means(values, np.ones(len(values)), n_draws=n_draws, generator=generator)
    return draws


def _permuted(directions: np.ndarray, moves: np.ndarray, steps: list, n_draws: int, rng: jax.Array | int) -> np.ndarray:
    """Scores with velocities permuted among the cells that have one, shape ``(n_edges, n_draws)``."""
    generator, rows, permuted = stream(rng, "permutation"), np.flatnonzero(moves), directions.copy()
    draws = np.full((len(steps), n_draws), np.nan)
    for draw in range(n_draws):
        permuted[rows] = directions[generator.permutation(rows)]
        draws[:, draw] = [mean_or_nan((permuted[cells] * step).sum(axis=1)) for cells, step in steps]
    return draws


def _table(edges, scores, draws, n_cells, confidence) -> pd.DataFrame:
    """One row for every edge, and their mean, and map; a permuted score is the mean over permutations."""
    scored = np.array(n_cells) > 0
    rows = []
    for i, edge in enumerate([*edges, OVERALL]):
        edge_rows = [i] if edge != OVERALL else np.flatnonzero(scored)
        name, n = (" -> ".join(edge), n_cells[i]) if edge != OVERALL else (OVERALL, sum(n_cells))
        for kind, sampled in draws.items():
            means = sampled[edge_rows].mean(axis=0) if len(edge_rows) else np.array([np.nan])
            score = means.mean() if kind == "shuffled" else mean_or_nan(scores[kind][edge_rows])
            rows.append((name, kind, float(score), *percentile_interval(means, confidence), n))
    return pd.DataFrame(rows, columns=["edge", "map", "score", "low", "high", "n_cells"])
