"""What happened during a training run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np


@dataclass
class History:
    """Record of one training run.

    Attributes
    ----------
    iteration
        Steps taken at each record, shape ``(n_records,)``.
    losses
        Losses averaged since the record before, each ``(n_records,)``.
    valid_divergence
        Sinkhorn divergence between the pushed held-out source and the held-out target, both rescaled, at each
        record; in units of the squared representation. Empty without a held-out split.
    valid_epsilon
        Its entropic regularisation, in the same units; it depends on the data, not on τ.
    baseline
        The same divergence of the identity and of the entropic map.
    best_iteration
        Steps after which the returned parameters were recorded.
    stopped_early
        Whether patience ran out before the last step.
    interrupted
        Whether Ctrl-C ended the run before its last step.
    steps_per_second
        Training speed after compilation, in a run that went on from a checkpoint since then.
    device
        Platform and name of the device.
    """

    iteration: list[int] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    valid_divergence: list[float] = field(default_factory=list)
    valid_epsilon: float = np.nan
    baseline: dict[str, float] = field(default_factory=dict)
    best_iteration: int = 0
    stopped_early: bool = False
    interrupted: bool = False
    steps_per_second: float = np.nan
    device: str = ""

    def recorded(self, iteration: int, losses: dict[str, float], divergence: float | None) -> History:
        """Return a history with one more record; this one stays as it was."""
        longer = {name: [*self.losses.get(name, []), value] for name, value in losses.items()}
        divergences = self.valid_divergence if divergence is None else [*self.valid_divergence, divergence]
        return replace(self, iteration=[*self.iteration, iteration], losses=longer, valid_divergence=divergences)

    def to_dict(self) -> dict:
        """Return plain arrays, strings, numbers and dicts, as AnnData stores them."""
        return {
            "iteration": np.asarray(self.iteration),
            **{name: np.asarray(values, np.float32) for name, values in self.losses.items()},
            "valid_iteration": np.asarray(self.iteration[: len(self.valid_divergence)]),
            "valid_divergence": np.asarray(self.valid_divergence, np.float32),
            "valid_epsilon": self.valid_epsilon,
            "baseline": dict(self.baseline),
            "best_iteration": self.best_iteration,
            "stopped_early": self.stopped_early,
            "interrupted": self.interrupted,
            "steps_per_second": self.steps_per_second,
            "device": self.device,
        }
