"""Fitted maps on disk: settings as JSON, arrays as safetensors, nothing that is executed."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from safetensors.numpy import load, save

from uotcell.methods._base import Method, PairSummary
from uotcell.methods._registry import METHODS, other_of_this_name
from uotcell.methods._rescaling import SIDES, RescalingNetworks, initial_params

if TYPE_CHECKING:
    from uotcell.methods._transport_map import TransportMap

FORMAT, SCHEMA = "uotcell.TransportMap", 1
CONFIG, ARRAYS = "config.json", "arrays.safetensors"
FRAME = ("shift", "scale", "target_shift", "target_scale")


def save_map(transport_map: TransportMap, directory: str | Path) -> None:
    """Write a map into a directory that appears, or replaces an older one of a map, only when it is complete."""
    directory = Path(directory)
    if directory.exists() and not _is_replaceable(directory):
        raise ValueError(f"Expected `directory` to be new, empty or a saved map, found {str(directory)!r} with files.")
    method, rescaling = transport_map.method, transport_map.rescaling
    if other_of_this_name(type(method)):
        # It would be loaded as that one, and map cells elsewhere.
        raise ValueError(
            f"Expected a method with a name of its own to save its map, found {type(method).__name__} with that of "
            f"{METHODS[method.name].__name__}, {method.name!r}. Give the class another `name` and register it."
        )
    settings, left_out = _encoded(method)
    arrays = {name: np.asarray(getattr(transport_map, name), np.float64) for name in FRAME}
    arrays |= _flat("params", transport_map.params)
    if rescaling is not None:
        for side in SIDES:
            arrays |= _flat(f"rescaling/{side}", rescaling.params[side])
            for name in ("shift", "scale", "unit"):
                arrays[f"rescaling/{side}/{name}"] = np.asarray(getattr(rescaling, name)[side], np.float64)
    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    config = {
        "format": FORMAT,
        "schema": SCHEMA,
        "versions": {name: version(name) for name in ("uotcell", "jax", "flax")},
        "method": {"name": method.name, "settings": settings, "not_saved": left_out},
        "same_space": transport_map.same_space,
        "rescaling_hidden": None if rescaling is None else list(rescaling.hidden),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        (new / ARRAYS).write_bytes(data)
        (new / CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")
        if directory.exists():
            directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise
    finally:
        shutil.rmtree(temporary)


def load_map(directory: str | Path) -> dict[str, Any]:
    """Read the fields of a saved map, or say what is wrong with the files."""
    directory = Path(directory)
    for name in (CONFIG, ARRAYS):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"Expected a saved map with {CONFIG} and {ARRAYS}, found no {directory / name}.")
    config = _config(directory / CONFIG)
    data = (directory / ARRAYS).read_bytes()
    if hashlib.sha256(data).hexdigest() != config["sha256"]:
        raise ValueError(
            f"Expected {ARRAYS} as it was saved, found another content: it is damaged. Save the map again."
        )
    arrays = load(data)
    method = _decoded(**config["method"])
    shift, scale, target_shift, target_scale = (arrays[name] for name in FRAME)
    summary = PairSummary.standard(len(shift), len(target_shift)) if method.crosses_spaces else None
    template = jax.eval_shape(lambda: method.init(jax.random.key(0), len(shift), summary).params)
    rescaling = None
    if config["rescaling_hidden"] is not None:
        rescaling = _rescaling(tuple(config["rescaling_hidden"]), arrays)
    return {
        "method": method, "params": _nested("params", template, arrays), "rescaling": rescaling,
        "same_space": config["same_space"], "shift": shift, "scale": float(scale),
        "target_shift": target_shift, "target_scale": float(target_scale),
    }  # fmt: skip


def _is_replaceable(directory: Path) -> bool:
    """Whether there is nothing to lose but a saved map."""
    if not directory.is_dir():
        return False
    names = {path.name for path in directory.iterdir()}
    if not names:
        return True
    try:
        return names <= {CONFIG, ARRAYS} and json.loads((directory / CONFIG).read_bytes())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"Expected {path} to be JSON, found a file that is damaged ({error}).") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"Expected {path} to describe a {FORMAT}, found something else.")
    if config.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(
            f"Expected a map of schema {SCHEMA}, found {config['schema']}, written by uotcell "
            f"{config['versions']['uotcell']}. Load it with that version."
        )
    missing = [name for name in ("schema", "method", "same_space", "rescaling_hidden", "sha256") if name not in config]
    if missing:
        raise ValueError(f"Expected {path} to have entries {missing}, found none: it is damaged. Save the map again.")
    return config


def _encoded(method: Method) -> tuple[dict, dict]:
    """Return settings that are plain values, and the type names of those that only serve training and are not."""
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
    return settings, left_out


def _decoded(name: str, settings: dict, not_saved: dict) -> Method:
    if name not in METHODS:
        raise ValueError(
            f"Expected a map of one of the methods {sorted(METHODS)}, found {name!r}. If it is your own, import or "
            "define it and pass it to `uc.methods.register` first."
        )
    unknown = sorted(set(settings) - {field.name for field in fields(METHODS[name])})
    if unknown:
        raise ValueError(
            f"Expected settings that {METHODS[name].__name__} has, found {unknown}: the class has changed "
            "since the map was saved."
        )
    return METHODS[name](**{key: _as_tuple(value) for key, value in settings.items()})


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, bool, int, float))


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _flat(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {f"{prefix}{jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}


def _nested(prefix: str, template: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Put arrays into the places of the template, or say which does not fit."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    values = []
    for path, leaf in leaves:
        name = f"{prefix}{jax.tree_util.keystr(path)}"
        if name not in arrays or arrays[name].shape != leaf.shape:
            found = "nothing" if name not in arrays else f"shape {arrays[name].shape}"
            raise ValueError(f"Expected an array {name!r} of shape {leaf.shape} for this method, found {found}.")
        values.append(jax.numpy.asarray(arrays[name], leaf.dtype))
    return jax.tree_util.tree_unflatten(structure, values)


def _rescaling(hidden: tuple[int, ...], arrays: dict[str, np.ndarray]) -> RescalingNetworks:
    parts = {name: {side: arrays[f"rescaling/{side}/{name}"] for side in SIDES} for name in ("shift", "scale", "unit")}
    params = {}
    for side in SIDES:
        dim = len(parts["shift"][side])
        template = jax.eval_shape(lambda dim=dim: initial_params(hidden, dim, jax.random.key(0)))
        params[side] = _nested(f"rescaling/{side}", template, arrays)
    numbers = {name: {side: float(parts[name][side]) for side in SIDES} for name in ("scale", "unit")}
    return RescalingNetworks(hidden=hidden, params=params, shift=parts["shift"], **numbers)
