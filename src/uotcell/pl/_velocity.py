"""Streams of a fitted transport map over an embedding."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from uotcell.problems._representation import all_cells

from ._cells import colored_cells, draw_cells, keep_colors
from ._embedding import read_embedding
from ._figure import show_figure, widen_for_legend
from ._linear import fit_linear_map
from ._projection import project_push, project_velocity, velocity_grid

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

_PROJECTIONS = ("neighbors", "push", "linear")
_LINEAR_ENOUGH = 0.5  # R² from which on the larger part of the embedding is a linear image of the representation


def velocity_stream(
    adata: AnnData,
    *,
    basis: str = "umap",
    key: str = "uot",
    color: str | None = None,
    projection: Literal["neighbors", "push", "linear"] = "neighbors",
    n_neighbors: int = 30,
    n_grid: int = 40,
    smooth: float = 1.0,
    min_mass: float = 1.0,
    density: float = 1.0,
    linewidth: float = 1.0,
    arrow_size: float = 1.0,
    arrow_color: str = "black",
    size: float | None = None,
    alpha: float = 0.4,
    palette: str | Sequence[str] | Mapping[str, str] | None = None,
    color_map: str | None = None,
    legend_loc: str | None = "right margin",
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Draw where a fitted transport map moves the cells, as streams over an embedding.

    The displacement of every transported cell is projected to the embedding, averaged on a grid and drawn as streams,
    wider where the field is faster. Streams appear only where there are cells to support them, so the last time
    point, which goes nowhere, stays bare. Run :func:`uotcell.tl.fit_trajectory` first.

    Parameters
    ----------
    adata
        Annotated data with ``.obsm["<key>_push"]`` and ``.obsm["<key>_velocity"]``, both ``(n_cells, n_dims)``, and
        ``.uns[key]["params"]["use_rep"]``. Not modified, except that the colours which scanpy assigns to the
        categories of `color` are stored in ``.uns["<color>_colors"]``, as scanpy does.
    basis
        Two-dimensional embedding, ``"umap"`` or ``"X_umap"`` for ``.obsm["X_umap"]``. With ``projection="linear"`` it
        may have more columns, of which the first two are drawn.
    key
        The `key_added` of the fit.
    color
        Column of ``.obs`` or name of a gene that colours the cells; grey if None.
    projection
        ``"neighbors"``: expected step to the neighbouring cells in the direction of the displacement, as in RNA
        velocity, the neighbours being taken around both ends of the displacement. ``"push"``: the position in the
        embedding of the cells around the transported cell less that of the cells around its origin. ``"linear"``: the
        velocity under the linear map from the representation to the embedding. If `basis` is the representation
        itself, these are its first two columns; otherwise the map is fitted to the cells by least squares, and the
        title says how much of the embedding it explains (adjusted R²). Below 0.5 a warning says so.
    n_neighbors
        Number of cells around each end of a displacement. Does not apply to ``"linear"``.
    n_grid
        Number of grid points along each axis.
    smooth
        Standard deviation of the averaging kernel, in grid spacings.
    min_mass
        Number of cells that a grid point must see, each weighted by the kernel, to carry a stream.
    density
        Closeness of the streams.
    linewidth
        Width of the streams in points where the field has its mean speed.
    arrow_size
        Scale of the arrow heads.
    arrow_color
        Colour of the streams.
    size
        Size of the cells; scanpy's default if None.
    alpha
        Opacity of the cells.
    palette
        Colours of the categories, overriding ``.uns["<color>_colors"]``.
    color_map
        Colour map of a continuous `color`.
    legend_loc
        Place of the legend as in :func:`scanpy.pl.embedding`, e.g. ``"on data"``; no legend if None.
    title
        Title; by default `color` and the name of the projection.
    ax
        Axes to draw in; a new figure if None.
    show
        Show the figure. If None, show a new figure in a backend with windows if ``scanpy.settings.autoshow``.

    Returns
    -------
    The axes, whether shown or not. Close the figure with ``plt.close(ax.figure)`` when drawing many.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
    >>> uc.pl.velocity_stream(adata, color="cell_type", projection="push", show=False).get_title()
    'cell_type (velocity, push)'
    """
    from matplotlib import pyplot as plt

    if projection not in _PROJECTIONS:
        raise ValueError(f"Expected `projection` to be one of {list(_PROJECTIONS)}, found {projection!r}.")
    basis, embedding = read_embedding(adata, basis, first_two=projection == "linear")
    v_emb, named = _project(adata, basis, embedding, key=key, projection=projection, n_neighbors=n_neighbors)
    xs, ys, u, v = velocity_grid(embedding, v_emb, n_grid=n_grid, smooth=smooth, min_mass=min_mass)
    if np.isnan(u).all():
        raise ValueError(
            f"Expected some grid points to see at least `min_mass`={min_mass} cells, found none. Lower `min_mass` or "
            "raise `smooth`."
        )
    cells = colored_cells(adata, basis, embedding, color)

    own_figure = ax is None
    if own_figure:
        ax = plt.figure().add_subplot()
    if title is None:
        title = f"velocity ({named})" if color is None else f"{color} (velocity, {named})"
    style = {"size": size, "alpha": alpha, "palette": palette, "color_map": color_map, "legend_loc": legend_loc}
    draw_cells(cells, basis, color, ax=ax, title=title, **style)
    speed = np.hypot(u, v)
    widths = linewidth * np.clip(speed / np.nanmean(speed), 0.5, 2.0)
    streams = {"density": 2 * density, "arrowsize": arrow_size, "color": arrow_color}
    ax.streamplot(xs, ys, u, v, linewidth=np.nan_to_num(widths, nan=linewidth), zorder=2, **streams)
    if own_figure:
        widen_for_legend(ax)
    keep_colors(adata, color, cells.uns.get(f"{color}_colors"))
    show_figure(ax, show=show, own_figure=own_figure)
    return ax


