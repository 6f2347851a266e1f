"""Python values as JSON and arrays, with their types, and back; only types that are listed come back."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

NUMERIC = {"bool", "float16", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
DATES = re.compile(r"[mM]8\[(Y|M|W|D|h|m|s|ms|us|ns)\]")
# Numbers that a table of strings of one width may take: a single long one would widen all.
MAX_WIDE = 1 << 24


class Kind(NamedTuple):
    """A type that is stored as simpler values under a tag.

    ``pack`` returns them, ``unpack`` takes them. Types derived from ``type`` are of the kind too.
    """

    tag: str
    type: type | tuple[type, ...]
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


class Encoder:
    """Turn values into JSON; numeric arrays are collected in ``arrays``, equal ones once.

    Parameters
    ----------
    kinds
        Types beyond numbers, strings, lists, tuples, dicts and numpy's.
    """

    def __init__(self, kinds: Iterable[Kind] = ()):
        self.kinds, self.arrays = tuple(kinds), {}
        self._names: dict[tuple, str] = {}

    def encode(self, value: Any, where: str) -> Any:
        """Return the JSON of a value.

        Parameters
        ----------
        value
            Any value of known types.
        where
            What it is called in an error.

        Raises
        ------
        ValueError
            If a type is not known.
        """
        exact = type(value)
        if value is None or exact in (bool, int, str):
            return value
        if exact is float:
            return value if math.isfinite(value) else _tagged("float", str(value))
        if exact is list:
            return [self.encode(item, where) for item in value]
        if exact is tuple:
            return _tagged("tuple", [self.encode(item, where) for item in value])
        if exact is dict:
            if all(type(name) is str for name in value) and "$" not in value:
                return {name: self.encode(item, f"{where}.{name}") for name, item in value.items()}
            return _tagged("dict", [[self.encode(part, where) for part in item] for item in value.items()])
        if isinstance(value, np.ndarray) and value.dtype.name in NUMERIC:
            return _tagged("array", self.add(value))
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            return _tagged("strings", value.tolist())
        if isinstance(value, np.str_):
            return _tagged("str_", str(value))
        if isinstance(value, np.generic) and value.dtype.name in NUMERIC:
            return {**_tagged("number", self.encode(value.item(), where)), "dtype": value.dtype.name}
        if isinstance(value, (np.datetime64, np.timedelta64)) and DATES.fullmatch(value.dtype.str[1:]):
            return {**_tagged("date", int(value.astype(np.int64))), "dtype": value.dtype.str[1:]}
        for kind in self.kinds:
            if isinstance(value, kind.type):
                return _tagged(kind.tag, self.encode(kind.pack(value), where))
        raise ValueError(
            f"Expected `{where}` to be made of numbers, strings and arrays to save it, found {value!r} of type "
            f"{exact.__name__}. Replace it by such values, or keep the object in memory."
        )

    def add(self, array: np.ndarray) -> str:
        """Collect an array; return its name."""
        array = np.asarray(array, order="C")
        key = (array.dtype.name, array.shape, hashlib.sha256(array.data if array.size else b"").digest())
        name = self._names.setdefault(key, f"values/{len(self._names)}")
        self.arrays[name] = array
        return name


class Decoder:
    """Turn what an :class:`Encoder` made back into values.

    Parameters
    ----------
    arrays
        Arrays of the file.
    kinds
        The types that may come back, as for the encoder.
    """

    def __init__(self, arrays: dict[str, np.ndarray], kinds: Iterable[Kind] = ()):
        self.arrays, self.kinds = arrays, {kind.tag: kind for kind in kinds}

    def decode(self, value: Any) -> Any:
        """Return the value of some JSON; raises ``ValueError``, ``KeyError`` or ``TypeError`` where it is none."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$" not in value:
            return {name: self.decode(item) for name, item in value.items()}
        tag, content = value["$"], value["value"]
        if tag == "float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[content]
        if tag == "tuple":
            return tuple(self.decode(content))
        if tag == "dict":
            return {self.decode(name): self.decode(item) for name, item in content}
        if tag == "array":
            return self.arrays[content]
        if tag == "strings":
            return _strings(content)
        if tag == "str_":
            return np.str_(content)
        if tag == "number" and value["dtype"] in NUMERIC:
            return np.dtype(value["dtype"]).type(self.decode(content))
        if tag == "date" and DATES.fullmatch(value["dtype"]):
            return np.int64(content).view(value["dtype"])
        kind = self.kinds[tag]
        return kind.unpack(self.decode(content))


def _tagged(tag: str, value: Any) -> dict:
    return {"$": tag, "value": value}


def _strings(content: Any) -> np.ndarray:
    items = content if isinstance(content, list) else [content]
    flat = [item for part in items for item in (part if isinstance(part, list) else [part])]
    if any(type(item) is not str for item in flat) or len(flat) * max(map(len, flat), default=0) > MAX_WIDE:
        raise ValueError("a table of strings is too wide")
    return np.asarray(content, dtype=str)
