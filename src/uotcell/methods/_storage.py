"""Fitted maps on disk: settings as JSON, arrays as safetensors, nothing that is executed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from uotcell._disk import read_model, write_model
from uotcell.methods._base import Method, PairSummary
from uotcell.methods._registry import METHODS, other_of_this_name
from uotcell.methods._rescaling import SIDES, RescalingNetworks, initial_params

if TYPE_CHECKING:
    from uotcell.methods._transport_map import TransportMap

FORMAT = "uotcell.TransportMap"
FRAME = ("shift", "scale", "target_shift", "target_scale")
# What forged or foreign settings can make of code that takes them for ours.
BROKEN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError, RecursionError)


def save_map(transport_map: TransportMap, directory: str | Path) -> None:
    """Write a map into a directory, in the place of one that is there."""
    config, arrays = encode_map(transport_map)
    versions = {name: version(name) for name in ("uotcell", "jax", "flax", "numpy")}
    write_model(directory, FORMAT, {"versions": versions, **config}, arrays)


def load_map(directory: str | Path) -> dict[str, Any]:
    """Read the fields of a saved map, or say what is wrong with the files."""
    return decode_map(*read_model(directory, FORMAT))


def encode_map(transport_map: TransportMap) -> tuple[dict, dict[str, np.ndarray]]:
    """Return a map as plain settings and arrays.

    Raises
    ------
    ValueError
        If its method has a setting that no file can hold, or the name of another.
    """
    rescaling = transport_map.rescaling
    arrays = {name: np.asarray(getattr(transport_map, name), np.float64) for name in FRAME}
    arrays |= _flat("params", transport_map.params)
    if rescaling is not None:
        for side in SIDES:
            arrays |= _flat(f"rescaling/{side}", rescaling.params[side])
            for name in ("shift", "scale", "unit"):
                arrays[f"rescaling/{side}/{name}"] = np.asarray(getattr(rescaling, name)[side], np.float64)
    config = {
        "method": encode_method(transport_map.method),
        "same_space": transport_map.same_space,
        "rescaling_hidden": None if rescaling is None else list(rescaling.hidden),
    }
    return config, arrays


def decode_map(config: dict, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the fields of a map; what does not fit together is refused before memory is taken for it.

    Raises
    ------
    ValueError
        If the settings describe no map, or one of other arrays.
    """
    missing = [name for name in ("method", "same_space", "rescaling_hidden") if name not in config]
    if missing:
        raise ValueError(f"Expected a map to have entries {missing}, found none: it is damaged. Save the map again.")
    method = decode_method(config["method"])
    hidden = None if config["rescaling_hidden"] is None else _as_tuple(config["rescaling_hidden"])
    for value in (hidden, *(getattr(method, field.name) for field in fields(method))):
        # A network of thousands of layers would be laid out for minutes before it is found not to fit.
        if isinstance(value, tuple) and len(value) > len(arrays):
            raise ValueError(f"Expected a map with arrays for {len(value):,} layers, found {len(arrays)} arrays.")
    shift, scale, target_shift, target_scale = (_number(arrays, name) for name in FRAME)
    try:
        template = _template(method, len(shift), len(target_shift))
        rescaling = None if hidden is None else _rescaling(hidden, arrays)
        params = _nested("params", template, arrays)
    except _Misfit:
        raise
    except BROKEN as error:
        raise ValueError(f"Expected settings of a {method.name!r} map, found some that are none: {error}.") from error
    if type(config["same_space"]) is not bool or (config["same_space"] and len(shift) != len(target_shift)):
        raise ValueError(f"Expected `same_space` of a map to suit its sides, found {config['same_space']!r}.")
    return {
        "method": method, "params": params, "rescaling": rescaling,
        "same_space": config["same_space"], "shift": shift, "scale": float(scale),
        "target_shift": target_shift, "target_scale": float(target_scale),
    }  # fmt: skip


