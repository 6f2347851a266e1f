"""Build the small datasets shipped in ``src/uotcell/datasets/data`` from the files they were published as.

Run it with ``python scripts/build_datasets.py --source DIR``, where DIR holds the files listed in ``DATASETS`` and
``melanoma_4i_drug_counts.csv``, which is copied. The same versions of the libraries give the same bytes on the same
kind of processor; the shipped files were made with Python 3.11, anndata 0.12.19, scanpy 1.11.5 and umap-learn 0.5.12.
Other versions or processors may move the UMAP, and the last digits of logarithms and scores.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from threadpoolctl import threadpool_limits

N_COMPONENTS = 30
N_COMPONENTS_CRISPR = 50
N_NEIGHBORS = 15
N_TOP_GENES_HEMATOPOIESIS = 1_000
N_CELLS_PER_SAMPLE_GLIOBLASTOMA = 150
SEED = 0
DRUG_COUNTS = "melanoma_4i_drug_counts.csv"
PACKAGE_DATA = Path(__file__).resolve().parents[1] / "src" / "uotcell" / "datasets" / "data"


def main() -> None:
    """Read the command line and write all files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--out", type=Path, default=PACKAGE_DATA, help="folder to write to (default: the package data)")
    parser.add_argument("--only", nargs="+", choices=sorted(DATASETS), help="build these alone (default: all)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or DATASETS:
        source, build = DATASETS[name]
        # One thread, because the rounding of the linear algebra depends on their number and UMAP magnifies it.
        with threadpool_limits(limits=1):
            adata = build(read_source(args.source, source))
        path = args.out / f"{name}.h5ad"
        adata.write_h5ad(path, compression="gzip", compression_opts=9)
        print(f"{path.name}: {adata.n_obs} cells x {adata.n_vars} features, {path.stat().st_size:,} bytes")
    if args.only is None:
        shutil.copyfile(find_source(args.source, DRUG_COUNTS), args.out / DRUG_COUNTS)


def find_source(folder: Path, name: str) -> Path:
    """Locate one published file, or say which files the folder holds instead."""
    if not (folder / name).is_file():
        found = sorted(p.name for p in folder.glob("*") if p.suffix in (".h5ad", ".npz", ".csv"))
        raise FileNotFoundError(f"Expected `--source` to hold {name}, found {found} in {folder}.")
    return folder / name


def read_source(folder: Path, name: str) -> ad.AnnData:
    """Read one published file; of an ``npz`` the coordinates ``X`` and the column ``day``."""
    path = find_source(folder, name)
    if path.suffix != ".npz":
        return ad.read_h5ad(path)
    with np.load(path) as arrays:
        names = [f"cell{i}" for i in range(len(arrays["X"]))]
        return ad.AnnData(arrays["X"], obs=pd.DataFrame({"day": arrays["day"]}, index=names))


def build_reprogramming(raw: ad.AnnData) -> ad.AnnData:
    """Reprogramming to induced pluripotent stem cells; already log-normalised and restricted to variable genes."""
    adata = empty_copy(raw, raw.X, day=raw.obs["day"], cell_type=raw.obs["cell_type"])
    # The published column "batch" is left behind: moscot's tests drew it at random. Names such as
    # D10.5_serum_C1_ATTGGACGTCTTCAAG-1 hold the lane, here C1.
    adata.obs["lane"] = pd.Categorical(adata.obs_names.str.split("_").str[2])
    # The published file keeps variable genes only, chosen on more cells than these: a gene is flagged unless
    # no cell here expresses it, and leaving those out changes nothing in the PCA.
    adata.var["highly_variable"] = np.asarray((adata.X > 0).sum(axis=0)).ravel() > 0
    add_pca(adata)
    add_umap(adata)
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
    adata = empty_copy(raw, raw.X.log1p(), day=raw.obs["day"], cell_type=raw.obs["state"])
    variable = sc.pp.highly_variable_genes(adata, flavor="seurat", n_top_genes=N_TOP_GENES_HEMATOPOIESIS, inplace=False)
    adata.var["highly_variable"] = variable["highly_variable"].to_numpy(dtype=bool)
    add_pca(adata)
    add_umap(adata)
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


def build_crispr_screens(raw: ad.AnnData) -> ad.AnnData:
    """Build two CRISPR screens; already log-normalised and restricted to 500 variable genes."""
    columns = ("dataset", "cell_type", "perturbation", "perturbation_type")
    adata = empty_copy(raw, raw.X, **{name: raw.obs[name] for name in columns})
    adata.var["highly_variable"] = True
    # One PCA of all cells. Its components hold 41.7 % of the variance within cell lines, and those fitted on cells
    # centred by line 41.9 %, so the difference between lines does not crowd out what happens within them.
    add_pca(adata, N_COMPONENTS_CRISPR)
    # The scores are larger than the rest of the file; the loader computes them.
    del adata.obsm["X_pca"]
    adata.uns["dataset"] = {
        "name": "crispr_screens",
        "description": "CRISPR activation in K562 and CRISPR interference in three glioblastoma lines",
        "citation": "Norman et al. (2019), Science 365(6455), 786-793, doi:10.1126/science.aax4438; "
        "McFaline-Figueroa et al. (2024), Cell Genomics 4(2), 100487, doi:10.1016/j.xgen.2023.100487",
        "source": "https://github.com/altoslabs/perturbench, src/perturbench/data/resources",
        "license": "BSD-3-Clause",
        "condition_key": "perturbation",
        "control": "control",
        "cell_type_key": "cell_type",
    }
    return adata


def build_melanoma_4i(raw: ad.AnnData) -> ad.AnnData:
    """Build the 4i imaging of melanoma cells under two drugs; features robustly scaled where they were published."""
    drug = pd.Series("trametinib_erlotinib", index=raw.obs_names)
    adata = empty_copy(raw, raw.X, hour=raw.obs["hour"], drug=drug)
    adata.uns["dataset"] = {
        "name": "melanoma_4i",
        "description": "Melanoma cells 8 and 48 hours after trametinib and erlotinib, 4i imaging features",
        "citation": "Pariset et al. (2023), Unbalanced diffusion Schroedinger bridge, arXiv:2306.09099",
        "source": "https://github.com/matteopariset/unbalanced_sb, data/4i",
        "license": "MIT",
        "time_key": "hour",
        "condition_key": "drug",
    }
    return adata


def build_glioblastoma(raw: ad.AnnData) -> ad.AnnData:
    """Glioblastoma slices with and without panobinostat; equally many cells of each patient and condition."""
    condition = raw.obs["condition"].astype(str).replace("ctrl", "control")
    groups = (raw.obs["patient_id"].astype(str) + condition).to_numpy()
    rng = np.random.default_rng(SEED)
    kept = [
        rng.choice(np.flatnonzero(groups == group), N_CELLS_PER_SAMPLE_GLIOBLASTOMA, replace=False)
        for group in np.unique(groups)
    ]
    rows = np.sort(np.concatenate(kept))
    raw, condition = raw[rows], condition.iloc[rows]
    adata = empty_copy(raw, raw.X, patient=raw.obs["patient_id"], condition=condition)
    adata.var["symbol"] = raw.var["symbol"].astype(str).to_numpy()
    adata.var["highly_variable"] = True
    add_pca(adata)
    adata.uns["dataset"] = {
        "name": "glioblastoma",
        "description": "Glioblastoma slices of five patients, panobinostat against vehicle",
        "citation": "Zhao et al. (2021), Genome Medicine 13, 82, doi:10.1186/s13073-021-00894-y",
        "source": "https://github.com/const-ae/lemur, data",
        "license": "MIT",
        "condition_key": "condition",
        "control": "control",
        "batch_key": "patient",
    }
    return adata


def build_emt(raw: ad.AnnData) -> ad.AnnData:
    """Epithelial-mesenchymal transition; only ten coordinates per cell were published, and the order of the times."""
    adata = embedding_only(raw, time=raw.obs["time"])
    adata.uns["dataset"] = {
        "name": "emt",
        "description": "A549 cells in the epithelial-mesenchymal transition under TGFB1, 10-d embedding, four times",
        "citation": "Cook and Vanderhyden (2020), Nature Communications 11, 2142, doi:10.1038/s41467-020-16066-2",
        "source": "https://github.com/zhenyiizhang/DeepRUOTv2, data",
        "license": "MIT",
        "time_key": "time",
    }
    return adata


def build_ipsc_cardio(raw: ad.AnnData) -> ad.AnnData:
    """Differentiation to cardiomyocytes, measured by qPCR; only four coordinates per cell were published."""
    adata = embedding_only(raw, day=raw.obs["day"])
    adata.uns["dataset"] = {
        "name": "ipsc_cardio",
        "description": "Human induced pluripotent stem cells to cardiomyocytes, 4-d embedding, days 0 to 5",
        "citation": "Bargaje et al. (2017), PNAS 114(9), 2271-2276, doi:10.1073/pnas.1621412114",
        "source": "https://github.com/yutongo/TIGON, Input",
        "license": "MIT",
        "time_key": "day",
    }
    return adata


def embedding_only(raw: ad.AnnData, **columns: pd.Series) -> ad.AnnData:
    """Start from data whose matrix is an embedding, and name its axes; the loader copies it to where it is sought."""
    adata = empty_copy(raw, raw.X, **columns)
    adata.var_names = [f"x{k}" for k in range(1, adata.n_vars + 1)]
    return adata


def empty_copy(raw: ad.AnnData, values: np.ndarray | sparse.csr_matrix, **columns: pd.Series) -> ad.AnnData:
    """Start from the matrix, the names and the given columns of the cells, and from nothing else of the file."""
    obs = pd.DataFrame(index=raw.obs_names.astype(str).rename(None))
    for name, column in columns.items():
        is_number = pd.api.types.is_numeric_dtype(column)
        obs[name] = column.to_numpy(np.float64) if is_number else pd.Categorical(column.astype(str))
    var = pd.DataFrame(index=raw.var_names.astype(str).rename(None))
    matrix = sparse.csr_matrix(values, dtype=np.float32) if sparse.issparse(values) else np.float32(values)
    return ad.AnnData(matrix, obs=obs, var=var)


def add_pca(adata: ad.AnnData, n_components: int = N_COMPONENTS) -> None:
    """Add the PCA of all cells on the highly variable genes."""
    chosen = adata.var["highly_variable"].to_numpy()
    expression = adata.X.toarray().astype(np.float64)
    mean = expression.mean(axis=0)
    centred = (expression - mean)[:, chosen]
    # A full decomposition in float64 needs no starting vector, hence no seed.
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    components = rows[:n_components].T
    # A principal axis is known up to its sign: its largest loading is made positive.
    largest = np.abs(components).argmax(axis=0)
    components *= np.sign(components[largest, np.arange(n_components)])

    adata.var["mean"] = mean
    loadings = np.zeros((adata.n_vars, n_components), dtype=np.float32)
    loadings[chosen] = components
    adata.varm["PCs"] = loadings
    adata.obsm["X_pca"] = (centred @ components).astype(np.float32)


def add_umap(adata: ad.AnnData) -> None:
    """Add the UMAP of the neighbour graph in the PCA."""
    # The graph is left behind: it is quick to rebuild and would be larger than the rest of the file.
    scratch = ad.AnnData(obs=adata.obs[[]], obsm={"X_pca": adata.obsm["X_pca"]})
    sc.pp.neighbors(scratch, n_neighbors=N_NEIGHBORS, use_rep="X_pca", random_state=SEED)
    sc.tl.umap(scratch, random_state=SEED)
    adata.obsm["X_umap"] = np.asarray(scratch.obsm["X_umap"], dtype=np.float32)


DATASETS = {
    "reprogramming": ("reprogramming_1k.h5ad", build_reprogramming),
    "hematopoiesis": ("larry_hematopoiesis.h5ad", build_hematopoiesis),
    "crispr_screens": ("crispr_screens.h5ad", build_crispr_screens),
    "melanoma_4i": ("melanoma_4i_trametinib_erlotinib.h5ad", build_melanoma_4i),
    "glioblastoma": ("gbm_panobinostat.h5ad", build_glioblastoma),
    "emt": ("emt_timecourse.h5ad", build_emt),
    "ipsc_cardio": ("ipsc_cardio_4d.npz", build_ipsc_cardio),
}


if __name__ == "__main__":
    main()
