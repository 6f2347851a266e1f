"""UOT-Monge-gap: an unbalanced Monge map for any cost, as a network with a regulariser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from ott.geometry.costs import CostFn, SqEuclidean, TICost

from uotcell.methods._base import Batch, Method, PairSummary
from uotcell.networks import MLP_ACTIVATIONS, ResidualMLP
from uotcell.ot._batch import batch_transport_cost
from uotcell.ot._geometry import pairwise_cost, resolve_cost

# Widths of the Gaussian kernels of the MMD, in units of the root mean squared distance of source and target.
MMD_WIDTHS = (0.125, 0.25, 0.5, 1.0)


class Units(NamedTuple):
    """What costs are measured in; depends on the pair's prior measures, not on τ."""

    shift: jax.Array
    scale: jax.Array
    distance: jax.Array
    cost: jax.Array


class MongeGapState(NamedTuple):
    """Parameters, optimiser state and units of cost."""

    params: Any
    optimizer: Any
    units: Units


@dataclass(frozen=True, kw_only=True)
class MongeGap(Method):
    """Monge map of any differentiable cost: a network fitted to the target and kept optimal by a regulariser.

    Minimises ``Δ(T♯ã, b̃) + λ · (E_ã[c(x, T(x))] − OT_c(ã, T♯ã))`` (Uscidda & Cuturi 2023) on measures rescaled by an
    unbalanced coupling (Eyring, Klein, Uscidda et al. 2024). The second term, the Monge gap, is zero for maps that
    cannot be improved by exchanging the images of cells. Both are in units of their mean cost between source and
    target, so that λ means the same for every dataset and cost. Entropic problems are solved in every step and
    differentiated by the envelope theorem.

    Parameters
    ----------
    fit
        Δ: ``"sinkhorn"`` is the Sinkhorn divergence of the squared Euclidean cost, ``"mmd"`` the squared maximum
        mean discrepancy with Gaussian kernels of four widths.
    fit_epsilon
        ε of the Sinkhorn divergence, in units of the mean squared distance between source and target under the prior
        measures: it depends on the data, not on τ.
    cost
        c: ``"sqeuclidean"``, ``"euclidean"``, ``"cosine"`` or an ott ``CostFn`` (p-norms, elastic costs, your own).
        It is evaluated in the original coordinates and must be differentiable.
    gap_weight
        λ, or a function from the progress of training in [0, 1] to λ.
    gap_epsilon
        ε of the Monge gap, in units of the mean of ``cost`` between source and target.
    hidden
        Widths of the layers of the network.
    activation
        ``"gelu"``, ``"silu"``, ``"relu"`` or ``"tanh"``.
    weight_decay
        Decoupled weight decay of AdamW, the default optimiser.
    learning_rate, decay, optimizer
        See :class:`~uotcell.methods.Method`.

    Examples
    --------
    >>> import uotcell as uc
    >>> method = uc.methods.MongeGap(hidden=(64, 64), cost="euclidean")  # for uc.tl.fit_trajectory(..., method=method)
    >>> method.name, method.samples
    ('monge_gap', 'marginals')
    """

    name: ClassVar[str] = "monge_gap"
    samples: ClassVar[Literal["marginals", "pairs"]] = "marginals"
    training_only: ClassVar[frozenset[str]] = frozenset({"optimizer", "cost", "gap_weight"})
    default_n_iters: ClassVar[int] = 1_500

    fit: Literal["sinkhorn", "mmd"] = "sinkhorn"
    fit_epsilon: float = 0.05
    cost: str | CostFn = "sqeuclidean"
    gap_weight: float | Callable[[jax.Array], jax.Array] = 0.3
    gap_epsilon: float = 0.05
    hidden: tuple[int, ...] = (128, 128)
    activation: str = "gelu"
    weight_decay: float = 0.0

    def __post_init__(self):
        """Refuse options that would otherwise fail late or be ignored."""
        super().__post_init__()
        for name, known in (("fit", ("sinkhorn", "mmd")), ("activation", tuple(MLP_ACTIVATIONS))):
            if getattr(self, name) not in known:
                raise ValueError(f"Expected `{name}` to be one of {list(known)}, found {getattr(self, name)!r}.")
        resolve_cost(self.cost)
        for name in ("fit_epsilon", "gap_epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Expected `{name}` to be positive, found {getattr(self, name)!r}.")
        if self.weight_decay < 0 or (not callable(self.gap_weight) and not self.gap_weight >= 0):
            raise ValueError(
                "Expected `weight_decay` and `gap_weight` to be non-negative, found "
                f"{self.weight_decay!r} and {self.gap_weight!r}."
            )
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"Expected positive `hidden`, found {self.hidden}.")

    def default_optimizer(self) -> optax.GradientTransformation:
        """Return AdamW with the rates of this method."""
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)

    def init(self, rng: jax.Array, dim: int, summary: PairSummary | None = None) -> MongeGapState:
        """Draw the network, the identity at first, and fix the units of cost.

        Raises
        ------
        ValueError
            If the cost is not differentiable between the cells of the pair.
        """
        params = _initial_params(self, dim, rng)
        return MongeGapState(params, self.init_optimizer(params), self._units(dim, summary))

    def update(
        self, state: MongeGapState, batch: Batch, rng: jax.Array, progress: jax.Array
    ) -> tuple[MongeGapState, dict]:
        """Take one step on the network."""
        x, y, units = batch.source[0], batch.target[0], state.units
        weight = self.gap_weight(progress) if callable(self.gap_weight) else self.gap_weight

        def loss(params):
            image = self.push(params, x)
            fit, fit_error = self._fit(image, y, units)
            gap, gap_error = self._gap(x, image, units)
            return fit + weight * gap, {"fit": fit, "gap": gap, "marginal_error": jnp.maximum(fit_error, gap_error)}

        (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
        params, optimizer = self.apply_gradient(state.params, state.optimizer, gradient, progress)
        return MongeGapState(params, optimizer, units), {"loss": value, **parts}

    def push(self, params: Any, x: jax.Array) -> jax.Array:
        """Apply the network."""
        return nnx.merge(_structure(self, x.shape[-1]), params)(x)

    def _fit(self, image: jax.Array, y: jax.Array, units: Units) -> tuple[jax.Array, jax.Array]:
        """Fitting loss between the image of a batch and a target batch, and the error of its couplings."""
        clouds = ((image, y), (image, image), (y, y))
        between, within, target = (pairwise_cost(SqEuclidean(), a, b) / units.distance for a, b in clouds)
        if self.fit == "mmd":
            kernels = [sum(jnp.exp(-c / (2 * w**2)) for w in MMD_WIDTHS).mean() for c in (between, within, target)]
            return (kernels[1] + kernels[2] - 2 * kernels[0]) / len(MMD_WIDTHS), jnp.zeros(())
        values, errors = zip(
            *(batch_transport_cost(cost, self.fit_epsilon) for cost in (between, within, target)), strict=True
        )
        return values[0] - (values[1] + values[2]) / 2, jnp.stack(errors).max()

    def _gap(self, x: jax.Array, image: jax.Array, units: Units) -> tuple[jax.Array, jax.Array]:
        """Monge gap of a batch and its image, and the error of its coupling."""
        cost_fn = resolve_cost(self.cost)
        x, image = (points * units.scale + units.shift for points in (x, image))
        costs = _smooth_costs(cost_fn, x, image) / units.cost
        transport, error = batch_transport_cost(costs, self.gap_epsilon)
        # Pairing every cell with its own image is a plan too, of KL divergence log n: its value is never the lesser.
        return jnp.trace(costs) / len(x) + self.gap_epsilon * jnp.log(len(x)) - transport, error

    def _units(self, dim: int, summary: PairSummary | None) -> Units:
        if summary is None:
            return Units(jnp.zeros(dim), jnp.ones(()), jnp.array(2.0 * dim), jnp.ones(()))
        cost_fn = resolve_cost(self.cost)
        # Where the cost only sees differences, a shift would only cost digits.
        shift = np.zeros(dim) if isinstance(cost_fn, TICost) else summary.shift
        shift, scale, x, y = (np.asarray(part, np.float32) for part in (shift, summary.scale, *summary.prior_cells))
        original = [points * scale + shift for points in (x, y)]
        _check_differentiable(cost_fn, *original)
        cost = jnp.abs(pairwise_cost(cost_fn, *original)).mean()
        return Units(shift, scale, pairwise_cost(SqEuclidean(), x, y).mean(), cost)


def _smooth_costs(cost_fn: CostFn, x: jax.Array, y: jax.Array) -> jax.Array:
    """Costs of all pairs, with gradient zero where a cell meets its own image: norms have none there."""
    if isinstance(cost_fn, SqEuclidean):
        return pairwise_cost(cost_fn, x, y)
    same = jnp.all(x[:, None] == y[None], axis=-1)

    def cost(a: jax.Array, b: jax.Array, is_same: jax.Array) -> jax.Array:
        apart = cost_fn(a, jnp.where(is_same, a + 1.0, b))
        # No tangent may reach the norm of zero: under differentiation ott's returns another value there.
        return jnp.where(is_same, cost_fn(*jax.lax.stop_gradient((a, b))), apart)

    return jax.vmap(jax.vmap(cost, (None, 0, 0)), (0, None, 0))(x, y, same)


def _check_differentiable(cost_fn: CostFn, x: np.ndarray, y: np.ndarray) -> None:
    """Raise unless the cost has a finite gradient, not zero everywhere, between the given cells."""
    n = min(len(x), len(y), 32)
    advice = "Use a cost whose gradient moves cells, written in jax.numpy."
    try:
        gradient = np.asarray(jax.vmap(jax.grad(cost_fn, argnums=1))(x[:n], y[:n]))
    except Exception as error:
        raise ValueError(
            f"Expected `cost` to be differentiable by jax, found {type(cost_fn).__name__}, whose gradient failed with "
            f"{type(error).__name__}. {advice}"
        ) from error
    if not np.isfinite(gradient).all() or not np.abs(gradient).max() > 0:
        found = "zero" if np.isfinite(gradient).all() else "not finite"
        raise ValueError(
            f"Expected `cost` to be differentiable between source and target cells, found {type(cost_fn).__name__}, "
            f"whose gradient is {found}. {advice}"
        )


@lru_cache
def _structure(method: MongeGap, dim: int):
    """Return the static part of the network, one object for equal settings, as compiled programs are keyed by it."""
    return nnx.split(nnx.eval_shape(lambda: _network(method, dim, jax.random.key(0))))[0]


@partial(jax.jit, static_argnames=("method", "dim"))
def _initial_params(method: MongeGap, dim: int, rng: jax.Array):
    return nnx.split(_network(method, dim, rng))[1]


def _network(method: MongeGap, dim: int, rng: jax.Array) -> ResidualMLP:
    return ResidualMLP(dim, method.hidden, activation=method.activation, rngs=nnx.Rngs(params=rng))
