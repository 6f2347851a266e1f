"""Closed form of unbalanced transport between diagonal Gaussians, cost ‖x − y‖², both penalties λ, ε → 0."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Oracle:
    penalty: float
    source_mean: np.ndarray
    source_var: np.ndarray
    target_mean: np.ndarray
    target_var: np.ndarray

    @property
    def _solution(self):
        penalty, a, b = self.penalty, self.source_mean, self.target_mean
        p, q = 1 / self.source_var, 1 / self.target_var
        slope = np.sqrt((p + 2 / penalty) / (q + 2 / penalty))
        big_p, big_q = p + 2 * (1 - slope) / penalty, q + 2 * (1 - 1 / slope) / penalty
        offset = (slope * p * a / big_p - q * b / big_q) / (
            1 + 2 / (slope * penalty * big_q) + 2 * slope / (penalty * big_p)
        )
        return p, q, slope, big_p, big_q, offset

    @property
    def mean_cost(self):
        shift = self.source_mean - self.target_mean
        return float(self.source_var.sum() + self.target_var.sum() + shift @ shift)

    def push(self, x):
        *_, slope, _, _, offset = self._solution
        return slope * x - offset

    @property
    def rescaled_source(self):
        p, _, _, big_p, _, offset = self._solution
        return (p * self.source_mean - 2 * offset / self.penalty) / big_p, 1 / big_p

    @property
    def rescaled_target(self):
        _, q, slope, _, big_q, offset = self._solution
        return (q * self.target_mean + 2 * offset / (slope * self.penalty)) / big_q, 1 / big_q

    def sample(self, n, seed):
        """Draw both measures with exactly their means and covariances, so that what remains is the method's error."""
        rng = np.random.default_rng(seed)
        sides = ((self.source_mean, self.source_var), (self.target_mean, self.target_var))
        return tuple(mean + _white(rng, n, len(mean)) * np.sqrt(var) for mean, var in sides)

    def l2_uvp(self, push, n=4000, seed=99):
        """100 · E_ã‖T̂ − T‖² / Var(b̃) on fresh cells of the rescaled source."""
        mean, var = self.rescaled_source
        x = mean + np.random.default_rng(seed).normal(size=(n, len(mean))) * np.sqrt(var)
        error = ((push(x) - self.push(x)) ** 2).sum(axis=1).mean()
        return 100 * error / self.rescaled_target[1].sum()


def make_oracle(dim, penalty, *, shift=3.0, seed=0):
    rng = np.random.default_rng(seed)
    source_var, target_var = rng.uniform(0.5, 1.5, dim), rng.uniform(0.7, 2.1, dim)
    direction = rng.normal(size=dim)
    return Oracle(penalty, np.zeros(dim), source_var, shift * direction / np.linalg.norm(direction), target_var)


def _white(rng, n, dim):
    z = rng.normal(size=(n, dim))
    z -= z.mean(axis=0)
    return z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / n)).T
