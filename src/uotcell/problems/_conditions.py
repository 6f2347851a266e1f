"""Which cells are control, which are treated, and which groups they are matched in."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

# Labels an error lists before it counts the others.
LISTED = 20

Stratum = tuple[object, object]


def find_strata(adata: AnnData, perturbation_key: str, groupby: str | None) -> dict[Stratum, np.ndarray]:
    """Return the rows of every (label, group) that has cells, ascending; the group is None without ``groupby``.

    Cells without a label or a group are left out, with a warning.
    """
    for name, key in (("perturbation_key", perturbation_key), ("groupby", groupby)):
        if key is not None and key not in adata.obs:
            raise KeyError(f"Expected `{name}` to be a column of `adata.obs` {list(adata.obs)}, found {key!r}.")
    labels = pd.Categorical(adata.obs[perturbation_key])
    groups = pd.Categorical(adata.obs[groupby]) if groupby is not None else None
    group_codes = np.zeros(adata.n_obs, int) if groups is None else groups.codes.astype(int)
    missing = (labels.codes < 0) | (group_codes < 0)
    if missing.any():
        columns = repr(perturbation_key) if groupby is None else f"{perturbation_key!r} or {groupby!r}"
        warnings.warn(f"Left out {int(missing.sum())} cells without a label in {columns}.", stacklevel=4)
    n_groups = 1 if groups is None else len(groups.categories)
    codes = np.where(missing, -1, labels.codes.astype(int) * n_groups + group_codes)
    order = np.argsort(codes, kind="stable")
    found, starts = np.unique(codes[order], return_index=True)
    names, group_names = labels.categories.tolist(), [None] if groups is None else groups.categories.tolist()
    parts = zip(found.tolist(), np.split(order, starts)[1:], strict=True)
    return {(names[code // n_groups], group_names[code % n_groups]): rows for code, rows in parts if code >= 0}


def choose_pairs(
    strata: Sequence[Stratum], control: object, conditions: Iterable | None, *, perturbation_key: str
) -> list[Stratum]:
    """Return the (condition, group) that are matched with the control of their group.

    Raises
    ------
    ValueError
        If the control or a condition does not exist, nothing is left, or a group has treated cells but no control.
    """
    groups_of: dict = {}
    for label, group in strata:
        groups_of.setdefault(label, []).append(group)
    labels = list(groups_of)
    if control not in labels:
        raise ValueError(
            f"Expected `control` to be one of the labels {listed(labels)} in `adata.obs[{perturbation_key!r}]`, found "
            f"{control!r}."
        )
    others = [label for label in labels if label != control]
    chosen = others if conditions is None else _check_conditions(conditions, others, control)
    if not chosen:
        raise ValueError(
            f"Expected cells of other labels than the control in `adata.obs[{perturbation_key!r}]`, found only "
            f"{control!r}. Choose the column of the treatments as `perturbation_key`."
        )
    pairs = [(label, group) for label in chosen for group in groups_of[label]]
    without = [group for group in dict.fromkeys(group for _, group in pairs) if group not in groups_of[control]]
    if without:
        raise ValueError(
            f"Expected control cells in every group with treated cells, found none labelled {control!r} in "
            f"{listed(without)}. Leave out `groupby` to match across groups, choose another column, or remove the "
            "treated cells of these groups."
        )
    return pairs


def leave_out_small(
    pairs: Sequence[Stratum], control: object, n_train: dict[Stratum, int], *, min_cells: int, on_small: str
) -> list[Stratum]:
    """Return the pairs with enough training cells on both sides; name the others in one warning or an error."""
    counts = {pair: (n_train[pair], n_train[control, pair[1]]) for pair in pairs}
    small = {pair: None for pair in pairs if min(counts[pair]) < min_cells}
    if not small:
        return list(pairs)
    details = [f"{pair_name(pair)} ({counts[pair][0]} treated, {counts[pair][1]} control)" for pair in small]
    advice = "Merge them with others, or lower `min_cells`, `valid_fraction` or `test_fraction`."
    if on_small == "error" or len(small) == len(pairs):
        raise ValueError(
            f"Expected at least {min_cells} training cells a side, found fewer in {len(small)} of {len(pairs)} pairs: "
            f"{_joined(details)}. {advice}"
        )
    warnings.warn(
        f"Left out {len(small)} of {len(pairs)} pairs with fewer than {min_cells} training cells a side: "
        f"{_joined(details)}. {advice}",
        stacklevel=4,
    )
    return [pair for pair in pairs if pair not in small]


def pair_name(pair: Stratum) -> str:
    """Name a pair in a message."""
    return repr(pair[0]) if pair[1] is None else f"{pair[0]!r} in {pair[1]!r}"


def pair_label(pair: Stratum) -> str:
    """Name a pair in ``.uns``."""
    return slot_name(pair[0] if pair[1] is None else f"{pair[0]}_{pair[1]}")


def stratum_label(stratum: Stratum) -> str:
    """Return label and group as one string that no other stratum has."""
    return f"{stratum[0]}\x1f{'' if stratum[1] is None else stratum[1]}"


def slot_name(label: object) -> str:
    """Name a label in a slot; h5ad and zarr keys hold no slash."""
    return str(label).replace("/", "-")


def check_slot_names(pairs: Sequence[Stratum]) -> None:
    """Raise unless every pair and every condition has a slot of its own."""
    conditions = dict.fromkeys(condition for condition, _ in pairs)
    names = [(pair_name(pair), pair_label(pair)) for pair in pairs]
    for items in (names, [(repr(condition), slot_name(condition)) for condition in conditions]):
        taken: dict[str, str] = {}
        for item, name in items:
            if name in taken:
                raise ValueError(
                    f"Expected labels with distinct slots, found that {taken[name]} and {item} would both be written "
                    f"as {name!r}. Rename one of them."
                )
            if name.strip(".") == "":
                raise ValueError(f"Expected labels that can name a slot, found {item}. Rename it.")
            taken[name] = item


def check_store(store: str | Iterable | None, conditions: Sequence) -> list:
    """Return the conditions whose images are stored."""
    if isinstance(store, str) and store == "all":
        return list(conditions)
    if store is None:
        return []
    if isinstance(store, str) or not isinstance(store, Iterable):
        raise ValueError(f"Expected `store` to be 'all', None or a list of conditions, found {store!r}.")
    store = list(store)
    unknown = [condition for condition in store if condition not in conditions]
    if unknown:
        raise ValueError(f"Expected `store` to list conditions from {listed(conditions)}, found {unknown[0]!r}.")
    return [condition for condition in conditions if condition in store]


def listed(labels: Sequence) -> str:
    """Write labels as a list, the first ones if there are many."""
    labels = list(labels)
    return f"{labels[:LISTED]}{f' and {len(labels) - LISTED} more' if len(labels) > LISTED else ''}"


def _joined(details: list[str]) -> str:
    return ", ".join(details[:LISTED]) + (f" and {len(details) - LISTED} more" if len(details) > LISTED else "")


def _check_conditions(conditions: Iterable, others: list, control: object) -> list:
    if isinstance(conditions, str) or not isinstance(conditions, Iterable) or not len(conditions):
        raise ValueError(f"Expected `conditions` to be a list of labels or None, found {conditions!r}.")
    conditions = list(conditions)
    for condition in conditions:
        if condition not in others:
            reason = ", the control itself" if condition == control else ""
            raise ValueError(
                f"Expected `conditions` to list labels from {listed(others)}, found {condition!r}{reason}."
            )
    if len(set(conditions)) < len(conditions):
        raise ValueError(f"Expected `conditions` to list distinct labels, found {listed(conditions)}.")
    return conditions
