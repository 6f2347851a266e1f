"""A perturbation screen as arrays."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from anndata import AnnData

from uotcell.problems._conditions import choose_pairs, find_strata, leave_out_small
from uotcell.problems._representation import check_representation, representation
from uotcell.problems._splits import check_fractions

# A tenth of fewer cells is too little to tune and to score on.
SMALL_CONDITION = 500
MIN_SCORED = 5
ALL_CELLS = ""


class Response(Protocol):
    """What a simulator knows about one condition."""

    def push(self, x: np.ndarray) -> np.ndarray:
        """Where control cells ``(n, d)`` truly go."""

    def survival(self, x: np.ndarray) -> np.ndarray:
        """Probability ``(n,)`` that they survive."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Screen:
    """Cells of a perturbation screen, in one representation, with what was done to each.

    Attributes
    ----------
    name
        Names the data set in results; letters, digits and ``_.+-``.
    cells
        Shape ``(n_cells, n_dims)``, float32 or float64.
    labels, groups
        Condition and group, such as the cell line, of every cell, shapes ``(n_cells,)``, strings. Conditions are
        compared with the controls of their own group.
    control
        Label of the controls.
    conditions
        (label, group) of everything that is compared.
    valid_fraction, test_fraction
        Shares of the cells of every population for validation and test.
    truth
        By label, what is known about a simulated condition; empty for measured data.
    """

    name: str
    cells: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    control: str
    conditions: tuple[tuple[str, str], ...]
    valid_fraction: float
    test_fraction: float
    truth: Mapping[str, Response]

    def rows(self, label: str, group: str) -> np.ndarray:
        """Rows of a condition in a group, ascending."""
        return np.flatnonzero((self.labels == label) & (self.groups == group))

    def restricted(self, conditions: Sequence[tuple[str, str]]) -> Screen:
        """Return the screen with some of its conditions."""
        return replace(self, conditions=tuple(conditions))

    def fingerprint(self) -> dict:
        """Return everything about the data that a result depends on, as plain values."""
        digest = hashlib.sha256(np.ascontiguousarray(self.cells).tobytes())
        digest.update("\x1f".join([*self.labels, *self.groups]).encode())
        for label in sorted(self.truth):
            response, some = self.truth[label], self.cells[:64]
            for values in (response.push(some), response.survival(some)):
                digest.update(np.ascontiguousarray(values, np.float32).tobytes())
        return {
            "n_cells": len(self.cells),
            "n_dims": self.cells.shape[1],
            "dtype": str(self.cells.dtype),
            "control": self.control,
            "conditions": [list(pair) for pair in self.conditions],
            "valid_fraction": self.valid_fraction,
            "test_fraction": self.test_fraction,
            "truth": sorted(self.truth),
            "sha256": digest.hexdigest()[:16],
        }


def read_screen(
    adata: AnnData,
    perturbation_key: str,
    control: object,
    *,
    name: str = "data",
    use_rep: str = "X_pca",
    layer: str | None = None,
    groupby: str | None = None,
    conditions: Sequence | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
    min_cells: int = 20,
    truth: Mapping[str, Response] | None = None,
) -> Screen:
    """Read a screen from annotated data.

    Parameters
    ----------
    adata
        Cells of all conditions.
    perturbation_key, control
        Column of ``.obs`` that says what was done to each cell, and its label for controls.
    name
        Names the data in results.
    use_rep, layer
        Matrix to read: a key of ``.obsm``, or ``"X"`` and optionally a layer.
    groupby
        Column of ``.obs``; conditions are compared with the controls of their own group.
    conditions
        Labels to compare, all by default.
    valid_fraction, test_fraction
        Shares of the cells of every population for validation and test: 0.1, or 0.2 if one has fewer than 500 cells.
    min_cells
        Conditions with fewer training cells, or with fewer controls to train on, are left out, of which a warning
        tells.
    truth
        By label, an object with ``push`` and ``survival``, for simulated data.

    Returns
    -------
    The screen. Cells without a label or group, and those of other conditions, are left out.

    Raises
    ------
    KeyError, ValueError
        If a column, label or matrix does not exist, or too few cells are left to train or score on.

    Examples
    --------
    >>> import uotcell as uc
    >>> screen = uc.benchmark.read_screen(uc.datasets.reprogramming(), "day", 10.0, name="course", conditions=[11.0])
    >>> screen.name
    'course'
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise ValueError(f"Expected the name of a data set to hold letters, digits and '_.+-' only, found {name!r}.")
    check_representation(adata, use_rep, layer)
    strata = find_strata(adata, perturbation_key, groupby)
    pairs = choose_pairs(list(strata), control, conditions, perturbation_key=perturbation_key)
    sizes = {side: len(strata[side]) for pair in pairs for side in (pair, (control, pair[1]))}
    share = 0.1 if min(sizes.values()) >= SMALL_CONDITION else 0.2
    valid_fraction, test_fraction = (share if f is None else float(f) for f in (valid_fraction, test_fraction))
    check_fractions(valid_fraction, test_fraction)
    n_train = {side: n - round(n * valid_fraction) - round(n * test_fraction) for side, n in sizes.items()}
    pairs = leave_out_small(pairs, control, n_train, min_cells=min_cells, on_small="warn")
    wanted = dict.fromkeys(side for pair in pairs for side in (pair, (control, pair[1])))
    fewest = min(round(sizes[side] * fraction) for side in wanted for fraction in (valid_fraction, test_fraction))
    if fewest < MIN_SCORED:
        raise ValueError(
            f"Expected at least {MIN_SCORED} validation and test cells of every condition, found {fewest}. Raise "
            "`valid_fraction`, `test_fraction` or `min_cells`."
        )
    names = {row: (str(label), _group(group)) for label, group in wanted for row in strata[label, group]}
    rows = np.sort(np.fromiter(names, int))
    labels, groups = (np.array([names[row][side] for row in rows], dtype=object) for side in (0, 1))
    labelled = {str(label) for label, _ in pairs}
    return Screen(
        name=name,
        cells=representation(adata, rows, use_rep, layer),
        labels=labels,
        groups=groups,
        control=str(control),
        conditions=tuple(sorted((str(label), _group(group)) for label, group in pairs)),
        valid_fraction=valid_fraction,
        test_fraction=test_fraction,
        truth={str(label): response for label, response in (truth or {}).items() if str(label) in labelled},
    )


def _group(group: object) -> str:
    return ALL_CELLS if group is None else str(group)
