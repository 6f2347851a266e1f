"""Control and treated cells of every pair, split and read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import jax
import numpy as np
from anndata import AnnData

from uotcell.problems._conditions import (
    Stratum,
    check_slot_names,
    choose_pairs,
    find_strata,
    leave_out_small,
    stratum_label,
)
from uotcell.problems._representation import representation
from uotcell.problems._splits import SPLITS, split_stratum


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchedCells:
    """Pairs of a control and a condition, and the cells of every (label, group) they use.

    Attributes
    ----------
    control
        Label of the control.
    pairs
        The (condition, group) that are matched with the (control, group).
    rows
        Rows of the cells of every (label, group) in the AnnData, ascending.
    split
        Index of each of them into ``SPLITS``.
    cells
        The cells themselves, each ``(n, n_dims)``.
    left_out
        Pairs with too few cells.
    """

    control: object
    pairs: list[Stratum]
    left_out: list[Stratum]
    rows: dict[Stratum, np.ndarray]
    split: dict[Stratum, np.ndarray]
    cells: dict[Stratum, np.ndarray]

    @property
    def conditions(self) -> list:
        """Labels of the conditions."""
        return list(dict.fromkeys(condition for condition, _ in self.pairs))

    @property
    def n_dims(self) -> int:
        """Dimensions of the representation."""
        return next(iter(self.cells.values())).shape[1]

    def control_of(self, pair: Stratum) -> Stratum:
        """Return the controls a pair is matched with."""
        return self.control, pair[1]

    def split_cells(self, pair: Stratum, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the control and the treated cells of a split."""
        return self._of(self.cells, pair, split)

    def split_rows(self, pair: Stratum, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of the control and of the treated cells of a split."""
        return self._of(self.rows, pair, split)

    def split_codes(self, n_cells: int) -> np.ndarray:
        """Return the index into ``SPLITS`` of all cells of the AnnData, −1 for cells that are not used."""
        codes = np.full(n_cells, -1, np.int8)
        for stratum, rows in self.rows.items():
            codes[rows] = self.split[stratum]
        return codes

    def _of(self, values: dict, pair: Stratum, split: str) -> tuple[np.ndarray, np.ndarray]:
        sides = self.control_of(pair), pair
        return tuple(values[side][self.split[side] == SPLITS.index(split)] for side in sides)


def match_cells(
    adata: AnnData,
    perturbation_key: str,
    control: object,
    *,
    use_rep: str,
    layer: str | None,
    groupby: str | None,
    conditions: Iterable | None,
    valid_fraction: float,
    test_fraction: float,
    min_cells: int,
    on_small: str,
    rng: jax.Array | int,
) -> MatchedCells:
    """Match, split and read cells; see :meth:`uotcell.problems.PerturbationProblem.prepare`."""
    rows = find_strata(adata, perturbation_key, groupby)
    chosen = choose_pairs(rows, control, conditions, perturbation_key=perturbation_key)
    split = {
        stratum: split_stratum(
            stratum_label(stratum),
            len(rows[stratum]),
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
            rng=rng,
        )
        for stratum in _used(chosen, control)
    }
    n_train = {stratum: int((codes == SPLITS.index("train")).sum()) for stratum, codes in split.items()}
    pairs = leave_out_small(chosen, control, n_train, min_cells=min_cells, on_small=on_small)
    check_slot_names(pairs)
    kept, used = set(pairs), _used(pairs, control)
    return MatchedCells(
        control=control,
        pairs=pairs,
        left_out=[pair for pair in chosen if pair not in kept],
        rows={stratum: rows[stratum] for stratum in used},
        split={stratum: split[stratum] for stratum in used},
        cells={stratum: representation(adata, rows[stratum], use_rep, layer) for stratum in used},
    )


def _used(pairs: list[Stratum], control: object) -> list[Stratum]:
    return list(dict.fromkeys(stratum for pair in pairs for stratum in ((control, pair[1]), pair)))
