"""What every estimator of a transport map is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Batch(NamedTuple):
    """Cells drawn for one training step, in the coordinates of training; both ``(draws, batch_size, dim)``."""

    source: jax.Array
    target: jax.Array


class PairSummary(NamedTuple):
    """What a method may know of a pair before training, in the coordinates of training.

    Mean and covariance of both rescaled measures and the effective number of cells behind each; cells drawn from the
    prior measures, at most 512 a side, from which units can be set that do not depend on τ; and the shift and scale
    that lead source cells back to the original coordinates.
    """

    source_mean: np.ndarray
    source_cov: np.ndarray
    target_mean: np.ndarray
    target_cov: np.ndarray
    effective_cells: tuple[float, float]
    prior_cells: tuple[np.ndarray, np.ndarray]
    shift: np.ndarray
    scale: float

    @classmethod
    def standard(cls, dim: int, target_dim: int | None = None) -> PairSummary:
        """Summary of two standard normal measures, which fixes the shapes of a method's parameters."""
        dims = (dim, dim if target_dim is None else target_dim)
        moments = [moment for d in dims for moment in (np.zeros(d), np.eye(d))]
        cells = tuple(np.linspace(-1.0, 1.0 + side, 3 * d).reshape(3, d) for side, d in enumerate(dims))
        return cls(*moments, (1e6, 1e6), cells, np.zeros(dim), 1.0)


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

    Attributes
    ----------
    name
        What the method is called in calls and in files.
    samples
        What a batch holds: ``"marginals"``, independent draws from the two rescaled measures, or ``"pairs"``, of which
        row i of the source and row i of the target are a draw from the plan.
    crosses_spaces
        Whether source and target may have different features.
    is_stochastic
        Whether a cell has a distribution of images, of which ``push`` is the mean, and so a ``variance``.
    training_only
        Options that a fitted map does not need. Where they are no plain values, saving a map leaves them out.
    selects_by_validation
        Whether the parameters with the best held-out divergence are kept. A method trained by plain regression keeps
        the last ones instead, unless it is to stop early: their average is better than a choice by few held-out cells.
    default_n_iters, default_ema_decay
        Training steps, and decay of the running average of parameters, that suit the method.
    """

    name: ClassVar[str]
    samples: ClassVar[Literal["marginals", "pairs"]]
    crosses_spaces: ClassVar[bool] = False
    training_only: ClassVar[frozenset[str]] = frozenset({"optimizer"})
    is_stochastic: ClassVar[bool] = False
    selects_by_validation: ClassVar[bool] = True
    default_n_iters: ClassVar[int] = 3_000
    default_ema_decay: ClassVar[float | None] = None

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
    def init(self, rng: jax.Array, dim: int, summary: PairSummary | None = None) -> Any:
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

    def sample(self, params: Any, x: jax.Array, keys: jax.Array) -> jax.Array:
        """Draw an image of every source cell, with a key of its own each ``(n,)``; the map itself if it is one."""
        return self.push(params, x)

    def variance(self, params: Any, x: jax.Array) -> jax.Array:
        """Variance of the images of every source cell in each dimension, where the method learns a distribution."""
        raise TypeError(f"{type(self).__name__} maps every cell to one image: it has no conditional variance.")

    def interpolate(self, params: Any, x: jax.Array, t: jax.Array) -> jax.Array:
        """Positions at time t in [0, 1] of cells that leave from ``x``; on straight lines unless a method knows better.

        The way of a cell is differentiated by :meth:`TransportMap.log_density_change`.
        """
        return (1 - t) * x + t * self.push(params, x)

    def interpolate_back(self, params: Any, y: jax.Array, t: jax.Array) -> jax.Array:
        """Positions at time t in [0, 1] of cells that arrive at ``y``, where the method learns an inverse."""
        return (1 - t) * self.pull(params, y) + t * y

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
        return _optimizer_state(self, params)


@lru_cache
def _optimizer(method: Method) -> optax.GradientTransformation:
    # One object per method: rebuilding it inside a trace would be harmless but slow.
    return method.default_optimizer() if method.optimizer is None else method.optimizer


@partial(jax.jit, static_argnames=("method",))
def _optimizer_state(method: Method, params: Any) -> Any:
    return _optimizer(method).init(params)
