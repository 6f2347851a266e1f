"""Every public plot against its picture. Inputs are written by hand, so that no numerics of a fit show in them."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

matplotlib.use("Agg")

import course
import images
from matplotlib import pyplot as plt

import uotcell as uc

PICTURES = {}


def picture(function):
    """Register a plot; its name up to two underscores is that of the public function."""
    PICTURES[function.__name__] = function
    return function


@pytest.fixture(autouse=True)
def _default_style():
    with matplotlib.style.context("default"):
        yield


def field():
    """Cells of three types on a grid, two thirds of which move right and part: no stream closes or ends by a hair."""
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 15)), axis=-1).reshape(-1, 2)
    step = np.column_stack([np.full(len(grid), 0.4), 0.3 * grid[:, 1]])
    step[np.arange(len(grid)) % 3 == 2] = np.nan
    x, move = np.pad(grid, ((0, 0), (0, 1))), np.pad(step, ((0, 0), (0, 1)))
    names = np.array(["stem", "blood", "stroma"])[np.digitize(grid[:, 0], [-0.4, 0.4])]
    return AnnData(
        obs=pd.DataFrame({"cell_type": pd.Categorical(names)}, index=np.arange(len(grid)).astype(str)),
        obsm={"X_pca": x, "X_umap": grid + 0.1 * grid[:, ::-1] ** 2, "uot_push": x + move, "uot_velocity": move},
        uns={"uot": {"params": {"use_rep": "X_pca"}}},
    )


@picture
def velocity_stream__neighbors():
    return uc.pl.velocity_stream(field(), color="cell_type", n_grid=16, density=0.5, show=False)


@picture
def velocity_stream__push():
    return uc.pl.velocity_stream(field(), projection="push", n_grid=16, density=0.5, show=False)


@picture
def velocity_stream__linear():
    return uc.pl.velocity_stream(field(), projection="linear", n_grid=16, density=0.5, show=False)


@picture
def history():
    iteration = np.arange(0.0, 100.0, 5.0)
    curves = {
        pair: {
            "iteration": iteration, "loss": np.cos(iteration / 10) * scale, "valid_iteration": iteration[::5],
            "valid_divergence": scale * np.array([1.0, 0.3, 0.1, 0.2]), "best_iteration": 50,
            "baseline": {"entropic map": 0.15 * scale, "identity": 2.0 * scale},
        }
        for pair, scale in (("1.0_2.0", 1.0), ("2.0_3.0", 2.0))
    }  # fmt: skip
    return uc.pl.history(AnnData(np.zeros((3, 1)), uns={"uot": {"history": curves}}), show=False)


def weighted():
    """The cells of the field with weights that rise to the right, a growth that rises upwards, and two markers."""
    adata = field()
    right, up = adata.obsm["X_umap"].T
    adata.obs["uot_source_weight"] = np.where(np.isfinite(adata.obsm["uot_push"][:, 0]), 2.0**right, np.nan)
    adata.obs["growth"] = 3.0**up
    genes = np.column_stack([right + 0.3 * np.sin(20 * up), np.cos(9 * right * up)])
    return AnnData(genes, obs=adata.obs, var=pd.DataFrame(index=["Cdk1", "Casp3"]), obsm=adata.obsm, uns=adata.uns)


@picture
def growth():
    return uc.pl.growth(weighted(), growth_key="growth", show=False)[0]


@picture
def weight_markers():
    return uc.pl.weight_markers(weighted(), ["Cdk1", "Casp3"], groupby="cell_type", show=False)[0]


def scores():
    """Three seeds of five drugs, by four families."""
    families = {"mean shift": 5.0, "OT-MG": 4.0, "UOT-MG": 3.0, "ceiling": 1.0}
    rows = [
        {
            "dataset": "screen", "condition": f"drug {drug}", "group": "", "seed": seed, "weighting": "unweighted",
            "method": "monge_gap" if "MG" in family else family.replace(" ", "_"), "family": family,
            "sinkhorn_divergence": score * (1 + 0.3 * np.sin(3 * drug + place)) * (1 + 0.1 * seed),
        }
        for place, (family, score) in enumerate(families.items()) for drug in range(5) for seed in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@picture
def perturbation_scatter():
    return uc.pl.perturbation_scatter(scores(), show=False)


@picture
def benchmark():
    return uc.pl.benchmark(scores(), show=False)


def table():
    """Masses between four types, one of them without cells before."""
    masses = [[20.0, 5.0, 0.0, 0.1], [0.0, 30.0, 4.0, 1.0], [2.0, 0.0, 10.0, 8.0]]
    return pd.DataFrame(masses, index=["stem", "blood", "stroma"], columns=["stem", "blood", "stroma", "new type"])


@picture
def transitions__shares():
    shares = table().div(table().sum(axis=1), axis=0)
    shares.loc["nobody"] = np.nan
    return uc.pl.transitions(shares, title="shares", show=False)


@picture
def transitions__masses():
    return uc.pl.transitions(table(), show=False)


@picture
def sankey__shares():
    return uc.pl.sankey(table().div(table().sum(axis=1), axis=0), show=False)


@picture
def sankey__masses():
    return uc.pl.sankey(table(), show=False)


@picture
def interpolation():
    problem = course.StraightCourse(course.cells())
    return uc.pl.interpolation(problem.adata, problem, [0.25, 0.75], basis="rep", color="lineage", show=False)[0]


@picture
def animate_interpolation():
    problem = course.StraightCourse(course.cells())
    animation = uc.pl.animate_interpolation(problem.adata, problem, [0.25, 0.5], basis="rep", color="score")
    animation.to_jshtml()  # which leaves the last frame
    return plt.gcf().axes[0]


@pytest.mark.parametrize("name", PICTURES)
def test_picture(name, tmp_path):
    figure = PICTURES[name]().figure
    if images.WRITE:
        images.write_picture(figure, name)
    images.assert_looks_like(figure, name, tmp_path)


def test_every_public_plot_has_a_picture():
    assert {name.split("__")[0] for name in PICTURES} == set(uc.pl.__all__)
    assert {path.stem for path in images.BASELINE.iterdir()} == set(PICTURES)


def slightly_changed(name):
    """The plot of that name with one thing about it that a reader would notice."""
    ax = PICTURES[name]()
    if name == "sankey__masses":
        ax.patches[0].set_visible(False)  # a band
    elif name == "transitions__masses":
        ax.texts[0].set_text("21")  # a number
    elif name == "velocity_stream__push":
        ax.set_title("velocity (neighbors)")
    elif name == "benchmark":
        ax.collections[0].set_facecolor("green")  # the points of one method
    return ax.figure


@pytest.mark.parametrize("name", ["sankey__masses", "transitions__masses", "velocity_stream__push", "benchmark"])
def test_one_visible_change_fails(name, tmp_path):
    with pytest.raises(AssertionError, match="did not match"):
        images.assert_looks_like(slightly_changed(name), name, tmp_path)


def test_another_size_fails(tmp_path):
    figure = PICTURES["transitions__masses"]().figure
    figure.set_size_inches(*(figure.get_size_inches() + 0.1))
    with pytest.raises(AssertionError, match="sizes do not match"):
        images.assert_looks_like(figure, "transitions__masses", tmp_path)


def test_a_new_picture(tmp_path):
    figure = plt.figure(figsize=(1, 1))
    with pytest.raises(FileNotFoundError):
        images.assert_looks_like(figure, "new", tmp_path, baseline=tmp_path)
    images.write_picture(figure, "new", baseline=tmp_path)
    images.assert_looks_like(figure, "new", tmp_path, baseline=tmp_path)
