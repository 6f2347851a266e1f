"""Populations between time points, as panels and as an animation."""

from itertools import pairwise
from types import SimpleNamespace

import anndata as ad
import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from course import N_CELLS, StraightCourse, cells
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgba
from PIL import Image

from uotcell.pl import animate_interpolation, interpolation
from uotcell.pl._projection import place_points

UPPER, LOWER = "#d55e00", "#0072b2"
BOTH = pytest.mark.parametrize("plot", [interpolation, animate_interpolation])


@pytest.fixture
def adata():
    adata = cells()
    adata.uns["lineage_colors"] = [UPPER, LOWER, "#000000"]
    return adata


@pytest.fixture
def problem(adata):
    return StraightCourse(adata)


def draw(plot, *args, **options):
    """Axes of a plot; an animation is left at its last frame."""
    if plot is interpolation:
        return plot(*args, show=False, **options)[-1]
    plot(*args, **options).to_jshtml()
    return plt.gcf().axes[0]


def test_interpolated_cells_lie_where_the_fit_says(adata, problem):
    axes = interpolation(adata, problem, [0.0, 0.5, 1.0], basis="rep", show=False)
    assert isinstance(axes, np.ndarray)
    assert axes.shape == (3,)
    x = adata.obsm["X_rep"][:, :2]
    for ax, t in zip(axes, [0.0, 0.5, 1.0], strict=True):
        measured, moved = ax.collections
        np.testing.assert_array_equal(measured.get_offsets(), x)
        expected = (1 - t) * x[:N_CELLS] + t * x[N_CELLS:]
        heavy_first = np.argsort(np.arange(N_CELLS) % 2, kind="stable")
        np.testing.assert_allclose(moved.get_offsets(), expected[heavy_first], atol=1e-6)
        assert ax.get_title() == f"day {t:g}"
        assert (ax.get_xlim(), ax.get_ylim()) == (axes[0].get_xlim(), axes[0].get_ylim())
        assert not ax.axison


def test_points_are_placed_in_an_embedding_by_their_neighbours(adata, problem):
    ax = interpolation(adata, problem, 0.5, n_neighbors=5, show=False)[0]
    points = problem.interpolate(0.5).obsm["X_rep"]
    expected = place_points(points, adata.obsm["X_rep"], adata.obsm["X_umap"], n_neighbors=5)
    found = np.asarray(ax.collections[1].get_offsets())
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0))
    assert found.max() <= adata.obsm["X_umap"].max()


