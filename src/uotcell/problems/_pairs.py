"""Which time points are matched with which."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def choose_pairs(times: dict, policy: str | Sequence[tuple], reference=None) -> list[tuple]:
    """Return the (source, target) labels of every pair.

    Parameters
    ----------
    times
        Labels in order of time with their numbers.
    policy
        ``"sequential"`` matches each time point with the next, ``"star"`` the reference with every later one, and a
        list of (source, target) labels just these.
    reference
        Source of the star; the first time point by default.

    Raises
    ------
    ValueError
        If the policy is unknown, a label does not exist, or a source is not before its target.
    """
    labels = list(times)
    if len(labels) < 2:
        raise ValueError(
            f"Expected at least two time points, found {labels}. Choose the column of the times as `time_key`, and "
            "keep the cells of more than one of them."
        )
    if reference is not None and policy != "star":
        raise ValueError(f"Expected `policy`='star' with `reference`, found {policy!r}.")
    if isinstance(policy, str):
        if policy == "sequential":
            return list(pairwise(labels))
        if policy != "star":
            raise ValueError(f"Expected `policy` to be 'sequential', 'star' or a list of pairs, found {policy!r}.")
        reference = labels[0] if reference is None else reference
        pairs = [(reference, label) for label in labels if times.get(label) > times.get(reference, float("inf"))]
        if not pairs:
            raise ValueError(
                f"Expected `reference` to be one of {labels[:-1]}, before the last time, found {reference!r}."
            )
        return pairs
    if not isinstance(policy, Sequence) or not all(isinstance(pair, (tuple, list)) for pair in policy):
        raise ValueError(f"Expected `policy` to be 'sequential', 'star' or a list of pairs, found {policy!r}.")
    pairs = [tuple(pair) for pair in policy]
    if not pairs or any(len(pair) != 2 for pair in pairs) or len(set(pairs)) < len(pairs):
        raise ValueError(f"Expected `policy` to list distinct (source, target) pairs, found {list(policy)}.")
    for source, target in pairs:
        unknown = [label for label in (source, target) if label not in times]
        if unknown:
            raise ValueError(f"Expected pairs of {labels}, found {unknown[0]!r} in {(source, target)}.")
        if times[source] >= times[target]:
            raise ValueError(f"Expected every source before its target, found {(source, target)}.")
    return pairs
