"""The loop itself: one update is ott's, which knows τ when it is compiled."""

import jax
import numpy as np
from ott.problems.linear.linear_problem import LinearProblem
from ott.solvers.linear.sinkhorn import Sinkhorn, SinkhornState

from uotcell.ot._geometry import PointGeometry, resolve_cost
from uotcell.ot._sinkhorn import Penalties, _recentred, sweep

# Every kind of problem that is a program of its own, and τ so near to one that 1 − τ has few digits in float32.
TAU = [(1.0, 1.0), (1.0, 0.9), (0.8, 1.0), (0.9, 0.99), (0.9999, 0.9999), (0.05, 0.5)]


def test_one_update_is_that_of_ott():
    rng = np.random.default_rng(0)
    x, y, a, b = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)), rng.uniform(1, 2, size=7), rng.uniform(1, 2, size=5)
    x, y, a, b, f, g = (array.astype(np.float32) for array in (x, y, a, b, rng.normal(size=7), rng.normal(size=5)))

    @jax.jit
    def both():
        geometry = PointGeometry(x, y, a, b, resolve_cost("sqeuclidean"), 6.0, 0.1)
        found, expected = [], []
        for tau in TAU:
            problem = LinearProblem(geometry, a=a, b=b, tau_a=tau[0], tau_b=tau[1])
            state = Sinkhorn(recenter_potentials=True).lse_step(problem, SinkhornState(potentials=(f, g)), 0)
            expected += [(state.fu, state.gv), state.recenter(f, g, ot_prob=problem)]
            found += [step(geometry, Penalties.of(tau), f, g) for step in (sweep, _recentred)]
        return found, expected

    found, expected = both()
    for tau, ours, theirs in zip(np.repeat(TAU, 2, axis=0), found, expected, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5, err_msg=str(tau))
