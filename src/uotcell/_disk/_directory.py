"""One model in one directory, exchanged at once and checked when it is read.

The arrays lie in a file named after their content, so that new ones overwrite no old ones; ``config.json`` names them.
Putting the new config in the place of the old is the one step that exchanges the model: a process killed before it
leaves the old model whole, after it the new one. The hashes find damage. They are no signature: who can write the files
can write hashes that fit.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from uotcell._disk._migrations import ARRAYS_OF_SCHEMA_1, SCHEMA, arrays_entry, migrate

CONFIG = "config.json"
ARRAYS = re.compile(r"arrays-[0-9a-f]{16}\.safetensors")
TEMPORARY = re.compile(r"\.uotcell-[0-9a-f]{16}\.tmp")
# Far beyond any model of ours; a file that claims more is not read into memory.
MAX_CONFIG_BYTES, MAX_DEPTH = 1 << 26, 32
DAMAGED = "it is damaged. Save the model again"


def write_model(directory: str | Path, format: str, body: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write a model into a directory, in the place of the one that is there.

    One process may write into a directory at a time.

    Parameters
    ----------
    directory
        New, empty, or with a model of this format.
    format
        What the model is, such as ``"uotcell.TransportMap"``.
    body
        Plain values that JSON holds, without NaN.
    arrays
        Numpy arrays by name.

    Raises
    ------
    ValueError
        If the directory holds anything else.
    OSError
        If the files cannot be written; the model that was there is then whole.
    """
    directory = Path(directory)
    _check_replaceable(directory, format)
    # `np.ascontiguousarray` would give numbers an axis.
    data = save({name: np.asarray(array, order="C") for name, array in arrays.items()})
    digest = hashlib.sha256(data).hexdigest()
    name = f"arrays-{digest[:16]}.safetensors"
    config = {
        "format": format,
        "schema": SCHEMA,
        **body,
        "arrays": {"file": name, "bytes": len(data), "sha256": digest},
    }
    text = json.dumps({**config, "sha256": _content_hash(config)}, indent=1, allow_nan=False).encode()
    if len(text) > MAX_CONFIG_BYTES:
        raise ValueError(f"Expected settings of at most {MAX_CONFIG_BYTES:,} bytes as JSON, found {len(text):,}.")
    is_new = not directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _put(directory / name, data)
        _put(directory / CONFIG, text)
    except OSError as error:
        _remove_leftovers(directory)
        if is_new:
            with contextlib.suppress(OSError):
                directory.rmdir()
        raise OSError(
            error.errno,
            f"The model could not be saved in {str(directory)!r}: {error.strerror or error}. What was there before is "
            "whole. Make room or give another directory, and save again",
        ) from error
    _remove_leftovers(directory)


def read_model(directory: str | Path, format: str) -> tuple[dict, dict[str, np.ndarray]]:
    """Read a model that :func:`write_model` wrote, of this or an older schema. Nothing in it is executed.

    Parameters
    ----------
    directory
        Where it is.
    format
        What the model has to be.

    Returns
    -------
    Its settings in the schema of today, and its arrays.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is damaged, of another format, or of a newer schema.
    """
    directory = Path(directory)
    config = _checked_config(directory)
    if config["format"] != format:
        raise ValueError(
            f"Expected {str(directory)!r} to hold a {format}, found a {config['format']}. `uc.load` reads any model."
        )
    arrays = _read_arrays(directory, config)
    return migrate(config, arrays)


def read_format(directory: str | Path) -> str:
    """Return what the model in a directory is, such as ``"uotcell.TransportMap"``."""
    return _checked_config(Path(directory))["format"]


