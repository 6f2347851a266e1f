"""Scores of predicted cells, on equally many cells for every method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from uotcell import metrics
from uotcell._errors import ConvergenceError
from uotcell.benchmark._baselines import Map
from uotcell.benchmark._split import SCORED, Draw, SplitPair
from uotcell.ot import UnbalancedCoupling

WEIGHTINGS = ("unweighted", "weighted")
CEILING = "ceiling"
# All compare predicted `x` of masses `a` with observed `y`; of these only `mean_r2` is better when larger.
DISTRIBUTION_METRICS: dict[str, Callable] = {
    "mmd": metrics.mmd,
    "energy_distance": metrics.energy_distance,
    "wasserstein_1d": lambda x, y, *, a: float(metrics.wasserstein_1d(x, y, a=a).mean()),
    "drug_signature_error": metrics.drug_signature_error,
    "mean_rmse": metrics.mean_rmse,
    "mean_r2": metrics.mean_r2,
    "variance_error": metrics.variance_error,
    "correlation_error": metrics.correlation_error,
    "classifier_auc": metrics.classifier_auc,
}
LARGER_IS_BETTER = ("mean_r2",)
TRUTH_METRICS = ("survivor_divergence", "map_error", "weight_spearman")
METRICS = ("sinkhorn_divergence", *DISTRIBUTION_METRICS, "discrimination_rank")
PROPERTIES = ("transported_mass", "effective_sample_size")


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """A map to be scored.

    Attributes
    ----------
    method
        Name of the method or baseline.
    tau
        Its τ; NaN where there is none.
    push
        The map; ``None`` for the ceiling, which predicts treated cells by other treated cells.
    coupling
        Where its weights come from; ``None`` if all cells weigh the same.
    error
        Why there is no map.
    """

    method: str
    tau: float = math.nan
    push: Map | None = None
    coupling: UnbalancedCoupling | None = None
    error: str = ""


def score_rows(pair: SplitPair, candidate: Candidate) -> list[dict]:
    """Return one row per split and weighting; a map that does not exist has NaN for scores and says why."""
    rows = []
    for split in SCORED:
        draw, weights = pair.draws[split], None
        shared = {
            "condition": pair.label,
            "group": pair.group,
            "seed": pair.seed,
            "method": candidate.method,
            "tau": candidate.tau,
            "split": split,
            "n_score": len(draw.observed),
            "score_epsilon": pair.epsilon,
            "error": candidate.error,
        }
        if candidate.error:
            rows += [{**shared, "weighting": weighting} for weighting in WEIGHTINGS]
            continue
        pushed = draw.replicate if candidate.method == CEILING else _finite(candidate.push(draw.source))
        if candidate.coupling is not None and candidate.tau < 1:
            weights = _normalised(candidate.coupling.source_rescaling(draw.source))
        if candidate.coupling is not None:
            shared |= _properties(candidate.coupling)
        if split == "test" and candidate.push is not None:
            shared |= truth_scores(pair, candidate)
        score = distribution_scores if split == "test" else valid_scores
        plain = score(pushed, draw, None, pair.epsilon)
        weighted = plain if weights is None else score(pushed, draw, weights, pair.epsilon)
        rows += [{**shared, "weighting": w, **s} for w, s in zip(WEIGHTINGS, (plain, weighted), strict=True)]
    return rows


def distribution_scores(x: np.ndarray, draw: Draw, weights: np.ndarray | None, epsilon: float) -> dict:
    """Scores of predicted cells ``x`` that weigh ``weights`` against the observed ones, all of one weight.

    The observed cells keep their weights whatever τ was, so that one yardstick measures all τ.
    """
    y = draw.observed
    scores = {name: metric(x, y, a=weights) for name, metric in DISTRIBUTION_METRICS.items()}
    mean = np.average(x, axis=0, weights=weights)
    return {"sinkhorn_divergence": divergence(x, y, weights, epsilon), **scores, "mean": mean.tolist()}


def valid_scores(x: np.ndarray, draw: Draw, weights: np.ndarray | None, epsilon: float) -> dict:
    """As :func:`distribution_scores`, but one measure alone: validation only chooses τ.

    The same measure on random halves of the cells tells how far it is the cells' luck: the deviation of its halves is
    the standard error of the whole (delete-half jackknife, Shao and Wu 1989).
    """
    parts = [slice(None), *draw.halves]
    found = [divergence(x[p], draw.observed[p], None if weights is None else weights[p], epsilon) for p in parts]
    mean = np.average(x, axis=0, weights=weights)
    return {"sinkhorn_divergence": found[0], "halves": found[1:], "mean": mean.tolist()}


def truth_scores(pair: SplitPair, candidate: Candidate) -> dict:
    """Scores against the true map and survival of a simulated condition, of the test controls that survive.

    ``survivor_divergence`` compares their images with their true images, ``map_error`` is the L2-UVP of these in
    percent, and ``weight_spearman`` correlates the learned weights of training controls with their survival.
    """
    if pair.truth is None:
        return {}
    survivors = pair.draws["test"].survivors
    image, true_image = _finite(candidate.push(survivors)), np.asarray(pair.truth.push(survivors), np.float64)
    squared_error = ((image - true_image) ** 2).sum(axis=1).mean()
    scores = {
        "survivor_divergence": divergence(image, true_image, None, pair.epsilon),
        "map_error": 100 * float(squared_error / true_image.var(axis=0).sum()),
    }
    if candidate.coupling is not None and candidate.tau < 1:
        controls = pair.source["train"]
        weights, survival = candidate.coupling.source_rescaling(controls), pair.truth.survival(controls)
        # Of weights or a survival that are the same for every cell there is no rank.
        if np.ptp(weights) > 0 and np.ptp(survival) > 0:
            scores["weight_spearman"] = float(spearmanr(weights, survival).statistic)
    return scores


def divergence(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None, epsilon: float) -> float:
    """Sinkhorn divergence; NaN if it did not converge, as with cells that a map sends far away."""
    try:
        return metrics.sinkhorn_divergence(x, y, epsilon=epsilon, a=weights)
    except ConvergenceError:
        return math.nan


def _properties(coupling: UnbalancedCoupling) -> dict[str, float]:
    return {
        "transported_mass": coupling.transported_mass,
        "effective_sample_size": coupling.effective_sample_size[0] / len(coupling.x),
    }


def _normalised(weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    return weights / weights.max()


def _finite(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images, np.float64)
    if not np.isfinite(images).all():
        raise ConvergenceError("The map sends cells to infinity or nowhere.")
    return images
