"""UOT-ICNN: an unbalanced Monge map as the gradient of an input-convex network."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from uotcell.methods._base import Batch, Method, PairSummary
from uotcell.networks import ACTIVATIONS, InputConvexNetwork
from uotcell.ot._gaussian import bures_map, shrunk_covariance, symmetric_power
from uotcell.ot._inputs import on_device


class ICNNState(NamedTuple):
    """Parameters and optimiser states of the source potential ψ and the target potential φ."""

    params: dict[str, Any]
    optimizer: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ICNN(Method):
    """Monge map of the squared Euclidean cost by a minimax over two convex potentials.

    Makkuva et al. (2020), on measures rescaled by an unbalanced coupling (Eyring, Klein, Uscidda et al. 2024):
    ``min_φ max_ψ  E_b̃[φ(y)] + E_ã[⟨x, ∇ψ(x)⟩ − φ(∇ψ(x))]``. At the optimum ``∇ψ`` pushes ã to b̃ and ``∇φ`` pulls it
    back. Every inner step sees a fresh batch, balanced or not.

    Parameters
    ----------
    hidden
        Widths of the layers of both potentials.
    activation
        ``"softplus"``, ``"leaky_relu"`` or ``"elu"``.
    n_inner
        Steps on ψ for one on φ.
    positive_weights
        ``"softplus"``: weights between layers are positive by construction. ``"penalty"``: as published, φ is
        clipped to non-negative weights after each step and negative weights of ψ are penalised.
    penalty
        Weight of that penalty.
    initial_map
        ``"gaussian"`` starts at the optimal map between the Gaussians with the moments of the two measures, whose
        covariances are shrunk according to the number of cells; ``"identity"`` at the identity.
    beta1, beta2
        Decay rates of Adam, the default optimiser.
    learning_rate, decay, optimizer
        See :class:`~uotcell.methods.Method`.

    Examples
    --------
    >>> import uotcell as uc
    >>> method = uc.methods.ICNN(hidden=(32, 32), n_inner=5)  # for uc.tl.fit_trajectory(..., method=method)
    >>> method.name, method.samples, method.default_n_iters
    ('icnn', 'marginals', 3000)
    """

    name: ClassVar[str] = "icnn"
    samples: ClassVar[Literal["marginals", "pairs"]] = "marginals"

    hidden: tuple[int, ...] = (64, 64, 64)
    activation: str = "softplus"
    n_inner: int = 5
    positive_weights: Literal["softplus", "penalty"] = "softplus"
    penalty: float = 1.0
    initial_map: Literal["gaussian", "identity"] = "gaussian"
    learning_rate: float = 1e-2
    beta1: float = 0.5
    beta2: float = 0.9

    def __post_init__(self):
        """Refuse options that would otherwise fail late or be ignored."""
        super().__post_init__()
        for name, known in (
            ("activation", tuple(ACTIVATIONS)),
            ("positive_weights", ("softplus", "penalty")),
            ("initial_map", ("gaussian", "identity")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"Expected `{name}` to be one of {list(known)}, found {getattr(self, name)!r}.")
        if not self.hidden or min(self.hidden) < 1 or self.n_inner < 1:
            raise ValueError(f"Expected positive `hidden` and `n_inner`, found {self.hidden} and {self.n_inner}.")

    @property
    def draws(self) -> int:
        """One batch per inner step and one for the outer."""
        return self.n_inner + 1

    def default_optimizer(self) -> optax.GradientTransformation:
        """Return Adam with the rates of this method."""
        return optax.adam(self.learning_rate, b1=self.beta1, b2=self.beta2)

    def init(self, rng: jax.Array, dim: int, summary: PairSummary | None = None) -> ICNNState:
        """Draw both potentials and set their quadratic parts."""
        source, target = (_initial_params(self, dim, key) for key in jax.random.split(rng))
        if self.initial_map == "gaussian" and summary is not None:
            covariances = (summary.source_cov, summary.target_cov)
            linear = bures_map(*map(shrunk_covariance, covariances, summary.effective_cells))
            factor, inverse = symmetric_power(linear, 0.5), symmetric_power(linear, -0.5)
            source = _with_quadratic(source, factor, summary.source_mean, summary.target_mean)
            target = _with_quadratic(target, inverse, summary.target_mean, summary.source_mean)
        params = {"source": source, "target": target}
        return ICNNState(params, {side: self.init_optimizer(p) for side, p in params.items()})

    def update(self, state: ICNNState, batch: Batch, rng: jax.Array, progress: jax.Array) -> tuple[ICNNState, dict]:
        """Take ``n_inner`` steps on ψ and one on φ."""
        phi = state.params["target"]

        def inner_loss(psi, x):
            image = self._gradient(psi, x)
            loss = jnp.mean(self._potential(phi, image) - jnp.sum(x * image, axis=-1))
            return loss + self.penalty * _negative_part(psi) if self.positive_weights == "penalty" else loss

        def inner_step(carry, x):
            loss, gradient = jax.value_and_grad(inner_loss)(carry[0], x)
            return self.apply_gradient(*carry, gradient, progress), loss

        (psi, psi_optimizer), inner_losses = jax.lax.scan(
            inner_step, (state.params["source"], state.optimizer["source"]), batch.source[:-1]
        )
        image = self._gradient(psi, batch.source[-1])

        def outer_loss(phi):
            return jnp.mean(self._potential(phi, batch.target[-1])) - jnp.mean(self._potential(phi, image))

        loss, gradient = jax.value_and_grad(outer_loss)(phi)
        phi, phi_optimizer = self.apply_gradient(phi, state.optimizer["target"], gradient, progress)
        if self.positive_weights == "penalty":
            phi = _clip(phi)
        state = ICNNState({"source": psi, "target": phi}, {"source": psi_optimizer, "target": phi_optimizer})
        return state, {"loss": loss, "inner_loss": inner_losses[-1]}

    def push(self, params: dict[str, Any], x: jax.Array) -> jax.Array:
        """Gradient of the source potential."""
        return self._gradient(params["source"], x)

    def pull(self, params: dict[str, Any], y: jax.Array) -> jax.Array:
        """Gradient of the target potential."""
        return self._gradient(params["target"], y)

    def _potential(self, params: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(_structure(self, x.shape[-1]), params)(x)

    def _gradient(self, params: Any, x: jax.Array) -> jax.Array:
        # The gradient of the summed potential is every row's own gradient, several times faster than one per row.
        return jax.grad(lambda points: self._potential(params, points).sum())(x)


@lru_cache
def _structure(method: ICNN, dim: int):
    """Return the static part of the networks, one object for equal settings, as compiled programs are keyed by it."""
    return nnx.split(nnx.eval_shape(lambda: _network(method, dim, jax.random.key(0))))[0]


@partial(jax.jit, static_argnames=("method", "dim"))
def _initial_params(method: ICNN, dim: int, rng: jax.Array):
    return nnx.split(_network(method, dim, rng))[1]


def _network(method: ICNN, dim: int, rng: jax.Array) -> InputConvexNetwork:
    return InputConvexNetwork(
        dim, method.hidden, activation=method.activation, positive=method.positive_weights, rngs=nnx.Rngs(params=rng)
    )


def _with_quadratic(params, factor: np.ndarray, center: np.ndarray, image: np.ndarray):
    """Set ``½‖L(x − c)‖² + b·x``, whose gradient maps ``c`` to ``b``."""
    values = {"factor": factor, "center": center, "linear": image}
    for name, value in values.items():
        params[name] = params[name].replace(on_device(value))
    return params


def _positive(params) -> list:
    return [*jax.tree.leaves(params["between"]), *jax.tree.leaves(params["out"])]


def _negative_part(params) -> jax.Array:
    return sum(jnp.sum(jax.nn.relu(-weights) ** 2) for weights in _positive(params))


def _clip(params):
    """Set negative weights between layers to zero."""
    return jax.tree.map_with_path(
        lambda path, leaf: jnp.maximum(leaf, 0.0) if path[0].key in ("between", "out") else leaf, params
    )
