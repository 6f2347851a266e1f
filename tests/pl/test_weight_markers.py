import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import csr_array, csr_matrix
from scipy.stats import spearmanr

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from uotcell.pl import weight_markers
from uotcell.pl._markers import bin_means, rank_correlation

N_CELLS = 60


@pytest.fixture
def adata():
    """Weights fall with Casp3 and rise with Mki67, which a third of the cells do not express."""
    rng = np.random.default_rng(0)
    day = np.repeat([0.0, 1.0, 2.0], N_CELLS)
    x = rng.uniform(1.0, 4.0, (len(day), 3))
    x[rng.random(len(day)) < 1 / 3, 1] = 0.0
    x[:, 2] = 1.0
    weight = np.exp2(0.5 * x[:, 1] - x[:, 0] + 0.3 * rng.normal(size=len(day)))
    obs = pd.DataFrame({"day": day, "score": x[:, 0]}, index=np.arange(len(day)).astype(str))
    obs["uot_source_weight"] = np.where(day < 2, weight * (1 + day), np.nan)
    obs["type"] = pd.Categorical(np.where(np.arange(len(day)) % 3 == 0, "stem", "other"), categories=["stem", "other"])
    var = pd.DataFrame(index=["Casp3", "Mki67", "Flat"])
    return AnnData(x, obs=obs, var=var, uns={"uot": {"params": {"use_rep": "X", "time_key": "day"}}})


def relative(adata):
    weights = adata.obs["uot_source_weight"]
    return np.log2(weights / weights.groupby(adata.obs["day"]).transform("mean")).to_numpy()[: 2 * N_CELLS]


def points(ax, group=0):
    return ax.collections[2 * group].get_offsets()


# Numbers


def test_correlation_agrees_with_scipy_and_its_interval_with_the_formula():
    rng = np.random.default_rng(1)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    found, expected = rank_correlation(x, y), spearmanr(x, y)
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue)
    half = 1.959964 * np.sqrt((1 + found.rho**2 / 2) / 47)
    ends = np.tanh(np.arctanh(found.rho) + np.array([-half, half]))
    np.testing.assert_allclose([found.low, found.high], ends)
    assert rank_correlation(x, x)[:3] == pytest.approx((1.0, 1.0, 1.0))


def test_intervals_cover_the_correlation():
    rng = np.random.default_rng(2)
    true = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's of two normal variables with correlation 0.6
    x = rng.normal(size=(200, 80))
    y = 0.6 * x + 0.8 * rng.normal(size=x.shape)
    found = [rank_correlation(*pair) for pair in zip(x, y, strict=True)]
    assert 0.92 <= np.mean([one.low <= true <= one.high for one in found]) <= 0.98


@pytest.mark.parametrize("x", [np.ones(20), np.arange(4.0)])
def test_no_correlation_of_constants_or_few_cells(x):
    assert rank_correlation(x, np.arange(float(len(x)))) is None


def test_bins_by_hand():
    x = np.repeat([0.0, 1.0, 2.0], [10, 5, 5])
    y = np.concatenate([np.tile([1.0, 3.0], 5), np.arange(5.0), np.full(5, 7.0)])
    found = bin_means(x, y, 4)
    np.testing.assert_allclose(found[:, :2], [[0.0, 2.0], [1.0, 2.0], [2.0, 7.0]])
    deviation = [y[:10].std(ddof=1) / np.sqrt(10), np.sqrt(2.5 / 5), 0.0]
    np.testing.assert_allclose(found[:, 2], 1.959964 * np.array(deviation))
    assert len(bin_means(np.arange(100.0), np.arange(100.0), 8)) == 8
    assert bin_means(x[:4], y[:4], 4).shape == (0, 3)


# Panels


def test_one_panel_a_gene(adata):
    axes = weight_markers(adata, ["Casp3", "Mki67", "score"], show=False)
    assert [ax.get_xlabel() for ax in axes] == ["Casp3 (expression)", "Mki67 (expression)", "score"]
    assert [ax.get_ylabel() for ax in axes] == ["source weight / mean of time point", "", ""]
    for ax, x in zip(axes[:2], adata.X.T, strict=False):
        y = relative(adata)
        x = x[: 2 * N_CELLS]
        expected = np.stack([np.clip(v, *np.quantile(v, [0.005, 0.995])) for v in (x, y)], axis=1)
        np.testing.assert_allclose(points(ax), expected)
        rho = spearmanr(x, y).statistic
        assert ax.get_title().startswith(f"ρ = {rho:.2f} [".replace("-", "−"))
        assert ax.get_title().endswith("p < 1e−16") or "], p = " in ax.get_title()
        low, high = ax.get_ylim()
        assert low < expected[:, 1].min() < expected[:, 1].max() < high


def test_lines_join_bins(adata):
    (ax,) = weight_markers(adata, "Mki67", n_bins=6, show=False)
    ((line, _, _),) = ax.containers
    found = bin_means(adata.X[: 2 * N_CELLS, 1], relative(adata), 6)
    np.testing.assert_allclose(line.get_xydata(), found[:, :2])
    assert line.get_xdata()[0] == 0.0  # all cells without expression, and only these
    assert (np.diff(line.get_ydata()) > 0).mean() > 0.5


