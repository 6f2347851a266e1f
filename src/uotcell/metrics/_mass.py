"""Where mass was created and destroyed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from uotcell.ot._inputs import as_mass


def transported_mass(weights: ArrayLike, *, prior: ArrayLike | None = None) -> float:
    """Mass that takes part in the transport, as a share of the prior mass: ``Σ weights / Σ prior``.

    1 in a balanced problem; below 1 if mass was destroyed, above 1 if more was created. For the mass multipliers in
    ``.obs["uot_source_weight"]``, which are relative to the prior of each cell, multiply by that prior first.

    Parameters
    ----------
    weights
        Rescaled masses of one side, such as ``source_weights`` of a coupling, shape ``(n,)``.
    prior
        Masses that the problem was given, shape ``(n,)``; 1/n for every cell by default.

    Returns
    -------
    A positive share.

    Raises
    ------
    ValueError
        If masses are negative, not finite, all zero, or of different numbers.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.transported_mass([0.25, 0.125])
    0.375
    """
    weights = _as_weights(weights)
    return float(weights.sum() / as_mass(prior, "prior", len(weights)).sum())


def mass_by_cell_type(weights: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Share of the total mass on the cells of each label.

    Shares under the rescaled masses over shares under the prior say which labels gain mass and which lose it, compared
    with the population as a whole.

    Parameters
    ----------
    weights
        Masses of the cells, shape ``(n,)``. Only their ratios count.
    labels
        Labels of the cells, shape ``(n,)``.

    Returns
    -------
    Share by label, in the order of the labels; the shares sum to one.

    Raises
    ------
    ValueError
        If masses are negative, not finite or all zero, or there is not one label for each.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.metrics.mass_by_cell_type([0.5, 1.0, 0.5], ["T cell", "B cell", "T cell"])
    {'B cell': 0.5, 'T cell': 0.5}
    """
    weights, labels = _as_weights(weights), np.asarray(labels)
    if labels.shape != weights.shape:
        raise ValueError(f"Expected `labels` to have shape {weights.shape}, one for each mass, found {labels.shape}.")
    names, codes = np.unique(labels.astype(str), return_inverse=True)
    shares = np.bincount(codes, weights) / weights.sum()
    return dict(zip(names.tolist(), shares.tolist(), strict=True))


def _as_weights(weights: ArrayLike) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or weights.size == 0:
        raise ValueError(f"Expected `weights` to have shape (n,), one mass per cell, found {weights.shape}.")
    return as_mass(weights, "weights", len(weights))