def _project(
    adata: AnnData, basis: str, embedding: np.ndarray, *, key: str, projection: str, n_neighbors: int
) -> tuple[np.ndarray, str]:
    """Field of the fit `key` in the embedding, ``(n_cells, 2)``, and what the title says of the projection."""
    remedy = f"Run `uc.tl.fit_trajectory(adata, ..., key_added={key!r})` first."
    params = adata.uns.get(key, {}).get("params", {})
    if "use_rep" not in params:
        raise KeyError(f"Expected `adata.uns` to hold the parameters of {key!r}, found {sorted(adata.uns)}. {remedy}")
    names = (f"{key}_push", f"{key}_velocity")
    if params["use_rep"] != "X":
        names = (params["use_rep"], *names)
    for name in names:
        if name not in adata.obsm:
            raise KeyError(f"Expected `adata.obsm` to hold {name!r}, found {sorted(adata.obsm)}. {remedy}")
    push, velocity = (np.asarray(adata.obsm[name]) for name in names[-2:])
    x = all_cells(adata, params["use_rep"], params.get("layer"))
    if not x.shape == push.shape == velocity.shape:
        raise ValueError(
            f"Expected {', '.join(map(repr, names))} in `adata.obsm` to have one shape, found {x.shape}, {push.shape}, "
            f"{velocity.shape}. {remedy}"
        )
    if not np.isfinite(push).all(axis=1).any():
        raise ValueError(f"Expected `adata.obsm[{names[-2]!r}]` to hold finite rows, found none. {remedy}")
    if projection == "linear" and basis == params["use_rep"]:
        return velocity[:, :2].astype(np.float64), "linear"
    if projection == "linear":
        fitted = fit_linear_map(x, embedding)
        _warn_if_not_linear(fitted.r_squared, basis)
        return fitted.project(velocity), f"linear, R² = {fitted.r_squared:.2f}"
    if projection == "push":
        return project_push(x, push, embedding, n_neighbors=n_neighbors), projection
    return project_velocity(x, velocity, embedding, push=push, n_neighbors=n_neighbors), projection


def _warn_if_not_linear(r_squared: float, basis: str) -> None:
    if r_squared < _LINEAR_ENOUGH:
        warnings.warn(
            f"Expected an embedding that is nearly linear in the representation for `projection`='linear', found "
            f"R² = {r_squared:.2f} for {basis!r}: streams may point elsewhere than the cells go. Use "
            "`projection='neighbors'`.",
            UserWarning,
            stacklevel=4,
        )
