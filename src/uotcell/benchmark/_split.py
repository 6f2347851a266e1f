"""Cells of one condition for training, validation and test, and those that are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from uotcell.benchmark._random import numpy_stream
from uotcell.benchmark._screen import Response, Screen
from uotcell.ot._geometry import mean_squared_distance
from uotcell.problems._conditions import stratum_label
from uotcell.problems._splits import SPLITS, split_stratum

SCORED = ("valid", "test")
# ε of every divergence, in units of the mean squared distance between training controls and training treated cells.
SCORE_EPSILON = 0.1
# Random halves of the scored validation cells, from which the error of a difference between two maps is estimated.
N_HALVES = 8


class Draw(NamedTuple):
    """The cells that every method is scored on, equally many of each kind, each ``(n, dim)``.

    ``halves`` are rows of random halves, shape ``(N_HALVES, n // 2)``.
    """

    source: np.ndarray
    observed: np.ndarray
    replicate: np.ndarray
    survivors: np.ndarray | None
    halves: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitPair:
    """Controls and treated cells of one condition under one seed.

    Attributes
    ----------
    label, group, seed
        What this is.
    source, target
        Controls and treated cells by split.
    draws
        Cells to score, for ``"valid"`` and ``"test"``. ``replicate`` are treated training cells, the ceiling of what a
        prediction can reach, and ``survivors`` controls in proportion to their true survival.
    epsilon
        ε of the scores, in units of the squared representation; it knows no method and no τ.
    truth
        What is known about a simulated condition.
    """

    label: str
    group: str
    seed: int
    source: dict[str, np.ndarray]
    target: dict[str, np.ndarray]
    draws: dict[str, Draw]
    epsilon: float
    truth: Response | None


def split_pair(screen: Screen, label: str, group: str, seed: int, n_score_cells: int) -> SplitPair:
    """Split the cells of a condition and draw those to score; both depend on the seed and the labels alone."""
    source, target = (
        {split: screen.cells[rows] for split, rows in split_rows(screen, side, group, seed).items()}
        for side in (screen.control, label)
    )
    truth = screen.truth.get(label)
    draws = {split: _draw(source, target, split, (seed, label, group), n_score_cells, truth) for split in SCORED}
    epsilon = SCORE_EPSILON * mean_squared_distance(source["train"], target["train"])
    return SplitPair(
        label=label, group=group, seed=seed, source=source, target=target, draws=draws, epsilon=epsilon, truth=truth
    )


def split_rows(screen: Screen, label: str, group: str, seed: int) -> dict[str, np.ndarray]:
    """Rows of one population for training, validation and test, each ascending."""
    rows = screen.rows(label, group)
    fractions = {"valid_fraction": screen.valid_fraction, "test_fraction": screen.test_fraction}
    split = split_stratum(stratum_label((label, group)), len(rows), rng=seed, **fractions)
    return {name: rows[split == number] for number, name in enumerate(SPLITS)}


def _draw(source, target, split: str, names: tuple, n_score_cells: int, truth: Response | None) -> Draw:
    seed, label, group = names
    rng = numpy_stream(seed, "score", split, label, group)
    controls, observed, replicate = source[split], target[split], target["train"]
    n = _few_sizes(min(len(controls), len(observed), len(replicate), n_score_cells))
    chosen = (cells[np.sort(rng.permutation(len(cells))[:n])] for cells in (controls, observed, replicate))
    survivors = None
    if truth is not None:
        survival = np.asarray(truth.survival(controls), np.float64)
        survivors = controls[rng.choice(len(controls), size=n, p=survival / survival.sum())]
    halves = np.stack([rng.permutation(n)[: n // 2] for _ in range(N_HALVES)])
    return Draw(*chosen, survivors, halves)


def _few_sizes(n: int) -> int:
    """Round down by less than a sixteenth, so that many conditions share one compiled divergence."""
    step = max(1, n // 16)
    return n - n % step
