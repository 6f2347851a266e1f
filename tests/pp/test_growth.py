"""Growth from marker genes: scores and rates by hand and against scanpy, and what is refused."""

import inspect

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse
from scipy.stats import spearmanr

import uotcell as uc
from uotcell.pp import score_growth
from uotcell.pp._expression import mean_z_score
from uotcell.pp._gene_sets import ORGANISMS, find_genes, read_gene_set
from uotcell.problems._growth import prior_masses

LISTS = {"proliferation": ["Div1", "Div2"], "apoptosis": ["Die1"]}
EXPRESSION = np.array([[0.0, 1.0, 2.5, 7.5], [2.5, 1.0, 0.0, 7.5], [1.0, 4.0, 0.5, 7.5], [0.5, 2.0, 1.0, 7.5]])
SLOTS = ["growth_proliferation", "growth_apoptosis", "growth"]


@pytest.fixture
def adata():
    """Four cells of two days; the last gene is the same in all."""
    obs = pd.DataFrame({"day": [1.0, 1.0, 4.0, 4.0]}, index=list("abcd"))
    var = pd.DataFrame({"symbol": ["DIV1", "DIV2", "DIE1", "FLAT"]}, index=["Div1", "Div2", "Die1", "Flat"])
    return ad.AnnData(EXPRESSION.copy(), obs=obs, var=var)


def score(adata, **options):
    """Score, by default with lists of our own."""
    organism = options.pop("organism", None)
    score_growth(
        adata, organism, **{**LISTS, **({} if {"time_key", "days"} & set(options) else {"days": 1.0}), **options}
    )
    return adata


@pytest.fixture(scope="module")
def hematopoiesis():
    """A scored data set to look at, not to change."""
    adata = uc.datasets.hematopoiesis()
    score_growth(adata, "mouse", time_key="day")
    return adata


# Gene sets


@pytest.mark.parametrize(("name", "sizes"), [("proliferation", (97, 97)), ("apoptosis", (193, 161))])
def test_gene_sets_have_the_published_sizes(name, sizes):
    for organism, size in zip(ORGANISMS, sizes, strict=True):
        genes = read_gene_set(organism, name).genes
        symbols = [symbol for gene in genes for symbol in gene]
        assert len(genes) == size
        assert len(set(symbols)) == len(symbols)
        assert all(gene and gene == gene.strip() for gene in symbols)


def test_proliferation_is_the_same_in_both_organisms():
    mouse, human = (read_gene_set(organism, "proliferation").genes for organism in ORGANISMS)
    assert {tuple(map(str.upper, gene)) for gene in mouse} == set(human)
    assert ("CENPU", "MLF1IP") in human
    # Both phases.
    assert {("MCM2",), ("PCNA",), ("TOP2A",), ("MKI67",)} <= set(human)


def test_renamed_and_repeated_genes_are_found_once():
    gene_set = read_gene_set("mouse", "proliferation")
    names = ["Actb", "Mlf1ip", "Mki67", "Cenpu", "Mki67", "Hn1"]
    assert find_genes(gene_set, names).tolist() == [2, 3, 5]


# Scores and rates


