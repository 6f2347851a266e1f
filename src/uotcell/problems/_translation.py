"""Transport between two modalities: cells with different features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike
from ott.geometry.costs import CostFn

from uotcell._errors import ConvergenceError
from uotcell.methods import Method, resolve_method
from uotcell.ot import Geodesic, solve_quadratic
from uotcell.ot._inputs import as_key
from uotcell.problems._base import (
    DEFAULT_TAU,
    FittedPair,
    Problem,
    check_adata,
    check_key_added,
    package_versions,
    plain,
    plain_rng,
)
from uotcell.problems._representation import all_cells
from uotcell.problems._slots import write_slots
from uotcell.train import fit, fit_rescaling
from uotcell.train._engine import check_crosses_spaces

SIDES = ("source", "target")


class TranslationProblem(Problem):
    """Unbalanced map between cells that were measured in two ways and share no feature, or only some.

    Cells are matched by how far they are from the other cells of their own side (Gromov-Wasserstein), and by shared
    features where there are some. Use as ``TranslationProblem(adata_x, adata_y).prepare(...).solve(...).write(...)``,
    or all at once through :func:`uotcell.tl.fit_translation`. Nothing is written before :meth:`write`.

    Parameters
    ----------
    adata_x, adata_y
        Annotated data of the source and of the target cells, each with unique ``.obs_names``. They need not be the same
        cells, nor as many.

    Examples
    --------
    >>> import uotcell as uc
    >>> adata = uc.datasets.emt()
    >>> problem = uc.problems.TranslationProblem(adata[::2].copy(), adata[1::2].copy()).prepare(use_rep="X_embedding")
    >>> problem.dims
    (10, 10)
    """

    def __init__(self, adata_x: AnnData, adata_y: AnnData):
        check_adata(adata_x, "adata_x")
        check_adata(adata_y, "adata_y")
        super().__init__(adata_x)
        self._adatas = (adata_x, adata_y)

    @property
    def adata_y(self) -> AnnData:
        """The AnnData of the target cells, as ``adata`` is that of the source cells."""
        return self._data(1)

    @classmethod
    def from_mudata(cls, mdata: Any, source: str, target: str) -> TranslationProblem:
        """Take two modalities of a MuData.

        Parameters
        ----------
        mdata
            MuData, or anything with a mapping ``.mod`` from names to AnnData.
        source, target
            Names of the modalities.

        Returns
        -------
        The problem on these two; :meth:`write` writes into them.

        Raises
        ------
        KeyError
            If there is no such modality.
        """
        modalities = getattr(mdata, "mod", None)
        if modalities is None:
            raise TypeError(f"Expected `mdata` to be a MuData, found {type(mdata).__name__}.")
        for name in (source, target):
            if name not in modalities:
                raise KeyError(f"Expected a modality among {list(modalities)}, found {name!r}.")
        return cls(modalities[source], modalities[target])

    def prepare(
        self,
        *,
        use_rep: str | tuple[str, str] = "X_pca",
        layer: str | tuple[str | None, str | None] | None = None,
        shared_rep: str | tuple[str, str] | None = None,
    ) -> TranslationProblem:
        """Read the cells of both sides.

        Parameters
        ----------
        use_rep
            Representation of the cells: a key of ``.obsm``, or ``"X"``; a tuple of two for one per side.
        layer
            With ``use_rep="X"``, take this layer instead of ``.X``; a tuple of two for one per side.
        shared_rep
            Key of ``.obsm`` with the features that both sides have, in the same order; a tuple of two for one per
            side. They make the problem a fused one.

        Returns
        -------
        The problem itself.

        Raises
        ------
        KeyError
            If a representation or layer does not exist.
        ValueError
            If cells cannot be used, or shared features differ in number.
        """
        reps, layers, shared = (_per_side(value) for value in (use_rep, layer, shared_rep))
        if (shared[0] is None) != (shared[1] is None):
            raise ValueError(f"Expected `shared_rep` for both sides or for none, found {shared_rep!r}.")
        sides = (self.adata, self.adata_y)
        cells, features = [], []
        for adata, rep, side_layer, shared_key in zip(sides, reps, layers, shared, strict=True):
            cells.append(all_cells(adata, rep, side_layer))
            features.append(None if shared_key is None else all_cells(adata, shared_key, None))
        if shared[0] is not None and features[0].shape[1] != features[1].shape[1]:
            raise ValueError(
                f"Expected `shared_rep` of one number of features, found {features[0].shape[1]} and "
                f"{features[1].shape[1]}. Give the same features in the same order on both sides."
            )
        # The network sees both kinds of features side by side: bring shared ones to the spread of the others.
        self._shared_unit = 1.0
        if shared[0] is not None:
            own = np.sqrt(_spread(cells[0]) * _spread(cells[1]))
            self._shared_unit = own / (_spread(np.concatenate(features)) or 1.0)
        self._own, self._shared = tuple(cells), tuple(features)
        self.dims = tuple(side.shape[1] for side in cells)
        self._features = None
        self.fitted = {}
        self.params = {"use_rep": np.asarray(reps), "shared_rep": None if shared[0] is None else np.asarray(shared)}
        self._layers = layers
        if layers != (None, None):
            self.params["layer"] = np.asarray([name or "" for name in layers])
        return self

    def solve(
        self,
        method: str | Method = "genot",
        *,
        fused_weight: float | None = None,
        tau: float | tuple[float, float] | None = None,
        marginal_penalty: float | tuple[float, float] | None = None,
        epsilon: float = 0.01,
        cost: str | CostFn | Geodesic | tuple = "sqeuclidean",
        anchors: int | None = 1_000,
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
    ) -> TranslationProblem:
        """Solve the quadratic or fused coupling and train a map on it.

        Parameters
        ----------
        method
            Estimator that maps between spaces, or its name: ``"genot"``.
        fused_weight
            Weight of the shared features in [0, 1]; 0.5 by default where there are some.
        tau, marginal_penalty, epsilon, cost, anchors
            The coupling, see :func:`uotcell.ot.solve_quadratic`; τ is 0.95 unless a penalty is given. ``cost`` is the
            distance within a side, ``"geodesic"`` along the data; a tuple of two for one per side.
        memory_limit
            Memory that the solve, training and later predictions may take, see :func:`uotcell.ot.solve_unbalanced`.
        n_iters, batch_size, rescaling, valid_fraction, patience, ema_decay, source_noise, progress
            The training, see :func:`uotcell.train.fit`; ``n_iters`` defaults to what suits the method.
        learn_rescaling
            Also train networks that stand for the mass multipliers, see :func:`uotcell.train.fit_rescaling`.
        rng
            Key or seed. The same one gives bit-equal results on the same machine.
        checkpoint_dir, checkpoint_every
            Folder for checkpoints and steps between them, see :func:`uotcell.train.fit`. The same call goes on from
            there; the coupling is solved again.

        Returns
        -------
        The problem itself; after Ctrl-C, which warns, with the best map so far.

        Raises
        ------
        ValueError
            If an argument is out of range, or the method does not map between spaces.
        MemoryError
            If a part of the problem exceeds ``memory_limit``.
        OSError
            If a checkpoint cannot be written, as on a full disk. Those before it remain.
        uotcell.ConvergenceError
            If the coupling or the training fails; nothing is then written.
        """
        self._require("params", "prepare")
        method = resolve_method(method)
        check_crosses_spaces(method)  # before minutes are spent on the coupling
        tau = DEFAULT_TAU if tau is None and marginal_penalty is None else tau
        n_iters = method.default_n_iters if n_iters is None else n_iters
        coupled = {
            "fused_weight": fused_weight, "epsilon": epsilon, "tau": tau, "marginal_penalty": marginal_penalty,
            "cost": cost, "anchors": anchors, "memory_limit": memory_limit,
        }  # fmt: skip
        trained = {
            "n_iters": n_iters, "batch_size": batch_size, "rescaling": rescaling, "valid_fraction": valid_fraction,
            "patience": patience, "ema_decay": ema_decay, "source_noise": source_noise,
        }  # fmt: skip
        rng_coupling, rng_training = jax.random.split(as_key(rng))
        shared = [None if s is None else s * self._shared_unit for s in self._shared]
        coupling = solve_quadratic(*self._own, x_shared=shared[0], y_shared=shared[1], rng=rng_coupling, **coupled)
        transport_map, history = fit(
            method, coupling, rng=rng_training, checkpoint_dir=checkpoint_dir, checkpoint_every=checkpoint_every,
            progress=progress, **trained,
        )  # fmt: skip
        if learn_rescaling:
            transport_map = transport_map.with_rescaling(fit_rescaling(coupling, rng=rng_training))
        rows = [np.arange(len(side)) for side in self._own]
        self.fitted = {
            SIDES: FittedPair(
                source=SIDES[0], target=SIDES[1], source_rows=rows[0], target_rows=rows[1],
                coupling=coupling, transport_map=transport_map, history=history,
            )
        }  # fmt: skip
        self.params |= {
            "method": method, **coupled, **trained, "learn_rescaling": learn_rescaling, "rng": plain_rng(rng),
            "shared_unit": self._shared_unit,
        }  # fmt: skip
        return self

    @property
    def pair(self) -> FittedPair:
        """The fitted pair: coupling, map and history."""
        self._require("fitted", "solve")
        return self.fitted[SIDES]

    def push(self, x: ArrayLike | AnnData, *, batch_size: int | None = None) -> np.ndarray:
        """Map source cells, seen in the fit or not, to the features of the target.

        Parameters
        ----------
        x
            Cells as an AnnData with the representations of the fit, or as an array ``(n, n_dims)``, with the shared
            features behind the others.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, by GENOT their conditional means, shape ``(n, n_target_dims)``, float32.
        """
        image = self.pair.transport_map.push(self._points(x), batch_size=batch_size)
        return image[:, : self.dims[1]]

    def sample(
        self, x: ArrayLike | AnnData, n_samples: int = 1, *, rng: jax.Array | int = 0, batch_size: int | None = None
    ) -> np.ndarray:
        """Draw images of source cells.

        Parameters
        ----------
        x
            See :meth:`push`.
        n_samples
            Draws per cell.
        rng
            Key or seed.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Images, shape ``(n_samples, n, n_target_dims)``, float32.
        """
        images = self.pair.transport_map.sample(self._points(x), n_samples, rng=rng, batch_size=batch_size)
        return images[..., : self.dims[1]]

    def write(self, key_added: str = "uot") -> None:
        """Write the fit into both AnnData, all slots together.

        Parameters
        ----------
        key_added
            Prefix and name of the slots.

        Returns
        -------
        Nothing; sets these slots of ``adata_x``:

        - ``.obsm["<key_added>_push"]``: float32 ``(n_cells, n_target_dims)``, images in the target's representation.
        - ``.obs["<key_added>_uncertainty"]``: float32, variance of a cell's images summed over dimensions.
        - ``.obs["<key_added>_source_weight"]``: float32, mass multiplier, 1 = unchanged.
        - ``.uns["<key_added>"]``: dict of ``params``, ``history`` and ``metrics``.

        And of ``adata_y``:

        - ``.obs["<key_added>_target_weight"]``: float32, mass multiplier.
        """
        pair = self.pair
        check_key_added(key_added)
        push = self.push(self.adata)
        if not np.isfinite(push).all():
            raise ConvergenceError("Expected finite images of all source cells, found NaN: they overflow float32.")
        uncertainty = None
        if pair.transport_map.method.is_stochastic:
            variance = pair.transport_map.variance(self._points(self.adata))
            uncertainty = variance[:, : self.dims[1]].sum(axis=1)
        weights = [
            (np.asarray(w) * len(side)).astype(np.float32)
            for w, side in zip((pair.coupling.source_weights, pair.coupling.target_weights), self._own, strict=True)
        ]
        uns = {
            "params": plain(self.params | {"versions": package_versions(), "device": pair.history.device}),
            "history": plain(pair.history.to_dict()),
            "metrics": plain(pair.metrics),
        }
        obs = {f"{key_added}_source_weight": weights[0]}
        if uncertainty is not None:
            obs[f"{key_added}_uncertainty"] = uncertainty
        source = {"obsm": {f"{key_added}_push": push}, "obs": obs, "uns": {key_added: uns}}
        write_slots((self.adata, source), (self.adata_y, {"obs": {f"{key_added}_target_weight": weights[1]}}))

    def _points(self, cells: ArrayLike | AnnData) -> np.ndarray:
        shared_key = None if self.params["shared_rep"] is None else str(self.params["shared_rep"][0])
        if isinstance(cells, AnnData):
            points = all_cells(cells, str(self.params["use_rep"][0]), self._layers[0])
            shared = None if shared_key is None else all_cells(cells, shared_key, None)
        else:
            cells = np.asarray(cells)
            points, shared = cells[:, : self.dims[0]], None if shared_key is None else cells[:, self.dims[0] :]
        return points if shared is None else np.concatenate([points, shared * self._shared_unit], axis=1)


def _per_side(value) -> tuple:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"Expected one value or a tuple of two, one per side, found {value!r}.")
        return tuple(value)
    return value, value


def _spread(cells: np.ndarray) -> float:
    """Root mean square spread per dimension."""
    return float(np.sqrt(cells.var(axis=0).mean()))
