"""Clonal fates: by hand, and on blood cells with maps that follow the clones or do not."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from written_by_hand import write_fit

import uotcell as uc


def day_4_to_6():
    """Blood cells of both days whose images are cells of their own clone where it has one, else where they stand."""
    adata = uc.datasets.hematopoiesis()
    adata = ad.AnnData(obs=adata.obs[["day", "cell_type"]].copy(), obsm=dict(adata.obsm))
    day, clones = adata.obs["day"].to_numpy(), adata.obsm["X_clone"]
    cells, source, target = adata.obsm["X_pca"], np.flatnonzero(day == 4), np.flatnonzero(day == 6)
    shared = (clones[source] @ clones[target].T).toarray() > 0
    own = np.where(shared.any(axis=1)[:, None], cells[target][shared.argmax(axis=1)], cells[source])
    write_fit(adata, "day", (4.0, 6.0), own)
    return adata, source, target, shared.any(axis=1)


@pytest.fixture(scope="module")
def blood():
    return day_4_to_6()


@pytest.fixture(scope="module")
def scores(blood):
    adata, source, _, _ = blood
    write_fit(adata, "day", (4.0, 6.0), adata.obsm["X_pca"][source][::-1], key="ot")
    table = uc.tl.clonal_fate(
        adata, "cell_type", twin="ot", controls=["identity", "shuffled"], n_neighbors=1, n_bootstrap=300
    )
    return table.set_index("map")


def test_a_map_that_follows_the_clones(blood, scores):
    assert list(scores.index) == ["fit", "twin", "identity", "shuffled"]
    assert scores.loc["fit", ["score", "low", "high"]].tolist() == [1.0, 1.0, 1.0]
    assert (scores["n_cells"] == blood[3].sum()).all()
    assert (scores[["n_cells", "n_clones"]] == [180, 113]).all().all()
    assert scores.loc["shuffled", "high"] < scores.loc["identity", "low"] < 1.0


def test_the_metric_of_every_map(blood, scores):
    adata, source, target, _ = blood
    cells, clones, types = adata.obsm["X_pca"], adata.obsm["X_clone"], adata.obs["cell_type"]
    maps = {
        "fit": adata.obsm["uot_push"][source],
        "twin": adata.obsm["ot_push"][source],
        "identity": cells[source],
    }
    for name, images in maps.items():
        expected = uc.metrics.clonal_fate_accuracy(
            images, clones[source], cells[target], clones[target], types.iloc[target], n_neighbors=1
        )
        assert scores.loc[name, "score"] == pytest.approx(expected)


def test_shuffled_is_chance(blood, scores):
    """Cells of the same types with clones of the same sizes: as a loop of permutations finds it."""
    adata, source, target, _ = blood
    clones, types, rng = adata.obsm["X_clone"], adata.obs["cell_type"].iloc[target], np.random.default_rng(5)
    arguments = (adata.obsm["uot_push"][source], clones[source], adata.obsm["X_pca"][target])
    draws = [
        uc.metrics.clonal_fate_accuracy(*arguments, clones[target][rng.permutation(len(target))], types, n_neighbors=1)
        for _ in range(30)
    ]
    assert scores.loc["shuffled", "score"] == pytest.approx(np.mean(draws), abs=0.03)
    assert scores.loc["shuffled", "low"] < np.mean(draws) < scores.loc["shuffled", "high"]


def test_pairs_without_common_clones(blood):
    adata = blood[0].copy()
    clones = adata.obsm["X_clone"].tolil()
    clones[blood[1]] = 0
    adata.obsm["X_clone"] = clones.tocsr()
    before = set(adata.uns)
    with pytest.raises(ValueError, match="at least one clone with cells at both times, found none"):
        uc.tl.clonal_fate(adata, "cell_type", controls=[])
    assert set(adata.uns) == before


# Three clones: the first has three source cells, two of which land right; the second one, which does; the third is not
# seen again.
LINE = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
KINDS = ["s", "s", "s", "s", "s", "left", "left", "left", "right", "right"]
CLONES = np.array(
    [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
)


def by_hand(clones=CLONES):
    cells = np.column_stack([np.tile(LINE, 2), np.repeat([0.0, 5.0], 5)])
    obs = pd.DataFrame({"day": np.repeat([0, 1], 5), "kind": KINDS}, index=[f"c{i}" for i in range(10)])
    adata = ad.AnnData(obs=obs, obsm={"X_pca": cells, "X_clone": clones})
    images = np.column_stack([[0.0, 1.0, 11.0, 10.0, 10.0], np.full(5, 5.0)])
    write_fit(adata, "day", (0, 1), images)
    return adata


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_array])
def test_by_hand(kind):
    adata = by_hand(kind(CLONES))
    table = uc.tl.clonal_fate(adata, "kind", controls=["identity"], n_neighbors=1, n_bootstrap=2_000).set_index("map")
    # Cells of the clone seen once do not count. Where they stand, all land left but the fourth.
    assert table["score"].tolist() == [3 / 4, 1.0]
    assert (table[["n_cells", "n_clones"]] == [4, 2]).all().all()
    # Samples of two clones: twice the first, one of each, twice the second.
    assert table.loc["fit", ["low", "high"]].tolist() == [2 / 3, 1.0]


def test_clones_of_a_table_and_of_several_clones_at_once():
    names = [f"c{i}" for i in range(10)]
    both = CLONES.copy()
    both[0, 1] = both[4, 0] = 1
    adata = by_hand()
    adata.obsm["X_clone"] = pd.DataFrame(both, index=names, columns=["a", "b", "c"])
    table = uc.tl.clonal_fate(adata, "kind", controls=[], n_neighbors=1)
    # Five cells count; the fifth lands right although its first clone is left.
    assert table.loc[0, "score"] == 3 / 5
    assert table.loc[0, ["n_cells", "n_clones"]].tolist() == [5, 2]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_slot_through_a_file(kind, tmp_path):
    adata = by_hand()
    arguments = {"controls": ["identity", "shuffled"], "n_bootstrap": 20, "rng": 2}
    table = uc.tl.clonal_fate(adata, "kind", **arguments)
    getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
    read = getattr(ad, f"read_{kind}")(tmp_path / f"cells.{kind}")
    slot = read.uns["uot_clonal_fate"]
    for name in table:
        np.testing.assert_array_equal(np.asarray(slot["scores"][name], dtype=object), table[name].astype(object))
    assert set(slot) == {
        "scores", "groupby", "clone_key", "key", "n_neighbors", "n_bootstrap", "confidence", "rng", "pairs",
    }  # fmt: skip
    pd.testing.assert_frame_equal(uc.tl.clonal_fate(read, "kind", **arguments), table)


BAD = {
    "groupby": ({"groupby": "type"}, KeyError, "`groupby` to be a column"),
    "fit": ({"key": "ot"}, KeyError, "`key_added` of a time course"),
    "clones": ({"clone_key": "clones"}, KeyError, r"`clone_key` to be one of .*'X_clone', .*found 'clones'"),
    "controls": ({"controls": ["reversed"]}, ValueError, r"some of \['identity', 'entropic', 'shuffled'\]"),
    "pair": ({"pair": (1, 2)}, KeyError, r"`pair` to be one of \[\('0', '1'\)\], found \(1, 2\)"),
    "twin": ({"twin": "ot"}, KeyError, "`key_added` of a time course .*found 'ot'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_changes_nothing(arguments, error, message):
    adata = by_hand()
    with pytest.raises(error, match=message):
        uc.tl.clonal_fate(adata, **{"groupby": "kind"} | arguments)
    assert set(adata.uns) == {"uot"}
