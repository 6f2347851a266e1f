"""One small AnnData in every shape that users bring.

A shape is a content, which decides the answer, and how it is kept, which must not. All are compared with the same
content dense, in float32 and in memory.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
from scipy import sparse

import uotcell as uc

N_CELLS, N_GENES = 16, 4  # cells at each of three times
KEY, TYPE, DRUG = "uot", "Zellart (α)", "drug"
QUICK = {
    "method": uc.methods.ICNN(hidden=(8,), n_inner=1), "n_iters": 20, "batch_size": 16, "rng": 0, "progress": False
}  # fmt: skip


@dataclass(frozen=True)
class Where:
    """The matrix a fit is asked to take."""

    use_rep: str = "X_pca"
    layer: str | None = None

    @property
    def options(self):
        return {"use_rep": self.use_rep, "layer": self.layer}


OBSM, X, LAYER = Where(), Where("X"), Where("X", "log")


def content(values=lambda x: x):
    """Cells at times in random order, with names that need care. Values are quarters, which all floats hold exactly."""
    rng = np.random.default_rng(0)
    day = rng.permutation(np.repeat([0, 1, 3], N_CELLS))
    x = values((rng.integers(0, 12, (len(day), N_GENES)) + 2 * day[:, None]) / 4).astype(np.float32)
    types = np.asarray(["früh", "spät/2", "mid 3"])[rng.integers(0, 3, len(day))]
    drugs = rng.permutation(np.repeat(["control", "drug a", "5 µM/b"], N_CELLS))
    columns = {"day": day, TYPE: pd.Categorical(types), DRUG: pd.Categorical(drugs)}
    return ad.AnnData(
        x,
        obs=pd.DataFrame(columns, index=[f"zelle {i}/é" for i in range(len(day))]),
        var=pd.DataFrame({"mean": 0.0}, index=[f"gène {i}/α" for i in range(N_GENES)]),
        obsm={
            "X_pca": x.copy(),
            "X_umap": rng.normal(size=(len(day), 2)),
            "X_clone": rng.integers(0, 2, (len(day), 5)),
        },
        varm={"PCs": np.eye(N_GENES)},
        layers={"log": x.copy()},
        uns={"by": "hand"},
    )


def with_times(change):
    def make():
        adata = content()
        adata.obs["day"] = change(adata.obs["day"])
        return adata

    return make


def changed(change):
    def make():
        adata = content()
        change(adata)
        return adata

    return make


def add_unused(adata):
    for column in (TYPE, DRUG):
        adata.obs[column] = adata.obs[column].cat.add_categories(["nobody", "a/b"])


def add_missing(adata):
    adata.obs["doublet score"] = np.where(np.arange(adata.n_obs) % 2, np.nan, 1.0)
    adata.obs["note"] = pd.Series([None, "x"] * (adata.n_obs // 2), index=adata.obs_names, dtype=object)


def lose_a_label(column):
    def lose(adata):
        adata.obs[column] = adata.obs[column].astype(object).where(np.arange(adata.n_obs) != 5)

    return lose


def number_cells(adata):
    adata.obs_names = np.arange(adata.n_obs)


def repeat_genes():
    adata = content()
    names = [*adata.var_names, *(f"gène {i}" for i in range(1000 - N_GENES))]
    return ad.AnnData(
        np.tile(adata.X, 250), obs=adata.obs, var=pd.DataFrame(index=names), obsm=dict(adata.obsm), uns=dict(adata.uns)
    )


def repeat_gene_names(adata):
    adata.var_names = [adata.var_names[0], adata.var_names[0], *adata.var_names[2:]]


def keep_raw(adata):
    adata.raw = adata


DATES = {0: "2024-02-28", 1: "2024-02-29", 3: "2024-03-02"}
TIMES = {
    "float": lambda day: day.astype(float),
    "float32": lambda day: day.astype(np.float32),
    "Int64": lambda day: day.astype("Int64"),
    "Float64": lambda day: day.astype("Float64"),
    "string": lambda day: day.map("day {}".format),
    "pandas string": lambda day: day.map("E{}.0".format).astype("string"),
    "categories of numbers": lambda day: day.astype("category"),
    "categories of strings": lambda day: day.map("{}h".format).astype("category"),
    "ordered, one unused": lambda day: pd.Categorical(day, [-1, 0, 1, 2, 3], ordered=True),
    "date": lambda day: pd.to_datetime(day.map(DATES)),
    "date with time zone": lambda day: pd.to_datetime(day.map(DATES)).dt.tz_localize("UTC"),
    "categories of dates": lambda day: pd.to_datetime(day.map(DATES)).astype("category"),
    "duration": lambda day: pd.to_timedelta(day, unit="D"),
}
CONTENTS = {
    "plain": content,
    "whole numbers": lambda: content(values=np.floor),
    "binary": lambda: content(values=lambda x: x > 2),
    "one gene": lambda: content()[:, :1].copy(),
    "1000 genes": repeat_genes,
    "unused categories": changed(add_unused),
    "NaN in other columns": changed(add_missing),
    "numbered cells": changed(number_cells),
    "repeated gene names": changed(repeat_gene_names),
    "raw": changed(keep_raw),
    "no X": changed(lambda adata: setattr(adata, "X", None)),
    "missing type": changed(lose_a_label(TYPE)),
    "missing time": changed(lose_a_label("day")),
    "boolean time": with_times(lambda day: day > 0),
    "time without numbers": with_times(lambda day: day.map({0: "early", 1: "mid", 3: "late"})),
} | {f"time: {name}": with_times(change) for name, change in TIMES.items()}


@lru_cache(None)
def times(name, where):
    """Fit a content in memory, in the dense matrix."""
    return uc.tl.fit_trajectory(CONTENTS[name](), "day", **where.options, **QUICK)


def lend(problem, known):
    """Give a problem that has read its cells the maps of one with the same cells, in order of time."""
    number = problem._times
    problem.fitted = {
        (start, end): replace(pair, source=start, target=end, time_difference=number[end] - number[start])
        for (start, end), pair in zip(problem.pairs, known.fitted.values(), strict=True)
    }
    problem.params = known.params | problem.params
    return problem


@lru_cache(None)
def fitted(name):
    """Return a content with the slots of a fit, where it can be fitted; to be copied, not changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = CONTENTS[name]()  # of some contents anndata warns
        same_as = name if name in ("whole numbers", "binary") else "plain"
        try:
            lend(uc.problems.TemporalProblem(adata).prepare("day"), times(same_as, OBSM)).write(KEY)
            uc.tl.transitions(adata, TYPE)
        except (ValueError, KeyError):
            return adata
    return adata


