from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from uotcell.benchmark import BenchmarkResult
from uotcell.pl import perturbation_scatter

# Scores of three seeds by condition, balanced and tuned.
SCORES = {
    "cisplatin": ([1.0, 2.0, 3.0], [0.5, 1.0, 1.5]),
    "imatinib": ([10.0, 20.0, 30.0], [11.0, 21.0, 31.0]),
    "trametinib": ([4.0, 5.0, 6.0], [3.0, 4.0, 8.0]),
}


def table(scores=SCORES, *, groups=("",), dataset="screen", weighting="unweighted", method="monge_gap", short="MG"):
    rows = [
        {
            "dataset": dataset, "condition": condition, "group": group, "seed": seed, "method": method,
            "family": family, "weighting": weighting, "sinkhorn_divergence": score, "mean_r2": 1 - score,
        }
        for condition, both in scores.items() for group in groups
        for family, values in zip((f"OT-{short}", f"UOT-{short}"), both, strict=True)
        for seed, score in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def many(n_conditions, rng=0):
    """As many conditions and five seeds."""
    draws = np.exp(np.random.default_rng(rng).normal(size=(n_conditions, 2, 5)))
    return table({f"drug {i:02d}": tuple(draws[i].tolist()) for i in range(n_conditions)})


def parts(ax):
    """Positions of the runs and of the means, and the colours of the means, by condition."""
    runs, means = ax.collections[::2], ax.collections[1::2]
    names = [mean.get_label() for mean in means]
    return (
        {name: drawn.get_offsets().tolist() for name, drawn in zip(names, runs, strict=True)},
        {name: drawn.get_offsets()[0].tolist() for name, drawn in zip(names, means, strict=True)},
        {name: to_hex(drawn.get_facecolor()[0]) for name, drawn in zip(names, means, strict=True)},
    )


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def said(ax):
    (text,) = ax.texts
    return text.get_text()


def test_positions_are_the_scores():
    ax = perturbation_scatter(table(), show=False)
    runs, means, colors = parts(ax)
    for name, (balanced, tuned) in SCORES.items():
        assert runs[name] == [list(pair) for pair in zip(balanced, tuned, strict=True)]
        assert means[name] == [np.mean(balanced), np.mean(tuned)]
    assert len(set(colors.values())) == 3
    for small, large in zip(ax.collections[::2], ax.collections[1::2], strict=True):
        assert to_hex(small.get_facecolor()[0]) == to_hex(large.get_facecolor()[0])
        assert small.get_sizes()[0] < large.get_sizes()[0]
    assert said(ax) == "below the diagonal: UOT-MG better, 1 of 3 conditions"
    assert ax.get_xlabel() == "OT-MG, balanced\nSinkhorn divergence (squared distance)"
    assert ax.get_ylabel() == "UOT-MG, tuned τ\nSinkhorn divergence (squared distance)"
    assert ax.get_title(loc="left") == "screen, unweighted"


def test_diagonal_and_equal_axes():
    ax = perturbation_scatter(table(), show=False)
    (diagonal,) = ax.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert tuple(diagonal.get_xdata()) == ax.get_xlim() == ax.get_ylim()
    assert ax.get_xlim()[0] < 0.5
    assert ax.get_xlim()[1] > 31
    ax.figure.canvas.draw()
    assert ax.bbox.width == pytest.approx(ax.bbox.height)
    np.testing.assert_array_equal(ax.get_xticks(), ax.get_yticks())


@pytest.mark.parametrize(
    ("options", "expected"), [({}, "log"), ({"scale": "linear"}, "linear"), ({"metric": "mean_r2"}, "linear")]
)
def test_scale(options, expected):
    ax = perturbation_scatter(table(), show=False, **options)
    assert ax.get_xscale() == ax.get_yscale() == expected
    ax.figure.canvas.draw()


@pytest.mark.parametrize("scale", [None, "log"])
def test_scores_that_hardly_differ(scale):
    ax = perturbation_scatter(table({"a": ([1.0, 1.0], [1.0, 1.0])}), scale=scale, show=False)
    assert ax.get_xscale() == (scale or "linear")
    assert ax.get_xlim()[0] < 1 < ax.get_xlim()[1]
    assert said(ax).endswith("better, 0 of 1 conditions")
    ax.figure.canvas.draw()


def test_a_score_that_is_better_when_larger():
    ax = perturbation_scatter(table(), metric="mean_r2", show=False)
    assert said(ax) == "above the diagonal: UOT-MG better, 1 of 3 conditions"
    assert ax.get_xlabel().endswith("\nR² of the means")


def test_methods_data_sets_and_weightings_are_told_apart():
    rows = pd.concat(
        [
            table({"drug": ([1.0], [2.0])}),
            table({"drug": ([3.0], [4.0])}, method="icnn", short="ICNN"),
            table({"drug": ([5.0], [6.0])}, weighting="weighted"),
            table({"drug": ([7.0], [8.0])}, dataset="other"),
        ]
    )
    for options, expected in (
        ({}, [1.0, 2.0]),
        ({"method": "icnn"}, [3.0, 4.0]),
        ({"weighting": "weighted"}, [5.0, 6.0]),
        ({"dataset": "other"}, [7.0, 8.0]),
    ):
        ax = perturbation_scatter(rows, show=False, **{"dataset": "screen", **options})
        assert parts(ax)[1] == {"drug": expected}


def test_entropic_couplings():
    rows = table(method="entropic").replace({"OT-MG": "entropic OT", "UOT-MG": "entropic UOT"})
    assert perturbation_scatter(rows, method="entropic", show=False).get_xlabel().startswith("entropic OT, balanced")


def test_runs_without_a_score_are_counted():
    balanced, tuned = SCORES["cisplatin"]
    scores = {
        **SCORES,
        "cisplatin": (balanced, [np.nan, *tuned[1:]]),
        "imatinib": ([np.nan] * 3, SCORES["imatinib"][1]),
    }
    ax = perturbation_scatter(table(scores), show=False)
    runs, means, _ = parts(ax)
    assert runs["cisplatin"] == [[2.0, 1.0], [3.0, 1.5]]
    assert means["cisplatin"] == [2.0, 1.25]  # each over the seeds that have a score, as in the report
    assert "imatinib" not in means
    assert said(ax).splitlines()[0].endswith("1 of 2 conditions")
    assert said(ax).splitlines()[1] == "4 of 9 runs not drawn: a score is missing"


def test_groups_are_named_if_there_are_any():
    ax = perturbation_scatter(table(groups=("A549", "K562")), show=False)
    assert legend_texts(ax)[:2] == ["cisplatin (A549)", "cisplatin (K562)"]
    missing = table().assign(group=np.nan)  # as read from a file
    assert legend_texts(perturbation_scatter(missing, show=False)) == list(SCORES)


def test_many_conditions_have_colors_of_their_own_and_a_legend_inside():
    ax = perturbation_scatter(many(36), show=False)
    ax.figure.canvas.draw()
    _, _, colors = parts(ax)
    assert len(set(colors.values())) == 36
    legend, figure = ax.get_legend().get_window_extent(), ax.figure.bbox
    assert legend.x0 > ax.bbox.x1
    assert legend.x1 <= figure.x1
    assert legend.y0 >= 0
    assert legend.y1 <= figure.y1
    titles = [text for text in ax.get_children() if isinstance(text, Text) and text.get_text()]
    assert len(titles) == 2
    for text in (ax.xaxis.label, ax.yaxis.label, *titles):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.y1 <= figure.y1
    assert perturbation_scatter(many(37), show=False).get_legend() is None


def test_few_conditions_have_the_colors_of_the_style():
    with plt.rc_context({"axes.prop_cycle": plt.cycler(color=["#111111", "#222222", "#333333"])}):
        _, _, colors = parts(perturbation_scatter(table(), show=False))
    assert list(colors.values()) == ["#111111", "#222222", "#333333"]


def test_result_object():
    shared = {"config": {}, "runs": [], "seconds": pd.DataFrame(), "devices": ()}
    result = BenchmarkResult(scores=pd.DataFrame(), families=table(), **shared)
    assert parts(perturbation_scatter(result, show=False)) == parts(perturbation_scatter(table(), show=False))


def test_axes_are_returned_and_nothing_is_shown(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("plt.show was called"))
    parameters, rows = dict(matplotlib.rcParams), table()
    assert isinstance(perturbation_scatter(rows), plt.Axes)
    assert len(plt.get_fignums()) == 1
    figure = Figure(figsize=(6, 4))
    mine = figure.add_subplot()
    assert perturbation_scatter(rows, ax=mine, show=False) is mine
    assert figure.get_size_inches().tolist() == [6, 4]
    assert len(plt.get_fignums()) == 1
    assert dict(matplotlib.rcParams) == parameters
    pd.testing.assert_frame_equal(rows, table())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "icnn"}, r"`method` to be one of \['monge_gap'\], found 'icnn'"),
        ({"metric": "mmd"}, r"`metric` to be one of \['sinkhorn_divergence', 'mean_r2'\], found 'mmd'"),
        ({"weighting": "by mass"}, r"`weighting` to be one of \['unweighted'\], found 'by mass'"),
        ({"dataset": "mine"}, r"`dataset` to be one of \['screen', 'other'\], found 'mine'"),
        ({"dataset": None}, r"`dataset` to be one of \['screen', 'other'\], found None"),
        ({"scale": "symlog"}, r"`scale` to be one of \['log', 'linear'\] or None, found 'symlog'"),
        ({"scale": "log", "metric": "mean_r2"}, r"positive scores for `scale`='log', found -30\. Use 'linear'"),
    ],
)
def test_bad_options(options, message):
    both = pd.concat([table(), table(dataset="other")])
    with pytest.raises(ValueError, match=message):
        perturbation_scatter(both, show=False, **{"dataset": "screen", **options})
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (SimpleNamespace(scores=1), TypeError, r"its `families`, found SimpleNamespace"),
        (table().drop(columns=["family", "method"]), KeyError, r"found none of the name \['method', 'family'\]"),
        (pd.concat([table(), table()]), ValueError, r"found several"),
        (table({"a": ([np.nan], [1.0])}), ValueError, r"both OT-MG and UOT-MG have 'sinkhorn_divergence', found none"),
    ],
)
def test_bad_tables(rows, error, message):
    with pytest.raises(error, match=message):
        perturbation_scatter(rows, show=False)
    assert plt.get_fignums() == []
