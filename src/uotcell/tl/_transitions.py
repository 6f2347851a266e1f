"""Where the cells of every type go, as a table, and how much of that is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import pandas as pd
from anndata import AnnData

from uotcell.ot._settings import check_count
from uotcell.problems._base import check_adata, check_key_added, plain_rng
from uotcell.problems._slots import write_slots
from uotcell.problems._written import WrittenPair, read_pairs
from uotcell.tl._lineages import Allowed, check_allowed, landings, score_lineages
from uotcell.tl._scores import (
    as_columns,
    check_controls,
    check_resampling,
    group_labels,
    images_of_maps,
    pair_labels,
    rows_of,
)


def transitions(
    adata: AnnData,
    groupby: str,
    *,
    key: str = "uot",
    pair: tuple | None = None,
    normalize: bool = True,
    weighted: bool = True,
    allowed: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    twin: str | None = None,
    controls: Sequence[str] = ("entropic", "shuffled"),
    n_neighbors: int = 10,
    n_bootstrap: int = 1_000,
    confidence: float = 0.95,
    rng: jax.Array | int = 0,
    key_added: str | None = None,
) -> pd.DataFrame:
    """Aggregate where a fitted map sends cells by type, and score the transitions that are allowed.

    A pushed cell is spread evenly over the types of the target cells nearest to its image
    (:func:`uotcell.metrics.landing_shares`). The fit is read from ``adata``, which may come from a file.

    Parameters
    ----------
    adata
        Annotated data with the slots of :func:`uotcell.tl.fit_trajectory`.
    groupby
        Column of ``.obs`` with the type of every cell.
    key
        The `key_added` of the fit.
    pair
        (source, target) labels of one pair. By default all pairs are added up, each cell in the pair of its image;
        where a time has several targets that is the nearest in time.
    normalize
        Whether rows sum to one. Otherwise entries are masses, as shares of the cells of the source time: those of a
        pair sum to its transported mass, or to one if not `weighted`.
    weighted
        Whether cells count by what the coupling transports of them, or all alike.
    allowed
        Allowed transitions by lineage, ``{lineage: {source type: [target types]}}``, such as
        :func:`uotcell.datasets.pancreas_transitions`; one lineage may hold all. Staying the same type is allowed only
        if it is listed.
    twin
        The `key_added` of another fit of the same cells to be scored too, in general the balanced one (``tau=1``).
    controls
        What else is scored: ``"entropic"``, the entropic map of the fit's own coupling, which is solved again;
        ``"shuffled"``, the fit with the types of the target cells permuted.
    n_neighbors
        Target cells to spread a pushed cell over.
    n_bootstrap
        Number of samples for an interval, and of permutations.
    confidence
        Of the intervals.
    rng
        Key or seed of the samples and permutations.
    key_added
        Name of the slot; ``"<key>_transitions"`` by default.

    Returns
    -------
    Table of source types (rows) by target types (columns); a row is NaN if its type transports no mass. Sets
    ``adata.uns["<key>_transitions"]``: dict of

    - ``table``: float64 ``(n_rows, n_columns)``; ``rows``, ``columns``: its labels.
    - ``groupby``, ``key``, ``normalize``, ``weighted``, ``n_neighbors``: the settings; ``pairs``: dict of the
      ``source`` and ``target`` labels of the pairs.
    - with `allowed`, ``scores``: dict of the columns of a table with a row for every ``lineage`` and ``map`` ("fit",
      "twin", "entropic", "shuffled"): ``score``, the share of the lineage's mass whose transition is allowed; ``low``
      and ``high``; ``n_cells``, source cells of the lineage. ``allowed``: dict of the columns ``lineage``, ``source``,
      ``target`` of the allowed transitions; ``twin``, ``n_bootstrap``, ``confidence``, ``rng``.

    Raises
    ------
    KeyError
        If the fit, the pair or the column does not exist.
    ValueError
        If an option is none of the above, the twin has other cells, or a lineage has no source cell.

    Notes
    -----
    Intervals are percentiles of samples of the source cells of a lineage, with replacement. The map, the weights and
    the target cells are held, so they say how a score varies with the cells it is counted over, not with the fit:
    seeds, new samples of both times, or another τ may move it by more. Maps are scored on equal samples. For "shuffled"
    the score is the mean over permutations and the interval theirs.

    Shares of correct transitions by lineage are how Eyring, Klein, Uscidda et al. (ICLR 2024) compare balanced with
    unbalanced maps.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> _ = uc.tl.fit_trajectory(adata, "day", policy=[(10.5, 11.0)], n_iters=20, progress=False)
    >>> allowed = {"somatic": {"Stromal": ["Stromal"], "Epithelial": ["Epithelial", "IPS"]}}
    >>> table = uc.tl.transitions(adata, "cell_type", allowed=allowed, n_bootstrap=50)
    >>> bool(table.loc["Stromal", "Stromal"] > 0.8)
    True
    >>> adata.uns["uot_transitions"]["scores"]["map"].tolist()
    ['fit', 'entropic', 'shuffled']
    """
    slot = f"{key}_transitions" if key_added is None else key_added
    check_adata(adata, "adata")
    check_key_added(slot)
    check_count("n_neighbors", n_neighbors)
    check_resampling(n_bootstrap, confidence)
    check_controls(controls, ("entropic", "shuffled"))
    if twin is not None and allowed is None:
        raise ValueError(f"Expected `allowed` transitions to score the `twin` by, found None with {twin!r}.")
    pairs = read_pairs(adata, key, pair)
    labels, order = group_labels(adata, groupby, rows_of(pairs))
    sources, targets = (set(labels[np.concatenate(side)].tolist()) for side in zip(*map(_rows, pairs), strict=True))
    allowed = None if allowed is None else check_allowed(allowed, sources, set(labels.tolist()))
    images = images_of_maps(adata, key, pair, pairs, twin, () if allowed is None else controls)
    landed = {
        name: landings(by_pair, pairs, labels, weighted=weighted, n_neighbors=n_neighbors)
        for name, by_pair in images.items()
    }
    rows, columns = ([label for label in order if label in side] for side in (sources, targets))
    table = sum(landing.table(rows, columns) for landing in landed["fit"])
    if normalize:
        with np.errstate(invalid="ignore"):  # a type that transports nothing goes nowhere
            table = table / table.sum(axis=1, keepdims=True)
    record = {
        "table": table, "rows": np.asarray(rows), "columns": np.asarray(columns), "groupby": groupby, "key": key,
        "normalize": normalize, "weighted": weighted, "n_neighbors": n_neighbors,
        "pairs": pair_labels(pairs),
    }  # fmt: skip
    if allowed is not None:
        resampling = {"n_bootstrap": n_bootstrap, "confidence": confidence}
        scores = score_lineages(landed, allowed, shuffled="shuffled" in controls, rng=rng, **resampling)
        record |= {"scores": as_columns(scores), "allowed": _listed(allowed), "rng": plain_rng(rng), **resampling}
        record |= {} if twin is None else {"twin": twin}
    write_slots((adata, {"uns": {slot: record}}))
    return pd.DataFrame(table, index=pd.Index(rows, name="source"), columns=pd.Index(columns, name="target"))


def _rows(pair: WrittenPair) -> tuple[np.ndarray, np.ndarray]:
    return pair.source_rows, pair.target_rows


def _listed(allowed: Allowed) -> dict[str, np.ndarray]:
    edges = [(name, source, target) for name in allowed for source in allowed[name] for target in allowed[name][source]]
    return as_columns(pd.DataFrame(edges, columns=["lineage", "source", "target"]))
