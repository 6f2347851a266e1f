from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex, to_rgb

from uotcell.pl import sankey, transitions

PLOTS = pytest.mark.parametrize("plot", [transitions, sankey])
TYPES = ["stem", "blood", "stroma"]
SHARES = pd.DataFrame([[0.8, 0.2, 0.0], [0.0, 0.996, 0.004]], index=["blood", "stem"], columns=["blood", "stem", "new"])
COLORS = {"stem": "#111111", "blood": "#222222", "stroma": "#333333", "new": "#444444"}


@pytest.fixture
def adata():
    """Annotated data after transitions; of its four types the table holds three."""
    types = pd.Categorical(list(COLORS), categories=list(COLORS))
    slot = {
        "table": SHARES.to_numpy(), "rows": np.array(SHARES.index, dtype=str),
        "columns": np.array(SHARES.columns, dtype=str), "groupby": "cell_type", "normalize": True,
    }  # fmt: skip
    return AnnData(
        obs=pd.DataFrame({"cell_type": types}, index=list("wxyz")),
        uns={"uot_transitions": slot, "cell_type_colors": list(COLORS.values())},
    )


def texts(ax):
    return [text.get_text() for text in ax.texts]


def strips(ax):
    """Colours of the types along the edges, rows first."""
    return [to_hex(patch.get_facecolor()) for patch in ax.patches]


