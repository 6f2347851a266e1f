"""How well a map does on cells that neither the coupling nor the map has seen."""

from __future__ import annotations

import numpy as np

from uotcell._errors import ConvergenceError
from uotcell.methods import TransportMap
from uotcell.metrics import sinkhorn_divergence
from uotcell.ot import UnbalancedCoupling

# Most test cells per side that are compared: the time grows with their product.
TEST_CELLS = 1_024


def held_out_quality(
    coupling: UnbalancedCoupling, transport_map: TransportMap, x: np.ndarray, y: np.ndarray, epsilon: float
) -> dict[str, float]:
    """Sinkhorn divergence between pushed controls and treated cells, both with the weights the coupling gives them.

    Parameters
    ----------
    coupling
        Coupling of the training cells.
    transport_map
        The fitted map.
    x, y
        Control and treated cells, shapes ``(n, d)`` and ``(m, d)``.
    epsilon
        Regularisation of the divergence, in units of the squared representation.

    Returns
    -------
    Divergences of the map, of the identity and of the entropic map; NaN without cells or where one did not converge.
    """
    names = {"test_divergence": transport_map.push, "test_divergence_identity": np.asarray,
             "test_divergence_entropic_map": coupling.push}  # fmt: skip
    if not (len(x) and len(y)):
        return dict.fromkeys(names, np.nan)
    # Cells may be sorted by type: thin them evenly.
    x, y = (cells[:: -(-len(cells) // TEST_CELLS)] for cells in (x, y))
    (a, b), padded_y = (coupling.source_rescaling(x), coupling.target_rescaling(y)), pad_cells(y)
    quality = {}
    for name, push in names.items():
        try:
            quality[name] = sinkhorn_divergence(
                pad_cells(push(x)), padded_y, epsilon=epsilon, a=pad_cells(a), b=pad_cells(b)
            )
        except (ConvergenceError, ValueError):  # images that overflow are no points
            quality[name] = np.nan
    return quality


def pad_cells(array: np.ndarray) -> np.ndarray:
    """Repeat the first cell without mass up to a power of two, so that pairs share compiled programs."""
    size = 1 << max(0, len(array) - 1).bit_length()
    fill = np.zeros(size - len(array), array.dtype) if array.ndim == 1 else array[np.zeros(size - len(array), int)]
    return np.concatenate([array, fill])