def in_slot(adata, where, matrix):
    """Put a matrix where a fit is asked to look, and let the fit that was written say so."""
    if where == OBSM:
        adata.obsm["X_pca"] = matrix
    elif where == LAYER:
        adata.layers["log"] = matrix
    else:
        adata.X = matrix
    return looking_at(adata, where)


def looking_at(adata, where):
    if KEY in adata.uns:
        params = {name: value for name, value in where.options.items() if value is not None}
        kept = {name: value for name, value in adata.uns[KEY].items() if name != "params"}
        others = {name: value for name, value in adata.uns[KEY]["params"].items() if name not in ("use_rep", "layer")}
        adata.uns[KEY] = kept | {"params": others | params}
    return adata


def values_in(adata, where):
    return np.asarray(adata.obsm["X_pca"] if where == OBSM else adata.X)


@dataclass(frozen=True)
class Shape:
    """A content, where it is fitted, how it is kept, and the dense content with the same answer."""

    content: str
    where: Where
    make: Callable
    same_as: str

    def build(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata tells of some shapes
            return self.make(looking_at(fitted(self.content).copy(), self.where), folder)


def kept_as(where, change, content="plain"):
    return Shape(content, where, lambda adata, _: in_slot(adata, where, change(values_in(adata, where))), content)


@lru_cache(None)
def written(change, kind="h5ad"):
    """Bytes of a file of the content in this matrix, or what is read from a zarr store."""
    adata = looking_at(fitted("plain").copy(), X)
    adata = change(adata)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"cells.{kind}"
        getattr(adata, f"write_{kind}")(path)
        return path.read_bytes() if kind == "h5ad" else ad.read_zarr(path)


def backed(mode, change, rows=None):
    def make(_, folder):
        path = folder / "cells.h5ad"
        for name in (path, folder / "as written.h5ad"):
            name.write_bytes(written(change))
        adata = ad.read_h5ad(path, backed=mode)
        return adata if rows is None else adata[rows(adata)]

    return Shape("plain", X, make, "plain")


def matrix_as(change):
    def convert(adata):
        adata.X = change(adata.X)
        return adata

    return convert


def among_others(adata):
    """Twice the cells, of which half are other ones."""
    other = adata.copy()
    other.obs_names = [f"other {name}" for name in other.obs_names]
    other.X = other.X + 1
    order = np.argsort(np.tile(np.arange(adata.n_obs), 2), kind="stable")
    both = ad.concat([adata, other], merge="same", uns_merge="same")[order].copy()
    both.obs[[TYPE, DRUG]] = both.obs[[TYPE, DRUG]].astype("category")
    return both


def mine(adata):
    return ~adata.obs_names.str.startswith("other")


def view(adata, _):
    both = among_others(adata)
    return both[mine(both)]


def dask(array, chunks=(7, 3)):
    return da.from_array(array, chunks=chunks)


MATRICES = {
    "csr": (sparse.csr_matrix, "plain"),
    "csc": (sparse.csc_matrix, "plain"),
    "csr array": (sparse.csr_array, "plain"),
    "csc array": (sparse.csc_array, "plain"),
    "float64": (lambda x: x.astype(np.float64), "plain"),
    "column by column": (np.asfortranarray, "plain"),
    "dask": (dask, "plain"),
    "dask of csr": (lambda x: dask(x, (7, -1)).map_blocks(sparse.csr_matrix, dtype=x.dtype), "plain"),
    "int32": (lambda x: x.astype(np.int32), "whole numbers"),
    "int64": (lambda x: x.astype(np.int64), "whole numbers"),
    "uint8": (lambda x: x.astype(np.uint8), "whole numbers"),
    "sparse int": (lambda x: sparse.csr_matrix(x.astype(np.int32)), "whole numbers"),
    "bool": (lambda x: x.astype(bool), "binary"),
}
SHAPES = {
    f"{name}, {slot}": kept_as(where, change, content)
    for name, (change, content) in MATRICES.items()
    for slot, where in {"obsm": OBSM, "X": X, "layer": LAYER}.items()
    if slot != "layer" or name in ("csr", "dask", "int32")  # read as `.X` is
}
SHAPES["frame, obsm"] = Shape(
    "plain", OBSM, lambda adata, _: in_slot(
        adata, OBSM, pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names).add_prefix("PC ")), "plain"
)  # fmt: skip
DENSE = matrix_as(np.asarray)
KEPT_IN_SLOTS = frozenset(SHAPES)
SHAPES |= {
    "view": Shape("plain", X, view, "plain"),
    "backed r": backed("r", DENSE),
    "backed r+": backed("r+", DENSE),
    "backed csr": backed("r", matrix_as(sparse.csr_matrix)),
    "backed csc": backed("r", matrix_as(sparse.csc_matrix)),
    "view of backed": backed("r", among_others, mine),
    "zarr": Shape("plain", X, lambda *_: written(DENSE, "zarr").copy(), "plain"),
}
SHAPES |= {
    name: Shape(name, LAYER if name == "no X" else X if name == "raw" else OBSM, lambda adata, _: adata, "plain")
    for name in CONTENTS
    if name not in ("plain", "whole numbers", "binary")
}
SHAPES["no cells"] = Shape("plain", OBSM, lambda adata, _: adata[:0].copy(), "plain")
