from fractions import Fraction

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from uotcell.pl import growth
from uotcell.pl._weights import fold_ticks

N_CELLS = 40


@pytest.fixture
def adata():
    """Two source time points and a last one; weights and growth are powers of two around a mean of the time point."""
    day = np.repeat([0.0, 1.0, 2.0], N_CELLS)
    factor = np.tile([0.25, 0.5, 0.25, 3.0], 3 * N_CELLS // 4)
    obs = pd.DataFrame({"day": day, "growth": 8.0 * factor[::-1]}, index=np.arange(len(day)).astype(str))
    # The mass that a pair transports scales its weights.
    obs["uot_source_weight"] = np.where(day < 2, factor * np.where(day == 0, 0.1, 0.7), np.nan).astype(np.float32)
    rng = np.random.default_rng(0)
    return AnnData(
        obs=obs,
        obsm={"X_umap": rng.normal(size=(len(day), 2)), "X_pca": rng.normal(size=(len(day), 5))},
        uns={"uot": {"params": {"use_rep": "X_pca", "time_key": "day"}}},
    )


def drawn(ax):
    """Cells without a value and, in colour, the others."""
    return ax.collections[0], ax.collections[1]


def color_bar(ax):
    return drawn(ax)[1].colorbar


def test_weights_alone(adata):
    (ax,) = growth(adata, show=False)
    assert ax.get_title() == "learned source weight"
    grey, cells = drawn(ax)
    assert len(grey.get_offsets()) == N_CELLS
    assert to_hex(grey.get_facecolor()[0]) == to_hex("0.82")
    assert len(cells.get_offsets()) == 2 * N_CELLS
    # Over the mean of its time point every factor is what it was, whatever mass the pair transports.
    expected = np.tile(np.log2([0.25, 0.5, 0.25, 3.0]), N_CELLS // 2)
    np.testing.assert_allclose(np.sort(cells.get_array()), np.sort(expected), atol=1e-6)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no source"]


def test_values_belong_to_their_cells(adata):
    (ax,) = growth(adata, show=False)
    cells = drawn(ax)[1]
    places = {tuple(place): value for place, value in zip(cells.get_offsets().tolist(), cells.get_array(), strict=True)}
    factor = np.tile([0.25, 0.5, 0.25, 3.0], N_CELLS // 2)
    for place, value in zip(adata.obsm["X_umap"][: 2 * N_CELLS].tolist(), factor, strict=True):
        assert places[tuple(place)] == pytest.approx(np.log2(value), abs=1e-6)


def test_prior_beside_the_weights(adata):
    axes = growth(adata, growth_key="growth", show=False)
    assert [ax.get_title() for ax in axes] == ["prior growth", "learned source weight"]
    assert axes[0].figure is axes[1].figure
    prior, weights = (drawn(ax)[1] for ax in axes)
    np.testing.assert_allclose(np.sort(prior.get_array()), np.sort(weights.get_array()), atol=1e-6)
    assert prior.get_clim() == weights.get_clim()
    # Growth is known at the last time point too, which is no source.
    assert [len(drawn(ax)[0].get_offsets()) for ax in axes] == [N_CELLS, N_CELLS]
    labels = [color_bar(ax).ax.get_ylabel() for ax in axes]
    assert labels == ["growth / mean of time point", "source weight / mean of time point"]


def test_scale_is_centred_at_the_mean(adata):
    (ax,) = growth(adata, show=False)
    low, high = drawn(ax)[1].get_clim()
    assert low == -high
    assert drawn(ax)[1].cmap.name == "RdBu_r"
    assert high == pytest.approx(2.0, abs=1e-6)  # 1/4 is the furthest from the mean
    assert [text.get_text() for text in color_bar(ax).ax.get_yticklabels()][1:-1] == ["1/2", "1", "2"]
    middle = drawn(ax)[1].to_rgba(0.0)
    assert min(middle[:3]) > 0.95


def test_limit(adata):
    (ax,) = growth(adata, limit=2.0, color_map="PuOr", show=False)
    cells = drawn(ax)[1]
    assert cells.get_clim() == (-1.0, 1.0)
    assert (cells.get_array().min(), cells.get_array().max()) == (-1.0, 1.0)
    assert color_bar(ax).extend == "both"
    assert cells.cmap.name == "PuOr"
    (wide,) = growth(adata, limit=16.0, show=False)
    assert color_bar(wide).extend == "neither"


def test_zero_weights_are_at_the_lower_end(adata):
    adata.obs.loc[adata.obs_names[0], "uot_source_weight"] = 0.0
    (ax,) = growth(adata, show=False)
    cells = drawn(ax)[1]
    assert np.isfinite(cells.get_array()).all()
    assert cells.get_array().min() == cells.get_clim()[0]
    assert color_bar(ax).extend == "min"


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (-1.0, 1.0, ["1/2", "1", "2"]),
        (-1.4, 0.6, ["1/2", "1"]),
        (-3.0, 3.9, ["1/8", "1/4", "1/2", "1", "2", "4", "8"]),
        (-8.5, 1.2, ["1/256", "1/64", "1/16", "1/4", "1"]),
        (-6.3, 6.3, ["1/64", "1/16", "1/4", "1", "4", "16", "64"]),
    ],
)
def test_ticks(low, high, labels):
    ticks, found = fold_ticks(low, high)
    assert found == labels
    np.testing.assert_allclose(2.0**ticks, [float(Fraction(label)) for label in labels])


def test_axes_of_the_user(adata):
    figure, axes = plt.subplots(1, 2)
    found = growth(adata, growth_key="growth", ax=axes, show=False)
    assert found.tolist() == axes.tolist()
    assert len(plt.get_fignums()) == 1
    assert growth(adata, ax=figure.add_subplot(), show=False).shape == (1,)
    with pytest.raises(ValueError, match=r"`ax` to hold 2 axes, one for every panel, found 1"):
        growth(adata, growth_key="growth", ax=axes[0], show=False)


def test_show(adata, monkeypatch):
    calls = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: calls.append(1))
    growth(adata)
    growth(adata, show=False)
    assert calls == []  # Agg has no windows
    growth(adata, growth_key="growth", show=True)
    assert len(calls) == 1