def _put(path: Path, data: bytes) -> None:
    """Put a file in its place at once, and only when it is on the disk."""
    temporary = path.with_name(f".uotcell-{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # gone if it was put in place
            temporary.unlink()
    if os.name == "posix":
        # That the name is on the disk too; not every file system can tell.
        with contextlib.suppress(OSError):
            descriptor = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _check_replaceable(directory: Path, format: str) -> None:
    """Raise unless there is nothing to lose but a model of this format, or what a killed save has left."""
    found = "a file"
    if not directory.exists():
        return
    if directory.is_dir():
        names = {path.name for path in directory.iterdir()}
        if all(ARRAYS.fullmatch(name) or TEMPORARY.fullmatch(name) for name in names):
            return
        found = "other files"
        if all(_is_ours(name) for name in names) and CONFIG in names:
            with contextlib.suppress(ValueError):
                found = _parsed(directory / CONFIG)["format"]
            if found == format:
                return
    raise ValueError(
        f"Expected `directory` to be new, empty or a saved {format.removeprefix('uotcell.')}, found "
        f"{str(directory)!r} with {found}. Give another directory, or remove this one."
    )


def _is_ours(name: str) -> bool:
    return bool(name in (CONFIG, ARRAYS_OF_SCHEMA_1) or ARRAYS.fullmatch(name) or TEMPORARY.fullmatch(name))


def _remove_leftovers(directory: Path) -> None:
    """Remove our files that the config does not name; what cannot be removed does no harm."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = {CONFIG}
        if (directory / CONFIG).exists():
            kept.add(arrays_entry(_parsed(directory / CONFIG))["file"])
        for path in directory.iterdir():
            if _is_ours(path.name) and path.name not in kept:
                with contextlib.suppress(OSError):
                    path.unlink()


def _content_hash(config: dict) -> str:
    """Hash of all entries but the hash itself, in their order, whatever the white space between them."""
    content = {name: value for name, value in config.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def _parsed(path: Path) -> dict:
    """Read a config as far as to know that it is one of ours."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected a saved model with {CONFIG}, found no {path}.")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"Expected {path} to have at most {MAX_CONFIG_BYTES:,} bytes, found {path.stat().st_size:,}.")
    try:
        config = json.loads(path.read_bytes().decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Expected {path} to be JSON, found a file that is damaged ({error}).") from error
    format = config.get("format") if isinstance(config, dict) else None
    if not (isinstance(format, str) and format.startswith("uotcell.")):
        raise ValueError(f"Expected {path} to describe a model of uotcell, found something else.")
    return config


def _checked_config(directory: Path) -> dict:
    path = directory / CONFIG
    config = _parsed(path)
    schema = config.get("schema")
    if type(schema) is not int or schema < 1:
        raise ValueError(f"Expected {path} to name its schema, found {schema!r}: {DAMAGED}.")
    if schema > SCHEMA:
        versions = config.get("versions")
        writer = versions.get("uotcell") if isinstance(versions, dict) else None
        raise ValueError(
            f"Expected a model of schema {SCHEMA} or older, found {schema}, written by uotcell {writer}. Load it with "
            "that version or a newer one."
        )
    try:
        is_whole = schema == 1 or config.get("sha256") == _content_hash(config)
    except (ValueError, RecursionError):  # numbers that JSON reads and does not write
        is_whole = False
    if not is_whole or _depth(config) > MAX_DEPTH:
        raise ValueError(f"Expected {path} as it was saved, found another content: {DAMAGED}.")
    return config


def _read_arrays(directory: Path, config: dict) -> dict[str, np.ndarray]:
    try:
        entry = arrays_entry(config)
        name, digest = entry["file"], entry["sha256"]
        # The name is a pattern of ours, so no path leads out of the directory.
        if not (name == ARRAYS_OF_SCHEMA_1 or ARRAYS.fullmatch(name)) or not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(name)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected {directory / CONFIG} to name its arrays, found {error!r}: {DAMAGED}.") from error
    path = directory / name
    if not path.is_file():
        raise FileNotFoundError(f"Expected the arrays of {directory / CONFIG}, found no {path}.")
    size = path.stat().st_size
    if size != entry.get("bytes", size):
        raise ValueError(f"Expected {path} to have {entry['bytes']} bytes, found {size}: {DAMAGED}.")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"Expected {path} as it was saved, found another content: {DAMAGED}.")
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"Expected {path} to be safetensors of numpy arrays, found another file: {error}.") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _depth(value: object) -> int:
    """Levels of a JSON value, found without recursion."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        parts = (part for part in level if isinstance(part, (dict, list)))
        level = [item for part in parts for item in (part.values() if isinstance(part, dict) else part)]
    return depth
