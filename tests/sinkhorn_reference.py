"""Entropic unbalanced transport in float64 by plain log-domain iterations: the reference of the solves."""

import numpy as np
from scipy.special import logsumexp


def reference_plan(cost, epsilon, tau, a=None, b=None, *, max_sweeps=5_000):
    """Minimise ``⟨C, π⟩ + ε KL(π | a⊗b) + λ₁ KL(π1 | a) + λ₂ KL(πᵀ1 | b)`` with ``τ = λ/(λ + ε)``; the plan ``(n, m)``.

    After every sweep the constant between the potentials is set to its optimum, without which sweeps of a τ near one
    would take ever longer.
    """
    n, m = cost.shape
    log_a = np.log(np.full(n, 1 / n) if a is None else a)
    log_b = np.log(np.full(m, 1 / m) if b is None else b)
    inverse = [(1 - t) / (t * epsilon) for t in tau]
    f, g = np.zeros(n), np.zeros(m)
    for _ in range(max_sweeps):
        previous = g
        f = -tau[0] * epsilon * logsumexp(log_b + (g - cost) / epsilon, axis=1)
        g = -tau[1] * epsilon * logsumexp(log_a + (f - cost.T) / epsilon, axis=1)
        if sum(inverse) > 0:
            constant = logsumexp(log_a - f * inverse[0]) - logsumexp(log_b - g * inverse[1])
            f, g = f + constant / sum(inverse), g - constant / sum(inverse)
        if np.abs(g - previous).max() < 1e-9 * epsilon:
            break
    f = -tau[0] * epsilon * logsumexp(log_b + (g - cost) / epsilon, axis=1)
    return np.exp(log_a[:, None] + log_b + (f[:, None] + g - cost) / epsilon)