def test_scores_by_hand(adata):
    score(adata)
    z = (EXPRESSION - EXPRESSION.mean(axis=0)) / [*EXPRESSION.std(axis=0)[:3], 1.0]
    np.testing.assert_allclose(adata.obs["growth_proliferation"], z[:, :2].mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(adata.obs["growth_apoptosis"], z[:, 2], rtol=1e-12)
    assert all(adata.obs[slot].dtype == np.float64 for slot in SLOTS)


def test_growth_by_hand(adata):
    score(adata, days=2.0)
    p, a = (adata.obs[slot].to_numpy() for slot in SLOTS[:2])
    birth = 0.3 + 1.4 / (1 + np.exp(-4 * (p - 0.25) / 0.5))
    death = 0.3 + 1.4 / (1 + np.exp(-4 * (a - 0.1) / 0.2))
    np.testing.assert_allclose(adata.obs["growth"], np.exp(2 * (birth - death)), rtol=1e-12)


def test_constants_of_the_rates(adata):
    score(adata, birth_rates=(0.0, 2.0), birth_center=0.0, birth_width=1.0, death_rates=(0.5, 0.5))
    birth = 2 / (1 + np.exp(-4 * adata.obs["growth_proliferation"]))
    np.testing.assert_allclose(adata.obs["growth"], np.exp(birth - 0.5), rtol=1e-12)


def test_an_average_cell_keeps_its_number(adata):
    adata.X[3] = adata.X[:3].mean(axis=0)
    score(adata)
    assert adata.obs["growth"].iloc[3] == pytest.approx(1.0, abs=1e-12)


def test_more_proliferation_is_more_growth_and_more_apoptosis_less():
    level = np.linspace(0.01, 3.0, 20)
    x = np.stack([level, np.ones(20)], axis=1)
    for genes, direction in ((["Up", "Same"], 1), (["Same", "Up"], -1)):
        x[0, 1] = 1.1  # lest it be left out as constant
        adata = ad.AnnData(x, var=pd.DataFrame(index=["Up", "Same"]))
        score_growth(adata, None, days=1.0, proliferation=genes[:1], apoptosis=genes[1:])
        assert (direction * np.diff(adata.obs["growth"].iloc[1:]) > 0).all()


def test_growth_stays_between_the_extremes(adata):
    adata.X = EXPRESSION[::-1]
    score(adata, birth_width=1e-9, death_width=1e-9)
    assert set(np.round(np.log(adata.obs["growth"]), 9)) <= {-1.4, 0.0, 1.4}


def test_z_scores_are_cut_off():
    x = np.zeros((101, 2))
    x[0, 0] = 1.0  # z = 10
    x[1, 1] = 3.0
    found, varies = mean_z_score(x)
    assert varies.all()
    assert found[0] == pytest.approx((5.0 - 0.1) / 2)
    assert mean_z_score(np.ones((3, 2)))[0].tolist() == [0.0, 0.0, 0.0]


def test_genes_that_do_not_vary_count_for_nothing(adata):
    proliferation = score(adata.copy()).obs["growth_proliferation"]
    score(adata, proliferation=["Div1", "Div2", "Flat"], min_hit_rate=0.6)
    pd.testing.assert_series_equal(adata.obs["growth_proliferation"], proliferation)
    assert adata.uns["growth"]["proliferation"]["hit_rate"] == pytest.approx(2 / 3)


# Time


def test_days_come_from_the_times(adata):
    one = np.log(score(adata.copy()).obs["growth"])
    adata.obs["day"] = [1.0, 2.5, 2.5, 5.5]
    score(adata, time_key="day")
    np.testing.assert_allclose(np.log(adata.obs["growth"]), one * [1.5, 3.0, 3.0, 3.0], rtol=1e-12)
    days = adata.uns["growth"]["days"]
    assert (days["time"].tolist(), days["days"].tolist()) == (["1.0", "2.5", "5.5"], [1.5, 3.0, 3.0])


@pytest.mark.parametrize(
    ("times", "days"),
    [
        (pd.Categorical(["E7", "E7", "E8.5", "E8.5"]), 1.5),
        (pd.Categorical([10.0, 10.0, 10.5, 10.5], ordered=True), 0.5),
        (["day 2", "day 2", "day 9", "day 9"], 7.0),
    ],
)
def test_times_as_users_write_them(adata, times, days):
    expected = score(adata.copy(), days=days).obs["growth"]
    adata.obs["age"] = times
    pd.testing.assert_series_equal(score(adata, time_key="age").obs["growth"], expected)


@pytest.mark.parametrize(
    ("name", "times", "days_per_unit", "advice"),
    [
        ("time", ["0h", "0h", "48h", "48h"], 1 / 24, "1 / 24"),
        ("hours", [0, 0, 48, 48], 1 / 24, "1 / 24"),
        ("time_hpf", [0, 0, 48, 48], 1 / 24, "1 / 24"),
        ("age", ["week 1", "week 1", "week 3", "week 3"], 7, "7"),
        ("minutes", [0, 0, 720, 720], 1 / 1440, "1 / 1440"),
    ],
)
def test_other_units_are_asked_for(adata, name, times, days_per_unit, advice):
    adata.obs[name] = times
    with pytest.raises(ValueError, match=rf"Expected days in .*give `days_per_unit={advice}`"):
        score(adata, time_key=name)
    n_days = {"1 / 24": 2.0, "7": 14.0, "1 / 1440": 0.5}[advice]
    expected = score(adata.copy(), days=n_days).obs["growth"]
    found = score(adata, time_key=name, days_per_unit=days_per_unit).obs["growth"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# Where expression is


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, np.float32])
def test_matrices_of_other_kinds(adata, form):
    expected = score(adata.copy())
    adata.X = form(adata.X)
    score(adata)
    for slot in SLOTS:
        np.testing.assert_allclose(adata.obs[slot], expected.obs[slot], rtol=1e-12)


def test_layer_raw_and_symbols(adata):
    expected = score(adata.copy()).obs["growth"]
    upper = {name: [gene.upper() for gene in genes] for name, genes in LISTS.items()}
    adata.layers["log"] = adata.X.copy()
    adata.raw = adata.copy()
    scaled = adata[:, ["Flat", "Die1"]].copy()
    scaled.X = scaled.X - 2.0
    for options in ({}, {"use_raw": True}, {"gene_symbols": "symbol", **upper}):
        pd.testing.assert_series_equal(score(scaled, **options).obs["growth"], expected)
    adata.raw, adata.X = None, None
    for options in ({"layer": "log"}, {"layer": "log", "gene_symbols": "symbol", **upper}):
        pd.testing.assert_series_equal(score(adata, **options).obs["growth"], expected)


