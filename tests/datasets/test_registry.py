"""The list of datasets, and the layout that every loader promises."""

from importlib.resources import as_file, files
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import published_files
import pytest
from scipy import sparse

from uotcell import datasets
from uotcell.datasets._fetch import HASH
from uotcell.datasets._registry import DESCRIPTION, KEYS, Entry, _parse, entries

DATA = files("uotcell.datasets") / "data"
DOCS = Path(__file__).parents[2] / "docs" / "datasets.md"
TABLE = "melanoma_4i_drug_counts"
PUBLISHED = [name for name, entry in entries().items() if entry.kind == "published"]


def load(name: str, folder: Path) -> ad.AnnData:
    entry = entries()[name]
    arguments = [getattr(published_files, name)(folder)] if entry.kind == "published" else []
    return getattr(datasets, entry.loader)(*arguments)


@pytest.fixture(scope="module", params=[name for name in entries() if name != TABLE])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Entry, ad.AnnData]:
    return entries()[request.param], load(request.param, tmp_path_factory.mktemp(request.param))


def test_describes_itself_with_the_same_keys(loaded):
    entry, adata = loaded
    about = adata.uns["dataset"]
    assert list(about)[:6] == [*DESCRIPTION, "use_rep"]
    assert set(about) <= {*DESCRIPTION, *KEYS}
    assert all(type(value) is str and value for value in about.values())
    assert about == entry.describe()
    assert about["name"] == entry.name


def test_named_columns_are_there_and_complete(loaded):
    _, adata = loaded
    about = adata.uns["dataset"]
    for name, key in about.items():
        if name.endswith("_key"):
            column = adata.obs[key]
            assert not column.isna().any()
            assert column.dtype == (np.float64 if name == "time_key" else "category")
            assert name == "time_key" or set(column) == set(column.cat.categories)
    assert "time_key" in about or "control" in about
    if "control" in about:
        assert about["control"] in set(adata.obs[about["perturbation_key"]])


def test_values_and_representation(loaded):
    _, adata = loaded
    assert adata.X.dtype == np.float32
    assert not sparse.issparse(adata.X) or adata.X.format == "csr"
    key = adata.uns["dataset"]["use_rep"]
    cells = adata.X if key == "X" else adata.obsm[key]
    assert isinstance(cells, np.ndarray)
    assert cells.dtype == np.float32
    assert np.isfinite(cells).all()
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique


@pytest.mark.parametrize("name", [name for name, e in entries().items() if e.kind != "published" and name != TABLE])
def test_size_is_the_one_listed(name, tmp_path):
    entry = entries()[name]
    assert load(name, tmp_path).shape == (entry.cells, entry.features)


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_round_trip(name, store, tmp_path):
    adata = load(name, tmp_path)
    getattr(adata, f"write_{store}")(tmp_path / f"copy.{store}")
    back = getattr(ad, f"read_{store}")(tmp_path / f"copy.{store}")
    assert back.obs.equals(adata.obs)
    assert back.var.equals(adata.var)
    assert dict(back.uns["dataset"]) == adata.uns["dataset"]
    for key, values in adata.obsm.items():
        np.testing.assert_array_equal(back.obsm[key], values)


def test_the_table_describes_itself():
    about = datasets.melanoma_4i_drug_counts().attrs["dataset"]
    assert about == entries()[TABLE].describe()
    assert list(about) == list(DESCRIPTION)


@pytest.mark.parametrize("name", [name for name, e in entries().items() if e.kind == "embedded" and name != TABLE])
def test_descriptions_inside_shipped_files_agree(name):
    """The files hold a description of their own, written when they were built; loaders replace it."""
    entry = entries()[name]
    with as_file(DATA / entry.file) as path, h5py.File(path) as file:
        inside = {key: value.asstr()[()] for key, value in file["uns/dataset"].items()}
    assert {key: inside[key] for key in DESCRIPTION} == {key: entry.describe()[key] for key in DESCRIPTION}


def test_available_lists_every_loader():
    table = datasets.available()
    assert table.index.is_unique
    assert set(table["kind"]) == {"embedded", "simulated", "published"}
    assert all(callable(getattr(datasets, loader)) for loader in table["loader"])
    others = {"DrugResponse", "drug_responses", "available", "pancreas_transitions"}
    assert set(table["loader"]) == set(datasets.__all__) - others
    assert table["cells"].dtype == table["features"].dtype == pd.Int64Dtype()
    assert not table[["conditions", "license", "source", "citation", "loader", "verified"]].isna().any(axis=None)


def test_addresses_and_hashes_are_well_formed():
    for name in PUBLISHED:
        entry = entries()[name]
        assert entry.url is None or entry.url.startswith("https://")
        assert entry.known_hash is None or HASH.fullmatch(entry.known_hash)
        assert entry.known_hash is None or entry.url is not None
        assert entry.file


def test_only_entries_with_a_hash_are_verified():
    verified = datasets.available()["verified"]
    assert {name for name in PUBLISHED if verified[name]} == {"pancreas", "sciplex2"}
    assert verified.drop(PUBLISHED).all()


def test_a_misspelt_field_names_its_entry():
    table = {"loader": "f", "kind": "embedded", "licence": "MIT"}
    with pytest.raises(ValueError, match=r"Expected the entry 'mine' to have fields out of .*'license'.*: .*licence"):
        _parse("mine", table)


def test_entries_are_parsed_once_and_cannot_change():
    assert entries() is entries()
    with pytest.raises(AttributeError):
        entries()["emt"].license = "none"
    entries()["emt"].describe()["name"] = "changed"
    assert entries()["emt"].describe()["name"] == "emt"


def test_everything_in_the_package_is_small():
    sizes = {file.name: len(file.read_bytes()) for file in DATA.iterdir()}
    assert {entry.file for entry in entries().values() if entry.kind == "embedded"} <= set(sizes)
    assert sum(sizes.values()) < 6_000_000


def test_the_page_lists_every_dataset():
    lines = DOCS.read_text(encoding="utf-8").splitlines()
    for name, row in datasets.available().iterrows():
        found = [line for line in lines if line.startswith(f"| {{func}}`~uotcell.datasets.{row['loader']}` |")]
        assert len(found) == 1, name
        cells = [cell.strip() for cell in found[0].split("|")]
        numbers = ["" if pd.isna(row[key]) else f"{row[key]:,}" for key in ("cells", "features")]
        if name != TABLE:
            assert [part.strip() for part in cells[2].split("×")] == [number or "not stated" for number in numbers], (
                name
            )
        assert row["license"] in cells, name