def test_groups(adata):
    adata.uns["type_colors"] = ["#112233", "#aabbcc"]
    (ax,) = weight_markers(adata, "Casp3", groupby="type", show=False)
    assert ax.get_title() == ""
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [label.split(":")[0] for label in labels] == ["stem", "other"]
    assert [to_hex(container[0].get_color()) for container in ax.containers] == ["#112233", "#aabbcc"]
    stem = (adata.obs["type"] == "stem").to_numpy()[: 2 * N_CELLS]
    rho = spearmanr(adata.X[: 2 * N_CELLS, 0][stem], relative(adata)[stem]).statistic
    assert f"ρ = {rho:.2f}".replace("-", "−") in labels[0]


def test_groups_of_numbers_and_missing_values(adata):
    labels = weight_markers(adata, "Casp3", groupby="day", show=False)[0].get_legend().get_texts()
    assert [label.get_text().split(":")[0] for label in labels] == ["0.0", "1.0"]  # 2.0 is no source
    adata.obs["type"] = adata.obs["type"].where(adata.obs["day"] > 0)
    (ax,) = weight_markers(adata, "Casp3", groupby="type", show=False)
    n_points = sum(len(points(ax, group)) for group in range(2))
    assert n_points == N_CELLS


def test_many_and_small_groups(adata):
    adata.obs["many"] = pd.Categorical([f"group {min(i, 14)}" for i in range(adata.n_obs)])
    (ax,) = weight_markers(adata, "Casp3", groupby="many", show=False)
    handles = ax.get_legend().legend_handles
    assert len({to_hex(handle.get_color()) for handle in handles}) == len(handles) == 15
    labels = dict(text.get_text().split(": ") for text in ax.get_legend().get_texts())
    assert labels["group 0"] == "too few cells"
    assert labels["group 14"].startswith("ρ = ")
    assert "p = " not in labels["group 14"]


def test_genes_that_do_not_vary_or_are_missing_in_cells(adata):
    assert weight_markers(adata, "Flat", show=False)[0].get_title() == "does not vary"
    adata.X[3, 0] = np.nan
    (ax,) = weight_markers(adata, "Casp3", show=False)
    assert len(points(ax)) == 2 * N_CELLS - 1


@pytest.mark.parametrize("form", [np.asarray, csr_matrix, csr_array])
def test_where_expression_is(adata, form):
    expected = points(weight_markers(adata, "Mki67", show=False)[0])
    adata.layers["log"] = form(adata.X)
    adata.X = form(adata.X * 2)
    np.testing.assert_allclose(points(weight_markers(adata, "Mki67", layer="log", show=False)[0]), expected)
    adata.X = adata.layers["log"]
    adata.raw = adata.copy()
    adata = adata[:, ["Flat"]].copy()
    np.testing.assert_allclose(points(weight_markers(adata, ("Mki67",), show=False)[0]), expected)


def test_zero_weights_are_at_the_border(adata):
    adata.obs.loc["0", "uot_source_weight"] = 0.0
    (ax,) = weight_markers(adata, "Casp3", show=False)
    assert points(ax)[0, 1] == points(ax)[:, 1].min()


def test_axes_of_the_user_and_show(adata, monkeypatch):
    calls = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: calls.append(1))
    _, axes = plt.subplots(1, 2)
    found = weight_markers(adata, ["Casp3", "Mki67"], ax=axes)
    assert found.tolist() == axes.tolist()
    assert all(ax.get_ylabel() for ax in axes)
    assert calls == []
    weight_markers(adata, ["Casp3"], show=True)
    assert len(calls) == 1
    with pytest.raises(ValueError, match=r"`ax` to hold 1 axes, one for every panel, found 2"):
        weight_markers(adata, ["Casp3"], ax=axes)


def test_panels_do_not_overlap(adata):
    axes = weight_markers(adata, ["Casp3", "Mki67", "Flat", "score", "Mki67", "day"], groupby="type", show=False)
    assert len(axes) == 5  # a gene is drawn once
    figure = axes[0].figure
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in axes]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1 + 1


def test_nothing_is_modified(adata):
    expected, parameters = adata.copy(), dict(matplotlib.rcParams)
    weight_markers(adata, ["Casp3"], groupby="type", show=False)
    assert dict(matplotlib.rcParams) == parameters
    pd.testing.assert_frame_equal(adata.obs, expected.obs)
    np.testing.assert_array_equal(adata.X, expected.X)
    assert list(adata.uns) == ["uot"]


@pytest.mark.parametrize(
    ("genes", "options", "error", "message"),
    [
        ([], {}, ValueError, "`genes` to name at least one gene, found none"),
        ("Bax", {}, KeyError, r"`genes` to be among the 3 gene names or numeric columns.*found 'Bax'"),
        ("type", {}, ValueError, r"'type'\]` to hold numbers, found category"),
        ("empty", {}, ValueError, r"numbers for source cells, found none for \['empty'\]"),
        ("Casp3", {"key": "mine"}, KeyError, r"hold 'mine_source_weight'.*Run `uc\.tl\.fit_trajectory"),
        ("Casp3", {"layer": "log"}, KeyError, r"`layer` to be one of \[\], found 'log'"),
        ("Casp3", {"groupby": "cluster"}, KeyError, r"`groupby` to be a column.*found 'cluster'"),
        ("Casp3", {"groupby": "score"}, ValueError, r"at most 20 groups.*found 120\. Bin its values"),
        ("Casp3", {"n_bins": 0}, ValueError, "`n_bins` to be at least 1, found 0"),
        ("Casp3", {"bins": 3}, TypeError, "unexpected keyword argument 'bins'"),
    ],
)
def test_bad_options(adata, genes, options, error, message):
    adata.obs["empty"] = np.nan
    with pytest.raises(error, match=message):
        weight_markers(adata, genes, show=False, **options)
    assert plt.get_fignums() == []