def test_backed(adata, tmp_path):
    expected = score(adata.copy()).obs["growth"]
    for form in (np.asarray, sparse.csr_matrix):
        adata.X = form(EXPRESSION)
        adata.write_h5ad(tmp_path / "cells.h5ad")
        backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
        np.testing.assert_allclose(score(backed).obs["growth"], expected, rtol=1e-12)
        backed.file.close()


# Real cells


def test_score_agrees_with_scanpy(hematopoiesis):
    mouse = {gene[0] for gene in read_gene_set("mouse", "proliferation").genes}
    s_phase = ["Mcm2", "Mcm4", "Mcm6", "Rrm2"]
    g2m_phase = ["Birc5", "Ccnb2", "Cdk1", "Ckap2l", "Cks1b", "Top2a", "Tpx2", "Ube2c"]
    found = hematopoiesis.uns["growth"]["proliferation"]["genes"].tolist()
    assert sorted(found) == sorted(s_phase + g2m_phase)
    assert set(found) <= mouse
    other = hematopoiesis.copy()
    sc.tl.score_genes_cell_cycle(other, s_genes=s_phase, g2m_genes=g2m_phase)
    cycling = other.obs[["S_score", "G2M_score"]].max(axis=1)
    assert spearmanr(hematopoiesis.obs["growth_proliferation"], cycling).statistic > 0.8
    resting = other.obs["phase"] == "G1"
    growth = hematopoiesis.obs["growth"]
    assert growth[~resting].median() > 3 * growth[resting].median()


def test_growth_of_hematopoiesis(hematopoiesis):
    median = hematopoiesis.obs.groupby("cell_type", observed=True)["growth"].median()
    assert (median[["undiff", "Erythroid"]] > 3).all()
    assert (median[["Monocyte", "Ccr7_DC"]] < 1).all()
    np.testing.assert_allclose(hematopoiesis.obs[SLOTS[0]].mean(), 0.0, atol=1e-12)


def test_fit_takes_the_growth(hematopoiesis):
    uc.problems.TemporalProblem(hematopoiesis).prepare("day", growth_key="growth")
    rows = np.flatnonzero(hematopoiesis.obs["day"] == 4.0)
    growth = hematopoiesis.obs["growth"].to_numpy()[rows]
    (mass,) = prior_masses(hematopoiesis, "growth", [rows])
    np.testing.assert_allclose(mass, growth / growth.sum(), rtol=1e-12)


def test_human_cells_of_another_package():
    adata = sc.datasets.pbmc68k_reduced()
    with pytest.raises(ValueError, match=r"hold log-normalised expression, found negative values such as -\d"):
        score_growth(adata, "human", days=1.0, use_raw=False)
    score_growth(adata, "human", days=1.0, min_hit_rate=0.02)
    assert adata.uns["growth"]["apoptosis"]["source"].startswith("MSigDB")
    assert np.isfinite(adata.obs["growth"]).all()


def test_small_panels_are_refused():
    adata = uc.datasets.reprogramming()
    before = adata.copy()
    with pytest.raises(
        ValueError, match=r"at least 0\.1 of the 97 proliferation genes.*found 4 \(0\.041\)\. Score all"
    ):
        score_growth(adata, "mouse", time_key="day")
    with pytest.raises(
        ValueError, match=r"4 match when upper and lower case are the same: is this the right `organism`"
    ):
        score_growth(adata, "human", time_key="day")
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert set(adata.uns) == set(before.uns)
    score_growth(adata, "mouse", time_key="day", min_hit_rate=0.04)
    assert set(adata.uns["growth"]["proliferation"]["genes"]) == {"Cdc20", "Cenpf", "Top2a", "Ube2c"}


def test_ensembl_ids_are_recognised():
    with pytest.raises(ValueError, match=r"look like Ensembl ids \('ENSG.*as `gene_symbols`"):
        score_growth(uc.datasets.glioblastoma(), "human", days=1.0)


# What is written


def test_slots(adata):
    score(adata, organism="mouse", time_key="day", key_added="prior")
    assert adata.obs.columns.tolist() == ["day", "prior_proliferation", "prior_apoptosis", "prior"]
    uns = adata.uns["prior"]
    assert set(uns) == {"params", "proliferation", "apoptosis", "days"}
    assert uns["proliferation"]["genes"].tolist() == ["Div1", "Div2"]
    assert uns["apoptosis"] | {"genes": None} == {"genes": None, "n_genes": 1, "hit_rate": 1.0, "source": "given"}
    options = set(inspect.signature(score_growth).parameters)
    assert set(uns["params"]) <= options - {"adata", "key_added", *LISTS}


