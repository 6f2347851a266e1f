"""How a training run broke, and what to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from uotcell.train._program import COUPLING, PARAMETERS

# Not a term of a step: the divergence on held-out cells, at the records.
VALIDATION = "validation"
REMEDIES = {
    COUPLING: "The batch transports no mass: raise `tau`, `epsilon` or `batch_size`, or use rescaling='global'.",
    PARAMETERS: "The losses are finite and their gradient is not: lower `learning_rate`, or clip gradients in the "
    "method's `optimizer`.",
    VALIDATION: "The map sends held-out cells far from the target: lower `learning_rate`, or train on more cells.",
}
LOSS_REMEDY = "Lower `learning_rate`, or check the representation for far outliers."


class Failure(NamedTuple):
    """What broke first for a pair: its step, counted from one, the term, and the value of the term if it has one."""

    name: str
    step: int
    term: str
    value: float


def describe_failures(failures: Sequence[Failure]) -> str:
    """Name every pair, step and term, and what to change."""
    sentences = []
    for term in dict.fromkeys(failure.term for failure in failures):
        pairs = [f for f in failures if f.term == term]
        where = listed([f"{f.name} at step {f.step}" for f in pairs])
        if term == VALIDATION:
            sentences.append(f"None of the validation divergences converged for {listed([f.name for f in pairs])}.")
        elif term == PARAMETERS:
            sentences.append(f"Expected finite parameters, found others for {where}.")
        elif term == COUPLING:
            sentences.append(f"Expected a finite coupling of every batch, found another for {where}.")
        else:
            sentences.append(f"Expected finite losses, found {term}={pairs[0].value} for {where}.")
        sentences.append(REMEDIES.get(term, LOSS_REMEDY))
    return " ".join([*sentences, "The maps before that, and those of all other pairs, are in `error.results`."])


def listed(names: list[str]) -> str:
    """Name the first few."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
