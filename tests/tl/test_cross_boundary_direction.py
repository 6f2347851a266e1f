"""Cross-boundary direction of a fit: perfect, reversed, permuted, and what is written."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from written_by_hand import write_fit

import uotcell as uc

# Two lines far apart: along one A becomes B to the right, along the other C becomes D to the left.
N = 40
EDGES = [("A", "B"), ("C", "D")]


def two_lines():
    position = np.tile(np.linspace(0, 10, N), 2)
    line = np.repeat([0.0, 1000.0], N)
    kind = np.concatenate([np.where(position[:N] < 5, "A", "B"), np.where(position[:N] > 5, "C", "D")])
    cells = np.column_stack([position, line])
    cells = np.concatenate([cells, cells + 0.01])
    obs = pd.DataFrame(
        {"day": np.repeat([0.0, 2.0], 2 * N), "kind": np.tile(kind, 2)}, index=[f"c{i}" for i in range(4 * N)]
    )
    adata = ad.AnnData(obs=obs, obsm={"X_pca": cells, "X_wide": np.ones((4 * N, 3)), "X_flip": -cells})
    images = cells[: 2 * N] + np.where(line < 500, 1.0, -1.0)[:, None] * [1.0, 0.0]
    write_fit(adata, "day", (0.0, 2.0), images)
    return adata


@pytest.fixture(scope="module")
def adata():
    return two_lines()


def test_perfect_reversed_and_shuffled(adata):
    table = uc.tl.cross_boundary_direction(adata, "kind", EDGES, n_neighbors=9).set_index(["edge", "map"])
    scores = table["score"].unstack("map")
    assert list(scores.index) == ["A -> B", "C -> D", "overall"]
    # Neighbours of the later day stand a little aside.
    np.testing.assert_allclose(scores["fit"], 1.0, atol=1e-3)
    np.testing.assert_array_equal(scores["reversed"], -scores["fit"])
    # Half the velocities point either way.
    np.testing.assert_allclose(scores["shuffled"], 0.0, atol=0.06)
    shuffled = table.xs("shuffled", level="map")
    assert (shuffled["low"] < 0).all()
    assert (shuffled["high"] > 0).all()
    assert (shuffled["high"] < 1).all()
    assert (table["low"] <= table["score"] + 1e-12).all()
    assert (table["score"] <= table["high"] + 1e-12).all()
    assert table.loc[("overall", "fit"), "n_cells"] == table.xs("fit", level="map")["n_cells"].iloc[:2].sum() > 0


def test_the_metric_on_the_slots(adata):
    table = uc.tl.cross_boundary_direction(adata, "kind", EDGES, controls=[])
    arguments = (adata.obsm["X_pca"], adata.obsm["uot_velocity"], adata.obs["kind"], EDGES)
    scores, overall = uc.metrics.cross_boundary_direction(*arguments)
    np.testing.assert_array_equal(table["score"], [*scores, overall])
    assert table["map"].tolist() == ["fit"] * 3


def test_another_representation(adata):
    table = uc.tl.cross_boundary_direction(adata, "kind", EDGES, use_rep="X_flip", controls=[], key_added="flip")
    np.testing.assert_allclose(table["score"], -1.0, atol=1e-2)
    assert adata.uns["flip"]["use_rep"] == "X_flip"


def test_edge_without_a_boundary(adata):
    table = uc.tl.cross_boundary_direction(adata, "kind", [("A", "D"), ("A", "B")], n_neighbors=9, n_bootstrap=20)
    table = table.set_index(["edge", "map"])
    assert table.loc["A -> D", ["score", "low", "high"]].isna().all().all()
    assert (table.loc["A -> D", "n_cells"] == 0).all()
    pd.testing.assert_frame_equal(table.loc["overall"], table.loc["A -> B"])
    none = uc.tl.cross_boundary_direction(adata, "kind", [("A", "D")], n_neighbors=9, n_bootstrap=20)
    assert none[["score", "low", "high"]].isna().all().all()


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_slot_through_a_file(kind, tmp_path):
    adata = two_lines()
    table = uc.tl.cross_boundary_direction(adata, "kind", EDGES, rng=5, n_bootstrap=20)
    getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
    read = getattr(ad, f"read_{kind}")(tmp_path / f"cells.{kind}")
    slot = read.uns["uot_cross_boundary_direction"]
    for name in table:
        np.testing.assert_array_equal(np.asarray(slot["scores"][name], dtype=object), table[name].astype(object))
    assert set(slot) == {
        "scores", "groupby", "key", "use_rep", "n_neighbors", "n_bootstrap", "confidence", "rng",
    }  # fmt: skip
    assert (slot["use_rep"], slot["rng"], slot["n_bootstrap"]) == ("X_pca", 5, 20)
    again = uc.tl.cross_boundary_direction(read, "kind", EDGES, rng=5, n_bootstrap=20)
    pd.testing.assert_frame_equal(again, table)


BAD = {
    "groupby": ({"groupby": "type"}, KeyError, "`groupby` to be a column"),
    "fit": ({"key": "ot"}, KeyError, "`key_added` of a time course"),
    "edge": ({"edges": [("A", "E")]}, ValueError, r"types \['A', 'B', 'C', 'D'\], found \('A', 'E'\)"),
    "rep": ({"use_rep": "X_umap"}, KeyError, "`use_rep` to be 'X' or one of"),
    "wide": ({"use_rep": "X_wide"}, ValueError, r"the 2 dimensions of the velocities, found 3 in 'X_wide'"),
    "controls": ({"controls": ["entropic"]}, ValueError, r"some of \['shuffled', 'reversed'\]"),
    "slot": ({"key_added": ""}, ValueError, "non-empty string"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_changes_nothing(arguments, error, message):
    adata = two_lines()
    with pytest.raises(error, match=message):
        uc.tl.cross_boundary_direction(adata, **{"groupby": "kind", "edges": EDGES} | arguments)
    assert set(adata.uns) == {"uot"}
