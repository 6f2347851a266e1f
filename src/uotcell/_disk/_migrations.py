"""What older files looked like, and how they become files of today.

A change of what is written needs three things: a higher ``SCHEMA``, a function in ``MIGRATIONS`` from the one before,
and models of that schema in ``tests/fixtures`` (``scripts/write_model_fixtures.py``, run before the change).
"""

from __future__ import annotations

from collections.abc import Callable

SCHEMA = 2
# Schema 1 gave the arrays a fixed name and had one hash, theirs, under "sha256".
ARRAYS_OF_SCHEMA_1 = "arrays.safetensors"


def _from_1(config: dict, arrays: dict) -> tuple[dict, dict]:
    """Only maps had files; what describes them is as it was."""
    if config["format"] != "uotcell.TransportMap":
        raise ValueError(f"Expected a uotcell.TransportMap in schema 1, found a {config['format']}: it is damaged.")
    return config, arrays


# By schema: from the config and the arrays of that schema to those of the next.
MIGRATIONS: dict[int, Callable[[dict, dict], tuple[dict, dict]]] = {1: _from_1}


def migrate(config: dict, arrays: dict) -> tuple[dict, dict]:
    """Bring a config and its arrays to the schema of today, step by step."""
    while config["schema"] < SCHEMA:
        schema = config["schema"]
        config, arrays = MIGRATIONS[schema](config, arrays)
        config = {**config, "schema": schema + 1}
    return config, arrays


def arrays_entry(config: dict) -> dict:
    """Return the file of the arrays, and its hash, as the config of any schema names them."""
    if config["schema"] == 1:
        return {"file": ARRAYS_OF_SCHEMA_1, "sha256": config["sha256"]}
    return config["arrays"]
