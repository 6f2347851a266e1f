"""Transport from control to treated cells of one AnnData."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn
from tqdm import tqdm

from uotcell._errors import ConvergenceError
from uotcell.methods import Method, TransportMap, resolve_method
from uotcell.ot import UnbalancedCoupling, solve_unbalanced
from uotcell.ot._inputs import as_key, as_points
from uotcell.problems._base import DEFAULT_TAU, Problem, check_key_added, plain_rng
from uotcell.problems._conditions import Stratum, check_store, listed, pair_name, slot_name, stratum_label
from uotcell.problems._decode import resolve_decoder
from uotcell.problems._held_out import held_out_quality
from uotcell.problems._matching import match_cells
from uotcell.problems._perturbation_pair import PerturbationPair, image_slots, multipliers, record
from uotcell.problems._prediction import prediction
from uotcell.problems._representation import check_representation
from uotcell.problems._slots import write_slots
from uotcell.problems._splits import SPLITS, check_fractions, stable_hash
from uotcell.train import History, fit_many


class PerturbationProblem(Problem):
    """Unbalanced maps from control cells to the cells of every treatment.

    Use as ``PerturbationProblem(adata).prepare(...).solve(...).write(...)``, or all at once through
    :func:`uotcell.tl.fit_perturbation`. Nothing is written into ``adata`` before :meth:`write`.

    Parameters
    ----------
    adata
        Annotated data with unique ``.obs_names``, in memory or backed.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.problems.PerturbationProblem(adata).prepare("cell_type", "Stromal", conditions=["Epithelial"])
    >>> problem.pairs
    [('Epithelial', None)]
    """

    def prepare(
        self,
        perturbation_key: str,
        control,
        *,
        use_rep: str = "X_pca",
        layer: str | None = None,
        groupby: str | None = None,
        conditions: Iterable | None = None,
        valid_fraction: float = 0.1,
        test_fraction: float = 0.1,
        min_cells: int = 20,
        on_small: str = "warn",
        rng: jax.Array | int = 0,
    ) -> PerturbationProblem:
        """Match conditions with controls, check their cells and split them.

        The cells of every label in every group are split by themselves into training, validation and test: only the
        seed, the label and the number of cells decide, so conditions that come or go change no other.

        Parameters
        ----------
        perturbation_key
            Column of ``.obs`` with the treatment of every cell. Cells without a label are left out, with a warning.
        control
            Its label of the untreated cells.
        use_rep
            Representation the cells are mapped in: a key of ``.obsm``, or ``"X"``.
        layer
            With ``use_rep="X"``, take this layer instead of ``.X``.
        groupby
            Column of ``.obs`` such as cell line, batch or plate: treated cells are matched with the controls of their
            own group, and every (condition, group) gets a map of its own. Leave it out where control and treated come
            from different patients, or for a map that is to be used on groups it has not seen.
        conditions
            Labels to fit; all but the control by default.
        valid_fraction, test_fraction
            Shares of the cells held out to choose parameters and to measure the fit. Neither the coupling nor the map
            sees them.
        min_cells
            Least number of training cells a side.
        on_small
            ``"warn"`` leaves out pairs with fewer and names them; ``"error"`` raises.
        rng
            Key or seed of the split.

        Returns
        -------
        The problem itself.

        Raises
        ------
        KeyError
            If ``perturbation_key``, ``groupby``, ``use_rep`` or ``layer`` does not exist.
        ValueError
            If labels or cells cannot be used; the message says what to do.
        """
        adata = self.adata
        check_representation(adata, use_rep, layer)
        check_fractions(valid_fraction, test_fraction)
        if on_small not in ("warn", "error"):
            raise ValueError(f"Expected `on_small` to be 'warn' or 'error', found {on_small!r}.")
        if not isinstance(min_cells, (int, np.integer)) or min_cells < 1:
            raise ValueError(f"Expected `min_cells` to be an integer of at least 1, found {min_cells!r}.")
        settings = {
            "use_rep": use_rep, "layer": layer, "groupby": groupby, "valid_fraction": valid_fraction,
            "test_fraction": test_fraction, "min_cells": min_cells, "on_small": on_small,
        }  # fmt: skip
        self._matched = match_cells(adata, perturbation_key, control, conditions=conditions, rng=rng, **settings)
        self._features = adata.var_names if use_rep == "X" else None
        self.pairs, self.conditions = self._matched.pairs, self._matched.conditions
        self.left_out = self._matched.left_out
        self.fitted = {}
        self.params = {
            "perturbation_key": perturbation_key, "control": control, **settings, "split_rng": plain_rng(rng),
            "left_out": np.asarray([pair_name(pair) for pair in self.left_out]) if self.left_out else None,
        }  # fmt: skip
        return self

    def solve(
        self,
        method: str | Method = "monge_gap",
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
        patience: int | None = None,
        ema_decay: float | None = None,
        source_noise: float = 0.0,
        group_size: int | None = None,
        rng: jax.Array | int = 0,
        checkpoint_dir: str | Path | None = None,
        checkpoint_every: int | None = None,
        progress: bool = True,
    ) -> PerturbationProblem:
        """Solve the coupling of the training cells of every pair and train all maps together.

        Parameters
        ----------
        method
            Estimator, or the name of one with its defaults: ``"icnn"``, ``"monge_gap"``, ``"flow_matching"``,
            ``"genot"`` or one of your own, see :func:`uotcell.methods.register`.
        tau, marginal_penalty, epsilon, cost, scale_cost, anchors
            The couplings, see :func:`uotcell.ot.solve_unbalanced`; τ is 0.95 unless a penalty is given. ``cost``
            decides the weights; the cost of the map is an option of the method.
        memory_limit
            Memory that the solve, training and later predictions may take, see :func:`uotcell.ot.solve_unbalanced`.
        n_iters, batch_size, rescaling, patience, ema_decay, source_noise, group_size, progress
            The training, see :func:`uotcell.train.fit_many`; ``n_iters`` defaults to what suits the method. Validation
            uses the cells that ``prepare`` held out for it.
        rng
            Key or seed. The same one gives bit-equal results on the same machine; the keys of a pair depend on its
            labels, not on the other pairs.
        checkpoint_dir, checkpoint_every
            Folder for checkpoints and steps between them, see :func:`uotcell.train.fit_many`. The same call goes on
            from there: couplings are solved again, finished pairs are not trained again.

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
            If a coupling fails; or the training of a pair, when all others have ended. ``adata`` is then untouched,
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
            "n_iters": n_iters, "batch_size": batch_size, "rescaling": rescaling, "patience": patience,
            "ema_decay": ema_decay, "source_noise": source_noise, "group_size": group_size,
        }  # fmt: skip
        keys_coupling, keys_training = zip(*(_pair_keys(rng, pair) for pair in self.pairs), strict=True)
        couplings = []
        for pair, key in zip(tqdm(self.pairs, "couplings", disable=not progress), keys_coupling, strict=True):
            couplings.append(_couple(pair, *self._matched.split_cells(pair, "train"), rng=key, **coupled))
        if self.params["valid_fraction"] == 0:
            validated = {"valid_fraction": 0.0}
        else:
            validated = {"valid": [self._matched.split_cells(pair, "valid") for pair in self.pairs]}
        names = [pair_name(pair) for pair in self.pairs]
        failure = None
        try:
            maps = fit_many(
                method, couplings, rng=list(keys_training), names=names, checkpoint_dir=checkpoint_dir,
                checkpoint_every=checkpoint_every, progress=progress, **validated, **trained,
            )  # fmt: skip
        except ConvergenceError as error:
            # The others are kept: one condition must not cost those that trained well.
            maps, failure = [None if i in error.failed else pair for i, pair in enumerate(error.results)], error
        self.fitted = {
            pair: self._fitted_pair(pair, coupling, *trained_map)
            for pair, coupling, trained_map in zip(self.pairs, couplings, maps, strict=True)
            if trained_map is not None
        }
        self.params |= {"method": method, **coupled, **trained, "rng": plain_rng(rng)}
        if failure is not None:
            raise failure
        return self

    def __getitem__(self, key) -> PerturbationPair:
        """Return a fitted pair by its condition, or by (condition, group)."""
        self._require("fitted", "solve")
        if isinstance(key, tuple) and key in self.fitted:
            return self.fitted[key]
        groups = [group for condition, group in self.fitted if condition == key]
        if len(groups) == 1:
            return self.fitted[key, groups[0]]
        if groups:
            raise KeyError(f"Expected a group with {key!r}, one of {listed(groups)}: `problem[{key!r}, group]`.")
        known = self.conditions if self.params["groupby"] is None else self.pairs
        raise KeyError(f"Expected one of {listed(known)}, found {key!r}.")

    def push(self, x: ArrayLike | AnnData, condition, group=None, *, batch_size: int | None = None) -> np.ndarray:
        """Map control cells, seen in the fit or not, to a condition.

        Parameters
        ----------
        x
            Cells as an array ``(n, n_dims)`` or an AnnData with the representation of the fit.
        condition, group
            Labels of a fitted pair; the group may be left out where there is only one.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, shape ``(n, n_dims)``, float32.
        """
        return self._pair(condition, group).transport_map.push(self._points(x), batch_size=batch_size)

    def pull(self, y: ArrayLike | AnnData, condition, group=None, *, batch_size: int | None = None) -> np.ndarray:
        """Map treated cells, seen in the fit or not, back to the control, where the method learns an inverse.

        Parameters
        ----------
        y
            Cells as an array ``(n, n_dims)`` or an AnnData with the representation of the fit.
        condition, group
            Labels of a fitted pair; the group may be left out where there is only one.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, shape ``(n, n_dims)``, float32.
        """
        return self._pair(condition, group).transport_map.pull(self._points(y), batch_size=batch_size)

    def predict(
        self,
        cells: ArrayLike | AnnData,
        perturbation,
        *,
        group=None,
        decode: str | Callable[[np.ndarray], np.ndarray] | None = None,
        clip: bool = False,
        batch_size: int | None = None,
    ) -> AnnData:
        """Predict how untreated cells, seen in the fit or not, look under a perturbation.

        Parameters
        ----------
        cells
            Untreated cells as an array ``(n, n_dims)`` or an AnnData with the representation of the fit. With
            ``use_rep="X"`` the features are found by name, in any order.
        perturbation
            A fitted condition.
        group
            Group whose map is used. Without it, cells of an AnnData that has the column ``groupby`` are mapped by the
            map of their own group.
        decode
            ``"pca"`` turns images back into genes by ``.varm["PCs"]`` and the mean the PCA subtracted; genes the PCA
            did not use get their mean. Or a function from ``(n, n_dims)`` to ``(n, n_genes)``.
        clip
            Set negative predicted features to zero. For counts and log-normalised data, not for scaled data.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        The predicted cells, a new AnnData with

        - ``.X``: float32, decoded features, or the images themselves without ``decode``.
        - ``.obs``: that of ``cells``, with ``perturbation`` in the column ``perturbation_key``, and
          ``"predicted_mass"``, float32, what becomes of the mass of a cell under the coupling, 1 = unchanged.
        - ``.obsm[use_rep]``: float32 ``(n, n_dims)``, the images, unless ``use_rep="X"``.
        - ``.uns["negative_fraction"]``: share of negative values among predicted features before ``clip``; missing
          where ``.X`` holds a representation.
        """
        parts = self._pairs_of(cells, perturbation, group)
        n_dims, use_rep = self._matched.n_dims, self.params["use_rep"]
        # A function of one's own needs no AnnData.
        decoder = decode if decode is None or callable(decode) else resolve_decoder(self.adata, use_rep, decode, n_dims)
        points = as_points(self._points(cells), "cells", dim=n_dims)
        images, mass = np.empty(points.shape, np.float32), np.empty(len(points), np.float32)
        for pair, rows in parts:
            mass[rows] = pair.coupling.source_rescaling(points[rows])
            images[rows] = pair.transport_map.push(points[rows], batch_size=batch_size)
        obs = cells.obs if isinstance(cells, AnnData) else pd.DataFrame(index=np.arange(len(points)).astype(str))
        columns = {
            self.params["perturbation_key"]: pd.Categorical([perturbation] * len(points)),
            "predicted_mass": mass,
        }
        genes = self._axes[0][1]
        return prediction(images, obs, columns, use_rep=use_rep, genes=genes, decoder=decoder, clip=clip)

    def write(self, key_added: str = "uot", store: str | Iterable | None = "all") -> None:
        """Write the fit into ``adata``, all slots together.

        Parameters
        ----------
        key_added
            Prefix and name of the slots.
        store
            Conditions whose images are written: ``"all"``, a list, or None. Each takes ``n_cells × n_dims`` numbers;
            slots of an earlier fit of this name are removed.

        Returns
        -------
        Nothing; sets these slots of ``adata``:

        - ``.obsm["<key_added>_push_<condition>"]``: float32 ``(n_cells, n_dims)``, images of the control cells of all
          splits, each by the map of its group, NaN for all other cells; a slash in the label becomes a hyphen.
        - ``.obs["<key_added>_split"]``: categorical, "train", "valid" or "test", NaN for cells that were not used.
        - ``.obs["<key_added>_target_weight"]``: float32, mass multiplier of treated cells of all splits, 1 = unchanged,
          NaN for all other cells.
        - ``.uns["<key_added>"]``: dict of ``params``, ``pairs``, and by pair ``history``, ``metrics`` and ``weights``:
          mass multipliers of the training cells and their rows, for source and target.
        """
        self._require("fitted", "solve")
        check_key_added(key_added)
        with_map = {condition for condition, _ in self.fitted}
        stored = [condition for condition in check_store(store, self.conditions) if condition in with_map]
        push = {f"{key_added}_push_{slot_name(condition)}": self._images(condition) for condition in stored}
        target_weight = np.full(self.adata.n_obs, np.nan, np.float32)
        for stratum, pair in self.fitted.items():
            # All treated cells, then those of training as the solve left them.
            rows, cells = self._matched.rows[stratum], self._matched.cells[stratum]
            target_weight[rows] = pair.coupling.target_rescaling(cells)
            target_weight[pair.target_rows] = multipliers(pair.coupling.target_weights)
        codes = self._matched.split_codes(self.adata.n_obs)
        uns = record(list(self.fitted.values()), self.params, list(push))
        obs = {
            f"{key_added}_split": pd.Categorical.from_codes(codes, categories=list(SPLITS)),
            f"{key_added}_target_weight": target_weight,
        }
        earlier = dict.fromkeys(image_slots(self.adata.uns.get(key_added), key_added))
        write_slots((self.adata, {"obsm": earlier | push, "obs": obs, "uns": {key_added: uns}}))

    def _fitted_pair(
        self, pair: Stratum, coupling: UnbalancedCoupling, transport_map: TransportMap, history: History
    ) -> PerturbationPair:
        source_rows, target_rows = self._matched.split_rows(pair, "train")
        return PerturbationPair(
            source=self.params["control"],
            target=pair[0],
            group=pair[1],
            source_rows=source_rows,
            target_rows=target_rows,
            coupling=coupling,
            transport_map=transport_map,
            history=history,
            quality=held_out_quality(
                coupling, transport_map, *self._matched.split_cells(pair, "test"), history.valid_epsilon
            ),
        )

    def _pair(self, condition, group) -> PerturbationPair:
        return self[condition] if group is None else self[condition, group]

    def _pairs_of(self, cells: ArrayLike | AnnData, condition, group) -> list[tuple[PerturbationPair, ArrayLike]]:
        """Return the maps for these cells and the rows each applies to."""
        self._require("fitted", "solve")
        groupby = self.params["groupby"]
        if group is not None or not isinstance(cells, AnnData) or groupby is None or groupby not in cells.obs:
            return [(self._pair(condition, group), slice(None))]
        column = cells.obs[groupby]
        known = [group for fitted, group in self.fitted if fitted == condition] or [self[condition].group]
        unseen = column[~column.isin(known)]
        if len(unseen):
            raise ValueError(
                f"Expected cells of the groups {listed(known)}, which have a map to {condition!r}, found "
                f"{listed(unseen.unique().tolist())} in {len(unseen)} cells. Choose the map of one group with `group`, "
                "or fit without `groupby` for a map that is used on groups it has not seen."
            )
        labels = column.to_numpy()
        return [(self[condition, group], np.flatnonzero(labels == group)) for group in column.unique()]

    def _images(self, condition) -> np.ndarray:
        """Images of the control cells of all groups with this condition, NaN for other cells."""
        pairs = [pair for pair in self.fitted if pair[0] == condition]
        images = np.full((self.adata.n_obs, self._matched.n_dims), np.nan, np.float32)
        for pair in pairs:
            control = self._matched.control_of(pair)
            pushed = self.fitted[pair].transport_map.push(self._matched.cells[control])
            if not np.isfinite(pushed).all():
                raise ConvergenceError(
                    f"Expected finite images of all control cells, found NaN for {pair_name(pair)}: they overflow "
                    "float32."
                )
            images[self._matched.rows[control]] = pushed
        return images


def _pair_keys(rng: jax.Array | int, pair: Stratum) -> jax.Array:
    """Keys for the coupling and the training of a pair, from its labels alone."""
    return jax.random.split(jax.random.fold_in(as_key(rng), stable_hash(stratum_label(pair))))


def _couple(pair: Stratum, x: np.ndarray, y: np.ndarray, **options) -> UnbalancedCoupling:
    """Solve one coupling; a failure names its pair."""
    try:
        return solve_unbalanced(x, y, **options)
    except ConvergenceError as error:
        raise ConvergenceError(f"The coupling of {pair_name(pair)} failed. {error}") from error
