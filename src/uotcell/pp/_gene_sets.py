"""Gene sets of growth: those that come with the package, and which of their genes an AnnData has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{6,}")
_SOURCES = {
    ("mouse", "proliferation"): "Tirosh et al. 2016, doi:10.1126/science.aad0501",
    ("human", "proliferation"): "Tirosh et al. 2016, doi:10.1126/science.aad0501",
    ("mouse", "apoptosis"): "Schiebinger et al. 2019, doi:10.1016/j.cell.2019.01.006",
    ("human", "apoptosis"): "MSigDB 7.0, HALLMARK_APOPTOSIS, doi:10.1016/j.cels.2015.12.004",
}
ORGANISMS = ("mouse", "human")


@dataclass(frozen=True)
class GeneSet:
    """Genes that stand for a process.

    Attributes
    ----------
    name
        The process.
    genes
        Every gene as its symbols, the one in use first.
    source
        Where the list is from.
    """

    name: str
    genes: tuple[tuple[str, ...], ...]
    source: str


def read_gene_set(organism: str, name: str) -> GeneSet:
    """Read a set of the package; a line holds the symbol of a gene and the one it had before, if it was renamed."""
    text = (files("uotcell.pp") / "data" / f"{organism}_{name}.txt").read_text(encoding="utf-8")
    return GeneSet(name, tuple(tuple(line.split()) for line in text.splitlines()), _SOURCES[organism, name])


def choose_gene_set(organism: str | None, name: str, given: Sequence[str] | None) -> GeneSet:
    """Take the genes of the user, or the set of the organism where there are none.

    Raises
    ------
    ValueError
        If the organism is unknown, or the genes are no list of names.
    """
    if given is None:
        if organism not in ORGANISMS:
            raise ValueError(
                f"Expected `organism` to be one of {list(ORGANISMS)}, found {organism!r}. For other organisms give "
                "lists of genes as `proliferation` and `apoptosis`, and None as `organism`."
            )
        return read_gene_set(organism, name)
    genes = [] if isinstance(given, str) else list(dict.fromkeys(given))
    if not genes or not all(isinstance(gene, str) for gene in genes):
        raise ValueError(
            f"Expected `{name}` to be a list of gene names, found {given!r}. Leave it out for the default."
        )
    return GeneSet(name, tuple((gene,) for gene in genes), "given")


def find_genes(gene_set: GeneSet, names: Sequence[str]) -> np.ndarray:
    """Return where the genes of a set are among ``names``, ascending; of repeated names the first counts."""
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    found = (next((places[symbol] for symbol in gene if symbol in places), None) for gene in gene_set.genes)
    return np.unique([place for place in found if place is not None]).astype(np.intp)


def check_hit_rate(gene_set: GeneSet, n_hits: int, n_found: int, min_hit_rate: float, names: Sequence[str]) -> float:
    """Return the share of a set that can be scored.

    Parameters
    ----------
    gene_set
        The set.
    n_hits
        Number of its genes that are there and vary between cells.
    n_found
        Number of its genes that are there.
    min_hit_rate
        Smallest share.
    names
        Names of the genes that are there.

    Raises
    ------
    ValueError
        If it is below ``min_hit_rate`` or nothing, with what may have gone wrong.
    """
    n_genes = len(gene_set.genes)
    rate = n_hits / n_genes
    if n_hits and rate >= min_hit_rate:
        return rate
    still = f", of {n_found} that are there" if n_found > n_hits else ""
    raise ValueError(
        f"Expected at least {max(min_hit_rate, 1 / n_genes):.3g} of the {n_genes} {gene_set.name} genes to be among "
        f"the names of genes and to vary between cells, found {n_hits} ({rate:.2g}){still}. "
        f"{_advice(gene_set, names, n_found)}"
    )


def _advice(gene_set: GeneSet, names: Sequence[str], n_found: int) -> str:
    """Say what may be wrong with the names."""
    if sum(_ENSEMBL.match(name) is not None for name in names) > len(names) / 2:
        return (
            f"The names look like Ensembl ids ({names[0]!r}): give the column of `adata.var` that holds gene symbols "
            "as `gene_symbols`."
        )
    symbols = {symbol.upper() for gene in gene_set.genes for symbol in gene}
    n_other = sum(name.upper() in symbols for name in names)
    if n_other > 2 * n_found:
        return (
            f"{n_other} match when upper and lower case are the same: is this the right `organism`? Mouse symbols are "
            "written Mki67, human ones MKI67."
        )
    return (
        "Score all measured genes, before highly variable ones are selected: keep them in `adata.raw` or score first. "
        "Or give other lists of genes, or accept a cruder score with a lower `min_hit_rate`."
    )
