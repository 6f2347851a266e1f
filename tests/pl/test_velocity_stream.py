from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_matrix

matplotlib.use("Agg")

import scanpy as sc
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex, to_rgba
from scipy.sparse import csr_array

from uotcell.pl import velocity_stream

SHIFT = np.array([1.0, 0.4])


@pytest.fixture
def adata():
    """Two time points on a plane in five dimensions; the first moves by `SHIFT` onto the second."""
    rng = np.random.default_rng(0)
    day = np.repeat([1.0, 3.0], 150)
    plane = rng.uniform(0, 2, (300, 2)) + (day[:, None] > 1) * SHIFT
    x = np.hstack([plane, rng.normal(0, 0.05, (300, 3))])
    move = np.where(day[:, None] == 1, np.pad(SHIFT, (0, 3)), np.nan)
    obs = pd.DataFrame({"day": day, "cell_type": pd.Categorical(np.where(x[:, 0] > 1, "a", "b"))})
    obs.index = obs.index.astype(str)
    genes = pd.DataFrame(index=["Sox2", "Gata1"])
    return AnnData(
        rng.poisson(2.0, (300, 2)).astype(np.float32),
        obs=obs,
        var=genes,
        obsm={
            "X_pca": x.astype(np.float32),
            "X_umap": plane.astype(np.float32),
            "uot_push": (x + move).astype(np.float32),
            "uot_velocity": (move / 2).astype(np.float32),
        },
        uns={"uot": {"params": {"use_rep": "X_pca", "time_key": "day", "method": "icnn"}}},
    )


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: calls.append(1))
    return calls


def stream_steps(ax):
    (lines,) = (artist for artist in ax.collections if isinstance(artist, LineCollection))
    return np.array([segment[1] - segment[0] for segment in lines.get_segments()])


def drawn_colors(ax):
    cells = next(artist for artist in ax.collections if isinstance(artist, PathCollection))
    return {to_hex(color) for color in cells.get_facecolor()}


@pytest.mark.parametrize("projection", ["neighbors", "push", "linear"])
def test_streams_follow_the_field(adata, projection):
    steps = stream_steps(velocity_stream(adata, projection=projection, show=False))
    # A line of a stream is drawn forwards: its pieces point along the field.
    cosines = steps @ SHIFT / np.linalg.norm(steps, axis=1) / np.linalg.norm(SHIFT)
    assert np.median(cosines) > 0.95


def test_the_first_components_move_as_the_velocity_says(adata):
    # A turned field, of which the first two components are the velocity itself whatever the others do.
    adata.obsm["uot_velocity"][:150] = [0.0, 1.0, 5.0, -5.0, 5.0]
    steps = stream_steps(velocity_stream(adata, basis="pca", projection="linear", show=False))
    np.testing.assert_allclose(steps[:, 0], 0, atol=1e-9)
    assert (steps[:, 1] > 0).all()


def test_linear_projection_says_where_it_is_not_to_be_trusted(adata):
    adata.obsm["X_umap"] = np.random.default_rng(1).normal(size=(300, 2))
    with pytest.warns(UserWarning, match=r"found R² = -?0\.0\d for 'X_umap'.*Use `projection='neighbors'`"):
        ax = velocity_stream(adata, projection="linear", color="day", min_mass=0.1, show=False)
    assert ax.get_title().startswith("day (velocity, linear, R² = ")


def test_streams_stay_where_cells_are_transported(adata):
    ax = velocity_stream(adata, show=False)
    (lines,) = (artist for artist in ax.collections if isinstance(artist, LineCollection))
    points = np.concatenate(lines.get_segments())
    assert points.max() < 2.2
    assert adata.obsm["X_umap"].max() > 2.8


def test_axes_are_returned_and_nothing_is_shown(adata, shown):
    ax = velocity_stream(adata, color="cell_type", show=False)
    assert isinstance(ax, plt.Axes)
    assert len(plt.get_fignums()) == 1
    assert velocity_stream(adata, show=False, ax=ax) is ax
    assert len(plt.get_fignums()) == 1
    assert shown == []


