"""Fitted problems on disk: what they hold, value by value, and whether an AnnData is the one of the fit."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from anndata import AnnData
from ott.geometry.costs import CostFn

from uotcell._disk import Decoder, Encoder, Kind, read_model, write_model
from uotcell.methods import Method, TransportMap
from uotcell.methods._storage import BROKEN, decode_map, decode_method, encode_map, encode_method
from uotcell.ot import Geodesic
from uotcell.ot._storage import decode_cost, decode_coupling, encode_cost, encode_coupling
from uotcell.problems._base import FittedPair, Problem, check_adata, package_versions, plain
from uotcell.problems._matching import MatchedCells
from uotcell.problems._perturbation import PerturbationProblem
from uotcell.problems._perturbation_pair import PerturbationPair
from uotcell.problems._representation import check_representation, representation
from uotcell.problems._temporal import TemporalPair, TemporalProblem
from uotcell.problems._translation import TranslationProblem
from uotcell.train import History

# Classes by the format of their files, with the class of their pairs.
PROBLEMS: dict[str, tuple[type[Problem], type[FittedPair]]] = {
    f"uotcell.{cls.__name__}": (cls, pair)
    for cls, pair in (
        (TemporalProblem, TemporalPair),
        (PerturbationProblem, PerturbationPair),
        (TranslationProblem, FittedPair),
    )
}


def save_problem(problem: Problem, directory: str | Path) -> None:
    """Write a fitted problem, see :meth:`Problem.save`."""
    encoder = Encoder(KINDS)
    apart = ("_adatas", "_loaded_axes", "fitted")
    state = {name: value for name, value in vars(problem).items() if name not in apart}
    config = {
        "versions": package_versions(),
        "seed": encoder.encode(problem.params.get("rng"), "rng"),
        "data": [_fingerprint(*names, side) for names, side in zip(problem._axes, _slots(problem), strict=True)],
        "state": {name: encoder.encode(value, name) for name, value in state.items()},
        "axes": encoder.encode(problem._axes, "names"),
        "pairs": [],
    }
    arrays = encoder.arrays
    for i, (key, pair) in enumerate(problem.fitted.items()):
        parts = {"coupling": encode_coupling(pair.coupling), "map": encode_map(pair.transport_map)}
        entry = {"key": encoder.encode(key, "labels")}
        for name, (settings, own) in parts.items():
            entry[name] = encoder.encode(settings, name)
            arrays |= {f"pairs/{i}/{name}/{array}": values for array, values in own.items()}
        entry["history"] = encoder.encode(vars(pair.history), "history")
        apart = ("coupling", "transport_map", "history")
        entry["fields"] = {name: encoder.encode(value, name) for name, value in vars(pair).items() if name not in apart}
        config["pairs"].append(entry)
    write_model(directory, f"uotcell.{type(problem).__name__}", config, arrays)


def load_problem(directory: str | Path, format: str, adata: AnnData | tuple[AnnData, AnnData] | None) -> Problem:
    """Read a fitted problem of a known format, see :func:`uotcell.load`."""
    config, arrays = read_model(directory, format)
    cls, pair_class = PROBLEMS[format]
    try:
        problem = _decoded(cls, pair_class, config, arrays)
    except BROKEN as error:
        raise ValueError(
            f"Expected {str(directory)!r} to hold a whole {cls.__name__}, found settings or arrays that make none "
            f"({type(error).__name__}: {error}), written by uotcell {config.get('versions', {}).get('uotcell')}. Save "
            "it again, or load it with that version."
        ) from error
    if adata is not None:
        problem._adatas = _same_data(problem, config["data"], adata)
    return problem


def _decoded(cls: type[Problem], pair_class: type[FittedPair], config: dict, arrays: dict[str, np.ndarray]) -> Problem:
    decoder = Decoder(arrays, KINDS)
    problem = cls.__new__(cls)
    for name, value in config["state"].items():
        if hasattr(cls, name):
            raise ValueError(f"{name!r} is no value of a {cls.__name__}")
        setattr(problem, name, decoder.decode(value))
    problem._adatas, problem._loaded_axes = None, decoder.decode(config["axes"])
    _check_cells(problem)
    problem.fitted, own = {}, _by_pair(arrays)
    for i, entry in enumerate(config["pairs"]):
        key = decoder.decode(entry["key"])
        parts = {name: (decoder.decode(entry[name]), own[str(i), name]) for name in ("coupling", "map")}
        history = decoder.decode(entry["history"])
        problem.fitted[key] = pair_class(
            coupling=decode_coupling(*parts["coupling"], *_pair_cells(problem, key)),
            transport_map=TransportMap(**decode_map(*parts["map"])),
            history=History(**history),
            **{name: decoder.decode(value) for name, value in entry["fields"].items()},
        )
    return problem


def _check_cells(problem: Problem) -> None:
    """Raise ``ValueError`` unless cells are numbers, as many as there are rows, and the rows are among the names."""
    for (obs_names, _), side in zip(problem._axes, _slots(problem), strict=True):
        for rows, _, _, cells in side:
            n = len(obs_names) if rows is None else len(rows)
            if cells.ndim != 2 or len(cells) != n or cells.dtype not in (np.float32, np.float64):
                raise ValueError(f"cells of shape {cells.shape} and {cells.dtype} for {n} rows")
            if rows is not None and (rows.dtype.kind != "i" or not 0 <= rows.min() <= rows.max() < len(obs_names)):
                raise ValueError(f"rows that are not among {len(obs_names)} cells")


def _by_pair(arrays: Mapping[str, np.ndarray]) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Arrays of every pair's coupling and map, by number of the pair and name of the part."""
    found: dict = defaultdict(dict)
    for name, array in arrays.items():
        if name.startswith("pairs/"):
            _, i, part, own = name.split("/", 3)
            found[i, part][own] = array
    return found


