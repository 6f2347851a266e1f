"""One fitted condition, and what is recorded of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from uotcell.problems._base import FittedPair, package_versions, plain
from uotcell.problems._conditions import pair_label


@dataclass(frozen=True, eq=False, kw_only=True)
class PerturbationPair(FittedPair):
    """Control and treated cells of one condition, in one group.

    ``source`` is the control and ``target`` the condition; rows, coupling and map are those of training cells.

    Attributes
    ----------
    group
        The group the cells were matched in, None without ``groupby``.
    quality
        Divergences on test cells, see :attr:`metrics`.
    """

    group: object | None
    quality: dict[str, float]

    @property
    def metrics(self) -> dict[str, float]:
        """Those of a fitted pair, and the Sinkhorn divergence from test controls to treated test cells.

        ``test_divergence`` is that of the pushed controls; ``test_divergence_identity`` and
        ``test_divergence_entropic_map`` those of the simplest maps, all with the weights of the coupling.
        """
        return super().metrics | self.quality

    @property
    def label(self) -> str:
        """Name of the pair in ``.uns``; h5ad and zarr keys hold no slash."""
        return pair_label((self.target, self.group))


def record(pairs: Sequence[PerturbationPair], params: dict, slots: Sequence[str]) -> dict:
    """Return what is written into ``.uns``."""
    names = {
        "condition": np.asarray([str(pair.target) for pair in pairs]),
        "label": np.asarray([pair.label for pair in pairs]),
    }
    if params["groupby"] is not None:
        names["group"] = np.asarray([str(pair.group) for pair in pairs])
    if slots:
        names["slots"] = np.asarray(slots)
    return {
        "params": plain(params | {"versions": package_versions(), "device": pairs[0].history.device}),
        "pairs": names,
        "history": {pair.label: plain(pair.history.to_dict()) for pair in pairs},
        "metrics": {pair.label: plain(pair.metrics) for pair in pairs},
        "weights": {
            pair.label: {
                "source": multipliers(pair.coupling.source_weights),
                "source_rows": pair.source_rows,
                "target": multipliers(pair.coupling.target_weights),
                "target_rows": pair.target_rows,
            }
            for pair in pairs
        },
    }


def image_slots(found: object, key_added: str) -> set[str]:
    """Return the slots of images that an earlier record lists; what else it may name is not ours to remove."""
    names = found.get("pairs", {}) if isinstance(found, Mapping) else {}
    slots = np.ravel(np.asarray(names.get("slots", ()), object)) if isinstance(names, Mapping) else ()
    return {slot for slot in slots if isinstance(slot, str) and slot.startswith(f"{key_added}_push_")}


def multipliers(weights: jax.Array) -> np.ndarray:
    """Return weights against equal masses for all."""
    return np.asarray(weights) * np.float32(len(weights))
