"""Evaluate interpolation in time in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm import tqdm

from uotcell.benchmark._config import resolve_methods, resolve_seeds
from uotcell.benchmark._interpolation import InterpolationSettings, left_out_points, score_left_out
from uotcell.methods import Method
from uotcell.problems._base import DEFAULT_TAU, check_adata, check_key_added, package_versions, plain
from uotcell.problems._slots import write_slots


def evaluate_interpolation(
    adata: AnnData,
    time_key: str,
    *,
    use_rep: str | None = None,
    layer: str | None = None,
    n_comps: int = 30,
    time_points: Sequence | None = None,
    growth_key: str | None = None,
    methods: str | Method | Sequence[str | Method] | Mapping[str, str | Method] = "flow_matching",
    tau: float | tuple[float, float] | None = None,
    marginal_penalty: float | tuple[float, float] | None = None,
    epsilon: float = 0.01,
    n_iters: int | None = None,
    batch_size: int = 256,
    fit_options: Mapping[str, object] | None = None,
    seeds: int | Sequence[int] = 5,
    key_added: str = "uot_interpolation",
    progress: bool = True,
) -> pd.DataFrame:
    """Leave out every interior time point in turn, predict it from its neighbours, and compare.

    Every method is fitted to the balanced and to the unbalanced coupling of the two neighbours. Their predictions, by
    :meth:`uotcell.problems.TemporalProblem.interpolate`, stand beside what should be beaten: the earlier and the later
    point themselves; pairs drawn at random, also with sources drawn by their growth; pairs from the entropic plan on
    straight lines; and, below everything, one half of the real population against the other.

    Parameters
    ----------
    adata
        Annotated data.
    time_key
        Column of ``.obs`` with the time of every cell.
    use_rep
        Key of ``.obsm`` to compare cells in. By default principal components of ``.X``, refitted for every time point
        without its cells: a representation that has seen them makes them easier to predict.
    layer
        Take principal components of this layer instead of ``.X``.
    n_comps
        Number of principal components.
    time_points
        Labels of the time points to leave out; all but the first and the last by default.
    growth_key
        Column of ``.obs`` with the expected number of descendants of a cell until the next but one time point. By
        default growth in "random coupling with growth" is the source weight of the unbalanced coupling.
    methods
        Methods or their names, by name in a mapping.
    tau, marginal_penalty, epsilon
        The unbalanced coupling, see :func:`uotcell.ot.solve_unbalanced`; τ is 0.95 unless a penalty is given.
    n_iters, batch_size, fit_options
        Training, see :func:`uotcell.train.fit`; further options of it by name. All cells train, none are held out.
    seeds
        Number of repetitions, or their seeds.
    key_added
        Name of the slot.
    progress
        Show a progress bar.

    Returns
    -------
    A row for every time point, seed and prediction, with the Wasserstein distance W1 (in units of the representation)
    and the Sinkhorn divergence (in squared units, NaN where it did not converge) to the cells left out. Sets
    ``adata.uns["uot_interpolation"]``: dict of ``params`` and the columns of the table as arrays.

    Raises
    ------
    KeyError, ValueError, uotcell.ConvergenceError
        If an argument, the data or a fit is no good; ``adata`` is then untouched.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.ipsc_cardio()
    >>> table = uc.tl.evaluate_interpolation(
    ...     adata, "day", use_rep="X_embedding", time_points=[3.0], n_iters=20, seeds=1, progress=False
    ... )
    >>> table["prediction"].head(2).tolist()
    ['earlier point', 'later point']
    """
    check_adata(adata, "adata")
    check_key_added(key_added)
    named = resolve_methods(methods)
    tau = DEFAULT_TAU if tau is None and marginal_penalty is None else tau
    settings = InterpolationSettings(
        methods=named, tau=tau, marginal_penalty=marginal_penalty, epsilon=epsilon, n_iters=n_iters,
        batch_size=batch_size, fit_options=dict(fit_options or {}),
    )  # fmt: skip
    seeds = resolve_seeds(seeds)
    points = left_out_points(adata, time_key, use_rep, layer, n_comps, time_points, growth_key)
    rows = []
    for point in tqdm(points, disable=not progress, desc="time points"):
        for seed in seeds:
            rows += [{"time": point.time, "seed": seed, **row} for row in score_left_out(point, settings, seed)]
    table = pd.DataFrame(rows)
    params = {
        "time_key": time_key, "use_rep": use_rep, "layer": layer, "n_comps": n_comps if use_rep is None else None,
        "growth_key": growth_key, "methods": named, "tau": tau, "marginal_penalty": marginal_penalty,
        "epsilon": epsilon, "n_iters": n_iters, "batch_size": batch_size, "fit_options": dict(fit_options or {}),
        "seeds": np.asarray(seeds), "versions": package_versions(),
    }  # fmt: skip
    record = {"params": plain(params), **{name: table[name].to_numpy() for name in table}}
    write_slots((adata, {"uns": {key_added: record}}))
    return table
