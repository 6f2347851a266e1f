"""What every loader returns and where it is from, read once from ``data/registry.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files

import pandas as pd

# In this order in .uns["dataset"].
DESCRIPTION = ("name", "description", "citation", "source", "license")
KEYS = ("use_rep", "time_key", "cell_type_key", "perturbation_key", "control", "batch_key")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One dataset.

    Attributes
    ----------
    name, description, citation, source, license
        As in ``.uns["dataset"]``. The license is ``"not stated"`` where none was found.
    use_rep, time_key, cell_type_key, perturbation_key, control, batch_key
        As in ``.uns["dataset"]``, ``None`` where they do not apply.
    loader
        Name of the function in ``uotcell.datasets``.
    kind
        ``"embedded"`` in the package, ``"simulated"``, or ``"published"`` elsewhere.
    cells, features, conditions
        What the loader returns by default; numbers are ``None`` where no publication states them.
    file, size
        Name and size of the file.
    url, known_hash
        Direct address of a published file and its hash, ``"sha256:…"`` or ``"md5:…"``. ``None`` where not known.
    """

    name: str
    loader: str
    kind: str
    description: str
    conditions: str
    citation: str
    source: str
    license: str
    cells: int | None = None
    features: int | None = None
    use_rep: str | None = None
    time_key: str | None = None
    cell_type_key: str | None = None
    perturbation_key: str | None = None
    control: str | None = None
    batch_key: str | None = None
    file: str | None = None
    size: str | None = None
    url: str | None = None
    known_hash: str | None = None

    def describe(self) -> dict[str, str]:
        """Return a new ``.uns["dataset"]``: dict of str, without what does not apply."""
        values = {key: getattr(self, key) for key in (*DESCRIPTION, *KEYS)}
        return {key: value for key, value in values.items() if value is not None}


@cache
def entries() -> dict[str, Entry]:
    """Return all datasets by name."""
    text = (files("uotcell.datasets") / "data" / "registry.toml").read_text(encoding="utf-8")
    return {name: _parse(name, table) for name, table in tomllib.loads(text).items()}


def _parse(name: str, table: dict) -> Entry:
    try:
        return Entry(name=name, **table)
    except TypeError as error:
        known = [field.name for field in fields(Entry)]
        raise ValueError(f"Expected the entry {name!r} to have fields out of {known}: {error}.") from error


def available() -> pd.DataFrame:
    """List the datasets: those in the package, the simulated one, and those published elsewhere.

    Every loader fills ``.uns["dataset"]`` with the same keys; the page on datasets says which slots to expect.

    Returns
    -------
    One row per dataset, indexed by its name, with columns of str unless another type is given.

    - ``kind``: "embedded" (in the package), "simulated", or "published" (downloaded, or read from a file of yours).
    - ``cells``, ``features``: Int64, of what the loader returns by default; missing where no publication states them.
    - ``conditions``: times or perturbations.
    - ``loader``: the function of ``uotcell.datasets`` to call.
    - ``license``: "not stated" where none was found. Do not take that for permission.
    - ``size``: of the file, missing where not known.
    - ``verified``: bool, whether the hash of the published file is known, without which nothing is downloaded; True for
      what is in the package.
    - ``source``, ``citation``.

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.datasets.available().loc["pancreas", ["kind", "loader", "size", "license"]].to_list()
    ['published', 'pancreas', '334 MB', 'not stated']
    """
    data = files("uotcell.datasets") / "data"
    rows = []
    for entry in entries().values():
        row = asdict(entry) | {"verified": entry.kind != "published" or entry.known_hash is not None}
        if entry.kind == "embedded":
            row["size"] = f"{len((data / entry.file).read_bytes()) / 1e6:.2g} MB"
        rows.append(row)
    columns = ["kind", "cells", "features", "conditions", "loader", "license", "size", "verified", "source", "citation"]
    table = pd.DataFrame(rows).set_index("name")[columns]
    return table.astype({"cells": "Int64", "features": "Int64"})
