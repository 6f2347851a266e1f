"""How far a map is from an optimal one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn
from scipy.optimize import linear_sum_assignment

from uotcell.metrics._inputs import check_pairs
from uotcell.ot._geometry import is_translation_invariant, pairwise_cost, resolve_cost
from uotcell.ot._inputs import as_float32, as_points


def monge_gap(x: ArrayLike, image: ArrayLike, *, cost: str | CostFn = "sqeuclidean") -> float:
    """Monge gap of a map: what its cost would fall by if cells exchanged their images (Uscidda & Cuturi 2023).

    ``mean c(xᵢ, T(xᵢ)) − min_σ mean c(xᵢ, T(x_σ(i)))``, with the exact optimal assignment. Zero if and only if the map
    is optimal between these cells and their images; never negative.

    Parameters
    ----------
    x
        Cells, shape ``(n, d)``; an assignment of a few thousand takes seconds.
    image
        Their images in the same order, shape ``(n, d)``.
    cost
        ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"`` or an ott ``CostFn``.

    Returns
    -------
    The gap in units of the cost.

    Raises
    ------
    ValueError
        If the shapes differ or values are not finite.
    MemoryError
        If the costs between the cells and their images do not fit into free memory.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x = np.random.default_rng(0).normal(size=(100, 2))
    >>> uc.metrics.monge_gap(x, 2 * x + 1) < 1e-5  # the gradient of a convex function
    True
    >>> uc.metrics.monge_gap(x, -x) > 1
    True
    """
    x = as_points(x, "x")
    image = as_points(image, "image", dim=x.shape[1])
    if len(x) != len(image) or not len(x):
        raise ValueError(f"Expected one `image` per cell, found {len(image)} for {len(x)} cells.")
    cost_fn = resolve_cost(cost)
    # float32, float64, and the assignment's copy.
    check_pairs(20 * len(x) ** 2, f"the costs between {len(x):,} cells and their images")
    # float32 keeps the digits of differences only near the origin; costs such as the cosine need the true one.
    shift = np.median(x, axis=0) if is_translation_invariant(cost_fn) else 0.0
    costs = np.asarray(pairwise_cost(cost_fn, *map(jnp.asarray, as_float32((x, image), shift))), np.float64)
    rows, columns = linear_sum_assignment(costs)
    return max(0.0, float(np.trace(costs) / len(x) - costs[rows, columns].mean()))
