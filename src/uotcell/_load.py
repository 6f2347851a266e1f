"""Read any model from its directory."""

from __future__ import annotations

from pathlib import Path

from anndata import AnnData

from uotcell._disk import read_format
from uotcell.methods import TransportMap
from uotcell.methods._storage import FORMAT as MAP
from uotcell.problems._base import Problem
from uotcell.problems._storage import PROBLEMS, load_problem


def load(directory: str | Path, adata: AnnData | tuple[AnnData, AnnData] | None = None) -> Problem | TransportMap:
    """Read a problem or a map that was saved. Nothing in the files is executed.

    Every file is compared with its hash, which finds damage. A hash is no signature: load models from people you trust.

    Parameters
    ----------
    directory
        Where ``problem.save`` or ``transport_map.save`` wrote it.
    adata
        The AnnData of the fit, ``(adata_x, adata_y)`` of a :class:`uotcell.problems.TranslationProblem`. Without it a
        problem still pushes, pulls, interpolates and predicts, and its pairs are whole; what reads or writes AnnData
        (``write``, ``prepare``, ``to_cellrank``, ``predict(decode="pca")``) raises.

    Returns
    -------
    The problem, or the map. Options of a method that only serve training and that no file can hold, such as an
    optimiser, are the method's defaults.

    Raises
    ------
    FileNotFoundError
        If there is no model, or a file of it is missing.
    ValueError
        If a file is damaged, no model, or of a newer schema; if a method of your own is not registered; if ``adata``
        has other cells, features or values than that of the fit.

    Examples
    --------
    >>> import tempfile, uotcell as uc
    >>> adata = uc.datasets.reprogramming()
    >>> problem = uc.tl.fit_trajectory(adata, "day", n_iters=20, progress=False)
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     problem.save(directory)
    ...     loaded = uc.load(directory)
    >>> loaded.pairs == problem.pairs
    True
    """
    format = read_format(directory)
    if format == MAP:
        if adata is not None:
            raise ValueError("Expected no `adata` for a map, which needs none, found one. Leave it out.")
        return TransportMap.load(directory)
    if format not in PROBLEMS:
        raise ValueError(f"Expected a model of one of {[MAP, *PROBLEMS]}, found {format!r}.")
    return load_problem(directory, format, adata)
