"""Expected numbers of descendants from the expression of marker genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from anndata import AnnData

from uotcell.pp._days import days_to_next
from uotcell.pp._expression import expression_matrix, log_expression, mean_z_score
from uotcell.pp._gene_sets import GeneSet, check_hit_rate, choose_gene_set, find_genes
from uotcell.problems._base import check_adata, check_key_added, plain
from uotcell.problems._slots import write_slots


def score_growth(
    adata: AnnData,
    organism: Literal["mouse", "human"] | None,
    *,
    time_key: str | None = None,
    days: float | None = None,
    days_per_unit: float | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    gene_symbols: str | None = None,
    proliferation: Sequence[str] | None = None,
    apoptosis: Sequence[str] | None = None,
    min_hit_rate: float = 0.1,
    birth_rates: tuple[float, float] = (0.3, 1.7),
    birth_center: float = 0.25,
    birth_width: float = 0.5,
    death_rates: tuple[float, float] = (0.3, 1.7),
    death_center: float = 0.1,
    death_width: float = 0.2,
    key_added: str = "growth",
) -> None:
    r"""Score proliferation and apoptosis, and write how many descendants a cell is expected to have.

    The construction of Schiebinger et al. [1]_, with their constants. The score of a set of genes is the mean of their
    z-scores over all cells, each cut off at ±5. With scores p of proliferation and a of apoptosis, cells divide and die
    at rates per day of

    .. math:: \beta(p) = \beta_{\min} + \frac{\beta_{\max} - \beta_{\min}}{1 + e^{-4 (p - c_\beta) / w_\beta}},
        \qquad \delta(a) = \delta_{\min} + \frac{\delta_{\max} - \delta_{\min}}{1 + e^{-4 (a - c_\delta) / w_\delta}},

    and after t days a cell has :math:`e^{(\beta(p) - \delta(a))\,t}` descendants, the prior mass which
    :func:`uotcell.tl.fit_trajectory` takes as ``growth_key``. With the default constants an average cell keeps its
    number and the extremes are :math:`e^{\pm 1.4 t}`.

    Parameters
    ----------
    adata
        Annotated data with log-normalised expression, best of all genes: sets are small, and few of their genes are
        among highly variable ones.
    organism
        Whose gene sets to take. May be None if `proliferation` and `apoptosis` are given.
    time_key
        Column of ``.obs`` with the time of every cell, in days unless `days_per_unit` says otherwise; t is the time to
        the next time point. The last time point, which no fit takes as source, gets the t of the one before.
    days
        t in days for all cells, instead of `time_key`: for pairs that skip time points, or times that are no numbers.
    days_per_unit
        Days in one unit of `time_key`, e.g. ``1 / 24`` for hours; dates and durations count in days. Needed where
        labels such as "48h" name another unit.
    layer, use_raw, gene_symbols
        Where expression is: a layer, ``.raw`` (if None, where there is one and no layer is given) or ``.X``; names are
        those of a column `gene_symbols` of its ``.var``, or its ``.var_names``.
    proliferation, apoptosis
        Genes to score instead of those of the organism.
    min_hit_rate
        Smallest share of a set that must be there and vary between cells. In
        :func:`uotcell.datasets.hematopoiesis`, at 0.12, twelve genes of S and G2/M phase carry the proliferation score;
        in :func:`uotcell.datasets.reprogramming`, at 0.04, four of G2/M alone, which cells in S phase do not express.
    birth_rates, birth_center, birth_width
        Lowest and highest β per day, the score half-way between, and the width of the rise, in units of the score.
    death_rates, death_center, death_width
        The same of δ.
    key_added
        Name and prefix of the slots.

    Returns
    -------
    None. Sets these slots of ``adata``:

    - ``.obs["growth"]``: float64, expected number of descendants, 1 = unchanged.
    - ``.obs["growth_proliferation"]``, ``.obs["growth_apoptosis"]``: float64, mean z-scores.
    - ``.uns["growth"]``: dict of ``params``; ``proliferation`` and ``apoptosis``, each with ``genes`` (names scored),
      ``n_genes`` (size of the set), ``hit_rate`` and ``source``; and, with `time_key`, ``days`` with the labels
      ``time`` and their ``days``.

    Raises
    ------
    KeyError, ValueError
        If a column does not exist, too few genes are found, values are missing, negative or no logarithms, times have
        no known distance, or constants make no sense; ``adata`` is then untouched.

    Notes
    -----
    z-scores need neither control genes nor random numbers, so that panels of a few hundred genes can be scored too, and
    the constants of the rates were chosen for them. They compare the cells of one AnnData: score cells together that
    are to be compared. The spread of a mean over few genes is wider, which makes rates more extreme.

    Proliferation: 97 genes of G1/S and G2/M phase by Tirosh et al. [2]_. Apoptosis: for mouse the 193 genes of [1]_,
    mostly targets of p53; for human the 161 genes of the MSigDB hallmark [3]_. A renamed gene counts under either
    symbol. ``LICENSES.md`` next to the lists has their sources.

    References
    ----------
    .. [1] Schiebinger et al. (2019), Optimal-transport analysis of single-cell gene expression identifies developmental
       trajectories in reprogramming, Cell 176(4), 928-943, doi:10.1016/j.cell.2019.01.006
    .. [2] Tirosh et al. (2016), Dissecting the multicellular ecosystem of metastatic melanoma by single-cell RNA-seq,
       Science 352(6282), 189-196, doi:10.1126/science.aad0501
    .. [3] Liberzon et al. (2015), The Molecular Signatures Database Hallmark Gene Set Collection, Cell Systems 1(6),
       417-425, doi:10.1016/j.cels.2015.12.004

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.hematopoiesis()
    >>> uc.pp.score_growth(adata, "mouse", time_key="day")
    >>> print(f"{adata.uns['growth']['proliferation']['hit_rate']:.0%}", f"{adata.obs['growth'].median():.1f}")
    12% 1.0
    """
    check_adata(adata, "adata")
    check_key_added(key_added)
    _check_rates("birth", birth_rates, birth_center, birth_width)
    _check_rates("death", death_rates, death_center, death_width)
    sets = [
        choose_gene_set(organism, name, genes)
        for name, genes in (("proliferation", proliferation), ("apoptosis", apoptosis))
    ]
    t, days_by_time = days_to_next(adata, time_key, days, days_per_unit)
    where = {"layer": layer, "use_raw": use_raw, "gene_symbols": gene_symbols}
    (p, of_proliferation), (a, of_apoptosis) = _scores(adata, sets, min_hit_rate, **where)
    rate = _logistic(p, birth_rates, birth_center, birth_width) - _logistic(a, death_rates, death_center, death_width)
    growth = _descendants(rate, t)

    params = {
        "organism": organism, "time_key": time_key, "days": days, "days_per_unit": days_per_unit, **where,
        "min_hit_rate": min_hit_rate, "birth_rates": tuple(birth_rates), "birth_center": birth_center,
        "birth_width": birth_width, "death_rates": tuple(death_rates), "death_center": death_center,
        "death_width": death_width,
    }  # fmt: skip
    uns = {"params": plain(params), "proliferation": of_proliferation, "apoptosis": of_apoptosis}
    if days_by_time:
        uns["days"] = {"time": np.asarray(list(map(str, days_by_time))), "days": np.asarray([*days_by_time.values()])}
    obs = {f"{key_added}_proliferation": p, f"{key_added}_apoptosis": a, key_added: growth}
    write_slots((adata, {"obs": obs, "uns": {key_added: uns}}))


def _scores(adata: AnnData, sets: Sequence[GeneSet], min_hit_rate: float, **where) -> list[tuple[np.ndarray, dict]]:
    """Score every cell by every set, and say by which genes."""
    if not 0 <= min_hit_rate <= 1:
        raise ValueError(f"Expected `min_hit_rate` to be between 0 and 1, found {min_hit_rate!r}.")
    matrix, names, called = expression_matrix(adata, **where)
    scored = []
    for gene_set in sets:
        columns = find_genes(gene_set, names)
        score, varies = mean_z_score(log_expression(matrix, columns, called))
        rate = check_hit_rate(gene_set, int(varies.sum()), len(columns), min_hit_rate, names)
        genes = np.asarray(names[columns[varies]], dtype=str)
        found = {"genes": genes, "n_genes": len(gene_set.genes), "hit_rate": rate, "source": gene_set.source}
        scored.append((score, found))
    return scored


def _logistic(score: np.ndarray, rates: tuple[float, float], center: float, width: float) -> np.ndarray:
    """Rate per day, from the lowest to the highest as the score rises."""
    lowest, highest = rates
    # 1 / (1 + exp(-2x)) = (1 + tanh(x)) / 2, which does not overflow.
    return lowest + (highest - lowest) * (1 + np.tanh(2 * (score - center) / width)) / 2


def _descendants(rate: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Descendants after t days of growth at a constant rate."""
    exponent = rate * t
    largest = np.log(np.finfo(np.float64).max)
    if np.abs(exponent).max(initial=0.0) >= largest:
        raise ValueError(
            f"Expected numbers of descendants that a float can hold, found e to the power {np.abs(exponent).max():.0f} "
            f"after {t.max():.4g} days. Give times in days with `days_per_unit`, or lower rates."
        )
    return np.exp(exponent)


def _check_rates(name: str, rates: tuple[float, float], center: float, width: float) -> None:
    """Raise unless the constants describe a rise."""
    lowest_highest = np.asarray(rates, dtype=np.float64)
    if lowest_highest.shape != (2,) or not 0 <= lowest_highest[0] <= lowest_highest[1] < np.inf:
        raise ValueError(f"Expected `{name}_rates` to be (lowest, highest) rates per day from 0 up, found {rates!r}.")
    if not (np.isfinite(center) and 0 < width < np.inf):
        raise ValueError(
            f"Expected a finite `{name}_center` and a positive `{name}_width`, found {center!r} and {width!r}."
        )