def test_cells_numbers_and_names_of_a_heatmap():
    ax = transitions(SHARES, show=False)
    (mesh,) = ax.collections
    np.testing.assert_array_equal(np.reshape(mesh.get_array(), SHARES.shape), SHARES)
    assert mesh.get_clim() == (0, 1)
    assert texts(ax) == ["0.80", "0.20", "0", "0", "1.00", "<.01"]
    assert [text.get_position() for text in ax.texts][:4] == [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (0.5, 1.5)]
    assert ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["blood", "stem"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["blood", "stem", "new"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target", "source")
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "share of the source type"
    assert transitions(SHARES, annotate=False, title="Mine", show=False).get_title() == "Mine"
    assert len(transitions(SHARES, annotate=False, show=False).texts) == 0


def test_numbers_stand_out_from_their_cells():
    ax = transitions(SHARES, show=False)
    for text in ax.texts:
        white = to_rgb(text.get_color()) == (1, 1, 1)
        assert white == (text.get_text() in ("0.80", "1.00"))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [(1.0, ["30", "<1", "1"]), (0.01, ["0.30", "<.01", "0.01"]), (1e-3, ["0.030", "<.001", "0.001"])],
)
def test_masses_are_written_with_two_digits(scale, expected):
    ax = transitions(pd.DataFrame([[30.0, 0.4, 1.2]], index=["a"], columns=["a", "b", "c"]) * scale, show=False)
    assert texts(ax) == expected
    assert ax.collections[0].get_clim() == (0, 30 * scale)
    assert ax.child_axes[0].get_ylabel() == "mass"


def test_types_without_cells_are_grey_and_not_zero():
    table = SHARES.copy()
    table.loc["blood"] = np.nan
    ax = transitions(table, show=False)
    assert texts(ax)[:3] == ["", "", ""]
    ax.figure.canvas.draw()
    np.testing.assert_allclose(ax.collections[0].get_facecolor()[0, :3], 0.85)
    assert ax.child_axes[0].get_ylabel() == "share of the source type"
    assert "blood" not in texts(sankey(table, show=False))[2:3]


def test_annotated_data_brings_its_colors(adata):
    ax = transitions(adata, show=False)
    assert texts(ax) == texts(transitions(SHARES, show=False))
    assert strips(ax) == [COLORS[name] for name in ("blood", "stem", "blood", "stem", "new")]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("target cell_type", "source cell_type")
    assert sankey(adata, show=False).get_title() == "cell_type, every source type counts alike"


@PLOTS
def test_adata_is_not_modified_and_may_come_from_disk(adata, plot, tmp_path):
    adata.write_h5ad(tmp_path / "fit.h5ad")
    stored = read_h5ad(tmp_path / "fit.h5ad")
    first, second = plot(adata, show=False), plot(stored, show=False)
    assert texts(first) == texts(second)
    assert strips(first) == strips(second)
    assert adata.uns["cell_type_colors"] == list(COLORS.values())
    assert set(adata.uns) == {"uot_transitions", "cell_type_colors"}
    del adata.uns["cell_type_colors"]
    plot(adata, show=False)
    assert set(adata.uns) == {"uot_transitions"}


def test_palette_and_types_that_adata_does_not_know(adata):
    ax = transitions(adata, palette=dict.fromkeys(COLORS, "red"), show=False)
    assert set(strips(ax)) == {"#ff0000"}
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories({"new": "renamed"})
    assert len(set(strips(transitions(adata, show=False)))) == 3


@PLOTS
def test_nothing_is_cut_off_or_overlaps_in_a_new_figure(plot):
    names = [f"a population with a long name, no. {i}" for i in range(12)]
    masses = np.random.default_rng(0).dirichlet(np.full(12, 0.2), size=12) * np.geomspace(1e-3, 1, 12)[:, None]
    ax = plot(pd.DataFrame(masses, index=names, columns=names[::-1]), show=False)
    ax.figure.canvas.draw()
    box, figure = ax.get_tightbbox(), ax.figure.bbox
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.x1
    assert box.y1 <= figure.y1
    names = ax.get_yticklabels() if ax.axison else []
    shown = [text for text in [*ax.texts, *names] if text.get_text()]
    boxes = np.array([text.get_window_extent().extents for text in shown])
    apart = (boxes[:, None, :2] >= boxes[None, :, 2:] - 1).any(axis=2)
    assert (apart | apart.T | np.eye(len(boxes), dtype=bool)).all()


def test_figures_grow_with_the_number_of_types():
    for plot in (transitions, sankey):
        few, many = (
            plot(pd.DataFrame(np.ones((n, n)), index=range(n), columns=range(n)), show=False).figure for n in (4, 14)
        )
        assert many.get_figheight() > few.get_figheight() + 1


@PLOTS
def test_axes_are_returned_and_nothing_is_shown(plot, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    parameters = dict(matplotlib.rcParams)
    assert isinstance(plot(SHARES), plt.Axes)
    figure = plt.figure(figsize=(6, 4))
    mine = figure.add_subplot()
    assert plot(SHARES, ax=mine, show=False) is mine
    assert figure.get_size_inches().tolist() == [6, 4]
    assert len(plt.get_fignums()) == 2
    assert dict(matplotlib.rcParams) == parameters


@PLOTS
@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (SHARES.to_numpy(), TypeError, r"a DataFrame or an AnnData, found ndarray.*`uc\.tl\.transitions"),
        (SimpleNamespace(uns={}), TypeError, "found SimpleNamespace"),
        (AnnData(np.zeros((2, 1))), KeyError, r"hold 'uot_transitions', found \[\].*transitions\(.*key='uot'"),
        (SHARES - 0.1, ValueError, r"a smallest value of -0\.1"),
        (SHARES * 0, ValueError, r"found a sum of 0 "),
        (SHARES * np.nan, ValueError, r"found a sum of 0 "),
        (SHARES.replace(0.2, np.inf), ValueError, r"found a sum of inf"),
        (SHARES.astype(str) + "!", ValueError, r"hold numbers, found dtype"),
        (SHARES.iloc[:0], ValueError, r"found \(0, 3\)"),
        (SHARES.rename(columns={"new": "stem"}), ValueError, r"once in its columns, found \['blood', 'stem'"),
    ],
)  # fmt: skip
def test_bad_tables(plot, table, error, message):
    with pytest.raises(error, match=message):
        plot(table, show=False)
    assert plt.get_fignums() == []


def test_unknown_options():
    with pytest.raises(TypeError, match="unexpected keyword argument 'cmap'"):
        transitions(SHARES, cmap="Reds")
    with pytest.raises(KeyError, match="'mine_transitions'"):
        sankey(AnnData(np.zeros((2, 1))), key="mine")
