"""Read the fit of a time course back from the slots it was written to, also from a file, without its problem."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import jax
import numpy as np
from anndata import AnnData
from ott.geometry.costs import CostFn

from uotcell.ot import Coupling, Geodesic, solve_unbalanced
from uotcell.ot._geometry import COSTS
from uotcell.ot._inputs import as_key
from uotcell.problems._growth import prior_masses
from uotcell.problems._representation import check_representation, representation

# A coupling solved again may differ by its threshold; one of other cells differs by more.
SAME_FIT = 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class WrittenPair:
    """A pair of time points of a written fit, and the cells whose images it gave.

    Attributes
    ----------
    source, target
        Labels of the two sides, as strings.
    index
        Position among the pairs of the fit.
    source_rows, target_rows
        Rows of the cells in the AnnData, ascending.
    x, y
        Cells in the representation of the fit, shapes ``(n, n_dims)`` and ``(m, n_dims)``.
    images
        Images of the source cells, shape ``(n, n_dims)``, float32.
    source_weights
        Mass multipliers of the source cells, shape ``(n,)``, float64; their mean is the transported mass.
    """

    source: str
    target: str
    index: int
    source_rows: np.ndarray
    target_rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    images: np.ndarray
    source_weights: np.ndarray


def written_fit(adata: AnnData, key: str) -> Mapping:
    """Return ``.uns[key]`` of a time course.

    Raises
    ------
    KeyError
        If it, or another slot of the fit, does not exist.
    ValueError
        If a slot holds something else than a fit writes: the file may be anyone's.
    """
    uns = adata.uns.get(key)
    pairs = uns.get("pairs") if isinstance(uns, Mapping) else None
    if not (isinstance(pairs, Mapping) and "time_difference" in pairs):
        raise KeyError(
            f"Expected `key` to be the `key_added` of a time course fitted to `adata`, found {key!r}; `adata.uns` has "
            f"{sorted(adata.uns)}. Run `uc.tl.fit_trajectory(adata, ...)` first."
        )
    _check_record(uns, key)
    for name, slot in (
        (f"{key}_push", "obsm"),
        (f"{key}_velocity", "obsm"),
        (f"{key}_source_weight", "obs"),
        (uns["params"]["time_key"], "obs"),
    ):
        if name not in getattr(adata, slot):
            raise KeyError(
                f"Expected `adata.{slot}` to hold {name!r} of the fit {key!r}, found {sorted(getattr(adata, slot))}. "
                "Put it back, or fit again."
            )
    for name in ("push", "velocity"):
        array = adata.obsm[f"{key}_{name}"]
        _require(
            isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype.kind == "f"
            and array.shape == adata.obsm[f"{key}_push"].shape,
            f"adata.obsm['{key}_{name}']", "floating-point numbers of shape (n_cells, n_dims)", array,
        )  # fmt: skip
    weight = adata.obs[f"{key}_source_weight"]
    _require(weight.dtype.kind in "fiu", f"adata.obs['{key}_source_weight']", "numbers", weight.dtype)
    return uns


def read_pairs(adata: AnnData, key: str, pair: tuple | None = None) -> list[WrittenPair]:
    """Read the pairs of a fit whose images were written, in the order of the fit.

    Where a source time has several targets, the pair with the shortest time difference was written
    (:meth:`uotcell.problems.TemporalProblem.write`).

    Parameters
    ----------
    adata
        Annotated data with the slots of a fit.
    key
        The `key_added` of the fit.
    pair
        (source, target) labels of one pair; all by default.

    Returns
    -------
    The pairs.

    Raises
    ------
    KeyError
        If there is no such fit, or no such pair.
    ValueError
        If cells of the fit are missing.
    """
    uns = written_fit(adata, key)
    params, record = uns["params"], uns["pairs"]
    pairs = [(str(source), str(target)) for source, target in zip(record["source"], record["target"], strict=True)]
    nearest: dict[str, int] = {}
    for index in np.argsort(record["time_difference"], kind="stable"):
        nearest.setdefault(pairs[index][0], int(index))
    column = adata.obs[params["time_key"]].tolist()
    chosen = sorted(nearest.values()) if pair is None else [_find_pair(pair, pairs, nearest, set(column))]
    use_rep, layer = params["use_rep"], params.get("layer")
    check_representation(adata, use_rep, layer)
    names = np.asarray([str(label) for label in column])
    push, weights = np.asarray(adata.obsm[f"{key}_push"]), adata.obs[f"{key}_source_weight"].to_numpy(np.float64)
    is_pushed, read = np.isfinite(push).all(axis=1), []
    for index in chosen:
        source, target = pairs[index]
        source_rows, target_rows = np.flatnonzero((names == source) & is_pushed), np.flatnonzero(names == target)
        if not (len(source_rows) and len(target_rows)):
            raise ValueError(
                f"Expected cells of the pair {(source, target)}, found {len(source_rows)} source cells with an image "
                f"and {len(target_rows)} target cells. Choose another `pair`, or use the AnnData of the fit."
            )
        x, y = (representation(adata, rows, use_rep, layer) for rows in (source_rows, target_rows))
        if y.shape[1] != push.shape[1]:
            raise ValueError(
                f"Expected {use_rep!r} with the {push.shape[1]} dimensions of the fit, found {y.shape[1]}. Fit again."
            )
        read.append(
            WrittenPair(
                source=source, target=target, index=index, source_rows=source_rows, target_rows=target_rows, x=x, y=y,
                images=push[source_rows], source_weights=weights[source_rows],
            )
        )  # fmt: skip
    return read


def solve_again(adata: AnnData, key: str, pair: WrittenPair) -> Coupling:
    """Solve the coupling of a pair again from the recorded settings; on the same machine it is the same to the bit.

    Raises
    ------
    ValueError
        If the cost is not recorded by name, or the outcome shows that the cells are not those of the fit.
    """
    uns = written_fit(adata, key)
    params = uns["params"]
    cost = _named_cost(params.get("cost"))
    label, recorded_names = f"{pair.source}_{pair.target}".replace("/", "-"), ("cost_scale", "transported_mass")
    try:
        growth_key, anchors, scale = (params.get(name) for name in ("growth_key", "anchors", "scale_cost"))
        seed = np.asarray(params["rng"])
        if seed.dtype.kind not in "iu":
            raise TypeError(f"rng {seed}")
        rng = as_key(int(seed)) if seed.ndim == 0 else jax.random.wrap_key_data(seed.astype(np.uint32))
        settings = {
            "epsilon": float(params["epsilon"]),
            "tau": _both_sides(params.get("tau")),
            "marginal_penalty": _both_sides(params.get("marginal_penalty")),
            "scale_cost": scale if isinstance(scale, str) else float(scale),
            "anchors": None if anchors is None else int(anchors),
        }
        recorded = np.array([uns["metrics"][label][name] for name in recorded_names], float)
    except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise ValueError(
            f"Expected the settings and metrics of a coupling under `adata.uns[{key!r}]`, found others ({error!r}). "
            "Fit again."
        ) from error
    if growth_key is not None and not (isinstance(growth_key, str) and growth_key in adata.obs):
        raise KeyError(f"Expected `growth_key` of the fit to be a column of `adata.obs`, found {growth_key!r}.")
    # The key of the coupling, as TemporalProblem.solve derives it.
    rng_coupling, _ = jax.random.split(jax.random.fold_in(rng, pair.index))
    coupling = solve_unbalanced(
        pair.x,
        pair.y,
        a=None if growth_key is None else prior_masses(adata, growth_key, [pair.source_rows])[0],
        cost=cost,
        rng=rng_coupling,
        **settings,
    )
    found = np.array([coupling.scale, coupling.transported_mass])
    if not np.allclose(found, recorded, rtol=SAME_FIT):
        raise ValueError(
            f"Expected the cells of the fit, found a coupling with cost scale and transported mass {found.round(4)} "
            f"where {recorded.round(4)} were recorded. Use the AnnData of the fit, or fit again."
        )
    return coupling


def _check_record(uns: Mapping, key: str) -> None:
    """Raise unless the parts of a record that others rely on are what a fit writes."""
    params, pairs, where = uns.get("params"), uns["pairs"], f"adata.uns[{key!r}]"
    _require(isinstance(params, Mapping), f"{where}['params']", "a dict", params)
    for name in ("time_key", "use_rep"):
        _require(isinstance(params.get(name), str), f"{where}['params'][{name!r}]", "a string", params.get(name))
    layer = params.get("layer")
    _require(layer is None or isinstance(layer, str), f"{where}['params']['layer']", "a string", layer)
    difference = pairs["time_difference"]
    _require(
        isinstance(difference, np.ndarray) and difference.ndim == 1 and difference.dtype.kind in "fiu"
        and len(difference) and np.isfinite(difference).all(),
        f"{where}['pairs']['time_difference']", "a number for every pair", difference,
    )  # fmt: skip
    for name in ("source", "target"):
        labels = pairs.get(name)
        _require(
            isinstance(labels, np.ndarray) and labels.shape == difference.shape
            and all(isinstance(label, str) for label in labels),
            f"{where}['pairs'][{name!r}]", f"{len(difference)} strings", labels,
        )  # fmt: skip


def _require(good: bool, where: str, what: str, found: object) -> None:
    if not good:
        raise ValueError(
            f"Expected `{where}` to hold {what}, found {found!r:.200}. It is no fit of uotcell; fit again."
        )


def _find_pair(pair: tuple, pairs: list[tuple[str, str]], nearest: dict[str, int], labels: set) -> int:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(f"Expected `pair` to be (source, target), found {pair!r}.")
    # 10 and "10.0" both name the time point 10.0.
    named = tuple(next((str(label) for label in labels if label == side), str(side)) for side in pair)
    if named not in pairs:
        raise KeyError(f"Expected `pair` to be one of {pairs}, found {pair!r}.")
    index = pairs.index(named)
    if nearest[named[0]] != index:
        raise KeyError(
            f"Expected a pair whose images were written, found {pair!r}: those of {named[0]!r} are for "
            f"{pairs[nearest[named[0]]][1]!r}. Fit this pair alone, under another `key_added`."
        )
    return index


def _both_sides(setting) -> tuple[float, float] | None:
    return None if setting is None else tuple(np.broadcast_to(np.asarray(setting, float), 2).tolist())


def _named_cost(cost) -> str | CostFn | Geodesic:
    if isinstance(cost, Mapping):
        with suppress(KeyError, TypeError, ValueError, OverflowError):  # refused below
            return Geodesic(n_neighbors=int(cost["n_neighbors"]), power=float(cost["power"]))
    if isinstance(cost, str) and (cost in COSTS or cost == "geodesic"):
        return cost
    raise ValueError(
        f"Expected a cost that is recorded by its name, {sorted(COSTS)} or 'geodesic', found {cost!r}, whose settings "
        'were not written. Leave "entropic" out of `controls`.'
    )
