"""Settings of a solve, checked before it, and its outcome, checked after it."""

from __future__ import annotations

import numpy as np

from uotcell._errors import ConvergenceError

MASSLESS = 1e-6
SMALLEST_MASS, LARGEST_MASS = 1e-30, 1e30


def resolve_tau(tau, marginal_penalty, epsilon: float) -> tuple[float, float]:
    """Return τ per side from exactly one of τ and λ; balanced when neither is given."""
    if tau is not None and marginal_penalty is not None:
        raise ValueError(
            f"Expected one of `tau` and `marginal_penalty`, found both ({tau} and {marginal_penalty}). "
            "They are two names for one choice: tau = penalty / (penalty + epsilon)."
        )
    name, given = ("tau", tau) if marginal_penalty is None else ("marginal_penalty", marginal_penalty)
    try:
        sides = (1.0, 1.0) if given is None else np.broadcast_to(np.asarray(given, dtype=float), (2,)).tolist()
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected `{name}` to be one number or one per side, found {given!r}.") from error
    if marginal_penalty is not None:
        if not all(side > 0 for side in sides):
            raise ValueError(f"Expected `marginal_penalty` to be positive (inf is balanced), found {given}.")
        return tuple(1.0 if np.isinf(side) else side / (side + epsilon) for side in sides)
    if not all(0 < side <= 1 for side in sides):
        raise ValueError(
            f"Expected `{name}` to be in (0, 1], found {given}. 1 keeps all mass; lower lets more mass be created "
            "and destroyed (0.9 to 0.99 is usual)."
        )
    return tuple(sides)


def check_count(name: str, value: int | None) -> None:
    """Raise unless the value is a positive integer, or left out."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
        raise ValueError(f"Expected `{name}` to be a positive integer, found {value!r}.")


def check_masses(tau: tuple[float, float], a: np.ndarray, b: np.ndarray) -> None:
    """Raise if float32 cannot hold a mass, or no mass may change and the sides have different masses."""
    for name, mass in (("a", a), ("b", b)):
        least, total = mass[mass > 0].min(), mass.sum()
        if not (least >= SMALLEST_MASS and total <= LARGEST_MASS):
            raise ValueError(
                f"Expected masses `{name}` of zero or at least {SMALLEST_MASS:g}, and of a sum of at most "
                f"{LARGEST_MASS:g}, found {least:.3g} and {total:.3g}. Choose units in which the sum is near one, and "
                "set masses to zero that are next to nothing in these."
            )
    if tau == (1.0, 1.0) and not np.isclose(a.sum(), b.sum(), rtol=1e-4):
        raise ValueError(
            f"Expected `a` and `b` to have equal sums in a balanced problem, found {a.sum():.4g} and {b.sum():.4g}. "
            "Normalise them, or let mass change with `tau` below 1."
        )


def check_positive(name: str, value: float) -> None:
    """Raise unless the value is a positive number."""
    is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if not (is_number and np.isfinite(value) and value > 0):
        raise ValueError(f"Expected `{name}` to be a positive number, found {value!r}.")


def check_solution(solution, *, tau, epsilon: float, threshold: float, prior: float) -> None:
    """Raise unless the solve is finite, converged, and transports mass."""
    mass, error, n_iters = float(solution.source_weights.sum()), float(solution.marginal_error), int(solution.n_iters)
    setting = f"epsilon={epsilon:g}, tau=({tau[0]:g}, {tau[1]:g})"
    if mass < MASSLESS * prior:
        raise ConvergenceError(
            f"The unbalanced problem with {setting} transports {mass:.2g} of a mass of {prior:.2g}: destroying cells "
            "costs less than moving them. Raise `tau` or `epsilon`."
        )
    if not np.isfinite([mass, error]).all():
        raise ConvergenceError(
            f"The unbalanced problem with {setting} gave non-finite weights after {n_iters} sweeps. Remove far "
            "outliers, or raise `epsilon` or `tau`."
        )
    if error > threshold:
        raise ConvergenceError(
            f"The unbalanced problem with {setting} is {error:.2g} from its optimality condition after {n_iters} "
            f"sweeps, expected at most {threshold:g}. Raise `epsilon` or lower `tau`; with `solve_unbalanced`, "
            "`max_iterations` and `threshold` can be raised too."
        )
