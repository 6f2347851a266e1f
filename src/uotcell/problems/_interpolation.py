"""Where cells are between two time points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from uotcell.methods import Method, TransportMap
from uotcell.ot import Coupling


class Interpolation(NamedTuple):
    """A weighted population between two time points.

    ``positions`` ``(n, dim)`` float32; ``weights`` ``(n,)``, of sum one; ``forward`` ``(n,)``, whether a cell was
    pushed from the source or pulled from the target; ``rows`` ``(n,)``, its row there.
    """

    positions: np.ndarray
    weights: np.ndarray
    forward: np.ndarray
    rows: np.ndarray


def interpolate(
    transport_map: TransportMap, coupling: Coupling, x: np.ndarray, y: np.ndarray, share: float
) -> Interpolation:
    """Move the cells of both sides to a point of their way.

    Source cells go forward and, where the method has an inverse, target cells go back; both are a sample of the same
    population, and the nearer side counts more. Cells weigh what the coupling transports of them.

    Parameters
    ----------
    transport_map
        Fitted on the coupling.
    coupling
        Of the cells.
    x, y
        Source and target cells, shapes ``(n, dim)`` and ``(m, dim)``.
    share
        Of the way, in [0, 1].

    Returns
    -------
    The population.
    """
    sides = [(x, coupling.source_weights, 1 - share, False)]
    if has_inverse(transport_map.method):
        sides.append((y, coupling.target_weights, share, True))
    else:
        sides = [(x, coupling.source_weights, 1.0, False)]
    # At the ends one side has no share: its cells would only be weighed by zero.
    sides = [side for side in sides if side[2] > 0]
    positions = [transport_map.interpolate(cells, share, backward=backward) for cells, *_, backward in sides]
    weights = [part * _normalised(weight) for _, weight, part, _ in sides]
    return Interpolation(
        np.concatenate(positions),
        np.concatenate(weights),
        np.concatenate([np.full(len(cells), not backward) for cells, *_, backward in sides]),
        np.concatenate([np.arange(len(cells)) for cells, *_ in sides]),
    )


def has_inverse(method: Method) -> bool:
    """Whether a method maps target cells back to the source."""
    return type(method).pull is not Method.pull


def _normalised(weights) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    return weights / weights.sum()