def test_show(adata, shown, monkeypatch):
    assert isinstance(velocity_stream(adata), plt.Axes)
    assert shown == []  # Agg has no windows

    assert isinstance(velocity_stream(adata, show=True), plt.Axes)
    assert len(shown) == 1

    monkeypatch.setattr(FigureCanvasAgg, "required_interactive_framework", "tk")
    monkeypatch.setattr(sc, "settings", SimpleNamespace(autoshow=True))
    velocity_stream(adata)
    assert len(shown) == 2
    velocity_stream(adata, ax=plt.figure().add_subplot())
    velocity_stream(adata, show=False)
    monkeypatch.setattr(sc, "settings", SimpleNamespace(autoshow=False))
    velocity_stream(adata)
    assert len(shown) == 2


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "velocity (neighbors)"),
        ({"color": "day"}, "day (velocity, neighbors)"),
        ({"color": "day", "projection": "push"}, "day (velocity, push)"),
        ({"projection": "linear"}, "velocity (linear, R² = 1.00)"),
        ({"projection": "linear", "basis": "pca"}, "velocity (linear)"),
        ({"title": "Mine"}, "Mine"),
    ],
)
def test_title(adata, options, title):
    assert velocity_stream(adata, show=False, **options).get_title() == title


@pytest.mark.parametrize("basis", ["umap", "X_umap"])
def test_basis_names(adata, basis):
    cells = velocity_stream(adata, basis=basis, show=False).collections[0]
    np.testing.assert_allclose(np.sort(cells.get_offsets(), axis=0), np.sort(adata.obsm["X_umap"], axis=0))


def test_stored_colors_are_honoured(adata):
    adata.uns["cell_type_colors"] = ["#123456", "#abcdef"]
    ax = velocity_stream(adata, color="cell_type", alpha=1.0, show=False)
    assert drawn_colors(ax) == {"#123456", "#abcdef"}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


def test_colors_are_stored_for_the_next_plot(adata):
    velocity_stream(adata, color="cell_type", palette=["#ff0000", "#00ff00"], show=False)
    ax = velocity_stream(adata, color="cell_type", alpha=1.0, show=False)
    assert drawn_colors(ax) == {"#ff0000", "#00ff00"}


@pytest.mark.parametrize("color", [None, "day", "Sox2", "cell_type", "line"])
def test_adata_and_rc_params_are_not_modified(adata, color):
    adata.obs["line"] = np.where(adata.obs["day"] > 1, "x", "y")  # strings, which scanpy would convert
    expected, parameters = adata.copy(), dict(matplotlib.rcParams)
    velocity_stream(adata, color=color, show=False)
    assert dict(matplotlib.rcParams) == parameters
    assert set(adata.uns) - set(expected.uns) <= {f"{color}_colors"}
    pd.testing.assert_frame_equal(adata.obs, expected.obs)
    np.testing.assert_array_equal(adata.X, expected.X)
    assert list(adata.obsm) == list(expected.obsm)
    for name in expected.obsm:
        np.testing.assert_array_equal(adata.obsm[name], expected.obsm[name])


def test_view_stays_a_view(adata):
    view = adata[:200]
    velocity_stream(view, color="cell_type", show=False)
    assert view.is_view
    assert "cell_type_colors" not in adata.uns


@pytest.mark.parametrize("form", [np.asarray, csr_matrix, csr_array])
def test_gene_is_read_from_raw_if_there_is_one(adata, form):
    expected = adata.X[:, 1]
    adata.X = form(adata.X)
    adata.raw = adata.copy()
    adata = adata[:, ["Sox2"]].copy()
    values = velocity_stream(adata, color="Gata1", show=False).collections[0].get_array()
    np.testing.assert_array_equal(np.sort(values), np.sort(expected))


def test_legend_lies_inside_the_figure(adata):
    names = {"a": "a population with a rather long name", "b": "another population with a long name"}
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(names)
    ax = velocity_stream(adata, color="cell_type", show=False)
    width = ax.get_position().width * ax.figure.get_figwidth()
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1
    alone = velocity_stream(adata, show=False)
    assert width == pytest.approx(alone.get_position().width * alone.figure.get_figwidth())


