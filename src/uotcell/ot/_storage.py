"""Couplings as plain settings and arrays, for files; cells are kept by whoever has them, once for all couplings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax.numpy as jnp
import numpy as np
from ott.geometry import costs

from uotcell.ot._base import Coupling
from uotcell.ot._coupling import UnbalancedCoupling
from uotcell.ot._geodesic import Geodesic, GeodesicCost, Paths
from uotcell.ot._geometry import UnridgedCosine
from uotcell.ot._quadratic_coupling import QuadraticCost, QuadraticCoupling
from uotcell.ot._spaces import Linearisation, PathSpace, PointSpace
from uotcell.ot._structured import StructuredCoupling

# Costs by name, with the arguments they are built from and the attributes that hold them.
COSTS: dict[str, tuple[type, dict[str, str]]] = {
    cls.__name__: (cls, arguments)
    for cls, arguments in (
        (costs.SqEuclidean, {}),
        (costs.Euclidean, {}),
        (costs.NegDotProduct, {}),
        (costs.Cosine, {"ridge": "_ridge"}),
        (UnridgedCosine, {}),
        (costs.Arccos, {"n": "n", "ridge": "_ridge"}),
        (costs.PNormP, {"p": "p"}),
        (costs.SqPNorm, {"p": "p"}),
    )
}
NUMBERS = ("epsilon", "scale", "converged", "n_iters", "marginal_error")
QUADRATIC_NUMBERS = ("fused_weight", "n_shared", "objective", "plan_change", "n_outer")
SOURCE, TARGET = ("a", "f", "source_weights"), ("b", "g", "target_weights")
LINEAR = ("source_mass", "target_mass", "cross", "weight", "shared_weight", "offset")


def encode_cost(cost: costs.CostFn | Geodesic) -> dict:
    """Return name and settings of a cost.

    Raises
    ------
    ValueError
        If it is none of ours or ott's, or has settings that are no plain numbers.
    """
    if isinstance(cost, Geodesic):
        return {"name": "Geodesic", **asdict(cost)}
    cls, arguments = COSTS.get(type(cost).__name__, (None, {}))
    settings = {name: getattr(cost, attribute) for name, attribute in arguments.items()}
    if type(cost) is not cls or not all(type(value) in (int, float) for value in settings.values()):
        raise ValueError(
            f"Expected a cost that a file can hold, Geodesic or one of {sorted(COSTS)} with numbers for settings, "
            f"found {type(cost).__name__}. Fit with one of these, or save the maps alone: `transport_map.save(...)`."
        )
    return {"name": cls.__name__, **settings}


def decode_cost(config: Mapping[str, Any]) -> costs.CostFn | Geodesic:
    """Return the cost of a name and settings."""
    settings = dict(config)
    name = settings.pop("name")
    if name == "Geodesic":
        return Geodesic(**settings)
    return COSTS[name][0](**settings)


def encode_coupling(coupling: Coupling) -> tuple[dict, dict[str, np.ndarray]]:
    """Return a coupling without its cells.

    Raises
    ------
    ValueError
        If its cost cannot be stored.
    """
    config = {"kind": type(coupling).__name__, "tau": list(coupling.tau)}
    config |= {name: getattr(coupling, name) for name in NUMBERS}
    arrays = {name: np.asarray(getattr(coupling, name)) for name in (*SOURCE, *TARGET, "shift")}
    if coupling.anchors is not None:
        arrays |= {"anchors/source": coupling.anchors[0], "anchors/target": coupling.anchors[1]}
    if type(coupling) is UnbalancedCoupling:
        return {**config, "cost": encode_cost(coupling.cost_fn)}, arrays
    arrays["target_shift"] = np.asarray(coupling.target_shift)
    cost = coupling.cost
    if type(coupling) is StructuredCoupling and type(cost) is GeodesicCost:
        arrays["lengths"] = cost.source.lengths
        return {**config, "cost": encode_cost(cost.geodesic)}, arrays
    if type(coupling) is not QuadraticCoupling or type(cost) is not QuadraticCost:
        raise ValueError(
            "Expected a coupling of `solve_unbalanced` or `solve_quadratic` to save it, found "
            f"{type(coupling).__name__} with a cost of type {type(cost).__name__}. Save the maps alone: "
            "`transport_map.save(...)`."
        )
    config |= {name: getattr(coupling, name) for name in QUADRATIC_NUMBERS} | {"n_own": list(cost.n_own)}
    arrays |= {name: np.asarray(getattr(cost.linearisation, name)) for name in LINEAR}
    for side in ("source", "target"):
        space = getattr(cost.linearisation, side)
        is_path = isinstance(space, PathSpace)
        config[f"{side}_cost"] = encode_cost(space.paths.geodesic if is_path else space.cost_fn)
        arrays[f"{side}/scale"] = np.asarray(space.scale)
        arrays[f"{side}/anchors"] = np.asarray(space.paths.lengths if is_path else space.anchors)
    return config, arrays


def decode_coupling(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], x: np.ndarray, y: np.ndarray):
    """Return a coupling.

    Parameters
    ----------
    config, arrays
        What :func:`encode_coupling` returned.
    x, y
        The cells it was solved for, in their original coordinates, shapes ``(n, d_x)`` and ``(m, d_y)``.

    Raises
    ------
    ValueError, KeyError, TypeError
        If they describe no coupling of these cells.
    """
    sides = ((SOURCE, len(x)), (TARGET, len(y)))
    fields = {name: _checked(arrays, name, (n,), np.float32) for names, n in sides for name in names}
    shift = _checked(arrays, "shift", x.shape[1:], np.float64)
    target_shift = shift if "target_shift" not in arrays else _checked(arrays, "target_shift", y.shape[1:], np.float64)
    anchors = None
    if "anchors/source" in arrays:
        anchors = tuple(_rows(arrays[f"anchors/{side}"], n) for side, n in (("source", len(x)), ("target", len(y))))
    shared = {
        # As the solve does: in float64, then rounded once.
        "x": jnp.asarray(np.asarray(x - shift, np.float32)),
        "y": jnp.asarray(np.asarray(y - target_shift, np.float32)),
        **{name: jnp.asarray(array) for name, array in fields.items()},
        **{name: config[name] for name in NUMBERS},
        "tau": tuple(config["tau"]),
        "shift": shift,
        "anchors": anchors,
    }
    if config["kind"] == "UnbalancedCoupling":
        return UnbalancedCoupling(**shared, cost_fn=decode_cost(config["cost"]))
    x, y = x.astype(np.float64), y.astype(np.float64)
    if config["kind"] == "StructuredCoupling":
        lengths = _checked(arrays, "lengths", (len(x), len(y)), np.float32)
        cost = GeodesicCost(x, y, decode_cost(config["cost"]), lengths)
        return StructuredCoupling(**shared, target_shift=target_shift, cost=cost)
    if config["kind"] != "QuadraticCoupling":
        raise ValueError(f"no coupling is called {config['kind']!r}")
    n_own, shifts = tuple(config["n_own"]), [shift, target_shift]
    spaces = [
        _space(decode_cost(config[f"{side}_cost"]), arrays, side, (points - origin)[:, :k])
        for side, points, origin, k in zip(("source", "target"), (x, y), shifts, n_own, strict=True)
    ]
    ranks = [space.basis().shape for space in spaces]
    shapes = ((ranks[0][0],), (ranks[1][0],), (ranks[0][1], ranks[1][1]), (), (), ())
    parts = (_checked(arrays, name, shape, np.float32) for name, shape in zip(LINEAR, shapes, strict=True))
    linearisation = Linearisation(*spaces, *map(jnp.asarray, parts))
    return QuadraticCoupling(
        **shared, target_shift=target_shift, cost=QuadraticCost(linearisation, (x, y), shifts, n_own),
        **{name: config[name] for name in QUADRATIC_NUMBERS},
    )  # fmt: skip


def _space(cost, arrays: Mapping[str, np.ndarray], side: str, own: np.ndarray) -> PointSpace | PathSpace:
    """Return one space of a quadratic problem from the features of its own."""
    name, scale = f"{side}/anchors", arrays[f"{side}/scale"]
    if isinstance(cost, Geodesic):
        lengths = _checked(arrays, name, (len(own), *arrays[name].shape[1:2]), np.float32)
        return PathSpace(Paths(own, lengths, cost), float(scale))
    anchors = _checked(arrays, name, (*arrays[name].shape[:1], own.shape[1]), np.float32)
    return PointSpace(cost, jnp.asarray(anchors), jnp.asarray(scale, jnp.float32))


def _checked(arrays: Mapping[str, np.ndarray], name: str, shape: tuple, dtype: type) -> np.ndarray:
    array = arrays[name]
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name!r} of shape {array.shape} and {array.dtype}, expected {shape} and {np.dtype(dtype)}")
    return array


def _rows(rows: np.ndarray, n: int) -> np.ndarray:
    if rows.ndim != 1 or rows.dtype.kind != "i" or (len(rows) and not 0 <= rows.min() <= rows.max() < n):
        raise ValueError(f"anchors are no rows of {n} cells")
    return rows