def test_nothing_is_modified(adata):
    expected, parameters = adata.copy(), dict(matplotlib.rcParams)
    view = adata[:100]
    growth(view, growth_key="growth", show=False)
    assert view.is_view
    growth(adata, growth_key="growth", show=False)
    assert dict(matplotlib.rcParams) == parameters
    pd.testing.assert_frame_equal(adata.obs, expected.obs)
    assert list(adata.uns) == ["uot"]


def test_fit_of_another_kind(adata):
    del adata.uns["uot"]
    adata.obs = adata.obs.rename(columns={"uot_source_weight": "mine_source_weight"})
    (ax,) = growth(adata, key="mine", basis="X_umap", show=False)
    assert color_bar(ax).ax.get_ylabel() == "source weight / mean"
    weights = adata.obs["mine_source_weight"].dropna()
    expected = np.log2(weights / weights.mean())
    bound = drawn(ax)[1].get_clim()[1]
    np.testing.assert_allclose(np.sort(drawn(ax)[1].get_array()), np.sort(expected.clip(-bound, bound)), atol=1e-5)


def test_labels_are_inside_the_figure_and_apart(adata):
    axes = growth(adata, growth_key="growth", show=False)
    figure = axes[0].figure
    figure.canvas.draw()
    boxes = [part.get_tightbbox() for part in figure.axes]
    for box in boxes:
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "mine"}, KeyError, r"hold 'mine_source_weight', found \['day'.*key_added='mine'"),
        ({"basis": "tsne"}, KeyError, r"`basis` to name one of \['X_pca', 'X_umap'\]"),
        ({"growth_key": "births"}, KeyError, r"`growth_key` to be a column.*found 'births'.*`uc\.pp\.score_growth"),
        ({"growth_key": "rate"}, ValueError, r"numbers of descendants, none negative.*Exponentiate"),
        ({"growth_key": "name"}, ValueError, r"found category values such as 'a'"),
        ({"limit": 1.0}, ValueError, r"`limit` to be a factor above 1, found 1\.0"),
        ({"colormap": "RdBu"}, TypeError, "unexpected keyword argument 'colormap'"),
    ],
)
def test_bad_options(adata, options, error, message):
    adata.obs["rate"] = np.log(adata.obs["growth"] / 8.0)
    adata.obs["name"] = pd.Categorical(["a"] * adata.n_obs)
    with pytest.raises(error, match=message):
        growth(adata, show=False, **options)
    assert plt.get_fignums() == []


def test_bad_slots(adata):
    day = adata.obs.pop("day")
    with pytest.raises(KeyError, match=r"hold 'day', the times of the fit 'uot'"):
        growth(adata, show=False)
    adata.obs["day"] = day
    adata.obs["uot_source_weight"] = np.nan
    with pytest.raises(ValueError, match=r"'uot_source_weight'\]` to hold positive weights, found none"):
        growth(adata, show=False)
