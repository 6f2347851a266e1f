"""Interpolated cells on an embedding: where they are, how much they weigh, what colour they have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from uotcell.problems import TemporalProblem
from uotcell.problems._representation import all_cells

from ._cells import Palette, category_colors, color_values
from ._embedding import read_embedding
from ._projection import place_points

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.cm import ScalarMappable

_ONE_COLOR = "#0072B2"  # of the palette of Okabe and Ito, which the colour-blind can tell from grey
_MISSING = "lightgray"  # as scanpy


class Frame(NamedTuple):
    """Cells at one time: positions ``(n, 2)``; weights ``(n,)``, of sum one; rows ``(n,)`` of their origins."""

    time: float
    positions: np.ndarray
    weights: np.ndarray
    rows: np.ndarray


class CellColors(NamedTuple):
    """Colours of all measured cells, RGBA ``(n_cells, 4)``, and what explains them.

    For categories, the ``codes`` ``(n_cells,)`` of the cells and the colours by name; for numbers, their ``scale``.
    """

    rgba: np.ndarray
    codes: np.ndarray
    names: dict[str, str]
    scale: ScalarMappable | None


def place_interpolations(
    adata: AnnData, problem: TemporalProblem, times: float | Sequence[float], *, basis: str, n_neighbors: int
) -> tuple[np.ndarray, list[Frame]]:
    """Interpolate at all times and place the cells; also return the measured cells, ``(n_cells, 2)``.

    Raises
    ------
    TypeError, KeyError, ValueError
        If the arguments do not belong together, or a time is in no fitted pair.
    """
    if not isinstance(problem, TemporalProblem):
        raise TypeError(
            f"Expected `problem` to be a TemporalProblem, found {type(problem).__name__}. Give what "
            "`uc.tl.fit_trajectory(adata, ...)` returns."
        )
    times = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if times.ndim != 1 or not len(times):
        raise ValueError(f"Expected `times` to be a time or a list of times, found shape {times.shape}.")
    populations = [problem.interpolate(float(t)) for t in times]
    use_rep, layer = problem.params["use_rep"], problem.params["layer"]
    name, embedding = read_embedding(adata, basis, first_two=basis in (use_rep, use_rep.removeprefix("X_")))
    if use_rep != "X" and use_rep not in adata.obsm:
        raise KeyError(
            f"Expected `adata.obsm` to hold {use_rep!r}, the representation of the fit, found {sorted(adata.obsm)}. "
            "Give the AnnData of the fit."
        )
    rows = [adata.obs_names.get_indexer(population.obs["origin"]) for population in populations]
    for population, found in zip(populations, rows, strict=True):
        if (found < 0).any():
            missing = population.obs["origin"].iloc[int(np.argmax(found < 0))]
            raise ValueError(
                f"Expected `adata` to hold the cells of the fit, found no {missing!r}. Give the AnnData of the fit."
            )
    points = [np.asarray(population.X if use_rep == "X" else population.obsm[use_rep]) for population in populations]
    if name == use_rep:
        positions = [point[:, :2].astype(np.float64) for point in points]
    else:
        # All times at once: the neighbours are those of the same cells.
        x = all_cells(adata, use_rep, layer)
        placed = place_points(np.concatenate(points), x, embedding, n_neighbors=n_neighbors)
        positions = np.split(placed, np.cumsum([len(point) for point in points])[:-1])
    weights = [population.obs["weight"].to_numpy() for population in populations]
    frames = [Frame(float(t), *frame) for t, *frame in zip(times, positions, weights, rows, strict=True)]
    return embedding, frames


def color_cells(adata: AnnData, color: str | None, *, palette: Palette, color_map: str | None) -> CellColors:
    """Colour every cell by a column of ``.obs`` or a gene."""
    from matplotlib import colormaps, rcParams
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_rgba, to_rgba_array

    if color is None:
        return CellColors(np.tile(to_rgba(_ONE_COLOR), (adata.n_obs, 1)), np.zeros(adata.n_obs, int), {}, None)
    values = pd.Series(color_values(adata, color))
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        cmap = colormaps[color_map or rcParams["image.cmap"]].with_extremes(bad=_MISSING)
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        scale = ScalarMappable(Normalize(np.nanmin(numbers), np.nanmax(numbers)), cmap)
        return CellColors(scale.to_rgba(np.ma.masked_invalid(numbers)), np.zeros(adata.n_obs, int), {}, scale)
    values = values.astype("category")
    names = [str(name) for name in values.cat.categories]
    colors = category_colors(names, stored=adata.uns.get(f"{color}_colors"), palette=palette)
    codes = values.cat.codes.to_numpy()
    rgba = to_rgba_array([*colors.values(), _MISSING])[codes]  # the code of no category is −1
    return CellColors(rgba, codes, colors, None)
