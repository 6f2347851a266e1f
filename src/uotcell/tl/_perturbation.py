"""Fit maps from control to treated cells in one call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import jax
from anndata import AnnData
from ott.geometry.costs import CostFn

from uotcell.methods import Method
from uotcell.problems import PerturbationProblem
from uotcell.problems._base import check_key_added
from uotcell.problems._conditions import check_store


def fit_perturbation(
    adata: AnnData,
    perturbation_key: str,
    control,
    *,
    use_rep: str = "X_pca",
    layer: str | None = None,
    groupby: str | None = None,
    conditions: Iterable | None = None,
    valid_fraction: float = 0.1,
    test_fraction: float = 0.1,
    min_cells: int = 20,
    on_small: str = "warn",
    method: str | Method = "monge_gap",
    tau: float | tuple[float, float] | None = None,
    marginal_penalty: float | tuple[float, float] | None = None,
    epsilon: float = 0.01,
    cost: str | CostFn = "sqeuclidean",
    scale_cost: str | float = "mean",
    anchors: int | None = None,
    memory_limit: float | str | None = None,
    n_iters: int | None = None,
    batch_size: int = 256,
    rescaling: str = "global",
    patience: int | None = None,
    ema_decay: float | None = None,
    source_noise: float = 0.0,
    group_size: int | None = None,
    rng: jax.Array | int = 0,
    store: str | Iterable | None = "all",
    key_added: str = "uot",
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
) -> PerturbationProblem:
    """Fit an unbalanced transport map from control cells to every treatment and write the maps' images into ``adata``.

    For every condition, in every group: solve the entropic unbalanced problem of the training cells once; train all
    maps as one program; push the control cells (Eyring, Klein, Uscidda et al. 2024).

    Parameters
    ----------
    adata
        Annotated data with unique ``.obs_names``, in memory or backed, of which the file is not changed. A view
        becomes a copy of its own when results are written.
    perturbation_key
        Column of ``.obs`` with the treatment of every cell.
    control
        Its label of the untreated cells.
    use_rep, layer, groupby, conditions, valid_fraction, test_fraction, min_cells, on_small
        Cells, pairs and splits, see :meth:`uotcell.problems.PerturbationProblem.prepare`.
    method, tau, marginal_penalty, epsilon, cost, scale_cost, anchors
        Estimator and couplings, see :meth:`uotcell.problems.PerturbationProblem.solve`; τ is 0.95 by default.
    memory_limit
        Memory that the solve, training and later predictions may take, such as ``"6GB"``; by default three quarters of
        what is free. See :func:`uotcell.ot.solve_unbalanced`.
    n_iters, batch_size, rescaling, patience, ema_decay, source_noise, group_size, progress
        Training, see :meth:`uotcell.problems.PerturbationProblem.solve`.
    checkpoint_dir, checkpoint_every
        Folder for checkpoints, from which the same call goes on, and steps between them, see there.
    rng
        Key or seed, of the splits too.
    store
        Conditions whose images are written: ``"all"``, a list, or None.
    key_added
        Prefix and name of the slots.

    Returns
    -------
    The solved problem, for predicting unseen cells. Sets these slots of ``adata``:

    - ``.obsm["uot_push_<condition>"]``: float32 ``(n_cells, n_dims)``, images of the control cells, NaN for all others.
    - ``.obs["uot_split"]``: categorical, "train", "valid" or "test", NaN for cells that were not used.
    - ``.obs["uot_target_weight"]``: float32, mass multiplier of treated cells, 1 = unchanged, NaN for others.
    - ``.uns["uot"]``: dict of ``params``, ``pairs``, and by pair ``history``, ``metrics`` and ``weights``.

    Raises
    ------
    KeyError, ValueError, MemoryError, OSError, uotcell.ConvergenceError
        As in ``prepare`` and ``solve``; ``adata`` is then untouched.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()  # no drugs, but labels to show the call with
    >>> problem = uc.tl.fit_perturbation(
    ...     adata, "cell_type", "Stromal", conditions=["Epithelial"], n_iters=20, progress=False
    ... )
    >>> unseen = adata[(adata.obs["cell_type"] == "Stromal") & (adata.obs["uot_split"] == "test")]
    >>> problem.predict(unseen, "Epithelial", decode="pca").shape
    (42, 1479)
    """
    check_key_added(key_added)
    problem = PerturbationProblem(adata).prepare(
        perturbation_key, control, use_rep=use_rep, layer=layer, groupby=groupby, conditions=conditions,
        valid_fraction=valid_fraction, test_fraction=test_fraction, min_cells=min_cells, on_small=on_small, rng=rng,
    )  # fmt: skip
    store = check_store(store, problem.conditions)
    problem.solve(
        method, tau=tau, marginal_penalty=marginal_penalty, epsilon=epsilon, cost=cost, scale_cost=scale_cost,
        anchors=anchors, memory_limit=memory_limit,
        n_iters=n_iters, batch_size=batch_size, rescaling=rescaling, patience=patience,
        ema_decay=ema_decay, source_noise=source_noise, group_size=group_size, rng=rng,
        checkpoint_dir=checkpoint_dir, checkpoint_every=checkpoint_every, progress=progress,
    )  # fmt: skip
    problem.write(key_added, store)
    return problem
