"""Which τ each method is reported with, chosen on validation cells."""

from __future__ import annotations

import numpy as np
import pandas as pd

from uotcell.benchmark._baselines import LINEAR_MAPS

SHORT_NAMES = {"monge_gap": "MG", "icnn": "ICNN"}
FEW_VALID_CELLS = 100
CONDITION = ["dataset", "condition", "group"]
BASELINE_FAMILIES = (*(name.replace("_", " ") for name in LINEAR_MAPS), "entropic OT", "entropic UOT")


def family_names(method: str) -> tuple[str, str]:
    """Names of the balanced and of the tuned family of a method that has a τ."""
    if method == "entropic":
        return "entropic OT", "entropic UOT"
    name = SHORT_NAMES.get(method, method)
    return f"OT-{name}", f"UOT-{name}"


def select_families(scores: pd.DataFrame, *, tune: str | None = None) -> pd.DataFrame:
    """Return the test rows of every family, with its name and the τ that validation cells chose.

    A τ is measured by the mean, over conditions, of the Sinkhorn divergence of the validation cells over that of the
    identity, so that large effects do not decide for all. Chosen is the largest τ that is within one standard error of
    the best (Breiman et al. 1984): mass changes only where that is seen to help. It is chosen for every seed and
    weighting, and for every data set or every condition. The error is that over conditions; for a single condition
    it comes from halves of its cells.

    Parameters
    ----------
    scores
        As in :class:`BenchmarkResult`, with a column ``halves``: on validation rows, the Sinkhorn divergences of random
        halves of the cells, the same halves for every map.
    tune
        ``"condition"``, ``"dataset"``, or ``None`` for the default of :meth:`BenchmarkResult.load`.

    Returns
    -------
    The rows, with a column ``family``.
    """
    if tune not in (None, "condition", "dataset"):
        raise ValueError(f"Expected `tune` to be 'condition', 'dataset' or None, found {tune!r}.")
    test = scores[scores["split"] == "test"]
    fixed = test[test["tau"].isna()]
    found = [fixed.assign(family=fixed["method"].str.replace("_", " "), tuned_for="")]
    for dataset, valid in relative_validation(scores).groupby("dataset"):
        few = valid.groupby(CONDITION)["n_score"].median().median() < FEW_VALID_CELLS
        level = tune or ("dataset" if few else "condition")
        chosen = choose_tau(valid[valid["tau"].notna()], level)
        rows = test[(test["dataset"] == dataset) & test["tau"].notna()]
        balanced, unbalanced = rows[rows["tau"] == 1], rows.merge(chosen)
        for some, which in ((balanced, 0), (unbalanced, 1)):
            names = some["method"].map(lambda method, which=which: family_names(method)[which])
            found.append(some.assign(family=names, tuned_for=level if which else ""))
    return pd.concat([some for some in found if len(some)], ignore_index=True)


def relative_validation(scores: pd.DataFrame) -> pd.DataFrame:
    """Return validation rows with the Sinkhorn divergence over that of the identity; infinite without a map."""
    valid = scores[scores["split"] == "valid"]
    keys = [*CONDITION, "seed", "weighting"]
    identity = valid[valid["method"] == "identity"].set_index(keys)["sinkhorn_divergence"]
    divided = valid.join(identity.rename("identity"), on=keys)
    relative = divided["sinkhorn_divergence"] / divided["identity"]
    return divided.assign(relative=relative.fillna(float("inf")))


def choose_tau(valid: pd.DataFrame, level: str) -> pd.DataFrame:
    """Return the τ of every method, seed and weighting, for the data set or for each condition."""
    within = ["dataset", "method", "seed", "weighting", *(CONDITION[1:] if level == "condition" else ())]
    chosen = [(*keys, _largest_good_tau(some)) for keys, some in valid.groupby(within)]
    return pd.DataFrame(chosen, columns=[*within, "tau"])


def _largest_good_tau(valid: pd.DataFrame) -> float:
    """Return the largest τ whose relative divergence exceeds that of the best by at most one standard error."""
    table = valid.pivot(index=CONDITION, columns="tau", values="relative").sort_index(axis=1, ascending=False)
    everywhere = table.loc[:, np.isfinite(table).all()]
    if everywhere.empty:  # every τ lacks a map somewhere: take the one that lacks fewest
        return float(np.isfinite(table).sum().idxmax())
    # Of equally good ones the first, that is the largest.
    best = everywhere.mean().idxmin()
    excess = everywhere.sub(everywhere[best], axis=0)
    error = excess.std() / len(excess) ** 0.5 if len(excess) > 1 else _error_of_one(valid, everywhere.columns, best)
    return float(everywhere.columns[(excess.mean() <= error.fillna(0.0)).to_numpy()][0])


def _error_of_one(valid: pd.DataFrame, taus: pd.Index, best: float) -> pd.Series:
    """Return the standard error of the excess of every τ over the best one, for a single condition."""
    halves = pd.DataFrame({row.tau: np.divide(row.halves, row.identity) for row in valid.itertuples()})[taus]
    return halves.sub(halves[best], axis=0).std()


def best_baseline(scores: pd.DataFrame, families: pd.DataFrame, dataset: str, weighting: str) -> str:
    """Return the baseline with the smallest mean relative divergence on validation cells, at the τ it was tuned to."""
    valid = relative_validation(scores)
    valid = valid[(valid["dataset"] == dataset) & (valid["weighting"] == weighting)]
    keys = [*CONDITION, "seed", "weighting", "method", "tau"]
    chosen = families[families["family"].isin(BASELINE_FAMILIES)][[*keys, "family"]]
    # Two missing τ count as equal in a merge.
    return str(valid.merge(chosen, on=keys).groupby("family")["relative"].mean().idxmin())
