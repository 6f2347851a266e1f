"""The cost that counts as one, in which ε and the penalties are given."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry.costs import CostFn, SqEuclidean

from uotcell.ot._geometry import compiled_cost, mean_squared_distance
from uotcell.ot._inputs import on_device
from uotcell.ot._sampling import choose
from uotcell.ot._settings import check_positive

# Cells per side from which the scale of a cost without a closed form is estimated.
SCALE_CELLS = 4_096


def cost_scale(x, y, a, b, cost_fn: CostFn, scale_cost: str | float, rng: jax.Array) -> float:
    """Return the cost that counts as one."""
    if _is_number(scale_cost):
        return float(scale_cost)
    keys = jax.random.split(rng)
    i, j = (choose(key, np.flatnonzero(m), SCALE_CELLS) for key, m in zip(keys, (a, b), strict=True))
    if scale_cost == "mean" and isinstance(cost_fn, SqEuclidean):
        scale = mean_squared_distance(x, y, a, b)
    else:
        cost = np.asarray(compiled_cost(cost_fn, x[i], y[j]), np.float64)
        mean = float(a[i] @ cost @ b[j] / (a[i].sum() * b[j].sum()))
        scale = mean if scale_cost == "mean" else float(np.median(cost))
    _check_scale(scale, scale_cost)
    if scale_cost == "mean":
        _warn_if_few_cells_set_the_scale(scale, x, y, a, b, i, j, cost_fn)
    return scale


def table_scale(table: np.ndarray, a: np.ndarray, b: np.ndarray, scale_cost: str | float) -> float:
    """Return the cost that counts as one, where all costs are held."""
    if _is_number(scale_cost):
        return float(scale_cost)
    mean, median = float(a @ table @ b / (a.sum() * b.sum())), float(np.median(table))
    scale = mean if scale_cost == "mean" else median
    _check_scale(scale, scale_cost)
    if scale_cost == "mean":
        _warn_if_scale_is_far_from_median(scale, median, _farthest(table.mean(axis=1), table.mean(axis=0)))
    return scale


def _is_number(scale_cost: str | float) -> bool:
    if not isinstance(scale_cost, str):
        check_positive("scale_cost", scale_cost)
        return True
    if scale_cost not in ("mean", "median"):
        raise ValueError(f"Expected `scale_cost` to be 'mean', 'median' or a positive number, found {scale_cost!r}.")
    return False


def _check_scale(scale: float, scale_cost: str) -> None:
    if not float(np.finfo(np.float32).tiny) <= scale <= float(np.finfo(np.float32).max):
        raise ValueError(
            f"Expected a positive {scale_cost} cost between source and target, found {scale:.3g}: "
            f"{'all their cells' if scale_cost == 'mean' else 'half of all pairs of their cells'} coincide, or the "
            "values leave float32. Check the representation, or give `scale_cost` a number."
        )


def _warn_if_few_cells_set_the_scale(scale: float, x, y, a, b, i, j, cost_fn: CostFn) -> None:
    """Warn when far cells, not the bulk, decide what one unit of cost is."""
    # Of one size, whatever the data, so that this is compiled once.
    some = (on_device(points[np.resize(rows, 512)]) for points, rows in ((x, i), (y, j)))
    lengths = ((mass > 0) * np.einsum("ij,ij->i", points, points) for points, mass in ((x, a), (y, b)))
    _warn_if_scale_is_far_from_median(scale, float(jnp.median(compiled_cost(cost_fn, *some))), _farthest(*lengths))


def _farthest(x: np.ndarray, y: np.ndarray) -> str:
    return f"row {x.argmax()} of `x`" if x.max() >= y.max() else f"row {y.argmax()} of `y`"


def _warn_if_scale_is_far_from_median(scale: float, median: float, farthest: str) -> None:
    """Warn when the mean cost is not that of most pairs, and name the cell that is farthest from all others."""
    if scale > 5 * median:
        warnings.warn(
            f"The mean cost ({scale:.3g}) is more than five times the median ({median:.3g}): a few far cells set the "
            f"scale of `epsilon` for all others. The farthest is {farthest}. Remove these cells or use "
            "scale_cost='median'.",
            stacklevel=5,
        )
