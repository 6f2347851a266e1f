"""Files of a benchmark: one per finished task, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_json(path: Path, value: object) -> None:
    """Write a file that other processes see complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=None), encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict:
    """Read a file that :func:`write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_task(out: Path, task_id: str) -> dict | None:
    """Return what a task left, ``None`` if it has not finished or its file is broken."""
    try:
        result = read_json(task_path(out, task_id))
    except (FileNotFoundError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("task") == task_id and "rows" in result else None


def task_path(out: Path, task_id: str) -> Path:
    """File of a task."""
    return out / "tasks" / f"{task_id}.json"
