"""A drug screen with known maps and known survival on real cells."""

from __future__ import annotations

from collections.abc import Sequence

import anndata as ad
import numpy as np
import pandas as pd

from uotcell.datasets._drug_response import drug_responses
from uotcell.datasets._perturbations import melanoma_4i, melanoma_4i_drug_counts
from uotcell.datasets._registry import entries

# Deviation of the measurement error, in standard deviations of the cells along every direction.
NOISE = 0.1
CONTROL = "control"
SPLIT_STREAM, CELL_STREAM = 2, 3


def simulate_drug_screen(
    *,
    n_control: int = 500,
    n_treated: int = 500,
    drugs: Sequence[str] | None = None,
    rng: int = 0,
) -> ad.AnnData:
    """Simulate a screen of up to 35 drugs on real melanoma cells, with the true map and survival of each drug.

    The real cells of :func:`melanoma_4i` at 8 hours are split at random: ``n_control`` of them are the observed
    controls, unchanged; the others are hidden and only ever seen treated. Each treated cell is drawn from the hidden
    cells, with replacement and in proportion to the drug's ``survival``, moved by its ``push``
    (:func:`drug_responses` says how both are set), and measured with a normal error of a tenth of the cells'
    covariance in deviation. Two treated cells of one origin are its descendants; they differ by that error. Drugs are
    drawn independently from the same hidden cells.

    Parameters
    ----------
    n_control
        Observed control cells, at most half of the 1,962.
    n_treated
        Treated cells of each drug.
    drugs
        Names as in :func:`melanoma_4i_drug_counts`; all by default. A drug's cells do not depend on which others are
        simulated.
    rng
        Seed, of the responses as well: ``drug_responses(rng)`` are those used here.

    Returns
    -------
    One object with ``n = n_control + n_treated × len(drugs)`` cells, controls first:

    - ``.X``: dense float32 (n, 50), the features of :func:`melanoma_4i`, meant to be used as they are.
    - ``.obs["drug"]``: categorical (n,), "control" or the drug.
    - ``.obs["origin"]``: categorical (n,), name of the real cell in :func:`melanoma_4i`. No origin of a control is one
      of a treated cell.
    - ``.layers["untreated"]``: float32 (n, 50), the origin's features: the truth behind each treated cell. No method
      may read it.
    - ``.obsm["true_survival"]``: float32 (n, n_drugs), expected descendants of the control cells under each drug, in
      the order of ``.uns["simulation"]["drugs"]``; NaN for treated cells.
    - ``.uns["simulation"]``: dict: ``drugs`` and ``mechanisms`` (arrays of str), ``mean_survival`` (float64, the real
      ratios of cells at 48 to 8 hours) and ``noise`` (float).
    - ``.uns["dataset"]``: dict of str: name, description, citation, source, license, use_rep, perturbation_key,
      control.

    Notes
    -----
    The "untreated" cells are real but not untreated: they had been with trametinib and erlotinib for 8 hours. Equal
    numbers of cells are simulated for all drugs, as after sorting, so the ratio of counts must be taken from
    ``mean_survival``.

    No parameter was chosen for a method to do well, but one choice decides whether survival can be seen at all: see the
    notes of :func:`drug_responses`. Measured with the defaults and ``uc.ot.solve_unbalanced(control, treated,
    epsilon=0.05, tau=0.95)``: the rank correlation of ``source_weights`` with the true survival has a median of 0.85
    over drugs. It is 0.8 to 0.95 for most, 0.65 to 0.8 for inhibitors of MAPK and tubulin, and 0 to 0.4 for the six
    drugs with ``stress``. With ``tau=0.9`` the error of the mean displacement of the survivors has a median of 0.29 in
    units of the features, against 0.54 for the balanced coupling and 0.19 for one that is given the true survival.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.simulate_drug_screen(drugs=["cisplatin"])
    >>> adata.shape, adata.obsm["true_survival"].shape
    ((1000, 50), (1000, 1))
    """
    source = melanoma_4i()
    source = source[source.obs["hour"] == 8]
    for name, count, most in (("n_control", n_control, source.n_obs // 2), ("n_treated", n_treated, None)):
        _check_count(name, count, most)
    names = _choose(drugs)
    everything = drug_responses(rng)
    responses = {name: everything[name] for name in names}
    cells = np.asarray(source.X, np.float64)

    order = np.random.default_rng([SPLIT_STREAM, rng]).permutation(len(cells))
    controls, hidden = order[:n_control], order[n_control:]
    spread = _square_root(np.cov(cells, rowvar=False))
    rows, images = [controls], [cells[controls]]
    for name, response in responses.items():
        # A stream per drug, named by its letters: no drug's cells depend on which others are simulated.
        draws = np.random.default_rng([CELL_STREAM, rng, *name.encode()])
        survival = response.survival(cells[hidden])
        origin = draws.choice(hidden, n_treated, p=survival / survival.sum())
        error = NOISE * draws.standard_normal((n_treated, len(spread))) @ spread
        rows.append(origin)
        images.append(response.push(cells[origin]) + error)
    return _assemble(source, np.concatenate(rows), np.concatenate(images), responses, n_control=n_control)


def _choose(drugs: Sequence[str] | None) -> list[str]:
    """Check the names of drugs; all when none are given."""
    known = list(melanoma_4i_drug_counts().index)
    if drugs is None:
        return known
    if isinstance(drugs, str):
        raise ValueError(f"Expected `drugs` to be a sequence of names, found the string {drugs!r}. Put it in a list.")
    names = list(drugs)
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(
            f"Expected `drugs` to be different names, at least one, out of {sorted(known)}, found {names}."
        )
    return names


def _check_count(name: str, count: int, most: int | None) -> None:
    is_count = isinstance(count, (int, np.integer)) and not isinstance(count, bool)
    if not is_count or count < 1 or (most is not None and count > most):
        limits = "a positive integer" if most is None else f"an integer from 1 to {most}, half of the real cells"
        raise ValueError(f"Expected `{name}` to be {limits}, found {count!r}.")


def _square_root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root; features are nearly redundant, so rounding may leave eigenvalues below zero."""
    values, axes = np.linalg.eigh(covariance)
    return (axes * np.sqrt(values.clip(0))) @ axes.T


def _assemble(source, rows, images, responses, *, n_control) -> ad.AnnData:
    """Put cells and truth together."""
    names = list(responses)
    labels = np.repeat([CONTROL, *names], [n_control] + [(len(rows) - n_control) // len(names)] * len(names))
    origins = np.asarray(source.obs_names)[rows]
    obs = pd.DataFrame(
        {"drug": pd.Categorical(labels, categories=[CONTROL, *names]), "origin": pd.Categorical(origins)},
        index=[f"cell{k}" for k in range(len(rows))],
    )
    adata = ad.AnnData(images.astype(np.float32), obs=obs, var=source.var.copy())
    adata.layers["untreated"] = np.asarray(source.X[rows], np.float32)
    survival = np.full((len(rows), len(names)), np.nan, np.float32)
    for column, response in enumerate(responses.values()):
        survival[:n_control, column] = response.survival(images[:n_control])
    adata.obsm["true_survival"] = survival
    adata.uns["dataset"] = entries()["simulated_drug_screen"].describe()
    adata.uns["simulation"] = {
        "drugs": np.array(names, dtype=object),
        "mechanisms": np.array([response.mechanism for response in responses.values()], dtype=object),
        "mean_survival": np.array([response.mean_survival for response in responses.values()]),
        "noise": NOISE,
    }
    return adata
