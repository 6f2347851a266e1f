"""Small files with the structure of the published ones, as the code that reads those shows it."""

from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

N_GENES = 60


def counts(n_cells: int, seed: int = 0) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix(rng.poisson(rng.gamma(1, 2, N_GENES), (n_cells, N_GENES)).astype(np.float32))


def genes() -> pd.DataFrame:
    return pd.DataFrame(index=[f"Gene{k}" for k in range(N_GENES)])


def pancreas(folder: Path, *, with_pca: bool = True) -> Path:
    """GSE132188: days as text, seven clusterings, graphs between cells, a suffix in place of the extension."""
    days = np.repeat(["12.5", "13.5", "14.5", "15.5"], [9, 8, 14, 16])
    n = len(days)
    broad = np.array(["Ductal", "Ngn3 high EP", "Beta"], dtype=object)[np.arange(n) % 3]
    broad[-1] = np.nan
    obs = pd.DataFrame(
        {
            "day": pd.Categorical(days),
            "n_genes": np.arange(n),
            "clusters_fig2_final": pd.Categorical(["x"] * n),
            "clusters_fig6_broad_final": pd.Categorical(broad),
            "clusters_fig6_fine_final": pd.Categorical(np.where(broad == "Ngn3 high EP", "Ngn3 High late", "other")),
        },
        index=[f"c{k}-3" for k in range(n)],
    )
    adata = ad.AnnData(counts(n).log1p(), obs=obs, var=genes())
    rng = np.random.default_rng(1)
    adata.obsm["X_umap"] = rng.normal(size=(n, 2))
    if with_pca:
        adata.obsm["X_pca"] = rng.normal(size=(n, 50))
    adata.obsp["connectivities"] = sparse.eye(n, format="csr")
    return write(adata, folder / "GSE132188_adata.h5ad.h5")


def old_pancreas(folder: Path) -> Path:
    """The same as anndata wrote it in 2019: tables as arrays of records, categories beside them."""
    n = 12
    values = counts(n)
    categories = {
        "day": ["12.5", "13.5", "14.5", "15.5"],
        "clusters_fig6_broad_final": ["Beta", "Ductal"],
        "clusters_fig6_fine_final": ["other"],
    }
    obs = np.zeros(n, [("index", "S5"), *((name, "i1") for name in categories)])
    obs["index"] = [f"c{k}" for k in range(n)]
    obs["day"], obs["clusters_fig6_broad_final"] = np.arange(n) % 4, np.arange(n) % 2
    var = np.zeros(N_GENES, [("index", "S9"), ("n_cells", "i8")])
    var["index"] = [f"Gene{k}" for k in range(N_GENES)]
    path = folder / "GSE132188_adata.h5ad.h5"
    with h5py.File(path, "w") as file:
        matrix = file.create_group("X")
        matrix.attrs["h5sparse_format"], matrix.attrs["h5sparse_shape"] = "csr", np.array(values.shape)
        for name in ("data", "indices", "indptr"):
            matrix[name] = getattr(values, name)
        file["obs"], file["var"] = obs, var
        file["obsm"] = np.ones(n, [("X_pca", "f4", (5,)), ("X_umap", "f4", (2,))])
        for name, labels in categories.items():
            file.create_dataset(f"uns/{name}_categories", data=labels, dtype=h5py.string_dtype())
    return path


def sciplex2(folder: Path) -> Path:
    """SrivatsanTrapnell2020_sciplex2: counts, doses as text, cells of unknown wells called "control" without a dose."""
    drugs, doses = ["BMS", "Dex", "Nutlin", "SAHA"], ["0", "0.1", "0.5", "100"]
    wells = pd.DataFrame([(drug, dose) for drug in drugs for dose in doses for _ in range(4)], columns=["p", "d"])
    unknown = pd.DataFrame({"p": ["control"] * 3, "d": [None] * 3})
    cells = pd.concat([wells, unknown], ignore_index=True)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical(cells["p"]),
            "dose_value": pd.Categorical(cells["d"]),
            "cell_line": pd.Categorical(["A549"] * len(cells)),
            "ncounts": 1.0,
        }
    ).set_index(pd.Index([f"c{k}" for k in range(len(cells))]))
    var = genes().assign(ensembl_id="ENSG")
    return write(ad.AnnData(counts(len(cells)), obs=obs, var=var), folder / "SrivatsanTrapnell2020_sciplex2.h5ad")


def reprogramming_serum(folder: Path, *, dense: bool = False, flagged: bool = True) -> Path:
    """reprogramming_schiebinger, serum: a flag on genes, the authors' layout and a transition matrix of all cells."""
    days = np.repeat(["10.0", "10.5", "11.0", "18.0"], 12)
    n = len(days)
    obs = pd.DataFrame(
        {
            "day": pd.Categorical(days),
            "serum": pd.Categorical(["True"] * n),
            "cell_sets": pd.Categorical(np.array(["MEF/other", "MET", "IPS"])[np.arange(n) % 3]),
        },
        index=[f"D{day}_serum_{k}" for k, day in enumerate(days)],
    )
    var = genes()
    if flagged:
        var["highly_variable"] = np.arange(N_GENES) < 40
    values = counts(n).log1p()
    adata = ad.AnnData(values.toarray() if dense else values, obs=obs, var=var)
    adata.obsm["X_force_directed"] = np.random.default_rng(2).normal(size=(n, 2))
    adata.obsp["transition_matrix"] = sparse.eye(n, format="csr")
    return write(adata, folder / "reprogramming_schiebinger_serum.h5ad")


def embryoid_body(folder: Path, **arrays: np.ndarray) -> Path:
    """eb_velocity_v5: components, PHATE, velocities and sample numbers, next to an array that needs unpickling."""
    rng = np.random.default_rng(3)
    n = 50
    path = folder / "eb_velocity_v5.npz"
    content = {
        "sample_labels": np.arange(n) % 5,
        "pcs": rng.normal(size=(n, 100)),
        "phate": rng.normal(size=(n, 2)),
        "pcs_delta": rng.normal(size=(n, 100)),
        "delta_embedding": rng.normal(size=(n, 2)),
        "names": np.array([{"pickled": True}] * n, dtype=object),
    }
    np.savez(path, **{name: value for name, value in (content | arrays).items() if value is not None})
    return path


def cellot_4i(folder: Path) -> Path:
    drug = np.array(["control", "trametinib", "cisplatin"])[np.arange(30) % 3]
    obs = pd.DataFrame({"drug": pd.Categorical(drug)}, index=[f"c{k}" for k in range(30)])
    return write(ad.AnnData(np.random.default_rng(4).normal(size=(30, 4)), obs=obs), folder / "8h.h5ad")


def write(adata: ad.AnnData, path: Path) -> Path:
    adata.write_h5ad(path)
    return path
