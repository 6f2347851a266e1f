import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

matplotlib.use("Agg")

import scanpy as sc
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from uotcell.pl._cells import category_colors

NAMES = ["a", "b", "c"]


@pytest.mark.parametrize("n_names", [3, 15, 25, 40])
def test_colors_are_those_of_scanpy(n_names):
    names = [f"type {i:02d}" for i in range(n_names)]
    obs = pd.DataFrame({"kind": pd.Categorical(names)}, index=names)
    adata = AnnData(obs=obs, obsm={"X_pca": np.zeros((n_names, 2))})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The set_bad function", PendingDeprecationWarning)  # scanpy up to 1.12
        sc.pl.embedding(adata, "X_pca", color="kind", show=False)
    plt.close("all")
    expected = dict(zip(names, map(to_hex, adata.uns["kind_colors"]), strict=True))
    found = category_colors(names, stored=None, palette=None)
    assert {name: to_hex(color) for name, color in found.items()} == expected
    assert plt.get_fignums() == []


def test_stored_colors_and_palettes():
    stored = ["#111111", "#222222", "#333333"]
    assert category_colors(NAMES, stored=stored, palette=None) == dict(zip(NAMES, stored, strict=True))
    palette = {"a": "red", "b": "lime", "c": "blue"}
    for given in (palette, list(palette.values())):
        found = category_colors(NAMES, stored=np.array(stored), palette=given)
        assert {name: to_hex(color) for name, color in found.items()} == {
            "a": "#ff0000", "b": "#00ff00", "c": "#0000ff",
        }  # fmt: skip