@pytest.mark.parametrize("how", ["h5ad", "zarr"])
def test_slots_survive_a_file(adata, tmp_path, how):
    score(adata, time_key="day")
    path = tmp_path / f"cells.{how}"
    getattr(adata, f"write_{how}")(path)
    other = getattr(ad, f"read_{how}")(path)
    pd.testing.assert_frame_equal(other.obs[SLOTS], adata.obs[SLOTS])
    assert other.uns["growth"]["proliferation"]["genes"].tolist() == ["Div1", "Div2"]
    assert other.uns["growth"]["params"]["birth_rates"].tolist() == [0.3, 1.7]


def nan(adata):
    adata.X[1, 0] = np.nan


def counts(adata):
    adata.X = np.rint(adata.X * 3)


def normalised(adata):
    adata.X = adata.X * 100 + 0.5


def gone(adata):
    adata.X = None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (nan, r"Expected adata\.X to be finite, found NaN or inf"),
        (counts, r"found whole numbers up to 12, as in counts\. Run `sc\.pp\.normalize_total"),
        (normalised, r"found values up to 400\. Run"),
        (gone, r"`adata\.X` to hold expression, found None\. Give a `layer`"),
    ],
)
def test_expression_that_is_refused(adata, spoil, message):
    spoil(adata)
    with pytest.raises(ValueError, match=message):
        score(adata)
    assert adata.obs.columns.tolist() == ["day"]
    assert "growth" not in adata.uns


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"proliferation": None}, ValueError, r"`organism` to be one of \['mouse', 'human'\], found None"),
        ({"organism": "Mouse", "apoptosis": None}, ValueError, "found 'Mouse'. For other organisms give lists"),
        ({"proliferation": "Div1"}, ValueError, r"`proliferation` to be a list of gene names, found 'Div1'"),
        ({"apoptosis": []}, ValueError, r"`apoptosis` to be a list of gene names, found \[\]"),
        ({"apoptosis": ["Flat"]}, ValueError, r"found 0 \(0\), of 1 that are there"),
        ({"apoptosis": ["None"], "min_hit_rate": 0.0}, ValueError, r"at least 1 of the 1 apoptosis genes.*found 0"),
        ({"min_hit_rate": 10}, ValueError, r"`min_hit_rate` to be between 0 and 1, found 10"),
        ({"time_key": "day", "days": 1.0}, ValueError, "either `time_key` or `days`, found both"),
        ({"days": None}, ValueError, "either `time_key` or `days`, found neither"),
        ({"days": -1.0}, ValueError, r"`days` to be a positive number, found -1\.0"),
        ({"days": 1.0, "days_per_unit": 7}, ValueError, "`days_per_unit` only with `time_key`, found 7"),
        ({"days": 1000.0}, ValueError, r"that a float can hold, found e to the power 1\d{3} after 1000 days"),
        ({"time_key": "age"}, KeyError, r"`time_key` to be a column of `adata.obs` \['day', 'once', 'stage'\]"),
        ({"time_key": "once"}, ValueError, r"at least two time points, found \[1\]\. Give `days`"),
        ({"time_key": "stage"}, ValueError, r"ordered categories \['early', 'late'\], which do not say how far apart"),
        ({"layer": "log"}, KeyError, r"`layer` to be one of \[\], found 'log'"),
        ({"layer": "log", "use_raw": True}, ValueError, r"no `layer` with `use_raw`=True, found `layer`='log'"),
        ({"use_raw": True}, ValueError, r"found no `adata\.raw`"),
        ({"gene_symbols": "name"}, KeyError, r"column of `\.var` \['symbol'\] of adata\.X, found 'name'"),
        ({"birth_rates": (1.0, 0.5)}, ValueError, r"`birth_rates` to be \(lowest, highest\)"),
        ({"death_rates": 1.0}, ValueError, r"`death_rates` to be \(lowest, highest\)"),
        ({"death_width": 0.0}, ValueError, r"positive `death_width`, found 0\.1 and 0\.0"),
        ({"key_added": "a/b"}, ValueError, "non-empty string without a slash"),
        ({"gene_symbol": "symbol"}, TypeError, "unexpected keyword argument 'gene_symbol'"),
    ],
)
def test_bad_options(adata, options, error, message):
    adata.obs["once"] = 1
    adata.obs["stage"] = pd.Categorical(["early", "early", "late", "late"], ordered=True)
    before = adata.copy()
    with pytest.raises(error, match=message):
        score(adata, **options)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_other_objects():
    with pytest.raises(TypeError, match="`adata` to be an AnnData, found DataFrame"):
        score_growth(pd.DataFrame(), "mouse", days=1.0)
