"""Predict a time point that was left out from its two neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from anndata import AnnData
from scipy import sparse
from sklearn.decomposition import PCA

from uotcell._errors import ConvergenceError
from uotcell.methods import Method
from uotcell.metrics import sinkhorn_divergence, wasserstein
from uotcell.ot import UnbalancedCoupling, solve_unbalanced
from uotcell.ot._geometry import mean_squared_distance
from uotcell.problems._growth import prior_masses
from uotcell.problems._held_out import pad_cells
from uotcell.problems._interpolation import interpolate
from uotcell.problems._representation import check_representation, in_memory, representation
from uotcell.problems._temporal import MIN_CELLS
from uotcell.problems._times import parse_times, time_codes
from uotcell.train import fit

# ε of the Sinkhorn divergence, in units of the mean squared distance within the population that was left out.
DIVERGENCE_EPSILON = 0.1
# Pairs behind predictions that draw them.
N_PAIRS = 1_000


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A time point and its neighbours: cells ``(n, dim)``, the prior mass of source cells, and the share of the way."""

    time: float
    source: np.ndarray
    truth: np.ndarray
    target: np.ndarray
    mass: np.ndarray | None
    share: float


@dataclass(frozen=True, kw_only=True)
class InterpolationSettings:
    """How every time point is predicted."""

    methods: Mapping[str, Method]
    tau: float | tuple[float, float] | None
    marginal_penalty: float | tuple[float, float] | None
    epsilon: float
    n_iters: int | None
    batch_size: int
    fit_options: Mapping[str, object]


def left_out_points(
    adata: AnnData,
    time_key: str,
    use_rep: str | None,
    layer: str | None,
    n_comps: int,
    time_points: Sequence | None,
    growth_key: str | None,
) -> list[LeftOut]:
    """Read every time point to leave out, with its neighbours, from annotated data.

    Raises
    ------
    KeyError
        If a key does not exist.
    ValueError
        If there is no interior time point, one that is asked for is none, or cells or growth cannot be used.
    """
    for name, key in (("time_key", time_key), ("growth_key", growth_key)):
        if key is not None and key not in adata.obs:
            raise KeyError(f"Expected `{name}` to be a column of `adata.obs` {list(adata.obs)}, found {key!r}.")
    if isinstance(n_comps, bool) or not isinstance(n_comps, (int, np.integer)) or n_comps < 1:
        raise ValueError(f"Expected `n_comps` to be a positive integer, found {n_comps!r}.")
    check_representation(adata, use_rep or "X", layer)
    if use_rep is None and adata.n_vars < 2:
        raise ValueError(
            f"Expected at least two features for principal components, found {adata.n_vars}. Give `use_rep`."
        )
    times = parse_times(adata.obs[time_key])
    labels = list(times)
    interior = labels[1:-1]
    if not interior:
        raise ValueError(f"Expected at least three time points in `adata.obs[{time_key!r}]`, found {labels}.")
    unknown = [label for label in time_points or () if label not in interior]
    if unknown:
        raise ValueError(f"Expected `time_points` among the interior ones {interior}, found {unknown}.")
    codes = time_codes(adata.obs[time_key], times)
    cells = None if use_rep is None else representation(adata, np.arange(adata.n_obs), use_rep, layer)
    points = []
    for label in interior if time_points is None else time_points:
        place = labels.index(label)
        neighbours = labels[place - 1 : place + 2]
        rows = [np.flatnonzero(codes == code) for code in (place - 1, place, place + 1)]
        few = [neighbour for neighbour, index in zip(neighbours, rows, strict=True) if len(index) < MIN_CELLS]
        if few:
            raise ValueError(f"Expected at least {MIN_CELLS} cells at every time point, found fewer at {few}.")
        scores = without_time_point(_matrix(adata, layer), codes == place, n_comps) if cells is None else cells
        earlier, time, later = (times[neighbour] for neighbour in neighbours)
        points.append(
            LeftOut(
                time=time,
                source=scores[rows[0]],
                truth=scores[rows[1]],
                target=scores[rows[2]],
                mass=None if growth_key is None else prior_masses(adata, growth_key, [rows[0]])[0],
                share=(time - earlier) / (later - earlier),
            )
        )
    return points


def _matrix(adata: AnnData, layer: str | None):
    matrix = in_memory(adata.X if layer is None else adata.layers[layer])
    matrix = matrix.tocsr() if sparse.issparse(matrix) else np.ascontiguousarray(matrix)
    return matrix if matrix.dtype == np.float64 else matrix.astype(np.float32)


