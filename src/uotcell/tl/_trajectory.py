"""Fit maps between time points in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax
from anndata import AnnData
from ott.geometry.costs import CostFn

from uotcell.methods import Method
from uotcell.problems import TemporalProblem
from uotcell.problems._base import check_key_added


def fit_trajectory(
    adata: AnnData,
    time_key: str,
    *,
    use_rep: str = "X_pca",
    layer: str | None = None,
    policy: str | Sequence[tuple] = "sequential",
    reference=None,
    growth_key: str | None = None,
    method: str | Method = "icnn",
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
    valid_fraction: float = 0.1,
    patience: int | None = None,
    ema_decay: float | None = None,
    source_noise: float = 0.0,
    learn_rescaling: bool = False,
    rng: jax.Array | int = 0,
    key_added: str = "uot",
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
) -> TemporalProblem:
    """Fit an unbalanced transport map between time points and write it into ``adata``.

    For every pair of time points: solve the entropic unbalanced problem once, train a map between the rescaled
    measures, push the source cells (Eyring, Klein, Uscidda et al. 2024).

    Parameters
    ----------
    adata
        Annotated data with unique ``.obs_names``, in memory or backed, of which the file is not changed. A view
        becomes a copy of its own when results are written.
    time_key
        Column of ``.obs`` with the time of every cell; dates and durations count in days.
    use_rep, layer, policy, reference, growth_key
        Cells and pairs, see :meth:`uotcell.problems.TemporalProblem.prepare`.
    method, tau, marginal_penalty, epsilon, cost, scale_cost, anchors
        Estimator and coupling, see :meth:`uotcell.problems.TemporalProblem.solve`; τ is 0.95 by default.
    memory_limit
        Memory that the solve, training and later predictions may take, such as ``"6GB"``; by default three quarters of
        what is free. See :func:`uotcell.ot.solve_unbalanced`.
    n_iters, batch_size, rescaling, valid_fraction, patience, ema_decay, source_noise, learn_rescaling, rng, progress
        Training, see :meth:`uotcell.problems.TemporalProblem.solve`.
    checkpoint_dir, checkpoint_every
        Folder for checkpoints, from which the same call goes on, and steps between them, see there.
    key_added
        Prefix and name of the slots.

    Returns
    -------
    The solved problem, for pushing unseen cells. Sets these slots of ``adata``:

    - ``.obsm["uot_push"]``: float32 ``(n_cells, n_dims)``, images at the target time, NaN where a cell is no source.
    - ``.obsm["uot_velocity"]``: float32 ``(n_cells, n_dims)``, (image − cell) per unit of time.
    - ``.obs["uot_source_weight"]``, ``.obs["uot_target_weight"]``: float32, mass multipliers, 1 = unchanged, NaN
      where a cell is no source or no target.
    - ``.obs["uot_uncertainty"]``: float32, variance of a source cell's images, by methods that learn a distribution.
    - ``.uns["uot"]``: dict of ``params``, ``pairs``, ``history`` and ``metrics``.

    Raises
    ------
    KeyError, ValueError, MemoryError, OSError, uotcell.ConvergenceError
        As in ``prepare`` and ``solve``; ``adata`` is then untouched.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> adata.obsm["uot_push"].shape
    (1000, 30)
    """
    check_key_added(key_added)
    problem = TemporalProblem(adata).prepare(
        time_key, use_rep=use_rep, layer=layer, policy=policy, reference=reference, growth_key=growth_key
    )
    problem.solve(
        method, tau=tau, marginal_penalty=marginal_penalty, epsilon=epsilon, cost=cost, scale_cost=scale_cost,
        anchors=anchors, memory_limit=memory_limit,
        n_iters=n_iters, batch_size=batch_size, rescaling=rescaling, valid_fraction=valid_fraction,
        patience=patience, ema_decay=ema_decay, source_noise=source_noise,
        learn_rescaling=learn_rescaling, rng=rng, checkpoint_dir=checkpoint_dir, checkpoint_every=checkpoint_every,
        progress=progress,
    )  # fmt: skip
    problem.write(key_added)
    return problem
