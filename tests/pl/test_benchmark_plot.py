from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from uotcell.benchmark._statistics import bootstrap_mean
from uotcell.pl import benchmark

# Scores of five conditions; between mean shift, 10, and ceiling, 2, a score u scales to (10 − u) / 8.
SCORES = {
    "identity": [90.0, 90.0, 90.0, 6.0, 10.0],
    "mean shift": [10.0] * 5,
    "OT-MG": [8.0, 8.0, 6.0, 6.0, 10.0],
    "UOT-MG": [4.0, 4.0, 3.0, 2.0, 12.0],
    "UOT-ICNN": [6.0, np.nan, 6.0, 6.0, 6.0],
    "ceiling": [2.0] * 5,
}
METHODS = {"OT-MG": "monge_gap", "UOT-MG": "monge_gap", "UOT-ICNN": "icnn"}


def table(scores=SCORES, *, dataset="screen", weighting="unweighted", **changed):
    """Rows of two seeds whose mean is the score."""
    rows = [
        {
            "dataset": dataset, "condition": f"drug{i}", "group": "", "seed": seed, "weighting": weighting,
            "method": METHODS.get(family, family.replace(" ", "_")), "family": family,
            "sinkhorn_divergence": score + (-1) ** seed * 0.5, "mean_r2": -score, "map_error": score,
        }
        for family, values in scores.items() for i, score in enumerate(values) for seed in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(**changed)


def points(ax):
    """Scaled scores inside the axes by method."""
    names = [label.get_text() for label in ax.get_yticklabels()]
    offsets = [np.asarray(drawn.get_offsets()) for drawn in ax.collections]
    for place, of_method in enumerate(offsets):
        assert (np.abs(of_method[:, 1] - place) < 0.5).all()
    return {name: sorted(of_method[:, 0].tolist()) for name, of_method in zip(names, offsets, strict=True)}


def markers(ax, marker):
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_marker() == marker]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_points_are_the_scaled_scores_and_methods_are_sorted():
    ax = benchmark(table(), show=False)
    assert points(ax) == {
        "UOT-MG": [-0.25, 0.75, 0.75, 0.875, 1.0],
        "UOT-ICNN": [0.5] * 4,
        "OT-MG": [0.0, 0.25, 0.25, 0.5, 0.5],
        "identity": [0.0, 0.5],
    }
    assert ax.yaxis_inverted()
    assert {line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"} == {0, 1}


def test_means_intervals_and_medians():
    ax = benchmark(table(), show=False)
    found = bootstrap_mean([0.75, 0.75, 0.875, 1.0, -0.25])
    assert markers(ax, "D")[0] == (found.mean, 0)
    flat = [line.get_xdata().tolist() for line in ax.lines if list(line.get_ydata()) == [0, 0]]
    assert flat == [[found.low, found.high]]
    upright = [line.get_xdata()[0] for line in ax.lines if np.ptp(line.get_ydata()) == pytest.approx(0.72)]
    assert upright == [0.75, 0.5, 0.25]  # the median of the identity, −10, is out of sight
    assert texts(ax)[0] == f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]".replace("-", "−")
    assert "0.50 [0.50, 0.50], n = 4" in texts(ax)


def test_what_is_out_of_sight_is_counted():
    ax = benchmark(table(), show=False)
    assert markers(ax, "<") == [(-2.0, 3)]
    assert "3" in texts(ax)
    assert ax.get_xlabel().splitlines() == [
        "scaled Sinkhorn divergence, unweighted (larger is better)",
        "arrows: 3 below −2, of 19 points",
    ]
    wide = benchmark(table(), limits=(-12.0, 1.1), show=False)
    assert wide.get_xlabel().splitlines()[1:] == ["0: mean shift, 1: ceiling"]
    assert markers(wide, "<") == []
    above = benchmark(table({**SCORES, "OT-MG": [-10.0] * 5}), show=False)
    assert "3 below −2 and 5 above 1.5, of 19 points" in above.get_xlabel()
    assert markers(above, ">") == [(1.5, 0)]


def test_conditions_that_cannot_be_scaled_and_methods_without_scores():
    scores = {**SCORES, "ceiling": [2.0, 2.0, 2.0, 2.0, 9.5], "OT-MG": [np.nan] * 5}
    ax = benchmark(table(scores), show=False)
    assert ax.get_title(loc="left") == "screen, 4 of 5 conditions"
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "OT-MG"
    assert "no score" in texts(ax)
    assert points(ax)["UOT-MG"] == [0.75, 0.75, 0.875, 1.0]