def without_time_point(matrix, left_out: np.ndarray, n_comps: int) -> np.ndarray:
    """Principal components of all cells, of a basis fitted to those that are not left out.

    Parameters
    ----------
    matrix
        Dense or sparse, shape ``(n_cells, n_genes)``.
    left_out
        Mask ``(n_cells,)``.
    n_comps
        Components; fewer where there are not as many cells or genes.

    Returns
    -------
    Scores, shape ``(n_cells, n_comps)``.
    """
    n_comps = min(n_comps, (~left_out).sum() - 1, matrix.shape[1] - 1)
    # The solver that takes sparse matrices too, so that both kinds get one answer.
    return PCA(n_comps, svd_solver="arpack", random_state=0).fit(matrix[~left_out]).transform(matrix)


def score_left_out(point: LeftOut, settings: InterpolationSettings, seed: int) -> list[dict]:
    """Predict a time point in every way, and compare each prediction with the cells that were measured.

    Parameters
    ----------
    point
        The time point.
    settings
        Of couplings and fits.
    seed
        Of everything random.

    Returns
    -------
    One row per prediction: its name, W1 and Sinkhorn divergence, NaN where its solve did not converge.
    """
    epsilon = DIVERGENCE_EPSILON * (mean_squared_distance(point.truth, point.truth) or 1.0)
    rows = []
    for name, (cells, weights, truth) in predictions(point, settings, seed).items():
        weights = np.full(len(cells), 1 / len(cells)) if weights is None else weights / weights.sum()
        b = np.full(len(truth), 1 / len(truth))
        try:
            divergence = sinkhorn_divergence(
                pad_cells(cells), pad_cells(truth), epsilon=epsilon, a=pad_cells(weights), b=pad_cells(b)
            )
        except ConvergenceError:
            divergence = np.nan
        distance = wasserstein(cells, truth, a=weights)
        rows.append({"prediction": name, "wasserstein": distance, "sinkhorn_divergence": divergence})
    return rows


def predictions(point: LeftOut, settings: InterpolationSettings, seed: int) -> dict[str, tuple]:
    """Return cells, weights and what to compare with, of every prediction by name."""
    rng = np.random.default_rng([seed, round(1e6 * point.time)])
    key = jax.random.key(int(rng.integers(2**31)))
    x, y, share = point.source, point.target, point.share
    couplings = _couplings(point, settings)
    unbalanced = couplings["UOT"] if "UOT" in couplings else couplings["OT"]
    growth = np.asarray(unbalanced.source_weights if point.mass is None else point.mass, np.float64)
    uniform = rng.integers(len(x), size=N_PAIRS), rng.integers(len(y), size=N_PAIRS)
    grown = rng.choice(len(x), size=N_PAIRS, p=growth / growth.sum()), rng.integers(len(y), size=N_PAIRS)
    halves = np.array_split(rng.permutation(len(point.truth)), 2)

    def between(pairs) -> np.ndarray:
        return (1 - share) * x[pairs[0]] + share * y[pairs[1]]

    found = {
        "earlier point": (x, None),
        "later point": (y, None),
        "random coupling": (between(uniform), None),
        "random coupling with growth": (between(grown), None),
    }
    for kind, coupling in couplings.items():
        found[f"entropic {kind}"] = (between(coupling.sample_pairs(key, N_PAIRS)), None)
    for name, method in settings.methods.items():
        for kind, coupling in couplings.items():
            # All cells train: with a few hundred, those held out are missed in the population that is predicted.
            fitted, _ = fit(
                method, coupling, n_iters=settings.n_iters or method.default_n_iters, batch_size=settings.batch_size,
                valid_fraction=0.0, rng=key, progress=False, **settings.fit_options,
            )  # fmt: skip
            population = interpolate(fitted, coupling, x, y, share)
            found[f"{name} {kind}"] = (population.positions, population.weights)
    found = {name: (*prediction, point.truth) for name, prediction in found.items()}
    found["noise floor"] = (point.truth[halves[0]], None, point.truth[halves[1]])
    return found


def _couplings(point: LeftOut, settings: InterpolationSettings) -> dict[str, UnbalancedCoupling]:
    """Balanced and, where mass may change, unbalanced coupling of the neighbours."""
    solve = partial(solve_unbalanced, point.source, point.target, a=point.mass, epsilon=settings.epsilon)
    balanced = solve(tau=1.0)
    coupling = solve(tau=settings.tau, marginal_penalty=settings.marginal_penalty)
    return {"OT": balanced} if coupling.tau == (1.0, 1.0) else {"OT": balanced, "UOT": coupling}