def _pair_cells(problem: Problem, key: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Source and target cells of a pair, as the coupling was solved for them."""
    if isinstance(problem, TemporalProblem):
        return problem._cells[key[0]], problem._cells[key[1]]
    if isinstance(problem, PerturbationProblem):
        return problem._matched.split_cells(key, "train")
    if problem._shared[0] is None:
        return problem._own
    pairs = zip(problem._own, problem._shared, strict=True)
    return tuple(np.concatenate([own, shared * problem._shared_unit], axis=1) for own, shared in pairs)


def _slots(problem: Problem) -> list[list[tuple[Any, str, str | None, np.ndarray]]]:
    """Per AnnData: rows (None for all), representation and layer of everything that was read, and what was read."""
    if isinstance(problem, TranslationProblem):
        sides = zip(problem.params["use_rep"], problem._layers, problem._own, strict=True)
        slots = [[(None, str(rep), layer, own)] for rep, layer, own in sides]
        if problem._shared[0] is not None:
            for side, rep, shared in zip(slots, problem.params["shared_rep"], problem._shared, strict=True):
                side.append((None, str(rep), None, shared))
        return slots
    rows, cells = (
        (problem._rows, problem._cells)
        if isinstance(problem, TemporalProblem)
        else (problem._matched.rows, problem._matched.cells)
    )
    use_rep, layer = problem.params["use_rep"], problem.params["layer"]
    return [[(rows[label], use_rep, layer, cells[label]) for label in cells]]


def _fingerprint(obs_names: pd.Index, var_names: pd.Index, side: list[tuple]) -> dict:
    """Hashes of the cells, features and values that were used of one AnnData."""
    values = hashlib.sha256()
    for *_, cells in side:
        values.update(f"{cells.dtype}{cells.shape}".encode())
        values.update(np.asarray(cells, order="C").data)
    in_features = any(use_rep == "X" for _, use_rep, *_ in side)
    return {
        "n_obs": len(obs_names),
        "cells": _hash_of_names(obs_names),
        "features": _hash_of_names(var_names) if in_features else None,
        "representation": values.hexdigest(),
    }


def _hash_of_names(names: pd.Index) -> str:
    return hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()


def _same_data(problem: Problem, expected: list[dict], adata: AnnData | tuple) -> tuple[AnnData, ...]:
    """Return the AnnData as a tuple.

    Raises
    ------
    ValueError
        If one has other cells, features or values than that of the fit.
    """
    adatas = tuple(adata) if isinstance(adata, (tuple, list)) else (adata,)
    if len(adatas) != len(expected):
        raise ValueError(
            f"Expected `adata` to be {'one AnnData' if len(expected) == 1 else 'a tuple (adata_x, adata_y)'} for a "
            f"{type(problem).__name__}, found {len(adatas)}."
        )
    for given, wanted, side in zip(adatas, expected, _slots(problem), strict=True):
        check_adata(given, "adata")
        advice = "Give the AnnData of the fit, or load without it for all that needs only the model."
        if given.n_obs != wanted["n_obs"] or _hash_of_names(given.obs_names) != wanted["cells"]:
            raise ValueError(
                f"Expected `adata` with the {wanted['n_obs']} cells of the fit in their order, found {given.n_obs} "
                f"with other names or in another order. {advice}"
            )
        if wanted["features"] is not None and _hash_of_names(given.var_names) != wanted["features"]:
            raise ValueError(
                f"Expected `adata` with the features of the fit in their order, found {given.n_vars} with other names "
                f"or in another order. {advice}"
            )
        read = []
        for rows, use_rep, layer, _ in side:
            check_representation(given, use_rep, layer)
            rows = np.arange(given.n_obs) if rows is None else rows
            read.append((rows, use_rep, layer, representation(given, rows, use_rep, layer)))
        if _fingerprint(given.obs_names, given.var_names, read)["representation"] != wanted["representation"]:
            names = sorted({use_rep if layer is None else layer for _, use_rep, layer, _ in side})
            raise ValueError(
                f"Expected `adata` with the values of the fit in {names}, found others: they were computed again, "
                f"rounded or corrected. {advice}"
            )
    return adatas


def _packed_method(method: Method) -> dict:
    packed = encode_method(method)
    # A method that cannot come back as it was is kept as what `.write` records of it.
    return {"record": plain(method)} if packed["not_saved"] else packed


def _packed_names(names: pd.Index) -> dict:
    """Names as one text with the ends of each: a million of them are no JSON."""
    encoded = [name.encode() for name in names]
    text = np.frombuffer(b"".join(encoded), np.uint8)
    return {"text": text, "ends": np.cumsum([len(name) for name in encoded], dtype=np.int64), "name": names.name}


def _unpacked_names(packed: dict) -> pd.Index:
    text, ends = packed["text"].tobytes(), packed["ends"].tolist()
    names = [text[start:end].decode() for start, end in zip([0, *ends], ends, strict=False)]
    return pd.Index(names, name=packed["name"])


def _moment(cls: type) -> Kind:
    return Kind(
        cls.__name__,
        cls,
        lambda moment: [moment.isoformat(), moment.unit],
        lambda packed: cls(packed[0]).as_unit(packed[1]),
    )


KINDS = (
    Kind("cost", (CostFn, Geodesic), encode_cost, decode_cost),
    Kind("method", Method, _packed_method, lambda packed: packed.get("record") or decode_method(packed)),
    Kind("cells", MatchedCells, vars, lambda packed: MatchedCells(**packed)),
    Kind("jax", jax.Array, np.asarray, jnp.asarray),
    Kind("names", pd.Index, _packed_names, _unpacked_names),
    _moment(pd.Timestamp),
    _moment(pd.Timedelta),
)