def test_style_options(adata):
    ax = velocity_stream(
        adata, color="cell_type", linewidth=3.0, arrow_color="red", alpha=0.25, size=7.0, legend_loc=None, show=False
    )
    (lines,) = (artist for artist in ax.collections if isinstance(artist, LineCollection))
    assert np.mean(lines.get_linewidth()) == pytest.approx(3.0, rel=0.2)
    np.testing.assert_array_equal(lines.get_color()[0], to_rgba("red"))
    assert ax.collections[0].get_alpha() == 0.25
    np.testing.assert_array_equal(ax.collections[0].get_sizes(), 7.0)
    assert ax.get_legend() is None
    assert not ax.axison


def test_density_adds_streams(adata):
    few, many = (len(velocity_stream(adata, density=density, show=False).patches) for density in (0.5, 1.5))
    assert 0 < few < many


def test_other_key_and_representation(adata):
    for slot in ("push", "velocity"):
        adata.obsm[f"mine_{slot}"] = adata.obsm.pop(f"uot_{slot}")
    adata.obsm["X_other"] = adata.obsm.pop("X_pca")
    adata.uns["mine"] = {"params": {"use_rep": "X_other"}}
    assert velocity_stream(adata, key="mine", show=False).get_title() == "velocity (neighbors)"


@pytest.mark.parametrize("layer", [None, "other"])
def test_maps_fitted_in_gene_space(adata, layer):
    reference = stream_steps(velocity_stream(adata, show=False))
    x = csr_matrix(adata.obsm["X_pca"])
    genes = AnnData(x, obs=adata.obs, obsm={k: v for k, v in adata.obsm.items() if k != "X_pca"})
    if layer is not None:
        genes.layers[layer], genes.X = x, None
    genes.uns["uot"] = {"params": {"use_rep": "X", **({} if layer is None else {"layer": layer})}}
    np.testing.assert_allclose(stream_steps(velocity_stream(genes, show=False)), reference, atol=1e-4)


@pytest.mark.parametrize("slot", ["uot_push", "uot_velocity", "X_pca"])
def test_missing_slot(adata, slot):
    del adata.obsm[slot]
    with pytest.raises(KeyError, match=rf"hold '{slot}', found \['X_.*Run `uc\.tl\.fit_trajectory\("):
        velocity_stream(adata, show=False)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"projection": "pca"}, ValueError, r"one of \['neighbors', 'push', 'linear'\], found 'pca'"),
        ({"basis": "tsne"}, KeyError, r"\['X_pca', 'X_umap', 'uot_push', 'uot_velocity'\].*found 'tsne'"),
        ({"basis": "pca"}, ValueError, r"shape \(300, 2\), found \(300, 5\)"),
        ({"key": "mine"}, KeyError, r"parameters of 'mine', found \['uot'\].*key_added='mine'"),
        ({"color": "Nanog"}, KeyError, r"\['day', 'cell_type'\], or one of the 2 gene names, found 'Nanog'"),
        ({"min_mass": 1e9}, ValueError, r"`min_mass`=1000000000\.0 cells, found none\. Lower"),
        ({"n_neighbors": 300}, ValueError, r"smaller than the number of cells, 300, found 300"),
        ({"colour": "day"}, TypeError, "unexpected keyword argument 'colour'"),
    ],
)
def test_bad_options(adata, options, error, message):
    with pytest.raises(error, match=message):
        velocity_stream(adata, show=False, **options)
    assert plt.get_fignums() == []


def test_fit_of_other_cells(adata):
    adata.obsm["X_pca"] = adata.obsm["X_pca"][:, :4]
    with pytest.raises(ValueError, match=r"one shape, found \(300, 4\), \(300, 5\), \(300, 5\)"):
        velocity_stream(adata, show=False)


def test_no_transported_cell(adata):
    adata.obsm["uot_push"][:] = np.nan
    with pytest.raises(ValueError, match=r"'uot_push'\]` to hold finite rows, found none"):
        velocity_stream(adata, show=False)
