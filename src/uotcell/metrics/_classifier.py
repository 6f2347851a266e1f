"""Whether a classifier tells predicted from observed cells."""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

from uotcell.metrics._inputs import as_populations
from uotcell.ot._inputs import as_key


def classifier_auc(
    x: ArrayLike,
    y: ArrayLike,
    *,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    n_splits: int = 5,
    rng: jax.Array | int = 0,
) -> float:
    """Cross-validated area under the ROC curve of a classifier of predicted against observed cells.

    A classifier two-sample test (Lopez-Paz and Oquab 2017), scored by the area under the curve, which does not depend
    on the share of either side. The classifier is a logistic regression with an L2 penalty on the standardised features
    and their squares: convex, fast, and able to see a wrong mean or a wrong spread of any feature. It does not see
    correlations alone; see :func:`correlation_error`. Both sides count the same in the fit, whatever their size.

    Cells at one position, of whichever side, are in one fold, so that no copy of a tested cell was trained on.

    Parameters
    ----------
    x, y
        Predicted and observed cells, shapes ``(n, d)`` and ``(m, d)``.
    a, b
        Their masses, uniform by default. Only their ratios count; a cell of twice the mass counts as two, in the fit
        and in the area.
    n_splits
        Number of folds, at least 2.
    rng
        Seed or jax key that deals cells to folds.

    Returns
    -------
    Mean area over the folds: 0.5 = indistinguishable, 1 = told apart without error. Of few cells it scatters around
    0.5, to both sides. NaN if either side holds fewer different cells than there are folds.

    Raises
    ------
    ValueError
        If cells or masses are empty, not finite, or do not fit together, or ``n_splits`` is below 2.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 5))
    >>> round(uc.metrics.classifier_auc(x + 3.0, y), 2)
    1.0
    """
    if not isinstance(n_splits, (int, np.integer)) or n_splits < 2:
        raise ValueError(f"Expected `n_splits` to be an integer of at least 2, found {n_splits!r}.")
    cells, masses = _merge_copies(*as_populations(x, y, a, b))
    if (masses > 0).sum(axis=1).min() < n_splits:
        return float("nan")
    folds = _deal(masses, n_splits, rng)
    scores = _standardise(cells)
    features = np.concatenate([scores, _standardise(scores**2)], axis=1)
    return float(np.mean([_held_out_auc(features, masses, folds == fold) for fold in range(n_splits)]))


def _merge_copies(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different positions, shape ``(k, d)``, and the mass of either side at each, shape ``(2, k)``."""
    x, y, a, b = x[a > 0], y[b > 0], a[a > 0], b[b > 0]
    cells, position = np.unique(np.concatenate([x, y]), axis=0, return_inverse=True)
    sides = (position[: len(x)], a), (position[len(x) :], b)
    return cells, np.stack([np.bincount(where, mass, minlength=len(cells)) for where, mass in sides])


def _deal(masses: np.ndarray, n_splits: int, rng: jax.Array | int) -> np.ndarray:
    """Fold of each position, such that either side is spread evenly over the folds."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(as_key(rng))))
    order = generator.permutation(masses.shape[1])
    # Positions of x alone, of both, of y alone: those of either side are then neighbours, and dealt in turn.
    order = order[np.argsort(np.sign(masses[1, order]) - np.sign(masses[0, order]), kind="stable")]
    folds = np.empty(len(order), int)
    folds[order] = np.arange(len(order)) % n_splits
    return folds


def _standardise(features: np.ndarray) -> np.ndarray:
    """Zero mean and unit spread over all positions. No label is used, so tested cells may take part."""
    spread = features.std(axis=0)
    constant = spread <= 1e-12 * np.abs(features).max(axis=0)  # but for rounding, which must not become a feature
    return (features - features.mean(axis=0)) / np.where(constant, 1.0, spread)


def _held_out_auc(features: np.ndarray, masses: np.ndarray, tested: np.ndarray) -> float:
    side, cell = np.nonzero(masses * ~tested)
    weights = masses[side, cell] / masses[:, ~tested].sum(axis=1)[side]
    model = LogisticRegression(max_iter=1000).fit(features[cell], side, sample_weight=weights)
    score, (a, b) = features[tested] @ model.coef_[0], masses[:, tested]
    # Area = P(observed scores above predicted) + ½ P(equal): observed mass below and up to every score, by sorting.
    order = np.argsort(score)
    cumulated = np.concatenate([[0.0], np.cumsum(b[order])])
    below, up_to = (cumulated[np.searchsorted(score[order], score, side=side)] for side in ("left", "right"))
    return float(a @ (cumulated[-1] - (below + up_to) / 2) / (a.sum() * b.sum()))
