import matplotlib
import numpy as np
import pytest
from anndata import AnnData, read_h5ad

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from uotcell.pl import history


@pytest.fixture
def adata():
    iteration, valid_iteration = np.arange(0.0, 100.0, 5.0), np.array([0.0, 25.0, 50.0, 75.0])
    curves = {
        pair: {
            "iteration": iteration,
            "loss": np.cos(iteration) * scale,
            "valid_iteration": valid_iteration,
            "valid_divergence": scale * np.array([1.0, 0.3, 0.1, 0.2]),
            "best_iteration": 50,
            "baseline": {"entropic map": 0.15 * scale, "identity": 2.0 * scale},
        }
        for pair, scale in (("1.0_2.0", 1.0), ("2.0_3.0", 2.0))
    }
    return AnnData(np.zeros((3, 1), np.float32), uns={"uot": {"params": {}, "history": curves}})


def twin(ax):
    (other,) = (sibling for sibling in ax.figure.axes if sibling is not ax)
    return other


def with_points(ax):
    """Lines of more than one point across the axes, without the dashed levels."""
    return [line for line in ax.lines if len(line.get_xdata()) == 4]


def test_curves_and_colors(adata):
    ax = history(adata, show=False)
    curves, losses = with_points(ax), twin(ax).lines
    for pair, curve, loss in zip(adata.uns["uot"]["history"].values(), curves, losses, strict=True):
        np.testing.assert_array_equal(curve.get_ydata(), pair["valid_divergence"])
        np.testing.assert_array_equal(loss.get_ydata(), pair["loss"])
        assert to_hex(curve.get_color()) == to_hex(loss.get_color())
        assert curve.get_linewidth() > loss.get_linewidth()
    assert curves[0].get_color() != curves[1].get_color()
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("iteration", "validation divergence")
    assert ax.get_zorder() > twin(ax).get_zorder()


def test_best_iteration_and_baselines(adata):
    ax = history(adata, pairs="2.0_3.0", show=False)
    (best,) = (line for line in ax.lines if line.get_marker() == "o")
    assert (best.get_xdata().tolist(), best.get_ydata().tolist()) == ([50.0], [0.2])
    levels = {line.get_ydata()[0] for line in ax.lines if line.get_linestyle() != "-" and line is not best}
    assert levels == {0.3, 4.0}
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["2.0_3.0", "best", "entropic map", "identity"]


@pytest.mark.parametrize("pairs", [["2.0_3.0", "1.0_2.0"], ("1.0_2.0",)])
def test_chosen_pairs(adata, pairs):
    ax = history(adata, pairs=pairs, show=False)
    assert len(with_points(ax)) == len(pairs)
    assert [text.get_text() for text in ax.get_legend().get_texts()][: len(pairs)] == list(pairs)


def test_history_without_baselines_or_validation(adata):
    first, second = adata.uns["uot"]["history"].values()
    del first["baseline"], second["baseline"]
    second.update(valid_iteration=np.empty(0), valid_divergence=np.empty(0), best_iteration=100)
    ax = history(adata, show=False)
    assert len(with_points(ax)) == 1
    assert len(twin(ax).lines) == 2
    ax.figure.canvas.draw()


def test_divergence_below_zero_is_drawn_on_a_linear_axis(adata):
    adata.uns["uot"]["history"]["1.0_2.0"]["valid_divergence"] = np.array([1.0, 0.1, -1e-3, np.nan])
    assert history(adata, show=False).get_yscale() == "linear"


def test_axes_are_returned_and_nothing_is_shown(adata, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    parameters = dict(matplotlib.rcParams)
    ax = history(adata, show=False)
    assert isinstance(ax, plt.Axes)
    assert isinstance(history(adata), plt.Axes)
    assert len(plt.get_fignums()) == 2
    mine = plt.figure().add_subplot()
    assert history(adata, ax=mine, show=False) is mine
    assert len(plt.get_fignums()) == 3
    assert dict(matplotlib.rcParams) == parameters


def test_legend_lies_inside_the_figure(adata):
    ax = history(adata, show=False)
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x1 <= ax.figure.bbox.x1
    assert ax.get_legend().get_window_extent().x0 >= twin(ax).yaxis.label.get_window_extent().x1


def test_history_read_from_disk(adata, tmp_path):
    adata.write_h5ad(tmp_path / "fit.h5ad")
    ax = history(read_h5ad(tmp_path / "fit.h5ad"), show=False)
    assert len(with_points(ax)) == 2
    assert len([line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "1.0_3.0"}, r"list from \['1\.0_2\.0', '2\.0_3\.0'\], found \['1\.0_3\.0'\]"),
        ({"pairs": ["1.0_2.0", "x"]}, r"found \['x'\]"),
        ({"pairs": []}, r"found \[\]"),
        (
            {"key": "mine"},
            r"history of 'mine', found \['uot'\]\. Run `uc\.tl\.fit_traj.*key_added='mine'\)` first",
        ),
    ],
)
def test_bad_options(adata, options, message):
    with pytest.raises(KeyError, match=message):
        history(adata, show=False, **options)
    assert plt.get_fignums() == []
