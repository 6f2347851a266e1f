import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex
from matplotlib.patches import PathPatch, Rectangle

from uotcell.pl import sankey
from uotcell.pl._sankey import spread

MASSES = pd.DataFrame([[30.0, 10.0], [0.0, 60.0]], index=["stem", "blood"], columns=["stem", "blood"])


def bands(ax):
    """Ends of the bands: heights of the upper edge left and right, and thickness."""
    paths = [patch.get_path().vertices for patch in ax.patches if isinstance(patch, PathPatch)]
    assert all(path[7, 1] - path[0, 1] == pytest.approx(path[4, 1] - path[3, 1]) for path in paths)
    return [(path[0, 1], path[3, 1], path[4, 1] - path[3, 1]) for path in paths]


def blocks(ax):
    """Upper edges and heights of the blocks, left and right."""
    drawn = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    sides = [[patch for patch in drawn if (patch.get_x() == 0) == left] for left in (True, False)]
    return [[(patch.get_y(), patch.get_height()) for patch in side] for side in sides]


def labels(ax):
    return [text.get_text() for text in ax.texts if text.get_text() not in ("source", "target")]


def test_blocks_and_bands_are_as_high_as_their_mass():
    ax = sankey(MASSES, show=False)
    gap = 0.04
    left, right = blocks(ax)
    np.testing.assert_allclose(left, [(0, 0.4), (0.4 + gap, 0.6)], atol=1e-12)
    np.testing.assert_allclose(right, [(0, 0.3), (0.3 + gap, 0.7)], atol=1e-12)
    expected = [(0, 0, 0.3), (0.3, 0.3 + gap, 0.1), (0.4 + gap, 0.4 + gap, 0.6)]
    np.testing.assert_allclose(bands(ax), expected, atol=1e-12)
    assert labels(ax) == ["stem (40 %)", "blood (60 %)", "stem (30 %)", "blood (70 %)"]
    colors = [to_hex(patch.get_facecolor()) for patch in ax.patches if isinstance(patch, PathPatch)]
    assert colors[0] == colors[1] != colors[2]
    assert ax.get_title() == ""
    assert ax.get_ylim() == (1 + gap, 0)


def test_bands_fill_their_blocks():
    masses = np.random.default_rng(0).gamma(1.0, size=(5, 4))
    ax = sankey(pd.DataFrame(masses), min_share=0.0, show=False)
    thick = np.array([band[2] for band in bands(ax)]).reshape(5, 4)
    np.testing.assert_allclose(thick, masses / masses.sum())
    left, right = blocks(ax)
    np.testing.assert_allclose(thick.sum(axis=1), np.array(left)[:, 1])
    np.testing.assert_allclose(thick.sum(axis=0), np.array(right)[:, 1])


def test_small_bands_are_left_out_and_counted():
    table = pd.DataFrame(
        [[99.5, 0.5, 0.0], [0.6, 99.0, 0.4]], index=["stem", "blood"], columns=["stem", "blood", "new"]
    )
    ax = sankey(table, show=False)
    assert len(bands(ax)) == 2
    assert labels(ax) == [
        "3 bands below 1 % of the source not drawn, 1 % of the mass",
        "stem (50 %)", "blood (50 %)", "stem (50 %)", "blood (50 %)",
    ]  # fmt: skip
    np.testing.assert_allclose([height for _, height in blocks(ax)[0]], 0.5)
    ax = sankey(table, min_share=0.0, show=False)
    assert len(bands(ax)) == 5
    assert labels(ax)[-1] == "new (<1 %)"
    shares = table.div(table.sum(axis=1), axis=0)
    assert labels(sankey(shares, min_share=0.0045, show=False))[0] == (
        "1 band below 0.45 % of the source not drawn, <1 % of all shares"
    )


def test_rows_that_sum_to_one_are_said_to_count_alike():
    ax = sankey(MASSES.div(MASSES.sum(axis=1), axis=0), show=False)
    assert ax.get_title() == "every source type counts alike"
    assert labels(ax) == ["stem", "blood", "stem", "blood"]
    np.testing.assert_allclose([height for _, height in blocks(ax)[0]], 0.5)
    assert sankey(MASSES, title="Mine", show=False).get_title() == "Mine"


def test_source_types_without_mass_are_not_drawn():
    table = MASSES.copy()
    table.loc["gone"] = 0.0
    table.loc["none"] = np.nan
    assert labels(sankey(table, show=False)) == labels(sankey(MASSES, show=False))


@pytest.mark.parametrize("min_share", [-0.1, 1.0, np.nan])
def test_bad_share(min_share):
    with pytest.raises(ValueError, match=r"`min_share` to be in \[0, 1\), found"):
        sankey(MASSES, min_share=min_share, show=False)
    assert plt.get_fignums() == []


def test_share_that_leaves_nothing():
    with pytest.raises(ValueError, match=r"`min_share`=0\.6, found none\. Lower"):
        sankey(pd.DataFrame(np.ones((3, 3))), min_share=0.6, show=False)


@pytest.mark.parametrize(
    ("centres", "expected"),
    [
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.4, 0.6]),  # as little as possible: both give way
        ([0.0, 0.05], [0.0, 0.2]),  # but not out of the diagram
        ([0.99, 1.0], [0.8, 1.0]),
        ([0.5, 0.5, 0.5, 0.9], [0.3, 0.5, 0.7, 0.9]),
        ([0.5], [0.5]),
    ],
)
def test_labels_give_way_as_little_as_possible(centres, expected):
    np.testing.assert_allclose(spread(np.array(centres), 0.2, 1.0), expected, atol=1e-12)


def test_labels_that_do_not_fit_keep_their_distance():
    found = spread(np.linspace(0, 1, 11), 0.2, 1.0)
    np.testing.assert_allclose(np.diff(found), 0.2)
    assert found.mean() == pytest.approx(0.5)
