"""Fit a map between two modalities in one call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
from anndata import AnnData
from ott.geometry.costs import CostFn

from uotcell.methods import Method
from uotcell.ot import Geodesic
from uotcell.problems import TranslationProblem
from uotcell.problems._base import check_key_added


def fit_translation(
    adata_x: AnnData | Any,
    adata_y: AnnData | None = None,
    *,
    modalities: tuple[str, str] | None = None,
    use_rep: str | tuple[str, str] = "X_pca",
    layer: str | tuple[str | None, str | None] | None = None,
    shared_rep: str | tuple[str, str] | None = None,
    method: str | Method = "genot",
    fused_weight: float | None = None,
    tau: float | tuple[float, float] | None = None,
    marginal_penalty: float | tuple[float, float] | None = None,
    epsilon: float = 0.01,
    cost: str | CostFn | Geodesic | tuple = "sqeuclidean",
    anchors: int | None = 1_000,
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
) -> TranslationProblem:
    """Fit an unbalanced map between cells with different features and write it into both AnnData.

    Cells are matched by their distances within each side, and by shared features where there are some (fused
    Gromov-Wasserstein, unbalanced); GENOT then learns where a source cell lands (Klein, Uscidda et al. 2024).

    Parameters
    ----------
    adata_x, adata_y
        Source and target cells; or a MuData first, and ``modalities``.
    modalities
        Names of the source and the target modality of a MuData.
    use_rep, layer, shared_rep
        Cells, see :meth:`uotcell.problems.TranslationProblem.prepare`.
    method, fused_weight, tau, marginal_penalty, epsilon, cost, anchors
        Estimator and coupling, see :meth:`uotcell.problems.TranslationProblem.solve`; τ is 0.95 by default.
    memory_limit
        Memory that the solve, training and later predictions may take, such as ``"6GB"``; by default three quarters of
        what is free. See :func:`uotcell.ot.solve_unbalanced`.
    n_iters, batch_size, rescaling, valid_fraction, patience, ema_decay, source_noise, learn_rescaling, rng, progress
        Training, see :meth:`uotcell.problems.TranslationProblem.solve`.
    checkpoint_dir, checkpoint_every
        Folder for checkpoints, from which the same call goes on, and steps between them, see there.
    key_added
        Prefix and name of the slots.

    Returns
    -------
    The solved problem, for pushing unseen cells. Sets these slots of ``adata_x``, or of the source modality:

    - ``.obsm["uot_push"]``: float32 ``(n_cells, n_target_dims)``, images in the target's representation.
    - ``.obs["uot_uncertainty"]``: float32, variance of a cell's images summed over dimensions.
    - ``.obs["uot_source_weight"]``: float32, mass multiplier, 1 = unchanged.
    - ``.uns["uot"]``: dict of ``params``, ``history`` and ``metrics``.

    And of ``adata_y``, or the target modality:

    - ``.obs["uot_target_weight"]``: float32, mass multiplier.

    Raises
    ------
    KeyError, ValueError, MemoryError, OSError, uotcell.ConvergenceError
        As in ``prepare`` and ``solve``; nothing is then written.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.emt()
    >>> x, y = adata[::20].copy(), adata[1::20].copy()
    >>> problem = uc.tl.fit_translation(x, y, use_rep="X_embedding", n_iters=20, progress=False)
    >>> x.obsm["uot_push"].shape
    (157, 10)
    """
    check_key_added(key_added)
    if (adata_y is None) == (modalities is None):
        raise TypeError(
            "Expected two AnnData, or a MuData and `modalities`, found "
            f"{'neither' if adata_y is None else 'both'} of `adata_y` and `modalities`."
        )
    if adata_y is None:
        problem = TranslationProblem.from_mudata(adata_x, *modalities)
    else:
        problem = TranslationProblem(adata_x, adata_y)
    problem.prepare(use_rep=use_rep, layer=layer, shared_rep=shared_rep)
    problem.solve(
        method, fused_weight=fused_weight, tau=tau, marginal_penalty=marginal_penalty, epsilon=epsilon, cost=cost,
        anchors=anchors, memory_limit=memory_limit,
        n_iters=n_iters, batch_size=batch_size, rescaling=rescaling, valid_fraction=valid_fraction,
        patience=patience, ema_decay=ema_decay, source_noise=source_noise, learn_rescaling=learn_rescaling, rng=rng,
        checkpoint_dir=checkpoint_dir, checkpoint_every=checkpoint_every, progress=progress,
    )  # fmt: skip
    problem.write(key_added)
    return problem
