"""A fitted time course as a transition matrix between cells."""

from __future__ import annotations

import pandas as pd
from anndata import AnnData
from scipy import sparse

from uotcell.problems._base import check_adata, check_key_added
from uotcell.problems._slots import write_slots
from uotcell.problems._transitions import STATES, check_options, read_fit, resting_rows, transitions


def transition_matrix(
    adata: AnnData,
    *,
    key: str = "uot",
    n_neighbors: int = 30,
    empty_rows: str = "self",
    min_weight: float = 0.1,
    batch_size: int = 2048,
    key_added: str | None = None,
) -> sparse.csr_matrix:
    r"""Turn a fitted time course into probabilities of stepping from cell to cell, as CellRank takes them.

    A source cell ``i`` with image ``p_i`` steps to the `n_neighbors` cells ``j`` of its target time nearest to it, with

    .. math:: T_{ij} \propto \exp\left(-\frac{\|p_i - x_j\|^2}{2 h_i^2}\right),
              \qquad h_i = \frac{1}{k} \sum_j \|p_i - x_j\|,

    a Gaussian kernel that is as wide as the target cells are sparse. Of several pairs of a source time the one with the
    shortest time difference counts, as in the slots of the fit.

    Rows sum to one, so they do not say that cells divide or die: the mass stays in ``.obs["<key>_source_weight"]``, and
    only cells that transport next to nothing are told apart. A cell has no outgoing mass if it is no source of a pair,
    such as the cells of the last time point (it is an *end*), or if its weight is at most `min_weight` of the mean of
    its time point (it is *dying*).

    Parameters
    ----------
    adata
        Annotated data after :func:`uotcell.tl.fit_trajectory`, or a part of it with cells of the target times.
    key
        The `key_added` of the fit.
    n_neighbors
        Target cells that a cell may step to; all of them, where a time point has fewer.
    empty_rows
        What cells without outgoing mass do. ``"self"``: stay where they are. ``"absorb"``: step among themselves, to
        the `n_neighbors` nearest (the cell itself included) and back from these, dying and ending cells of every time
        point apart. This gives closed classes, of which :class:`cellrank.estimators.GPCCA` can tell the fates, death
        being one. ``"error"``: raise if a cell before the last time point has no outgoing mass; those at the last one
        stay.
    min_weight
        Share of the mean weight of a time point, in [0, 1), up to which a source cell counts as dying. At τ = 0.95
        one cell in a thousand falls below a tenth in the embedded time courses of differentiation, under drugs one in
        forty.
    batch_size
        Cells whose neighbours are looked up at a time, which bounds memory beyond the matrix itself.
    key_added
        Name of the slots; ``"<key>_transition_matrix"`` by default.

    Returns
    -------
    The matrix, float64 ``(n_cells, n_cells)``. Sets these slots of ``adata``:

    - ``.obsp["<key>_transition_matrix"]``: the same CSR matrix, float64.
    - ``.obs["<key>_transition_matrix"]``: categorical, what the cell does: "moving", "dying" or "end".
    - ``.uns["<key>_transition_matrix"]``: dict of ``key``, ``n_neighbors``, ``empty_rows`` and ``min_weight``.

    Raises
    ------
    KeyError
        If the slots of the fit or its representation do not exist.
    ValueError
        If options or slots cannot be used, or for cells without outgoing mass with ``empty_rows="error"``.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> matrix = uc.tl.transition_matrix(adata)
    >>> matrix.shape
    (1000, 1000)
    """
    key_added = f"{key}_transition_matrix" if key_added is None else key_added
    check_adata(adata, "adata")
    check_key_added(key_added)
    check_options(n_neighbors, empty_rows, min_weight, batch_size)
    fit = read_fit(adata, key)
    state = fit.state(min_weight)
    search = {"n_neighbors": n_neighbors, "batch_size": batch_size}
    resting = resting_rows(adata, fit, state, empty_rows=empty_rows, **search)
    matrix = transitions(adata, fit, state, resting, **search)
    states = pd.Categorical.from_codes(state, STATES)
    settings = {
        "key": key,
        "n_neighbors": int(n_neighbors),
        "empty_rows": empty_rows,
        "min_weight": float(min_weight),
    }
    slots = {"obsp": {key_added: matrix}, "obs": {key_added: states}, "uns": {key_added: settings}}
    write_slots((adata, slots))
    return matrix
