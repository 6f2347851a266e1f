"""What a fitted map can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from uotcell._errors import ConvergenceError
from uotcell._memory import check_memory, memory_bytes, peak_bytes
from uotcell.methods._base import Method
from uotcell.methods._rescaling import RescalingNetworks
from uotcell.methods._storage import load_map, save_map
from uotcell.methods._straight import NEWTON_TOLERANCE, departures
from uotcell.ot._inputs import as_key

# Most cells mapped at a time, and most where a Jacobian is taken of each: more are no faster.
MOST_CELLS, MOST_JACOBIANS = 16_384, 2_048


@dataclass(frozen=True, eq=False, kw_only=True)
class TransportMap:
    """A fitted map from source to target cells.

    Methods here take and return cells in the original coordinates. Between spaces, images have the features of the
    target, and what needs a way from a cell to its image is refused.

    Attributes
    ----------
    method
        The estimator.
    params
        Its fitted parameters.
    shift, scale
        Training saw source cells as ``(cells − shift) / scale``; ``(dim,)`` and a number.
    target_shift, target_scale
        The same of target cells; equal to the source's where both share a space.
    same_space
        Whether source and target cells have the same features.
    rescaling
        Learned mass multipliers of cells, or None. See :func:`uotcell.train.fit_rescaling`.
    memory_limit
        Bytes that a call may take, which decides how many cells are mapped at a time; None for most of what is then
        free. It is not saved.
    """

    method: Method
    params: Any
    shift: np.ndarray
    scale: float
    target_shift: np.ndarray
    target_scale: float
    same_space: bool = True
    rescaling: RescalingNetworks | None = None
    memory_limit: int | None = None

    def save(self, directory: str | Path) -> None:
        """Write the map into a directory, in the place of one that is there.

        A save that fails, or is killed, leaves what was there before whole. One process may write into a directory at
        a time.

        Parameters
        ----------
        directory
            Where to; made if it does not exist.

        Returns
        -------
        Nothing; the directory then holds ``config.json`` and ``arrays-<hash>.safetensors``.

        Raises
        ------
        ValueError
            If the directory holds anything else, the method has a setting that is no plain value and does not only
            serve training, or its name is that of another class.
        OSError
            If the files cannot be written.
        """
        save_map(self, directory)

    @classmethod
    def load(cls, directory: str | Path) -> TransportMap:
        """Read a map. Nothing in the files is executed.

        Parameters
        ----------
        directory
            Where :meth:`save` wrote it.

        Returns
        -------
        The map. Options of its method that only serve training, such as an optimiser, are the method's defaults.

        Raises
        ------
        FileNotFoundError
            If a file is missing.
        ValueError
            If a file is damaged, of another kind or of a newer schema, or its method is not registered.
        """
        return cls(**load_map(directory))

    def with_rescaling(self, networks: RescalingNetworks) -> TransportMap:
        """Return the map with learned mass multipliers beside it, to be saved together."""
        return replace(self, rescaling=networks)

    def push(self, x: ArrayLike, *, batch_size: int | None = None) -> np.ndarray:
        """Map source cells to the target; by a method that learns a distribution, to its mean.

        Parameters
        ----------
        x
            Cells, seen in training or not, shape ``(n, dim)``.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, shape ``(n, target_dim)``, float32.
        """
        return self._in_blocks(partial(_apply, self.method, "push", self.params), x, batch_size, back=self._target)

    def pull(self, y: ArrayLike, *, batch_size: int | None = None) -> np.ndarray:
        """Map target cells back to the source.

        Parameters
        ----------
        y
            Cells, shape ``(n, dim)``.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their images, shape ``(n, dim)``, float32.

        Raises
        ------
        TypeError
            If the method learns no inverse.
        """
        function = partial(_apply, self.method, "pull", self.params)
        return self._in_blocks(function, y, batch_size, side="target", back=self._source)

    def sample(
        self, x: ArrayLike, n_samples: int = 1, *, rng: jax.Array | int = 0, batch_size: int | None = None
    ) -> np.ndarray:
        """Draw images of source cells; all the same where the method maps a cell to one image.

        Parameters
        ----------
        x
            Cells, shape ``(n, dim)``.
        n_samples
            Draws per cell.
        rng
            Key or seed. A draw depends on the cell's row and the seed, not on the other cells or on ``batch_size``.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Images, shape ``(n_samples, n, target_dim)``, float32.
        """
        if n_samples < 1:
            raise ValueError(f"Expected `n_samples` to be at least 1, found {n_samples}.")
        draws = []
        for key in jax.random.split(as_key(rng), n_samples):
            function = partial(_sample, self.method, self.params, key)
            draws.append(self._in_blocks(function, x, batch_size, with_rows=True, back=self._target))
        return np.stack(draws)

    def variance(self, x: ArrayLike, *, batch_size: int | None = None) -> np.ndarray:
        """Variance of the images of every source cell, where the method learns a distribution.

        Parameters
        ----------
        x
            Cells, shape ``(n, dim)``.
        batch_size
            Cells at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Variances in units of the squared target representation, shape ``(n, target_dim)``, float32; their sum over
        dimensions is the cell's uncertainty.

        Raises
        ------
        TypeError
            If the method maps every cell to one image.
        """
        variance = self._in_blocks(partial(_apply, self.method, "variance", self.params), x, batch_size)
        return (variance * self.target_scale**2).astype(np.float32)

    def interpolate(
        self, x: ArrayLike, t: float, *, backward: bool = False, batch_size: int | None = None
    ) -> np.ndarray:
        """Positions of source cells on their way to the target: the flow's, or straight ones (McCann's interpolation).

        Parameters
        ----------
        x
            Source cells, shape ``(n, dim)``.
        t
            Time in [0, 1], from source to target.
        backward
            Take ``x`` for target cells and go back from them to ``t``, where the method has an inverse.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their positions, shape ``(n, dim)``, float32.

        Raises
        ------
        TypeError
            If source and target have different features, or the method has no inverse to go back with.
        """
        return self.trajectory(x, [t], backward=backward, batch_size=batch_size)[0]

    def trajectory(
        self, x: ArrayLike, ts: ArrayLike, *, backward: bool = False, batch_size: int | None = None
    ) -> np.ndarray:
        """Positions of cells at several times of their way from source to target.

        Parameters
        ----------
        x
            Source cells, shape ``(n, dim)``.
        ts
            Times in [0, 1], in any order, shape ``(k,)``.
        backward
            Take ``x`` for target cells and go back from them, where the method has an inverse.
        batch_size
            Cells mapped at a time; by default as many as fit into ``memory_limit``, at most 16,384.

        Returns
        -------
        Their positions, shape ``(k, n, dim)``, float32.
        """
        self._require_way("positions in between")
        direction, start = ("interpolate_back", 1) if backward else ("interpolate", 0)
        for t in ts:
            _check_time(t)
        if len(ts) > 1 and hasattr(self.method, "trajectory"):
            # One way through all times, in the order in which the cells come by.
            order = np.argsort(ts)[:: -1 if backward else 1]
            times = np.float32([start, *np.asarray(ts)[order]])
            way = self._in_blocks(partial(_along, self.method, self.params, times), x, batch_size)
            positions = np.empty((len(ts), *np.shape(x)), np.float32)
            positions[order] = np.moveaxis(self._target(way), 1, 0)[1:]
            return positions
        positions = np.empty((len(ts), *np.shape(x)), np.float32)
        for i, t in enumerate(ts):
            function = partial(_at_time, self.method, direction, self.params, np.float32(t))
            positions[i] = np.asarray(x) if t == start else self._target(self._in_blocks(function, x, batch_size))
        return positions

    def velocity(self, x: ArrayLike, t: float = 0.0, *, batch_size: int | None = None) -> np.ndarray:
        """Velocity of the cell that passes through ``x`` at time ``t``, per unit of the way from source to target.

        Of a flow, this is its velocity field. Other methods move cells on straight lines: it is the displacement of the
        source cell whose line runs through ``x``, found by Newton's method, and is ``x`` itself at ``t = 0``.

        Parameters
        ----------
        x
            Positions at time ``t``, shape ``(n, dim)``.
        t
            Time in [0, 1].
        batch_size
            Cells at a time; by default as many as fit into ``memory_limit``, at most 2,048.

        Returns
        -------
        Velocities, shape ``(n, dim)``, float32.

        Raises
        ------
        uotcell.ConvergenceError
            If for some position no such source cell was found.
        """
        _check_time(t)
        self._require_way("a velocity")
        if hasattr(self.method, "velocity"):
            function = partial(_at_time, self.method, "velocity", self.params, np.float32(t))
            return (self._in_blocks(function, x, batch_size, most=MOST_JACOBIANS) * self.scale).astype(np.float32)
        departure = np.asarray(x)
        if t > 0:
            function = partial(departures, self.method, self.params, t)
            departure = self._in_blocks(function, departure, batch_size, most=MOST_JACOBIANS)
            departure = departure * self.scale + self.shift
            error = np.abs(self.interpolate(departure, t) - x).max(initial=0.0) / self.scale
            if not error <= NEWTON_TOLERANCE:
                raise ConvergenceError(
                    f"No source cell was found whose path is within {NEWTON_TOLERANCE:g} of every position at t={t:g} "
                    f"(worst: {error:.2g}, in units of spread). Ask for positions closer to the data or a lower `t`."
                )
        return (self.push(departure, batch_size=batch_size) - departure).astype(np.float32)

    def log_density_change(self, x: ArrayLike, t: float = 1.0, *, batch_size: int | None = None) -> np.ndarray:
        """How much denser a cell's neighbourhood becomes on its way: ``log p_t(x_t) − log p_0(x)``.

        Of a flow, minus the divergence of its velocity along the way; of other maps, minus the logarithm of the
        determinant of the Jacobian of ``interpolate``. It counts the same cells in more or less room; that cells become
        more or fewer is what the coupling's weights say.

        Parameters
        ----------
        x
            Source cells, shape ``(n, dim)``.
        t
            Time in [0, 1].
        batch_size
            Cells at a time; by default as many as fit into ``memory_limit``, at most 2,048.

        Returns
        -------
        Changes of the natural logarithm, shape ``(n,)``, float32; infinite where a map folds space flat.
        """
        _check_time(t)
        self._require_way("a density")
        if t == 0:
            return np.zeros(len(x), np.float32)
        if hasattr(self.method, "log_density_change"):
            function = partial(_at_time, self.method, "log_density_change", self.params, np.float32(t))
        else:
            function = partial(_log_jacobian, self.method, self.params, np.float32(t))
        return self._in_blocks(function, x, batch_size, most=MOST_JACOBIANS)

    def _require_way(self, what: str) -> None:
        if not self.same_space:
            raise TypeError(
                f"A map between spaces has no way from a cell to its image, so there is no such thing as {what}. Use "
                "`push` or `sample`."
            )

    def _source(self, image: np.ndarray) -> np.ndarray:
        return (image * self.scale + self.shift).astype(np.float32)

    def _target(self, image: np.ndarray) -> np.ndarray:
        return (image * self.target_scale + self.target_shift).astype(np.float32)

    def _in_blocks(
        self,
        function: Callable,
        x: ArrayLike,
        batch_size: int | None,
        *,
        most: int = MOST_CELLS,
        side: str = "source",
        with_rows: bool = False,
        back: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> np.ndarray:
        """Apply ``function`` to blocks of cells in the coordinates of training, and return its answers.

        They are in these coordinates too, unless ``back`` leads out of them, block by block. ``with_rows`` hands the
        function the numbers of the cells' rows too.
        """
        x = np.asarray(x)
        shift, scale = (self.shift, self.scale) if side == "source" else (self.target_shift, self.target_scale)
        if x.ndim != 2 or x.shape[1] != len(shift):
            raise ValueError(f"Expected cells of shape (n, {len(shift)}), as in the fit, found {x.shape}.")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
        batch_size = self._cells_that_fit(function, x, most, with_rows) if batch_size is None else batch_size
        out = []
        # Of no cells, one block that is cut off: it tells the shape of an answer.
        for start in range(0, max(1, len(x)), batch_size):
            block = (x[start : start + batch_size] - shift) / scale
            # Blocks are padded to a power of two, so that calls of any size share few compiled programs.
            size = min(batch_size, 1 << max(0, len(block) - 1).bit_length())
            padded = np.zeros((size, x.shape[1]), np.float32)
            padded[: len(block)] = block
            rows = (np.arange(start, start + size),) if with_rows else ()
            out.append(back(np.asarray(function(padded, *rows))[: len(block)]))
        return np.concatenate(out)

    def _cells_that_fit(self, function: Callable, x: np.ndarray, most: int, with_rows: bool) -> int:
        """Most cells, a power of two, of which ``function`` fits into memory."""
        allowed = memory_bytes(self.memory_limit)
        size = min(most, 1 << max(0, len(x) - 1).bit_length())
        while True:
            rows = (jax.ShapeDtypeStruct((size,), jnp.int32),) if with_rows else ()
            needed = peak_bytes(function, jax.ShapeDtypeStruct((size, x.shape[1]), jnp.float32), *rows)
            if needed <= allowed:
                return size
            if size == 1:
                check_memory(needed, self.memory_limit, "the images of a single cell", "Use a smaller network")
            size = max(1, size // 2)


# Compiled for the method, not for its bound function: equal methods are equal, their bound functions are not.
@partial(jax.jit, static_argnames=("method", "direction"))
def _apply(method: Method, direction: str, params: Any, x: jax.Array) -> jax.Array:
    return getattr(method, direction)(params, x)


@partial(jax.jit, static_argnames=("method", "direction"))
def _at_time(method: Method, direction: str, params: Any, t: jax.Array, x: jax.Array) -> jax.Array:
    return getattr(method, direction)(params, x, t)


@partial(jax.jit, static_argnames=("method",))
def _sample(method: Method, params: Any, key: jax.Array, x: jax.Array, rows: jax.Array) -> jax.Array:
    return method.sample(params, x, jax.vmap(partial(jax.random.fold_in, key))(rows))


@partial(jax.jit, static_argnames=("method",))
def _along(method: Method, params: Any, times: jax.Array, x: jax.Array) -> jax.Array:
    """Positions of a flow at all times, cells first; the first time is where ``x`` is."""
    return jnp.moveaxis(method.trajectory(params, x, times), 0, 1)


@partial(jax.jit, static_argnames=("method",))
def _log_jacobian(method: Method, params: Any, t: jax.Array, x: jax.Array) -> jax.Array:
    jacobian = jax.vmap(jax.jacfwd(lambda cell: method.interpolate(params, cell[None], t)[0]))(x)
    return -jnp.linalg.slogdet(jacobian)[1]


def _check_time(t: float) -> None:
    if not 0 <= t <= 1:
        raise ValueError(f"Expected `t` to be in [0, 1], from source to target, found {t}.")
