"""Where pushed cells land by type, and the share of a lineage's mass that goes where it may."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import pandas as pd

from uotcell.metrics._resampling import bootstrap_means, percentile_interval, weighted_mean
from uotcell.metrics._trajectory import nearest_cells
from uotcell.problems._written import WrittenPair
from uotcell.tl._scores import stream

Allowed = dict[str, dict[str, list[str]]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Landing:
    """Where the images of the source cells of one pair lie among the target cells.

    Attributes
    ----------
    types
        Types of the source cells, shape ``(n,)``.
    masses
        Their masses, shape ``(n,)``.
    nearest
        Target cells nearest to their images, shape ``(n, n_neighbors)``.
    target_types
        Types of the target cells, shape ``(m,)``.
    """

    types: np.ndarray
    masses: np.ndarray
    nearest: np.ndarray
    target_types: np.ndarray

    def table(self, rows: list[str], columns: list[str]) -> np.ndarray:
        """Mass by source type and target type, shape ``(n_rows, n_columns)``."""
        landed = self.target_types[self.nearest]
        shares = np.stack([(landed == column).mean(axis=1) for column in columns], axis=1)
        return ((self.types == np.asarray(rows)[:, None]) * self.masses) @ shares

    def allowed_shares(self, moves: dict[str, list[str]]) -> np.ndarray:
        """Share of every source cell that goes where its type may, shape ``(n,)``; NaN for a type not listed."""
        shares = np.full(len(self.types), np.nan)
        for source, targets in moves.items():
            cells = self.types == source
            shares[cells] = np.isin(self.target_types[self.nearest[cells]], targets).mean(axis=1)
        return shares

    def landed_mass(self, moves: dict[str, list[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Mass that each target cell gets from each listed type, and whether it may, both ``(n_types, m)``."""
        k, m = self.nearest.shape[1], len(self.target_types)
        mass = [
            np.bincount(self.nearest[cells].ravel(), np.repeat(self.masses[cells] / k, k), minlength=m)
            for cells in (self.types == source for source in moves)
        ]
        return np.stack(mass), np.stack([np.isin(self.target_types, targets) for targets in moves.values()])


def landings(
    images: list[tuple[np.ndarray, np.ndarray]],
    pairs: list[WrittenPair],
    labels: np.ndarray,
    *,
    weighted: bool,
    n_neighbors: int,
) -> list[Landing]:
    """Find where a map sends the source cells of every pair.

    Parameters
    ----------
    images
        Images and mass multipliers of the source cells, by pair.
    pairs
        The pairs.
    labels
        Types of all cells.
    weighted
        Whether the multipliers count.
    n_neighbors
        Target cells to look at.

    Returns
    -------
    One landing for each pair, with masses as shares of the cells of the source time.
    """
    return [
        Landing(
            types=labels[pair.source_rows],
            masses=(weights if weighted else np.ones(len(pushed))) / len(pushed),
            nearest=nearest_cells(pushed, pair.y, n_neighbors=n_neighbors),
            target_types=labels[pair.target_rows],
        )
        for (pushed, weights), pair in zip(images, pairs, strict=True)
    ]


def check_allowed(
    allowed: Mapping[str, Mapping[str, Sequence[str]]], source_types: set[str], types: set[str]
) -> Allowed:
    """Return the allowed transitions as dicts of lists of strings; warn of types that no cell has.

    Raises
    ------
    ValueError
        If it is not a mapping of mappings of lists, or a lineage has no source cell.
    """
    lineages = allowed.values() if isinstance(allowed, Mapping) else [None]
    if not lineages or any(
        not isinstance(moves, Mapping) or any(isinstance(targets, str) for targets in moves.values())
        for moves in lineages
    ):
        raise ValueError(
            "Expected `allowed` to map lineages to mappings of source types to lists of target types, such as "
            f"{{'all': {{'A': ['A', 'B']}}}}, found {allowed!r}."
        )
    allowed = {
        str(lineage): {str(source): [str(target) for target in targets] for source, targets in moves.items()}
        for lineage, moves in allowed.items()
    }
    for lineage, moves in allowed.items():
        if source_types.isdisjoint(moves):
            raise ValueError(
                f"Expected source cells in lineage {lineage!r}, of one of the types {list(moves)}, found cells of "
                f"{sorted(source_types)} only. Leave it out of `allowed`, or choose another `groupby`."
            )
    named = {name for moves in allowed.values() for source, targets in moves.items() for name in (source, *targets)}
    if named - types:
        warnings.warn(
            f"No cell is of the types {sorted(named - types)} in `allowed`, which count for nothing. The types are "
            f"{sorted(types)}.",
            stacklevel=3,
        )
    return allowed


def score_lineages(
    maps: dict[str, list[Landing]],
    allowed: Allowed,
    *,
    shuffled: bool,
    n_bootstrap: int,
    confidence: float,
    rng: jax.Array | int,
) -> pd.DataFrame:
    """Share of the mass of every lineage that goes where it may, by every map.

    Parameters
    ----------
    maps
        Landings of every pair, by map; that of the fit is called "fit".
    allowed
        The transitions.
    shuffled
        Whether to score the fit with the types of the target cells permuted, too.
    n_bootstrap, confidence, rng
        Samples and permutations, the central share of them, and their seed.

    Returns
    -------
    Rows of ``lineage``, ``map``, ``score``, ``low``, ``high`` and ``n_cells``.
    """
    permuted = permuted_scores(maps["fit"], allowed, n_bootstrap, rng) if shuffled else None
    rows = []
    for i, (lineage, moves) in enumerate(allowed.items()):
        for name, by_pair in maps.items():
            shares = np.concatenate([landing.allowed_shares(moves) for landing in by_pair])
            masses = np.concatenate([landing.masses for landing in by_pair])
            cells = ~np.isnan(shares)
            shares, masses = shares[cells], masses[cells]
            draws = bootstrap_means(shares, masses, n_draws=n_bootstrap, generator=stream(rng, "bootstrap", i))
            interval = percentile_interval(draws, confidence)
            rows.append((lineage, name, weighted_mean(shares, masses), *interval, int(cells.sum())))
        if shuffled:
            interval = percentile_interval(permuted[i], confidence)
            rows.append((lineage, "shuffled", float(permuted[i].mean()), *interval, int(cells.sum())))
    return pd.DataFrame(rows, columns=["lineage", "map", "score", "low", "high", "n_cells"])


def permuted_scores(by_pair: list[Landing], allowed: Allowed, n_permutations: int, rng: jax.Array | int) -> np.ndarray:
    """Scores of every lineage with target types permuted within their time, shape ``(n_lineages, n_permutations)``."""
    right = np.zeros((len(allowed), n_permutations))
    total = np.zeros((len(allowed), 1))
    for i, landing in enumerate(by_pair):
        landed = [landing.landed_mass(moves) for moves in allowed.values()]
        total += np.array([[mass.sum()] for mass, _ in landed])
        generator = stream(rng, "permutation", i)
        for draw in range(n_permutations):
            order = generator.permutation(len(landing.target_types))
            right[:, draw] += [(mass * may[:, order]).sum() for mass, may in landed]
    with np.errstate(invalid="ignore"):  # a lineage that transports nothing has no score
        return right / total