def test_a_score_that_is_better_when_larger():
    assert points(benchmark(table(), metric="mean_r2", show=False))["OT-MG"] == [0.0, 0.25, 0.25, 0.5, 0.5]


def test_one_data_set_and_weighting_is_drawn():
    double = {name: [2 * score for score in scores] for name, scores in SCORES.items()}
    other = table({**double, "OT-MG": [4.0] * 5}, dataset="other")
    both = pd.concat([table(), other, table(weighting="weighted")])
    assert points(benchmark(both, dataset="screen", show=False)) == points(benchmark(table(), show=False))
    ax = benchmark(both, dataset="other", show=False)
    assert points(ax)["OT-MG"] == [1.0] * 5
    assert ax.get_title(loc="left").startswith("other")
    assert "weighted (" in benchmark(both, dataset="screen", weighting="weighted", show=False).get_xlabel()


def test_groups_missing_from_a_file(tmp_path):
    table().to_csv(tmp_path / "families.csv", index=False)
    read = pd.read_csv(tmp_path / "families.csv")
    assert read["group"].isna().all()
    assert points(benchmark(read, show=False)) == points(benchmark(table(), show=False))


def test_axes_are_returned_and_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    parameters, rows = dict(matplotlib.rcParams), table()
    assert isinstance(benchmark(rows), plt.Axes)
    assert len(plt.get_fignums()) == 1
    mine = Figure().add_subplot()
    assert benchmark(rows, ax=mine, show=False) is mine
    assert len(plt.get_fignums()) == 1
    assert dict(matplotlib.rcParams) == parameters
    pd.testing.assert_frame_equal(rows, table())


def test_the_two_lines_are_named_by_their_ticks():
    ax = benchmark(table(), show=False)
    names = {label.get_text().split("\n")[0]: label.get_text().split("\n")[1] for label in ax.get_xticklabels()}
    assert (names["0"], names["1"], names["0.5"]) == ("mean shift", "ceiling", " ")


@pytest.mark.parametrize("limits", [(-2.0, 1.5), (-2.5, 1.5), (-40.0, 1.2)])
def test_everything_lies_inside_the_figure_and_apart(limits):
    ax = benchmark(table(), limits=limits, show=False)
    ax.figure.canvas.draw()
    figure = ax.figure.bbox
    written = [text for text in ax.texts if "[" in text.get_text()]
    for artist in [*written, *ax.get_yticklabels(), ax.xaxis.label, ax.get_legend()]:
        box = artist.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.x1
        assert box.y1 <= figure.y1
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"metric": "map_error"},
            r"`metric` to be one of \['sinkhorn_divergence', 'mean_r2'\], found 'map_error'",
        ),
        ({"weighting": "by mass"}, r"`weighting` to be one of \['unweighted'\], found 'by mass'"),
        ({"dataset": "mine"}, r"`dataset` to be one of \['screen', 'other'\], found 'mine'"),
        ({"dataset": None}, r"`dataset` to be one of \['screen', 'other'\], found None"),
        ({"limits": (0.0, 1.5)}, r"`limits` to hold 0 and 1 between them, found \(0\.0, 1\.5\)"),
    ],
)
def test_bad_options(options, message):
    both = pd.concat([table(), table(dataset="other")])
    with pytest.raises(ValueError, match=message):
        benchmark(both, show=False, **{"dataset": "screen", **options})
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ({"scores": 1}, TypeError, r"BenchmarkResult or its `families`, found dict\. Run `uc\.tl\.benchmark_pert"),
        (table().drop(columns="family"), KeyError, r"columns \[.*found none of the name \['family'\]"),
        (pd.concat([table(), table()]), ValueError, r"one row for every .*found several"),
        (table({"OT-MG": [1.0], "mean shift": [2.0]}), ValueError, r"to scale by, found no \['ceiling'\], only"),
        (table({**SCORES, "ceiling": [9.9] * 5}), ValueError, r"better than the mean shift.*found none among 5 cond"),
        (table({"mean shift": [9.0], "ceiling": [1.0]}), ValueError, r"and a family to compare, found none"),
    ],
)
def test_bad_tables(rows, error, message):
    with pytest.raises(error, match=message):
        benchmark(rows, show=False)
    assert plt.get_fignums() == []
