"""A fitted time course as a Markov chain on its cells, read from the slots of an AnnData."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from scipy import sparse

from uotcell.problems._neighbor_rows import RowWriter, closed_class, nearest_rows
from uotcell.problems._representation import check_representation, representation
from uotcell.problems._times import parse_times, time_codes
from uotcell.problems._written import written_fit

EMPTY_ROWS = ("self", "absorb", "error")
# What a cell does, by code: moves on, transports next to nothing, is no source.
STATES = ("moving", "dying", "end")
MOVING, DYING, END = range(3)


@dataclass(frozen=True, eq=False, kw_only=True)
class Fit:
    """What the slots of a fitted time course say.

    Attributes
    ----------
    push, weight
        Images ``(n_cells, n_dims)`` and mass multipliers as a source ``(n_cells,)``; NaN where a cell is no source.
    use_rep, layer
        Representation of the fit.
    codes
        Time point of every cell, ``(n_cells,)``, numbered in order of time.
    times
        Times as numbers, by code.
    labels
        Labels of the time column, by code.
    target
        Code of the target time, by code of the source time; of several the nearest.
    """

    push: np.ndarray
    weight: np.ndarray
    use_rep: str
    layer: str | None
    codes: np.ndarray
    times: np.ndarray
    labels: list
    target: dict[int, int]

    @property
    def is_source(self) -> np.ndarray:
        """Whether a cell has an image."""
        return np.isfinite(self.push).all(axis=1)

    def state(self, min_weight: float) -> np.ndarray:
        """State of every cell, codes of ``STATES``; see :func:`uotcell.tl.transition_matrix` for ``min_weight``."""
        state = np.where(self.is_source, MOVING, END)
        for code in self.target:
            sources = np.flatnonzero((self.codes == code) & (state == MOVING))
            weight = self.weight[sources]
            if len(sources):
                state[sources[weight <= min_weight * weight.mean()]] = DYING
        return state


def read_fit(adata: AnnData, key: str) -> Fit:
    """Read the slots that :meth:`uotcell.problems.TemporalProblem.write` left, and check that they fit the cells.

    Raises
    ------
    KeyError
        If a slot is missing.
    ValueError
        If slots and cells do not belong together, or the cells of a target time are missing.
    """
    record = written_fit(adata, key)
    params, pairs = record["params"], record["pairs"]
    use_rep, layer = str(params["use_rep"]), params.get("layer")
    check_representation(adata, use_rep, layer)
    push, weight = np.asarray(adata.obsm[f"{key}_push"]), adata.obs[f"{key}_source_weight"].to_numpy(np.float64)

    column = adata.obs[params["time_key"]]
    times = parse_times(column)
    labels, codes = list(times), time_codes(column, times)
    code = {str(label): i for i, label in enumerate(labels)}
    is_source = np.isfinite(push).all(axis=1)
    # The longest time difference first, as they were written, so that the shortest is what remains.
    order = np.argsort(-np.asarray(pairs["time_difference"]), kind="stable")
    ends = {str(pairs["source"][i]): str(pairs["target"][i]) for i in order}
    ends = {source: end for source, end in ends.items() if is_source[codes == code.get(source, -1)].any()}
    for source, end in ends.items():
        if end not in code:
            raise ValueError(
                f"Expected cells at {end!r}, the target of {source!r}, found none. Keep them when subsetting `adata`."
            )
    target = {code[source]: code[end] for source, end in ends.items()}
    if not (np.isin(codes[is_source], list(target)).all() and np.isfinite(weight[is_source]).all()):
        raise ValueError(
            f"Expected images and weights of {key!r} at the source times {[labels[i] for i in target]}, found other "
            f"cells. Their times have changed since the fit. Fit again."
        )
    return Fit(
        push=push,
        weight=weight,
        use_rep=use_rep,
        layer=layer,
        codes=codes,
        times=np.asarray(list(times.values())),
        labels=labels,
        target=target,
    )


def check_options(n_neighbors: int, empty_rows: str, min_weight: float, batch_size: int) -> None:
    """Raise unless these are settings of a transition matrix."""
    for name, value in (("n_neighbors", n_neighbors), ("batch_size", batch_size)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
            raise ValueError(f"Expected `{name}` to be a positive integer, found {value!r}.")
    if empty_rows not in EMPTY_ROWS:
        raise ValueError(f"Expected `empty_rows` to be one of {list(EMPTY_ROWS)}, found {empty_rows!r}.")
    if not 0 <= min_weight < 1:
        raise ValueError(f"Expected `min_weight` to be a share of the mean weight in [0, 1), found {min_weight!r}.")


def require_outgoing(fit: Fit, state: np.ndarray) -> None:
    """Raise if a cell before the last time has no outgoing mass."""
    stuck = (state != MOVING) & (fit.codes < len(fit.labels) - 1)
    if not stuck.any():
        return
    counts = {
        f"{STATES[kind]} at {label!r}": int((stuck & (fit.codes == code) & (state == kind)).sum())
        for code, label in enumerate(fit.labels)
        for kind in (DYING, END)
    }
    raise ValueError(
        f"Expected outgoing mass of every cell before {fit.labels[-1]!r}, found none of {int(stuck.sum())} cells: "
        f"{', '.join(f'{count} {where}' for where, count in counts.items() if count)}. Lower `min_weight`, or choose "
        "`empty_rows`='self' or 'absorb'."
    )


def resting_rows(
    adata: AnnData, fit: Fit, state: np.ndarray, *, n_neighbors: int, empty_rows: str, batch_size: int
) -> list[tuple[np.ndarray, sparse.csr_matrix]]:
    """Let cells without outgoing mass step: the cells of each closed class, and the matrix of their steps.

    Raises
    ------
    ValueError
        If ``empty_rows`` is "error" and a cell before the last time is among them.
    """
    if empty_rows == "error":
        require_outgoing(fit, state)
    if empty_rows != "absorb":
        rows = np.flatnonzero(state != MOVING)
        return [(rows, sparse.eye_array(len(rows), format="csr"))]
    classes = []
    for code in range(len(fit.labels)):
        for kind in (DYING, END):
            rows = np.flatnonzero((fit.codes == code) & (state == kind))
            if len(rows):
                points = representation(adata, rows, fit.use_rep, fit.layer)
                size = min(n_neighbors, len(rows))
                classes.append((rows, closed_class(points, n_neighbors=size, batch_size=batch_size)))
    return classes


def transitions(
    adata: AnnData,
    fit: Fit,
    state: np.ndarray,
    resting: list[tuple[np.ndarray, sparse.csr_matrix]],
    *,
    n_neighbors: int,
    batch_size: int,
) -> sparse.csr_matrix:
    """Build the matrix of :func:`uotcell.tl.transition_matrix` from a fit and the steps of the cells at rest.

    Rows of cells that neither move nor are in ``resting`` stay empty.
    """
    n_targets = {source: min(n_neighbors, int((fit.codes == target).sum())) for source, target in fit.target.items()}
    moving = {source: np.flatnonzero((fit.codes == source) & (state == MOVING)) for source in fit.target}
    lengths = np.zeros(adata.n_obs, np.int64)
    for source, rows in moving.items():
        lengths[rows] = n_targets[source]
    for rows, steps in resting:
        lengths[rows] = np.diff(steps.indptr)
    writer = RowWriter(lengths)
    for rows, steps in resting:
        writer.write(rows, rows[steps.indices], steps.data)
    for source, rows in moving.items():
        if not len(rows):
            continue
        columns = np.flatnonzero(fit.codes == fit.target[source])
        candidates = representation(adata, columns, fit.use_rep, fit.layer)
        batches = nearest_rows(fit.push[rows], candidates, n_neighbors=n_targets[source], batch_size=batch_size)
        for batch, nearest, weights in batches:
            writer.write(rows[batch], columns[nearest], weights)
    return writer.matrix()
