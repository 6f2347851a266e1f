"""Flows of velocity fields, by diffrax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import diffrax
import jax
import jax.numpy as jnp

SOLVERS = {"tsit5": diffrax.Tsit5, "heun": diffrax.Heun, "euler": diffrax.Euler}
# Of a cell whose steps are adapted.
MAX_STEPS = 4_096


def check_solver(solver: str, n_steps: int | None, tolerance: float) -> None:
    """Raise unless the options describe a solver."""
    if solver not in SOLVERS:
        raise ValueError(f"Expected `solver` to be one of {list(SOLVERS)}, found {solver!r}.")
    if n_steps is None and solver != "tsit5":
        raise ValueError(f"Expected `n_steps` with solver={solver!r}: only 'tsit5' chooses its own steps, found None.")
    if n_steps is not None and (isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1):
        raise ValueError(f"Expected `n_steps` to be a positive integer or None, found {n_steps!r}.")
    if not tolerance > 0:
        raise ValueError(f"Expected `tolerance` to be positive, found {tolerance!r}.")


def flow(
    field: Callable, x: jax.Array, times: jax.Array, *, solver: str, n_steps: int | None, tolerance: float
) -> jax.Array:
    """Follow ``dx/dt = field(t, x, row)`` from ``times[0]`` through the others, every row of ``x`` by itself.

    Parameters
    ----------
    field
        Velocity of one state ``(d,)`` at a time, given the number of its row.
    x
        States at ``times[0]``, shape ``(n, d)``.
    times
        Ascending or descending, shape ``(k,)``.
    solver, n_steps, tolerance
        ``"tsit5"``, ``"heun"`` or ``"euler"`` with ``n_steps`` equal steps from the first to the last time; without
        them, steps of each row are adapted to an absolute and relative error of ``tolerance``.

    Returns
    -------
    States at all times, shape ``(k, n, d)``; NaN for rows whose steps became too many.
    """
    start, span = times[0], times[-1] - times[0]
    # In the share of the way that is behind: what diffrax would check as it runs, and call back for, is then constant.
    saved = diffrax.SaveAt(t0=True, t1=True) if len(times) == 2 else diffrax.SaveAt(ts=_shares(times))

    def solve(states: jax.Array, rows: jax.Array, velocity: Callable, first, controller) -> jax.Array:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda share, state, row: span * velocity(start + share * span, state, row)),
            SOLVERS[solver](), 0.0, 1.0, first, states, args=rows, saveat=saved, stepsize_controller=controller,
            max_steps=MAX_STEPS if n_steps is None else n_steps + 1, throw=False, adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        # Of a way that was broken off, diffrax returns where it was left.
        return jnp.where(solution.result == diffrax.RESULTS.successful, solution.ys, jnp.nan)

    rows = jnp.arange(len(x))
    if n_steps is None:
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        alone = partial(solve, velocity=field, first=None, controller=controller)
        return jnp.moveaxis(jax.vmap(alone)(x, rows), 1, 0)
    # Equal steps are the same for all rows: one equation of all of them is sooner traced and compiled.
    together = jax.vmap(field, in_axes=(None, 0, 0))
    return solve(x, rows, together, 1 / n_steps, diffrax.ConstantStepSize())


def _shares(times: jax.Array) -> jax.Array:
    """Return times as shares of the way from the first to the last; of no way, all are its end."""
    span = times[-1] - times[0]
    shares = (times - times[0]) / jnp.where(span == 0, 1.0, span)
    return jnp.where(span == 0, jnp.linspace(0, 1, len(times)), shares).at[-1].set(1.0)