def test_areas_are_the_weights(adata, problem):
    ax = interpolation(adata, problem, 0.5, size=10.0, show=False)[0]
    np.testing.assert_allclose(ax.collections[1].get_sizes(), [15.0] * (N_CELLS // 2) + [5.0] * (N_CELLS // 2))


def test_cells_have_the_colors_of_their_origins(adata, problem):
    ax = interpolation(adata, problem, 0.5, color="lineage", alpha=1.0, show=False)[0]
    expected = [to_rgba(UPPER)] * (N_CELLS // 2) + [to_rgba(LOWER)] * (N_CELLS // 2)
    np.testing.assert_allclose(ax.collections[1].get_facecolors(), expected)
    (legend,) = ax.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["upper", "lower"]  # nobody is of the third category
    ax.figure.canvas.draw()
    assert legend.get_window_extent().x1 <= ax.figure.bbox.x1
    assert legend.get_window_extent().x0 >= ax.bbox.x1
    assert adata.uns["lineage_colors"] == [UPPER, LOWER, "#000000"]


def test_colors_are_stored_for_the_next_plot(adata, problem):
    del adata.uns["lineage_colors"]
    interpolation(adata, problem, 0.5, color="lineage", palette=["#ff0000", "#00ff00", "#0000ff"], show=False)
    assert adata.uns["lineage_colors"] == ["#ff0000", "#00ff00", "#0000ff"]
    view = adata[:]
    interpolation(view, problem, 0.5, color="lineage", palette=["#111111", "#222222", "#333333"], show=False)
    assert view.is_view
    assert adata.uns["lineage_colors"] == ["#ff0000", "#00ff00", "#0000ff"]


@BOTH
def test_numbers_have_a_color_bar(plot, adata, problem):
    adata.obs.loc["cell2", "score"] = np.nan
    ax = draw(plot, adata, problem, [0.5], color="score", color_map="cividis", alpha=1.0)
    colors = ax.collections[1].get_facecolors()
    cmap = matplotlib.colormaps["cividis"]
    expected = cmap(adata.obs["score"].to_numpy()[:N_CELLS:2] / adata.obs["score"].max())
    expected[1] = to_rgba("lightgray")
    np.testing.assert_allclose(colors[: N_CELLS // 2], expected)
    assert [other.get_ylabel() for other in ax.figure.axes if other is not ax] == ["score"]
    assert not ax.figure.legends


def test_categories_that_are_missing_or_strings_or_truth_values(adata, problem):
    adata.obs["lineage"] = adata.obs["lineage"].cat.set_categories(["upper"])
    colors = interpolation(adata, problem, 0.5, color="lineage", alpha=1.0, show=False)[0].collections[1]
    assert {to_hex(color) for color in colors.get_facecolors()} == {UPPER, to_hex("lightgray")}
    adata.obs["text"] = np.where(np.arange(adata.n_obs) % 2, "x", "y")
    adata.obs["flag"] = np.arange(adata.n_obs) % 2 == 0
    for color, names in (("text", ["x", "y"]), ("flag", ["False", "True"])):
        (legend,) = interpolation(adata, problem, 0.5, color=color, show=False)[0].figure.legends
        assert [text.get_text() for text in legend.get_texts()] == names


@BOTH
def test_adata_and_rc_params_are_not_modified(plot, adata, problem, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    expected, parameters = adata.copy(), dict(matplotlib.rcParams)
    draw(plot, adata, problem, [0.25, 0.5], color="lineage")
    pd.testing.assert_frame_equal(adata.obs, expected.obs)
    assert set(adata.uns) == set(expected.uns)
    assert list(adata.obsm) == list(expected.obsm)
    assert dict(matplotlib.rcParams) == parameters


def test_given_axes_and_panels_in_rows(adata, problem):
    figure, axes = plt.subplots(2, 2)
    found = interpolation(adata, problem, [0.0, 0.2, 0.4, 0.6], color="lineage", ax=axes, show=False)
    assert list(found) == list(axes.ravel())
    assert [ax.get_legend() is None for ax in found] == [True, True, True, False]
    assert not figure.legends
    (alone,) = plt.figure().subplots(1, 1, squeeze=False).ravel()
    assert interpolation(adata, problem, 0.5, ax=alone, show=False)[0] is alone
    panels = interpolation(adata, problem, [0.0, 0.2, 0.4, 0.6, 0.8], n_columns=3, show=False)
    panels[0].figure.canvas.draw()
    assert panels[3].get_position().y1 < panels[0].get_position().y0
    assert panels[3].get_position().x0 == pytest.approx(panels[0].get_position().x0)


def test_animation_is_saved(adata, problem, tmp_path):
    animation = animate_interpolation(adata, problem, [0.0, 0.5, 1.0], basis="rep", color="lineage")
    animation.save(tmp_path / "cells.gif", writer="pillow", dpi=40)
    with Image.open(tmp_path / "cells.gif") as film:
        assert film.n_frames == 3
        frames = []
        for i in range(3):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB"), float))
    assert all(np.abs(later - earlier).max() > 100 for earlier, later in pairwise(frames))


def test_frames_show_what_the_panels_show(adata, problem):
    mine = plt.figure().add_subplot()
    animate_interpolation(adata, problem, [0.1, 0.75], color="lineage", ax=mine).to_jshtml()
    panel = interpolation(adata, problem, [0.1, 0.75], color="lineage", show=False)[-1]
    for get in ("get_offsets", "get_sizes", "get_facecolors"):
        np.testing.assert_allclose(getattr(mine.collections[1], get)(), getattr(panel.collections[1], get)())
    assert mine.get_title() == "day 0.75"
    assert mine.get_legend() is not None


def test_fits_in_gene_space():
    adata = cells()
    genes = ad.AnnData(adata.obsm["X_rep"].astype(np.float32), obs=adata.obs, obsm=dict(adata.obsm))
    expected = interpolation(adata, StraightCourse(adata), 0.5, show=False)[0].collections[1].get_offsets()
    found = interpolation(genes, StraightCourse(genes, use_rep="X"), 0.5, show=False)[0].collections[1].get_offsets()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"problem": SimpleNamespace()},
            TypeError,
            r"a TemporalProblem, found SimpleNamespace\. Give what `uc\.tl\.fit",
        ),
        ({"times": []}, ValueError, r"a time or a list of times, found shape \(0,\)"),
        ({"times": [0.5, 2.0]}, ValueError, r"`t` to be within"),
        ({"basis": "tsne"}, KeyError, r"one of \['X_rep', 'X_umap'\] in `adata\.obsm`, found 'tsne'"),
        ({"color": "Sox2"}, KeyError, r"\['day', 'lineage', 'score'\], or one of the 0 gene names, found 'Sox2'"),
        ({"n_neighbors": 80}, ValueError, r"smaller than the number of cells, 80, found 80"),
        ({"colour": "day"}, TypeError, "unexpected keyword argument 'colour'"),
    ],
)
def test_bad_options(plot, adata, problem, options, error, message):
    arguments = {"problem": problem, "times": [0.5]} | options
    with pytest.raises(error, match=message):
        plot(adata, **arguments)
    assert plt.get_fignums() == []


def test_options_of_panels(adata, problem):
    with pytest.raises(ValueError, match=r"hold 2 axes, one for every panel, found 1"):
        interpolation(adata, problem, [0.1, 0.2], ax=plt.figure().add_subplot())
    with pytest.raises(ValueError, match=r"`n_columns` to be positive, found 0"):
        interpolation(adata, problem, 0.5, n_columns=0)


def test_adata_of_another_fit(adata, problem):
    with pytest.raises(ValueError, match=r"hold the cells of the fit, found no 'cell0'"):
        interpolation(adata[5:].copy(), problem, 0.5, show=False)
    del adata.obsm["X_rep"]
    problem.interpolate = lambda t: None
    with pytest.raises(KeyError, match=r"hold 'X_rep', the representation of the fit, found \['X_umap'\]"):
        interpolation(adata, problem, 0.5, show=False)
