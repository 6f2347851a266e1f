"""Flows of velocity fields, by diffrax."""

from __future__ import annotations

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp

SOLVERS = {"tsit5": diffrax.Tsit5, "heun": diffrax.Heun, "euler": diffrax.Euler}
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
    term = diffrax.ODETerm(field)
    span = times[-1] - times[0]
    if n_steps is None:
        controller, first = diffrax.PIDController(rtol=tolerance, atol=tolerance), None
    else:
        controller, first = diffrax.ConstantStepSize(), jnp.where(span == 0, 1.0, span) / n_steps

    def one(state: jax.Array, row: jax.Array) -> jax.Array:
        solution = diffrax.diffeqsolve(
            term, SOLVERS[solver](), times[0], times[-1], first, state, args=row,
            saveat=diffrax.SaveAt(ts=times), stepsize_controller=controller, max_steps=MAX_STEPS, throw=False,
            adjoint=diffrax.ForwardMode(),
        )  # fmt: skip
        return solution.ys

    states = jax.vmap(one)(x, jnp.arange(len(x)))
    return jnp.moveaxis(states, 1, 0)
