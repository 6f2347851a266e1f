"""Transport between time points of one AnnData."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn

from uotcell._errors import ConvergenceError
from uotcell.methods import Method, resolve_method
from uotcell.ot import solve_unbalanced
from uotcell.ot._inputs import as_key
from uotcell.problems._base import (
    DEFAULT_TAU,
    FittedPair,
    Problem,
    check_key_added,
    package_versions,
    plain,
    plain_rng,
)
from uotcell.problems._cellrank import cellrank_kernel
from uotcell.problems._growth import prior_masses
from uotcell.problems._interpolation import interpolate
from uotcell.problems._pairs import choose_pairs
from uotcell.problems._representation import check_representation, representation
from uotcell.problems._slots import write_slots
from uotcell.problems._times import parse_times, time_codes
from uotcell.train import fit_many, fit_rescaling

if TYPE_CHECKING:
    from cellrank.kernels._base_kernel import KernelExpression

MIN_CELLS = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class TemporalPair(FittedPair):
    """A pair of time points.

    Attributes
    ----------
    time_difference
        Target time minus source time, in units of the time column.
    """

    time_difference: float


class TemporalProblem(Problem):
    """Unbalanced maps between the time points of a population that was sampled destructively.

    Use as ``TemporalProblem(adata).prepare(...).solve(...).write(...)``, or all at once through
    :func:`uotcell.tl.fit_trajectory`. Nothing is written into ``adata`` before :meth:`write`.

    Parameters
    ----------
    adata
        Annotated data with unique ``.obs_names``, in memory or backed.

    Examples
    --------
    >>> import uotcell as uc
    >>> problem = uc.problems.TemporalProblem(uc.datasets.reprogramming()).prepare("day")
    >>> problem.pairs
    [(10.0, 10.5), (10.5, 11.0)]
    """

    def prepare(
        self,
        time_key: str,
        *,
        use_rep: str = "X_pca",
        layer: str | None = None,
        policy: str | Sequence[tuple] = "sequential",
        reference=None,
        growth_key: str | None = None,
    ) -> TemporalProblem:
        """Choose the pairs and check their cells.

        Parameters
        ----------
        time_key
            Column of ``.obs``: numbers, ordered categories, strings with one number such as "E14.5", or dates or
            durations, which count in days: dates since the first of them.
        use_rep
            Representation the cells are mapped in: a key of ``.obsm``, or ``"X"``.
        layer
            With ``use_rep="X"``, take this layer instead of ``.X``.
        policy
            ``"sequential"``: each time point to the next. ``"star"``: ``reference`` to every later time point. Or a
            list of (source, target) labels.
        reference
            Source of the star; the first time point by default.
        growth_key
            Column of ``.obs`` with the expected number of descendants of a cell until the target. Multiplies the mass
            of source cells; the masses of a time point are then normalised to sum to one.

        Returns
        -------
        The problem itself.

        Raises
        ------
        KeyError
            If ``time_key``, ``use_rep``, ``layer`` or ``growth_key`` does not exist.
        ValueError
            If times, cells or growth cannot be used; the message says what to do.
        """
        adata = self.adata
        for name, key in (("time_key", time_key), ("growth_key", growth_key)):
            if key is not None and key not in adata.obs:
                raise KeyError(f"Expected `{name}` to be a column of `adata.obs` {list(adata.obs)}, found {key!r}.")
        check_representation(adata, use_rep, layer)
        times = parse_times(adata.obs[time_key])
        pairs = choose_pairs(times, policy, reference)
        codes, labels = time_codes(adata.obs[time_key], times), list(times)
        rows = {label: np.flatnonzero(codes == labels.index(label)) for pair in pairs for label in pair}
        for label, cells in rows.items():
            if len(cells) < MIN_CELLS:
                raise ValueError(
                    f"Expected at least {MIN_CELLS} cells at every time point, found {len(cells)} at {label!r}. Merge "
                    "it with a neighbouring time point, or leave it out with `policy`."
                )
        growth = None if growth_key is None else prior_masses(adata, growth_key, [rows[source] for source, _ in pairs])
        cells = {label: representation(adata, index, use_rep, layer) for label, index in rows.items()}
        self._times, self._rows, self._cells, self._growth = times, rows, cells, growth
        self._features = adata.var_names if use_rep == "X" else None
        self.pairs = pairs
        self.fitted = {}
        self.params = {
            "time_key": time_key,
            "use_rep": use_rep,
            "layer": layer,
            "policy": policy if isinstance(policy, str) else "explicit",
            "growth_key": growth_key,
        }
        return self

    def solve(
        self,
        method: str | Method = "icnn",
        *,
        tau: float | tuple[float, float] | None = None,
        marginal_penalty: float | tuple[float, float] | None = None,
        epsilon: float = 0.01,
        cost: str | CostFn = "sqeuclidean",
        scale_cost: str | float = "mean",
        anchors: int | None = None,
        memory_limit: float | str | None = None,
        n_iters: int | None = None,
        batch_size: int = 256,
        rescaling: str = "global",
        valid_fraction: float = 0.1,
        patience: int | None = None,
        ema_decay: float | None = None,
        source_noise: float = 0.0,
        learn_rescaling: bool = False,
        rng: jax.Array | int = 0,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        progress: bool = True,
    ) -> TemporalProblem:
        """Solve the coupling of every pair and train a map on it.

        Parameters
        ----------
        method
            Estimator, or the name of one with its defaults: ``"icnn"``, ``"monge_gap"``, ``"flow_matching"``,
            ``"genot"`` or one of your own, see :func:`uotcell.methods.register`.
        tau, marginal_penalty, epsilon, cost, scale_cost, anchors
            The coupling, see :func:`uotcell.ot.solve_unbalanced`; τ is 0.95 unless a penalty is given. ``cost`` decides
            the weights; the map between the rescaled measures is that of the method, for ``"icnn"`` always the one of
            the squared Euclidean cost.
        memory_limit
            Memory that the solve, training and later predictions may take, see :func:`uotcell.ot.solve_unbalanced`.
        n_iters, batch_size, rescaling, valid_fraction, patience, ema_decay, source_noise, progress
            The training, see :func:`uotcell.train.fit`; ``n_iters`` defaults to what suits the method.
        learn_rescaling
            Also train networks that stand for the mass multipliers (:func:`uotcell.train.fit_rescaling`), so that a
            map can be saved with them and used without its cells.
        rng
            Key or seed. The same one gives bit-equal results on the same machine.
        checkpoint_dir, checkpoint_every
            Folder for checkpoints, a subfolder per pair, and steps between them, see :func:`uotcell.train.fit`. The
            same call goes on from there: couplings are solved again, finished pairs are not trained again.

        Returns
        -------
        The problem itself. After Ctrl-C, which warns, :attr:`fitted` holds the pairs that have a map.

        Raises
        ------
        MemoryError
            If a part of the problem exceeds ``memory_limit``.
        OSError
            If a checkpoint cannot be written, as on a full disk. Those before it remain.
        uotcell.ConvergenceError
            If a coupling fails; or a training run, when the others have ended. ``adata`` is then untouched,
            :attr:`fitted` holds the other pairs, and ``results`` of the error those that broke too, in the order of
            :attr:`pairs`.
        """
        self._require("params", "prepare")
        method = resolve_method(method)
        tau = DEFAULT_TAU if tau is None and marginal_penalty is None else tau
        n_iters = method.default_n_iters if n_iters is None else n_iters
        coupled = {
            "epsilon": epsilon, "tau": tau, "marginal_penalty": marginal_penalty, "cost": cost,
            "scale_cost": scale_cost, "anchors": anchors, "memory_limit": memory_limit,
        }  # fmt: skip
        trained = {
            "n_iters": n_iters, "batch_size": batch_size, "rescaling": rescaling, "valid_fraction": valid_fraction,
            "patience": patience, "ema_decay": ema_decay, "source_noise": source_noise,
        }  # fmt: skip
        key = as_key(rng)
        fitted, results, errors = {}, [None] * len(self.pairs), {}
        try:
            for i, (source, target) in enumerate(self.pairs):
                rng_coupling, rng_training = jax.random.split(jax.random.fold_in(key, i))
                x, y = self._cells[source], self._cells[target]
                a = None if self._growth is None else self._growth[i]
                coupling = solve_unbalanced(x, y, a=a, rng=rng_coupling, **coupled)
                name = f"{source}_{target}".replace("/", "-")
                try:
                    (results[i],) = fit_many(
                        method, [coupling], rng=[rng_training], names=[name], progress=progress, **trained,
                        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir) / name,
                        checkpoint_every=checkpoint_every,
                    )  # fmt: skip
                except ConvergenceError as error:
                    (results[i],), errors[i] = error.results, error
                    continue
                transport_map, history = results[i]
                if learn_rescaling:
                    transport_map = transport_map.with_rescaling(fit_rescaling(coupling, rng=rng_training))
                fitted[source, target] = TemporalPair(
                    source=source,
                    target=target,
                    source_rows=self._rows[source],
                    target_rows=self._rows[target],
                    time_difference=self._times[target] - self._times[source],
                    coupling=coupling,
                    transport_map=transport_map,
                    history=history,
                )
                if history.interrupted:
                    break
        except KeyboardInterrupt:
            if not fitted:
                raise
        self.fitted = fitted
        self.params |= {
            "method": method,
            **coupled,
            **trained,
            "learn_rescaling": learn_rescaling,
            "rng": plain_rng(rng),
        }
        without = [pair for pair in self.pairs if pair not in fitted]
        if errors:
            messages = " ".join(str(error) for error in errors.values())
            raise ConvergenceError(messages, results=results, failed=list(errors)) from next(iter(errors.values()))
        if without:
            warnings.warn(f"The fit was interrupted. Without a map: {without}.", stacklevel=2)
        return self

    def __getitem__(self, pair: tuple) -> FittedPair:
        """Return one fitted pair by its (source, target) labels."""
        self._require("fitted", "solve")
        if pair not in self.fitted:
            raise KeyError(f"Expected one of the pairs {list(self.fitted)}, found {pair!r}.")
        return self.fitted[pair]

    def push(self, x: ArrayLike | AnnData, source, target, *, batch_size: int | None = None) -> np.ndarray:
        """Map cells, seen in the fit or not, from the source to the target time.

        Parameters
        ----------
        x
            Cells as an array ``(n, n_dims)`` or an AnnData with the representation of the fit.
        source, target
            Labels of a fitted pair.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, shape ``(n, n_dims)``, float32.
        """
        return self[source, target].transport_map.push(self._points(x), batch_size=batch_size)

    def pull(self, y: ArrayLike | AnnData, source, target, *, batch_size: int | None = None) -> np.ndarray:
        """Map cells, seen in the fit or not, from the target time back to the source.

        Parameters
        ----------
        y
            Cells as an array ``(n, n_dims)`` or an AnnData with the representation of the fit.
        source, target
            Labels of a fitted pair.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, shape ``(n, n_dims)``, float32.
        """
        return self[source, target].transport_map.pull(self._points(y), batch_size=batch_size)

    def interpolate(self, t: float) -> AnnData:
        """Predict the population at a time between two fitted time points.

        Source cells are moved forward and, where the method has an inverse, target cells backward, along the ways of
        the map; of several pairs that enclose the time, the shortest counts.

        Parameters
        ----------
        t
            Time, in units of the time column; where it holds dates, days since the first of them.

        Returns
        -------
        New AnnData of the moved cells, with

        - ``.obsm[use_rep]``, or ``.X`` where ``use_rep`` is "X": float32 ``(n, n_dims)``, positions at time t.
        - ``.obs["weight"]``: float64, share of the population, what the coupling transports of the cell; sum one.
        - ``.obs["origin"]``: name of the cell in the AnnData of the problem; ``.obs["direction"]``: categorical,
          "forward" or "backward"; ``.obs[time_key]``: float64, t.

        Raises
        ------
        ValueError
            If no fitted pair encloses the time.
        TypeError
            If the method knows no way between a cell and its image.
        """
        self._require("fitted", "solve")
        times = self._times
        enclosing = [pair for pair in self.fitted.values() if times[pair.source] <= t <= times[pair.target]]
        if not enclosing:
            spans = [(times[source], times[target]) for source, target in self.fitted]
            raise ValueError(f"Expected `t` to be within one of the fitted pairs {spans}, found {t!r}.")
        pair = min(enclosing, key=lambda pair: pair.time_difference)
        x, y = self._cells[pair.source], self._cells[pair.target]
        share = (t - times[pair.source]) / pair.time_difference
        population = interpolate(pair.transport_map, pair.coupling, x, y, share)
        sides = np.where(population.forward, 0, 1)
        names = [self._axes[0][0][rows] for rows in (pair.source_rows, pair.target_rows)]
        origin = [names[side][row] for side, row in zip(sides, population.rows, strict=True)]
        obs = pd.DataFrame(
            {
                "weight": population.weights,
                "origin": origin,
                "direction": pd.Categorical.from_codes(sides, ["forward", "backward"]),
                self.params["time_key"]: float(t),
            },
            index=[
                f"{name}-{'forward' if side == 0 else 'backward'}" for name, side in zip(origin, sides, strict=True)
            ],
        )
        if self._features is not None:
            return AnnData(population.positions, obs=obs, var=pd.DataFrame(index=self._features))
        return AnnData(obs=obs, obsm={self.params["use_rep"]: population.positions})

    def write(self, key_added: str = "uot") -> None:
        """Write the fit into ``adata``, all slots together.

        Where a cell is a source (or target) of several pairs, the pair with the shortest time difference counts.

        Parameters
        ----------
        key_added
            Prefix and name of the slots.

        Returns
        -------
        Nothing; sets these slots of ``adata``:

        - ``.obsm["<key_added>_push"]``: float32 ``(n_cells, n_dims)``, images at the target time, NaN for no source.
        - ``.obsm["<key_added>_velocity"]``: float32 ``(n_cells, n_dims)``, (image − cell) per unit of time.
        - ``.obs["<key_added>_source_weight"]``: float32, mass multiplier as a source, 1 = unchanged, NaN for none.
        - ``.obs["<key_added>_target_weight"]``: float32, the same as a target.
        - ``.obs["<key_added>_uncertainty"]``: float32, variance of a source cell's images summed over dimensions, in
          units of the squared representation; only by methods that learn a distribution, such as GENOT.
        - ``.uns["<key_added>"]``: dict of ``params``, ``pairs``, ``history`` and ``metrics``.
        """
        self._require("fitted", "solve")
        check_key_added(key_added)
        n_cells = self.adata.n_obs
        n_dims = next(iter(self._cells.values())).shape[1]
        push, velocity = (np.full((n_cells, n_dims), np.nan, np.float32) for _ in range(2))
        source_weight, target_weight, uncertainty = (np.full(n_cells, np.nan, np.float32) for _ in range(3))
        # The longest time difference first, so that the shortest is what remains.
        for pair in sorted(self.fitted.values(), key=lambda pair: -pair.time_difference):
            cells = self._cells[pair.source]
            image = pair.transport_map.push(cells)
            push[pair.source_rows] = image
            if pair.transport_map.method.is_stochastic:
                uncertainty[pair.source_rows] = pair.transport_map.variance(cells).sum(axis=1)
            velocity[pair.source_rows] = (image - cells) / pair.time_difference
            source_weight[pair.source_rows] = np.asarray(pair.coupling.source_weights) * len(pair.source_rows)
            target_weight[pair.target_rows] = np.asarray(pair.coupling.target_weights) * len(pair.target_rows)
        if not np.isfinite(push).all(axis=1).sum() == np.isfinite(source_weight).sum():
            raise ConvergenceError("Expected finite images of all source cells, found NaN: they overflow float32.")
        pairs = list(self.fitted.values())
        uns = {
            "params": plain(self.params | {"versions": package_versions(), "device": pairs[0].history.device}),
            "pairs": {
                "source": np.asarray([str(pair.source) for pair in pairs]),
                "target": np.asarray([str(pair.target) for pair in pairs]),
                "time_difference": np.asarray([pair.time_difference for pair in pairs]),
            },
            "history": {pair.label: plain(pair.history.to_dict()) for pair in pairs},
            "metrics": {pair.label: plain(pair.metrics) for pair in pairs},
        }
        obs = {f"{key_added}_source_weight": source_weight, f"{key_added}_target_weight": target_weight}
        if pairs[0].transport_map.method.is_stochastic:
            obs[f"{key_added}_uncertainty"] = uncertainty
        obsm = {f"{key_added}_push": push, f"{key_added}_velocity": velocity}
        write_slots((self.adata, {"obsm": obsm, "obs": obs, "uns": {key_added: uns}}))

    def to_cellrank(
        self,
        *,
        kind: str = "precomputed",
        n_neighbors: int = 30,
        empty_rows: str = "self",
        min_weight: float = 0.1,
        conn_weight: float = 0.2,
        batch_size: int = 2048,
        key: str = "uot",
    ) -> KernelExpression:
        """Hand the written fit to CellRank (Lange et al. 2022; Weiler et al. 2024).

        CellRank's rows sum to one, so growth and death are lost on the way. They stay beside the kernel, in
        ``kernel.adata.obs["<key>_source_weight"]``: weigh averages over cells by it. CellRank's estimators also ask for
        some ``.X``, which cells known by their embedding alone do not have.

        Parameters
        ----------
        kind
            ``"precomputed"``: the chain of :func:`uotcell.tl.transition_matrix`, each row mixed with its neighbours in
            the graph of all cells. ``"realtime"``: a :class:`cellrank.kernels.RealTimeKernel` with one coupling per
            pair, whose rows sum to the mass a cell transports; neighbours are those of its own time, which CellRank
            computes. Every time but the last must then be a source.
        n_neighbors, empty_rows, min_weight, batch_size
            Steps between cells, see :func:`uotcell.tl.transition_matrix`; the same for both kinds.
        conn_weight
            Weight of the neighbours, in [0, 1). With more than 0 they lead out of the classes of
            ``empty_rows="absorb"`` too.
        key
            The `key_added` of :meth:`write`.

        Returns
        -------
        A kernel with its transition matrix, on the AnnData of the problem. With ``kind="realtime"`` sets a slot of it:

        - ``.obs["<key>_time"]``: ordered categorical of float64, the time of every cell, since CellRank takes no other.
          The column of the fit stays as it is.

        Raises
        ------
        ImportError
            If CellRank is not installed.
        KeyError
            If the slots of the fit do not exist, or there is no neighbour graph.
        ValueError
            If options cannot be used, or this is not the fit that was written under ``key``.

        Examples
        --------
        >>> import uotcell as uc
        >>> adata = uc.datasets.reprogramming()
        >>> problem = uc.tl.fit_trajectory(adata, "day", tau=0.95, n_iters=20, progress=False)
        >>> kernel = problem.to_cellrank(conn_weight=0)
        >>> kernel.transition_matrix.shape
        (1000, 1000)
        """
        self._require("fitted", "solve")
        record = self.adata.uns.get(key, {}).get("pairs", {})
        pairs = [(str(source), str(target)) for source, target in self.fitted]
        if "time_difference" in record and list(zip(record["source"], record["target"], strict=True)) != pairs:
            raise ValueError(
                f"Expected the pairs of this problem, {pairs}, under {key!r}, found those of another fit. Run "
                f"`.write({key!r})` first, or give the `key` it was written under."
            )
        return cellrank_kernel(
            self.adata, key=key, kind=kind, n_neighbors=n_neighbors, empty_rows=empty_rows, min_weight=min_weight,
            conn_weight=conn_weight, batch_size=batch_size,
        )  # fmt: skip