def encode_method(method: Method) -> dict:
    """Return name and settings, and the type names of settings that only serve training and that no file can hold."""
    if other_of_this_name(type(method)):
        # It would be loaded as that one, and map cells elsewhere.
        raise ValueError(
            f"Expected a method with a name of its own to save its map, found {type(method).__name__} with that of "
            f"{METHODS[method.name].__name__}, {method.name!r}. Give the class another `name` and register it."
        )
    settings, left_out = {}, {}
    for field in fields(method):
        value = getattr(method, field.name)
        if _is_plain(value):
            settings[field.name] = value
        elif field.name in method.training_only:
            left_out[field.name] = type(value).__name__
        else:
            raise ValueError(
                f"Expected settings of {method.name!r} to be numbers, strings or tuples of them to save it, found "
                f"{field.name}={value!r}. If it only serves training, name it in the method's `training_only`."
            )
    return {"name": method.name, "settings": settings, "not_saved": left_out}


def decode_method(config: dict) -> Method:
    """Return the registered method with the settings of a file."""
    try:
        name, settings = config["name"], dict(config["settings"])
        cls = METHODS.get(name)
    except BROKEN as error:
        raise ValueError(f"Expected a method with its settings, found {error!r}: it is damaged.") from error
    if cls is None:
        raise ValueError(
            f"Expected a map of one of the methods {sorted(METHODS)}, found {name!r}. If it is your own, import or "
            "define it and pass it to `uc.methods.register` first."
        )
    unknown = sorted(set(settings) - {field.name for field in fields(cls)})
    if unknown:
        raise ValueError(
            f"Expected settings that {cls.__name__} has, found {unknown}: the class has changed "
            "since the map was saved."
        )
    try:
        return cls(**{key: _as_tuple(value) for key, value in settings.items()})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"Expected settings of a {name!r} map, found some that are none: {error}.") from error


class _Misfit(ValueError):
    """Arrays that are not those of the settings."""


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _number(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """Return a shift or a scale."""
    array, ndim = arrays.get(name), 1 if name.endswith("shift") else 0
    if array is None or array.dtype != np.float64 or array.ndim != ndim or not np.isfinite(array).all():
        found = "nothing" if array is None else f"{array.dtype} of shape {array.shape}"
        raise _Misfit(f"Expected {name!r} of a map to be finite float64 of {ndim} axes, found {found}.")
    return array


# A screen has hundreds of maps of one shape.
@lru_cache
def _template(method: Method, dim: int, target_dim: int) -> Any:
    """Return shapes and types of a method's parameters; jax works them out without taking memory."""
    summary = PairSummary.standard(dim, target_dim) if method.crosses_spaces else None
    return jax.eval_shape(lambda: method.init(jax.random.key(0), dim, summary).params)


def _flat(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {f"{prefix}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}


def _nested(prefix: str, template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Put arrays into the places of the template, or say which does not fit."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    values = []
    for path, leaf in leaves:
        name = f"{prefix}{jax.tree_util.keystr(path)}"
        array = arrays.get(name)
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            found = "nothing" if array is None else f"shape {array.shape} and {array.dtype}"
            raise _Misfit(
                f"Expected an array {name!r} of shape {leaf.shape} and {leaf.dtype} for this method, found {found}."
            )
        values.append(jax.numpy.asarray(array))
    return jax.tree_util.tree_unflatten(structure, values)


def _rescaling(hidden: tuple[int, ...], arrays: Mapping[str, np.ndarray]) -> RescalingNetworks:
    names = ("shift", "scale", "unit")
    parts = {name: {side: _number(arrays, f"rescaling/{side}/{name}") for side in SIDES} for name in names}
    params = {}
    for side in SIDES:
        dim = len(parts["shift"][side])
        template = jax.eval_shape(lambda dim=dim: initial_params(hidden, dim, jax.random.key(0)))
        params[side] = _nested(f"rescaling/{side}", template, arrays)
    numbers = {name: {side: float(parts[name][side]) for side in SIDES} for name in ("scale", "unit")}
    return RescalingNetworks(hidden=hidden, params=params, shift=parts["shift"], **numbers)
