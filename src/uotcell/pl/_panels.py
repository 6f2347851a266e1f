"""Several axes beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def panel_axes(
    ax: Axes | Sequence[Axes] | np.ndarray | None, n_panels: int, *, size: tuple[float, float], n_columns: int = 4
) -> np.ndarray:
    """Return axes for all panels: those given, or those of a new figure.

    Parameters
    ----------
    ax
        Axes of the user, one for every panel, or None.
    n_panels
        Number of panels.
    size
        Width and height of a panel in a new figure, in inches.
    n_columns
        Panels side by side in a new figure.

    Returns
    -------
    Array of axes ``(n_panels,)``.

    Raises
    ------
    ValueError
        If there is another number of axes than panels.
    """
    from matplotlib import pyplot as plt

    if ax is not None:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) != n_panels:
            raise ValueError(f"Expected `ax` to hold {n_panels} axes, one for every panel, found {len(axes)}.")
        return axes
    columns = min(n_panels, n_columns)
    rows = -(-n_panels // columns)
    figure = plt.figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return np.asarray([figure.add_subplot(rows, columns, place + 1) for place in range(n_panels)], dtype=object)
