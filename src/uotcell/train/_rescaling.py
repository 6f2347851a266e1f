"""Train networks that stand for the mass multipliers of a coupling."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from uotcell._errors import ConvergenceError
from uotcell.methods._rescaling import SIDES, RescalingNetworks, initial_params, multipliers
from uotcell.ot import Coupling
from uotcell.ot._inputs import as_key
from uotcell.ot._sampling import AliasTable, alias_table, draw
from uotcell.train._data import bucket, pad

# Fewer cells than this are moved at random several times.
LEAST_CELLS = 8_192


def fit_rescaling(
    coupling: Coupling,
    *,
    hidden: tuple[int, ...] = (64, 64),
    n_iters: int = 2_000,
    batch_size: int = 512,
    learning_rate: float = 3e-3,
    mass_weight: float = 1.0,
    jitter: float = 0.25,
    rng: jax.Array | int = 0,
) -> RescalingNetworks:
    """Learn the mass multipliers of source and target cells, so that a map can be shipped without its cells.

    Minimises ``E (η(x) − ã/a)² + w (E_a η(x) − m)²`` and the same on the target side: regression on the coupling's
    multipliers, and the transported mass m matched in every batch (Eyring, Klein, Uscidda et al. 2024), all in units of
    the mean multiplier. As the coupling has a multiplier for any cell, the regression is on cells moved at random, so
    that few cells are not learned by heart.

    Parameters
    ----------
    coupling
        The solved pair.
    hidden
        Widths of the layers of both networks.
    n_iters, batch_size
        Training steps, and cells per step and side.
    learning_rate
        Step size of Adam at the start; it falls to zero along a cosine.
    mass_weight
        w; 0 is regression alone.
    jitter
        Standard deviation of these moves, in units of the root mean square spread per dimension; 0 stays on the cells.
    rng
        Key or seed.

    Returns
    -------
    Both networks. Hand them to :meth:`uotcell.methods.TransportMap.with_rescaling` to save them with a map.

    Raises
    ------
    ValueError
        If an argument is out of range.
    uotcell.ConvergenceError
        If training is not finite; the message names the step.

    Examples
    --------
    >>> import numpy as np, uotcell as uc
    >>> x, y = np.random.default_rng(0).normal(size=(2, 100, 3)) + np.array([0.0, 1.0])[:, None, None]
    >>> coupling = uc.ot.solve_unbalanced(x, y, tau=0.95)
    >>> networks = uc.train.fit_rescaling(coupling, n_iters=200)
    >>> bool(np.corrcoef(networks.source_rescaling(x), coupling.source_rescaling(x))[0, 1] > 0.5)
    True
    """
    counts = {"n_iters": n_iters, "batch_size": batch_size, "hidden": min(hidden, default=0)}
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"Expected `{name}` to be at least 1, found {value!r}.")
    if not learning_rate > 0 or not mass_weight >= 0 or not jitter >= 0:
        raise ValueError(
            "Expected a positive `learning_rate` and non-negative `mass_weight` and `jitter`, found "
            f"{learning_rate!r}, {mass_weight!r} and {jitter!r}."
        )
    sides = (
        (coupling.x, coupling.a, coupling.source_rescaling, coupling.shift),
        (coupling.y, coupling.b, coupling.target_rescaling, coupling.target_shift),
    )
    fitted: dict[str, dict] = {name: {} for name in ("params", "shift", "scale", "unit")}
    for side, key, (cells, prior, rescaling, offset) in zip(SIDES, jax.random.split(as_key(rng)), sides, strict=True):
        cells, prior = (np.asarray(array, np.float64) for array in (cells, prior))
        center = np.average(cells, axis=0, weights=prior)
        spread = float(np.sqrt(np.average(((cells - center) ** 2).mean(axis=1), weights=prior))) or 1.0
        unit = coupling.transported_mass / prior.sum()
        rng_init, rng_train, rng_jitter = jax.random.split(key, 3)
        n_copies = -(-LEAST_CELLS // len(cells))
        noise = jitter * np.asarray(jax.random.normal(rng_jitter, (n_copies, *cells.shape)))
        moved = cells + spread * noise
        multiplier = np.stack([rescaling(copy + offset) for copy in moved], axis=1) / unit
        size = bucket(len(cells))
        params, losses = _train(
            tuple(hidden), initial_params(tuple(hidden), cells.shape[1], rng_init), rng_train,
            pad((cells - center) / spread, size), pad(np.moveaxis(moved - center, 0, 1) / spread, size),
            pad(multiplier, size), alias_table(prior, size=size),
            mass_weight, learning_rate, n_iters=int(n_iters), batch_size=int(batch_size),
        )  # fmt: skip
        _check_finite(side, np.asarray(losses), params)
        values = {"params": params, "shift": center + offset, "scale": spread, "unit": float(unit)}
        for name, value in values.items():
            fitted[name][side] = value
    return RescalingNetworks(hidden=tuple(hidden), **fitted)


def _check_finite(side: str, losses: np.ndarray, params: Any) -> None:
    broken = np.flatnonzero(~np.isfinite(losses))
    if len(broken):
        found = f"loss={losses[broken[0]]} at step {broken[0] + 1}"
    elif not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
        found = f"parameters that are not after step {len(losses)}"
    else:
        return
    raise ConvergenceError(
        f"Expected finite training of the {side} rescaling network, found {found}. Lower `learning_rate`."
    )


@partial(jax.jit, static_argnames=("hidden", "n_iters", "batch_size"))
def _train(
    hidden: tuple[int, ...], params: Any, rng: jax.Array, x: jax.Array, moved: jax.Array, multiplier: jax.Array,
    table: AliasTable, mass_weight: jax.Array, learning_rate: jax.Array, *, n_iters: int, batch_size: int,
):  # fmt: skip
    optimizer = optax.adam(1.0)

    def step(carry, i):
        params, state = carry
        rng_rows, rng_copy = jax.random.split(jax.random.fold_in(rng, i))
        rows = draw(rng_rows, table, (batch_size,))
        copies = jax.random.randint(rng_copy, (batch_size,), 0, moved.shape[1])

        def loss(params):
            fit = multipliers(hidden, params, moved[rows, copies]) - multiplier[rows, copies]
            mass = multipliers(hidden, params, x[rows]).mean() - 1
            return jnp.mean(fit**2) + mass_weight * mass**2

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state)
        factor = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * i / n_iters))
        return (optax.apply_updates(params, jax.tree.map(lambda u: factor * u, updates)), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(n_iters))
    return params, losses
