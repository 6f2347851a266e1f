"""Build the two small datasets shipped in ``src/uotcell/datasets/data`` from the files they were published as.

Run it with ``python scripts/build_datasets.py --source DIR``, where DIR holds ``reprogramming_1k.h5ad`` and
``larry_hematopoiesis.h5ad``. The same versions of the libraries give the same bytes; the shipped files were made with
Python 3.11, anndata 0.12.19, scanpy 1.11.5 and umap-learn 0.5.12. Other versions may move the UMAP, nothing else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from threadpoolctl import threadpool_limits

N_COMPONENTS = 30
N_NEIGHBORS = 15
N_TOP_GENES_HEMATOPOIESIS = 1_000
SEED = 0
PACKAGE_DATA = Path(__file__).resolve().parents[1] / "src" / "uotcell" / "datasets" / "data"


def main() -> None:
    """Read the command line and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with the two published files")
    parser.add_argument("--out", type=Path, default=PACKAGE_DATA, help="folder to write to (default: the package data)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, source, build in (
        ("reprogramming.h5ad", "reprogramming_1k.h5ad", build_reprogramming),
        ("hematopoiesis.h5ad", "larry_hematopoiesis.h5ad", build_hematopoiesis),
    ):
        # One thread, because the rounding of the linear algebra depends on their number and UMAP magnifies it.
        with threadpool_limits(limits=1):
            adata = build(read_source(args.source, source))
        path = args.out / name
        adata.write_h5ad(path, compression="gzip", compression_opts=9)
        print(f"{path.name}: {adata.n_obs} cells x {adata.n_vars} genes, {path.stat().st_size:,} bytes")


def read_source(folder: Path, name: str) -> ad.AnnData:
    """Read one published file, or say which files the folder holds instead."""
    if not (folder / name).is_file():
        found = sorted(p.name for p in folder.glob("*.h5ad"))
        raise FileNotFoundError(f"Expected `--source` to hold {name}, found {found} in {folder}.")
    return ad.read_h5ad(folder / name)


def build_reprogramming(raw: ad.AnnData) -> ad.AnnData:
    """Reprogramming to induced pluripotent stem cells; already log-normalised and restricted to variable genes."""
    adata = empty_copy(raw, raw.X, cell_type=raw.obs["cell_type"])
    # The published column "batch" is left behind: moscot's tests drew it at random. Names such as
    # D10.5_serum_C1_ATTGGACGTCTTCAAG-1 hold the lane, here C1.
    adata.obs["lane"] = pd.Categorical(adata.obs_names.str.split("_").str[2])
    # The published file keeps variable genes only, chosen on more cells than these: a gene is flagged unless
    # no cell here expresses it, and leaving those out changes nothing in the PCA.
    adata.var["highly_variable"] = np.asarray((adata.X > 0).sum(axis=0)).ravel() > 0
    add_embeddings(adata)
    adata.uns["dataset"] = {
        "name": "reprogramming",
        "description": "Mouse fibroblasts reprogrammed to induced pluripotent stem cells in serum, days 10 to 11",
        "citation": "Schiebinger et al. (2019), Cell 176(4), 928-943, doi:10.1016/j.cell.2019.01.006",
        "source": "https://github.com/theislab/moscot, tests/data",
        "license": "BSD-3-Clause",
        "time_key": "day",
        "cell_type_key": "cell_type",
    }
    return adata


def build_hematopoiesis(raw: ad.AnnData) -> ad.AnnData:
    """Haematopoiesis in culture with clonal barcodes; published as counts per 10,000."""
    adata = empty_copy(raw, raw.X.log1p(), cell_type=raw.obs["state"])
    variable = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=N_TOP_GENES_HEMATOPOIESIS, inplace=False)
    adata.var["highly_variable"] = variable["highly_variable"].to_numpy(dtype=bool)
    add_embeddings(adata)
    # float32 and not uint8: products such as X_clone @ X_clone.T would overflow in uint8.
    adata.obsm["X_clone"] = sparse.csr_matrix(raw.obsm["X_clone"], dtype=np.float32)
    adata.obsm["X_spring"] = np.asarray(raw.obsm["X_spring"], dtype=np.float32)
    adata.uns["dataset"] = {
        "name": "hematopoiesis",
        "description": "Mouse haematopoietic progenitors in culture with clonal barcodes (LARRY), days 2 to 6",
        "citation": "Weinreb et al. (2020), Science 367(6479), eaaw3381, doi:10.1126/science.aaw3381",
        "source": "https://github.com/AllonKleinLab/cospar, tests/data",
        "license": "MIT",
        "time_key": "day",
        "cell_type_key": "cell_type",
    }
    return adata


def empty_copy(raw: ad.AnnData, log_expression: sparse.csr_matrix, cell_type: pd.Series) -> ad.AnnData:
    """Start from the matrix, the names, the day and the cell type, and from nothing else of the published file."""
    obs = pd.DataFrame(
        {"day": raw.obs["day"].astype(np.float64).to_numpy(), "cell_type": pd.Categorical(cell_type.astype(str))},
        index=raw.obs_names.astype(str).rename(None),
    )
    var = pd.DataFrame(index=raw.var_names.astype(str).rename(None))
    return ad.AnnData(sparse.csr_matrix(log_expression, dtype=np.float32), obs=obs, var=var)


def add_embeddings(adata: ad.AnnData) -> None:
    """Add the PCA of all cells on the highly variable genes, and the UMAP of its neighbour graph."""
    chosen = adata.var["highly_variable"].to_numpy()
    expression = adata.X.toarray().astype(np.float64)
    mean = expression.mean(axis=0)
    centred = (expression - mean)[:, chosen]
    # A full decomposition in float64 needs no starting vector, hence no seed.
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    components = rows[:N_COMPONENTS].T
    # A principal axis is known up to its sign: its largest loading is made positive.
    largest = np.abs(components).argmax(axis=0)
    components *= np.sign(components[largest, np.arange(N_COMPONENTS)])

    adata.var["mean"] = mean
    loadings = np.zeros((adata.n_vars, N_COMPONENTS), dtype=np.float32)
    loadings[chosen] = components
    adata.varm["PCs"] = loadings
    adata.obsm["X_pca"] = (centred @ components).astype(np.float32)

    # The graph is left behind: it is quick to rebuild and would be larger than the rest of the file.
    scratch = ad.AnnData(obs=adata.obs[[]], obsm={"X_pca": adata.obsm["X_pca"]})
    sc.pp.neighbors(scratch, n_neighbors=N_NEIGHBORS, use_rep="X_pca", random_state=SEED)
    sc.tl.umap(scratch, random_state=SEED)
    adata.obsm["X_umap"] = np.asarray(scratch.obsm["X_umap"], dtype=np.float32)


if __name__ == "__main__":
    main()
