"""Bring a published file here: by its hash, or not at all."""

from __future__ import annotations

import os
import re
from os import PathLike
from pathlib import Path

from uotcell.datasets._registry import Entry

FOLDER_VARIABLE = "UOTCELL_DATA_DIR"
HASH = re.compile(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}")


def fetch(entry: Entry, path: str | PathLike | None, *, known_hash: str | None = None, progress: bool = True) -> Path:
    """Return where the file of a published dataset is, after a download if need be.

    Parameters
    ----------
    entry
        The dataset.
    path
        A file of one's own, returned as it is.
    known_hash
        Hash to require, ``"sha256:…"`` or ``"md5:…"``. That of the registry by default.
    progress
        Show a progress bar during a download.

    Returns
    -------
    Path of the file: ``path``, or one in the cache.

    Raises
    ------
    FileNotFoundError
        If there is no file at ``path``.
    ValueError
        If nothing may be downloaded because no address or no hash is known, or if what came has another hash. Nothing
        is kept then.
    ConnectionError
        If the file could not be downloaded.
    """
    if path is not None:
        return _own_file(entry, Path(path))
    known_hash = entry.known_hash if known_hash is None else known_hash
    if known_hash is not None and not HASH.fullmatch(known_hash):
        raise ValueError(
            "Expected `known_hash` to be 'sha256:' and 64 or 'md5:' and 32 hexadecimal digits, lower case, found "
            f"{known_hash!r}."
        )
    if entry.url is None:
        raise ValueError(
            f"Expected `path`, found None, and no direct address to download from is known. {origin(entry)}"
        )
    if known_hash is None:
        raise ValueError(
            "Expected `path` or `known_hash`, found neither. Files are downloaded by hash only, and no published hash "
            f"of this one is known. {origin(entry)} Or pass the hash you trust as `known_hash`."
        )
    return _download(entry, known_hash, progress)


def origin(entry: Entry) -> str:
    """Say where the file of a published dataset is, what it is, and how to hand it over."""
    size = entry.size or "size not known"
    where = f"Download it from {entry.url} (see {entry.source})" if entry.url else f"Find it at {entry.source}"
    return (
        f"The file is {entry.file} ({size}, license {entry.license}). {where} and pass its path: "
        f"uotcell.datasets.{entry.loader}(path)."
    )


def cache_folder() -> Path:
    """Folder of downloaded files: the environment variable UOTCELL_DATA_DIR, or the user's cache."""
    import pooch

    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(pooch.os_cache("uotcell"))


def _own_file(entry: Entry, path: Path) -> Path:
    if not path.is_file():
        suffix = Path(entry.file).suffix
        beside = sorted(p.name for p in path.parent.glob(f"*{suffix}")) if path.parent.is_dir() else "no such folder"
        raise FileNotFoundError(
            f"Expected `path` to be a file, found none at {path} (files *{suffix} beside it: {beside}). {origin(entry)}"
        )
    return path


def _download(entry: Entry, known_hash: str, progress: bool) -> Path:
    import pooch
    import requests

    folder = cache_folder()
    try:
        # pooch writes to a temporary file and renames it once the hash is right.
        found = pooch.retrieve(entry.url, known_hash, fname=entry.file, path=folder, progressbar=progress)
    except requests.exceptions.RequestException as error:
        raise ConnectionError(
            f"Expected to download {entry.name!r}, found no way to: {error}. {origin(entry)} Or put it at "
            f"{folder / entry.file}, where its hash will be checked."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"Expected {entry.url} to have the hash {known_hash}, found another. The file has changed, was cut off, or "
            f"a page was sent in its place; nothing was kept. {origin(entry)}"
        ) from error
    except OSError as error:
        raise OSError(
            f"Expected to write to {folder}, found that it cannot be: {error}. Set the environment variable "
            f"{FOLDER_VARIABLE} to another folder."
        ) from error
    return Path(found)
