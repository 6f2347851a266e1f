"""What every estimator of a transport map is, and what a fitted one can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike


class Batch(NamedTuple):
    """Cells drawn for one training step, in the coordinates of training; both ``(draws, batch_size, dim)``."""

    source: jax.Array
    target: jax.Array


class Moments(NamedTuple):
    """Mean and covariance of both rescaled measures, in the coordinates of training."""

    source_mean: np.ndarray
    source_cov: np.ndarray
    target_mean: np.ndarray
    target_cov: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """An estimator: hyperparameters, and pure functions that initialise, update and apply its parameters.

    Instances are hashable and serve as static arguments of compiled programs: two equal instances share one.

    Parameters
    ----------
    learning_rate
        Step size of the default optimiser at the start of training.
    decay
        ``"cosine"`` lowers the step size to zero over the run; ``"constant"`` keeps it.
    optimizer
        An optax optimiser used instead of the default; ``decay`` still scales its updates.
    """

    name: ClassVar[str]
    samples: ClassVar[Literal["marginals", "pairs"]]
    default_n_iters: ClassVar[int] = 3_000

    learning_rate: float = 1e-3
    decay: Literal["cosine", "constant"] = "cosine"
    optimizer: optax.GradientTransformation | None = None

    def __post_init__(self):
        """Refuse options that would otherwise fail late or be ignored."""
        if self.decay not in ("cosine", "constant"):
            raise ValueError(f"Expected `decay` to be 'cosine' or 'constant', found {self.decay!r}.")
        if not self.learning_rate > 0:
            raise ValueError(f"Expected `learning_rate` to be positive, found {self.learning_rate}.")

    @property
    def draws(self) -> int:
        """Batches one training step uses up."""
        return 1

    @abstractmethod
    def init(self, rng: jax.Array, dim: int, moments: Moments | None = None) -> Any:
        """Return the initial state: a NamedTuple or dataclass pytree with a ``params`` field."""

    @abstractmethod
    def update(self, state: Any, batch: Batch, rng: jax.Array, progress: jax.Array) -> tuple[Any, dict]:
        """Take one training step; return the new state and named scalar losses, among them ``"loss"``.

        ``progress`` runs from 0 to 1 over the training.
        """

    @abstractmethod
    def push(self, params: Any, x: jax.Array) -> jax.Array:
        """Map source cells ``(n, dim)`` to the target."""

    def pull(self, params: Any, y: jax.Array) -> jax.Array:
        """Map target cells ``(n, dim)`` to the source, where the method learns an inverse."""
        raise TypeError(f"{type(self).__name__} learns no inverse map: `pull` is not available.")

    def default_optimizer(self) -> optax.GradientTransformation:
        """Return Adam with ``learning_rate``."""
        return optax.adam(self.learning_rate)

    def apply_gradient(self, params: Any, optimizer_state: Any, gradient: Any, progress: jax.Array):
        """One optimiser step with the decayed step size; return new parameters and optimiser state."""
        updates, optimizer_state = _optimizer(self).update(gradient, optimizer_state, params)
        factor = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if self.decay == "cosine" else 1.0
        return optax.apply_updates(params, jax.tree.map(lambda u: factor * u, updates)), optimizer_state

    def init_optimizer(self, params: Any) -> Any:
        """Return the optimiser's initial state."""
        return _optimizer(self).init(params)


@lru_cache
def _optimizer(method: Method) -> optax.GradientTransformation:
    # One object per method: rebuilding it inside a trace would be harmless but slow.
    return method.default_optimizer() if method.optimizer is None else method.optimizer


@partial(jax.jit, static_argnames=("function",))
def _apply(function: Callable, params: Any, x: jax.Array) -> jax.Array:
    return function(params, x)


@dataclass(frozen=True, eq=False, kw_only=True)
class TransportMap:
    """A fitted map from source to target cells.

    Attributes
    ----------
    method
        The estimator.
    params
        Its fitted parameters.
    shift, scale
        Training saw ``(cells − shift) / scale``; ``(dim,)`` and a number. Methods here take and return cells in
        the original coordinates.
    """

    method: Method
    params: Any
    shift: np.ndarray
    scale: float

    def push(self, x: ArrayLike, *, batch_size: int = 16_384) -> np.ndarray:
        """Map source cells to the target.

        Parameters
        ----------
        x
            Cells, seen in training or not, shape ``(n, dim)``.
        batch_size
            Cells mapped at a time, which bounds memory.

        Returns
        -------
        Their images, shape ``(n, dim)``, float32.
        """
        return self._map(self.method.push, x, batch_size)

    def pull(self, y: ArrayLike, *, batch_size: int = 16_384) -> np.ndarray:
        """Map target cells back to the source; shapes as in :meth:`push`.

        Raises
        ------
        TypeError
            If the method learns no inverse.
        """
        return self._map(self.method.pull, y, batch_size)

    def interpolate(self, x: ArrayLike, t: float, *, batch_size: int = 16_384) -> np.ndarray:
        """Positions of source cells at time ``t`` in [0, 1] of their straight path (McCann's interpolation)."""
        if not 0 <= t <= 1:
            raise ValueError(f"Expected `t` to be in [0, 1], from source to target, found {t}.")
        x = np.asarray(x)
        return ((1 - t) * x + t * self.push(x, batch_size=batch_size)).astype(np.float32)

    def velocity(self, x: ArrayLike, *, batch_size: int = 16_384) -> np.ndarray:
        """Displacement per unit of time of source cells on their straight paths, shape ``(n, dim)``, float32."""
        return (self.push(x, batch_size=batch_size) - np.asarray(x)).astype(np.float32)

    def _map(self, function: Callable, x: ArrayLike, batch_size: int) -> np.ndarray:
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != len(self.shift):
            raise ValueError(f"Expected cells of shape (n, {len(self.shift)}), as in the fit, found {x.shape}.")
        if batch_size < 1:
            raise ValueError(f"Expected `batch_size` to be at least 1, found {batch_size}.")
        out = np.empty(x.shape, np.float32)
        for start in range(0, len(x), batch_size):
            block = (x[start : start + batch_size] - self.shift) / self.scale
            # Blocks are padded to a power of two, so that calls of any size share few compiled programs.
            padded = np.zeros((min(batch_size, 1 << max(0, len(block) - 1).bit_length()), x.shape[1]), np.float32)
            padded[: len(block)] = block
            image = np.asarray(_apply(function, self.params, padded))[: len(block)]
            out[start : start + len(block)] = image * self.scale + self.shift
        return out
