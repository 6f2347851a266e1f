"""Whether a fitted map sends cells to the fates of their clones."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from uotcell.metrics._resampling import bootstrap_means, percentile_interval
from uotcell.metrics._trajectory import clonal_hits, landing_labels
from uotcell.ot._settings import check_count
from uotcell.problems._base import check_adata, check_key_added, plain, plain_rng
from uotcell.problems._representation import in_memory
from uotcell.problems._slots import write_slots
from uotcell.problems._written import read_pairs
from uotcell.tl._scores import (
    as_columns,
    check_controls,
    check_resampling,
    group_labels,
    images_of_maps,
    pair_labels,
    rows_of,
    stream,
)

# Clones of source and of target cells, and types of the target cells.
Side = tuple[sparse.csr_matrix, sparse.csr_matrix, np.ndarray]


def clonal_fate(
    adata: AnnData,
    groupby: str,
    *,
    clone_key: str = "X_clone",
    key: str = "uot",
    pair: tuple | None = None,
    twin: str | None = None,
    controls: Sequence[str] = ("identity", "entropic", "shuffled"),
    n_neighbors: int = 10,
    n_bootstrap: int = 1_000,
    confidence: float = 0.95,
    rng: jax.Array | int = 0,
    key_added: str | None = None,
) -> pd.DataFrame:
    """Score how often a fitted map sends a cell to a type that its clone really reached.

    See :func:`uotcell.metrics.clonal_fate_accuracy`. Only cells of clones seen at both times of a pair count, all
    alike.

    Parameters
    ----------
    adata
        Annotated data with the slots of :func:`uotcell.tl.fit_trajectory`.
    groupby
        Column of ``.obs`` with the type of every cell.
    clone_key
        Key of ``.obsm`` with cells × clones membership, dense or sparse.
    key
        The `key_added` of the fit.
    pair
        (source, target) labels of one pair. By default the cells of all pairs are pooled.
    twin
        The `key_added` of another fit of the same cells to be scored too, in general the balanced one (``tau=1``).
    controls
        What else is scored: ``"identity"``, cells that stay where they are; ``"entropic"``, the entropic map of the
        fit's own coupling, which is solved again; ``"shuffled"``, the fit with clones permuted among the target cells.
    n_neighbors
        Target cells that a pushed cell takes the commonest type of.
    n_bootstrap
        Number of samples for an interval, and of permutations.
    confidence
        Of the intervals.
    rng
        Key or seed of the samples and permutations.
    key_added
        Name of the slot; ``"<key>_clonal_fate"`` by default.

    Returns
    -------
    A row for every map ("fit", "twin", "entropic", "identity", "shuffled"): ``map``, ``score``, the share of cells that
    land right, ``low`` and ``high``, ``n_cells`` and ``n_clones``, cells and clones that were counted. Sets
    ``adata.uns["<key>_clonal_fate"]``: dict of ``scores``, the columns of this table as arrays, and the settings
    ``groupby``, ``clone_key``, ``key``, ``twin``, ``n_neighbors``, ``n_bootstrap``, ``confidence``, ``rng`` and
    ``pairs``, dict of the ``source`` and ``target`` labels of the pairs.

    Raises
    ------
    KeyError
        If the fit, the pair, the column or the clones do not exist.
    ValueError
        If no clone is seen at both times of a pair, the twin has other cells, or an option is none of the above.

    Notes
    -----
    Cells of one clone are no independent witnesses, so intervals are percentiles of samples of clones, with
    replacement, given the fitted map; a cell of several clones counts in equal parts. For "shuffled" the score is the
    mean over permutations and the interval theirs.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.hematopoiesis()
    >>> _ = uc.tl.fit_trajectory(adata, "day", policy=[(4.0, 6.0)], n_iters=20, progress=False)
    >>> scores = uc.tl.clonal_fate(adata, "cell_type", n_bootstrap=50)
    >>> scores["map"].tolist()
    ['fit', 'entropic', 'identity', 'shuffled']
    """
    slot = f"{key}_clonal_fate" if key_added is None else key_added
    check_adata(adata, "adata")
    check_key_added(slot)
    check_count("n_neighbors", n_neighbors)
    check_resampling(n_bootstrap, confidence)
    check_controls(controls, ("identity", "entropic", "shuffled"))
    if clone_key not in adata.obsm:
        raise KeyError(f"Expected `clone_key` to be one of {sorted(adata.obsm)} in `adata.obsm`, found {clone_key!r}.")
    clones = sparse.csr_matrix(in_memory(adata.obsm[clone_key])).astype(bool)
    pairs = read_pairs(adata, key, pair)
    labels, _ = group_labels(adata, groupby, rows_of(pairs))
    landed = {
        name: [
            landing_labels(images, written.y, labels[written.target_rows], n_neighbors=n_neighbors)
            for (images, _), written in zip(by_pair, pairs, strict=True)
        ]
        for name, by_pair in images_of_maps(adata, key, pair, pairs, twin, controls).items()
    }
    sides = [
        (clones[written.source_rows], clones[written.target_rows], labels[written.target_rows]) for written in pairs
    ]
    counted = {name: _hits(by_pair, sides) for name, by_pair in landed.items()}
    seen, member = counted["fit"][1], _membership(sides)
    scores = {name: float(hits[seen].mean()) for name, (hits, _) in counted.items()}
    draws = {name: _bootstrap(hits, member, n_bootstrap, rng) for name, (hits, _) in counted.items()}
    if "shuffled" in controls:
        draws["shuffled"] = _permuted(landed["fit"], sides, n_bootstrap, rng)
        scores["shuffled"] = float(draws["shuffled"].mean())
    n_clones = int((member.sum(axis=0) > 0).sum())
    table = pd.DataFrame(
        [(name, scores[name], *percentile_interval(draws[name], confidence)) for name in scores],
        columns=["map", "score", "low", "high"],
    ).assign(n_cells=int(seen.sum()), n_clones=n_clones)
    settings = {
        "groupby": groupby, "clone_key": clone_key, "key": key, "twin": twin, "n_neighbors": n_neighbors,
        "n_bootstrap": n_bootstrap, "confidence": confidence, "rng": plain_rng(rng), "pairs": pair_labels(pairs),
    }  # fmt: skip
    write_slots((adata, {"uns": {slot: plain(settings) | {"scores": as_columns(table)}}}))
    return table


def _hits(landed: list[np.ndarray], sides: list[Side]) -> tuple[np.ndarray, np.ndarray]:
    """Whether every source cell of all pairs landed right, and whether it counts."""
    by_pair = [clonal_hits(labels, *side) for labels, side in zip(landed, sides, strict=True)]
    return tuple(np.concatenate(parts) for parts in zip(*by_pair, strict=True))


def _membership(sides: list[Side]) -> sparse.csr_matrix:
    """Share of every source cell that counts for each clone seen at both times of its pair, ``(n_cells, n_clones)``."""
    shares = []
    for source_clones, target_clones, _ in sides:
        again = np.ravel(target_clones.sum(axis=0)) > 0
        member = source_clones.multiply(again).astype(np.float64).tocsr()
        n_clones = np.ravel(member.sum(axis=1))
        shares.append(sparse.diags_array(1 / np.maximum(n_clones, 1)) @ member)
    return sparse.csr_matrix(sparse.vstack(shares))


def _bootstrap(hits: np.ndarray, member: sparse.csr_matrix, n_draws: int, rng: jax.Array | int) -> np.ndarray:
    """Scores of sampled clones."""
    n_cells = np.ravel(member.sum(axis=0))
    counted = n_cells > 0
    n_hits, n_cells = (member.T @ hits.astype(np.float64))[counted], n_cells[counted]
    return bootstrap_means(n_hits / n_cells, n_cells, n_draws=n_draws, generator=stream(rng, "bootstrap"))


def _permuted(landed: list[np.ndarray], sides: list[Side], n_draws: int, rng: jax.Array | int) -> np.ndarray:
    """Scores with clones permuted among the target cells of each pair, which keeps the clones seen at both times."""
    draws = np.empty(n_draws)
    generator = stream(rng, "permutation")
    for draw in range(n_draws):
        permuted = [
            (source_clones, target_clones[generator.permutation(target_clones.shape[0])], labels)
            for source_clones, target_clones, labels in sides
        ]
        hits, seen = _hits(landed, permuted)
        draws[draw] = hits[seen].mean()
    return draws
