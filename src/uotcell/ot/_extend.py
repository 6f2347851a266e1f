"""From a solve on some cells of each side to a coupling of all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uotcell.ot._inputs import on_device
from uotcell.ot._structured import CrossCost


def structured_coupling(cls, cost: CrossCost, cells, masses, support, solution, *, anchored, shifts=None, **fields):
    """Build a coupling from a solve on some cells of each side: extend potentials and weights to all of them.

    Parameters
    ----------
    cls
        Class of the coupling.
    cost
        Costs between the cells.
    cells, masses
        Cells of both sides in their original coordinates, and their prior masses.
    support
        Rows of both sides the problem was solved on.
    solution
        Potentials and marginals on the support, whose cells carry the mass of their whole side.
    anchored
        Whether cells with mass were left out of the solve.
    shifts
        What is subtracted from the cells of both sides; by default their means, in one space the mean of these.
    fields
        Further fields of the coupling.

    Returns
    -------
    The coupling.
    """
    if shifts is None:
        shifts = [prior @ points / prior.sum() for points, prior in zip(cells, masses, strict=True)]
        if cls.same_space:
            # Sides that are compared keep one origin.
            shifts = [(shifts[0] + shifts[1]) / 2] * 2
    potentials, weights = [], []
    for prior, rows, potential, weight in zip(
        masses, support, (solution.f, solution.g), (solution.source_weights, solution.target_weights), strict=True
    ):
        share = prior[rows].sum() / prior.sum()
        potentials.append(np.zeros(len(prior), np.float32))
        potentials[-1][rows] = potential
        weights.append(np.zeros(len(prior)))
        weights[-1][rows] = np.asarray(weight, np.float64) * share
    coupling = cls(
        x=on_device(cells[0] - shifts[0]), y=on_device(cells[1] - shifts[1]),
        a=on_device(masses[0]), b=on_device(masses[1]),
        f=on_device(potentials[0]), g=on_device(potentials[1]), cost=cost,
        shift=shifts[0], target_shift=shifts[1], anchors=tuple(support) if anchored else None,
        source_weights=on_device(weights[0]), target_weights=on_device(weights[1]),
        converged=True, n_iters=int(solution.n_iters), marginal_error=float(solution.marginal_error), **fields,
    )  # fmt: skip
    total = float(np.asarray(solution.source_weights, np.float64).sum())
    for side, rows in enumerate(support):
        rest = np.setdiff1d(np.arange(len(masses[side])), rows)
        if len(rest):
            soft = coupling.soft_minimum(cells[side][rest], source=side == 0)
            potentials[side][rest] = coupling.tau[side] * soft
            weights[side][rest] = masses[side][rest] * np.exp((coupling.tau[side] - 1) * soft / coupling.epsilon)
            # The extension is exact for the anchors' plan; over all cells its mass carries sampling error.
            weights[side] *= total / weights[side].sum()
    return replace(
        coupling,
        f=on_device(potentials[0]), g=on_device(potentials[1]),
        source_weights=on_device(weights[0]), target_weights=on_device(weights[1]),
    )  # fmt: skip
