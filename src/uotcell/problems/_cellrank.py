"""Kernels of CellRank from a fitted time course."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from uotcell.problems._slots import slots_written
from uotcell.problems._transitions import END, MOVING, Fit, check_options, read_fit, resting_rows, transitions

if TYPE_CHECKING:
    from cellrank.kernels import RealTimeKernel
    from cellrank.kernels._base_kernel import KernelExpression

KINDS = ("precomputed", "realtime")


def cellrank_kernel(
    adata: AnnData,
    *,
    key: str,
    kind: str,
    n_neighbors: int,
    empty_rows: str,
    min_weight: float,
    conn_weight: float,
    batch_size: int,
) -> KernelExpression:
    """Build the kernel of :meth:`uotcell.problems.TemporalProblem.to_cellrank`."""
    if kind not in KINDS:
        raise ValueError(f"Expected `kind` to be one of {list(KINDS)}, found {kind!r}.")
    if not 0 <= conn_weight < 1:
        raise ValueError(f"Expected `conn_weight` to be in [0, 1), found {conn_weight!r}.")
    check_options(n_neighbors, empty_rows, min_weight, batch_size)
    fit = read_fit(adata, key)
    if kind == "precomputed":
        _check_graph(adata, fit, conn_weight)
    else:
        _check_real_time(adata, fit, conn_weight)
    _require_cellrank()
    state = fit.state(min_weight)
    search = {"n_neighbors": n_neighbors, "batch_size": batch_size}
    resting = resting_rows(adata, fit, state, empty_rows=empty_rows, **search)
    if kind == "precomputed":
        return _precomputed(adata, transitions(adata, fit, state, resting, **search), conn_weight)
    # CellRank makes rows of the couplings: those of dying cells too, which are replaced afterwards.
    steps = transitions(adata, fit, np.where(fit.is_source, MOVING, state), [], **search)
    rest = transitions(adata, fit, np.where(state == MOVING, END, state), resting, **search)
    times = pd.Categorical.from_codes(fit.codes, fit.times, ordered=True)
    with slots_written((adata, {"obs": {f"{key}_time": times}})):  # from where CellRank reads it
        kernel = _real_time(adata, f"{key}_time", fit, steps, conn_weight)
        _replace_rows(kernel, rest, np.flatnonzero(state != MOVING), fit.codes, conn_weight)
    return kernel


def _check_graph(adata: AnnData, fit: Fit, conn_weight: float) -> None:
    if conn_weight > 0 and "connectivities" not in adata.obsp:
        raise KeyError(
            f"Expected `adata.obsp` to hold 'connectivities', found {sorted(adata.obsp)}. Run "
            f"`sc.pp.neighbors(adata, use_rep={fit.use_rep!r})` first, or set `conn_weight`=0."
        )


def _precomputed(adata: AnnData, matrix: sparse.csr_matrix, conn_weight: float) -> KernelExpression:
    from cellrank.kernels import ConnectivityKernel, PrecomputedKernel

    kernel = PrecomputedKernel(matrix, adata=adata)
    if conn_weight == 0:
        return kernel
    neighbors = ConnectivityKernel(adata).compute_transition_matrix()
    return ((1 - conn_weight) * kernel + conn_weight * neighbors).compute_transition_matrix()


def _check_real_time(adata: AnnData, fit: Fit, conn_weight: float) -> None:
    """Raise unless every cell before the last time is a source, which is what CellRank puts together."""
    missing = [label for code, label in enumerate(fit.labels[:-1]) if code not in fit.target]
    if missing:
        raise ValueError(
            f"Expected a map from every time but the last with `kind`='realtime', found none from {missing}. Fit these "
            "times too, fit a copy without their cells, or choose `kind`='precomputed'."
        )
    lost = ~fit.is_source & (fit.codes < len(fit.labels) - 1)
    if lost.any():
        raise ValueError(
            f"Expected an image of every cell before {fit.labels[-1]!r} with `kind`='realtime', found none for "
            f"{int(lost.sum())} cells (first: {adata.obs_names[lost][0]!r}). Fit again with these cells."
        )
    if conn_weight > 0 and fit.layer is not None:
        raise ValueError(
            f"Expected `conn_weight` to be 0 with `kind`='realtime' and a fit in layer {fit.layer!r}, found "
            f"{conn_weight!r}: CellRank finds neighbours in `.X` or `.obsm` only. Set it to 0, or choose "
            "`kind`='precomputed'."
        )


def _real_time(adata: AnnData, time_key: str, fit: Fit, steps: sparse.csr_matrix, conn_weight: float) -> RealTimeKernel:
    """Couplings by pair, rows summing to the mass that a cell transports, in CellRank's kernel."""
    from cellrank.kernels import RealTimeKernel

    couplings = {}
    for source, target in fit.target.items():
        rows, columns = np.flatnonzero(fit.codes == source), np.flatnonzero(fit.codes == target)
        # A row of zeros would be taken for one that steps anywhere, with equal probability.
        mass = np.maximum(fit.weight[rows] / len(rows), np.finfo(np.float32).tiny)
        coupling = sparse.diags(mass) @ steps[rows][:, columns]
        couplings[float(fit.times[source]), float(fit.times[target])] = sparse.csr_matrix(coupling)
    kernel = RealTimeKernel(adata, time_key=time_key, couplings=couplings)
    if conn_weight == 0:
        return kernel.compute_transition_matrix(threshold=None, self_transitions="diagonal")
    return kernel.compute_transition_matrix(
        threshold=None, self_transitions="all", conn_weight=conn_weight, conn_kwargs={"use_rep": fit.use_rep}
    )


def _replace_rows(
    kernel: RealTimeKernel, rest: sparse.csr_matrix, rows: np.ndarray, codes: np.ndarray, conn_weight: float
) -> None:
    """Give cells without outgoing mass their rows of ``rest``, mixed with neighbours like all other rows."""
    n = len(codes)
    replaced = (1 - conn_weight) * rest[rows]
    if conn_weight > 0:
        old = kernel.transition_matrix[rows].tocoo()
        near = codes[rows[old.row]] == codes[old.col]
        neighbors = sparse.csr_matrix((old.data[near], (old.row[near], old.col[near])), shape=old.shape)
        replaced += sparse.diags(conn_weight / np.asarray(neighbors.sum(axis=1)).ravel()) @ neighbors
    kept = np.ones(n)
    kept[rows] = 0.0
    place = sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(n, len(rows)))
    result = sparse.csr_matrix(sparse.diags(kept) @ kernel.transition_matrix + place @ replaced)
    result.eliminate_zeros()
    kernel.transition_matrix = result


def _require_cellrank() -> None:
    try:
        import cellrank.kernels  # noqa: F401
    except ImportError as error:
        raise ImportError(
            'Expected CellRank for its kernels, found none. Run `pip install "uotcell[cellrank]"`.'
        ) from error
