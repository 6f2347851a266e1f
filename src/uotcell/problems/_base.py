"""What problems have in common: checks of their data, one fitted pair, and what is written into AnnData."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike

from uotcell.methods import Method, TransportMap
from uotcell.ot import Coupling, Geodesic
from uotcell.ot._inputs import as_key
from uotcell.problems._representation import align_features, all_cells
from uotcell.train import History

DEFAULT_TAU = 0.95
RECORDED_PACKAGES = ("uotcell", "jax", "flax", "optax", "ott-jax", "anndata", "numpy")


class Problem:
    """AnnData whose cells are paired, and the settings they were paired with.

    Parameters
    ----------
    adata
        Annotated data with unique ``.obs_names``, in memory or backed.
    """

    params: dict
    # The AnnData, None without; then the names in them.
    _adatas: tuple[AnnData, ...] | None
    _loaded_axes: tuple[tuple[pd.Index, pd.Index], ...]
    # Names of the features when the representation is ``.X`` or a layer; None for ``.obsm``.
    _features: pd.Index | None

    def __init__(self, adata: AnnData):
        check_adata(adata, "adata")
        self.adata = adata
        self.fitted: dict[tuple, FittedPair] = {}

    @property
    def adata(self) -> AnnData:
        """The AnnData of the fit; a problem that was loaded without it has none, and says so."""
        return self._data(0)

    @adata.setter
    def adata(self, adata: AnnData) -> None:
        self._adatas = (adata,)

    def save(self, directory: str | Path) -> None:
        """Write the fitted problem into a directory, in the place of one of its class that is there.

        Settings, couplings, maps, records, and the cells in the representation of the fit, but not the AnnData. A save
        that fails, or is killed, leaves what was there before whole. One process may write into a directory at a time.

        Parameters
        ----------
        directory
            Where to; made if it does not exist.

        Returns
        -------
        Nothing; the directory then holds ``config.json`` and ``arrays-<hash>.safetensors``, for :func:`uotcell.load`.

        Raises
        ------
        ValueError
            If the directory holds anything else, or a setting is one that no file can hold, such as a cost of your own.
        OSError
            If the files cannot be written.
        """
        # It knows all problems, and they this module.
        from uotcell.problems._storage import save_problem

        self._require("fitted", "solve")
        save_problem(self, directory)

    def _data(self, side: int) -> AnnData:
        if self._adatas is None:
            raise RuntimeError(
                "Expected a problem with its AnnData, found one that was loaded without. Give it: "
                "`uc.load(directory, adata)`."
            )
        return self._adatas[side]

    @property
    def _axes(self) -> tuple[tuple[pd.Index, pd.Index], ...]:
        """Names of cells and features of every AnnData, also where these are not at hand."""
        if self._adatas is None:
            return self._loaded_axes
        return tuple((adata.obs_names, adata.var_names) for adata in self._adatas)

    def _points(self, cells: ArrayLike | AnnData) -> np.ndarray:
        """Return cells of the user in the representation of the fit, features in its order."""
        if not isinstance(cells, AnnData):
            return np.asarray(cells)
        use_rep, layer = self.params["use_rep"], self.params["layer"]
        order = slice(None) if self._features is None else align_features(cells.var_names, self._features)
        return all_cells(cells, use_rep, layer)[:, order]

    def _require(self, attribute: str, step: str) -> None:
        if not getattr(self, attribute, None):
            raise RuntimeError(f"Expected a problem after `.{step}(...)`, found it before. Run `.{step}(...)` first.")


def check_adata(adata: AnnData, name: str) -> None:
    """Raise unless ``adata`` is annotated data that can be written to, with cells of unique names."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"Expected `{name}` to be an AnnData, found {type(adata).__name__}.")
    if not adata.n_obs:
        raise ValueError(f"Expected `{name}` to have cells, found none. Look at how it was subset.")
    if not adata.obs_names.is_unique:
        repeated = adata.obs_names[adata.obs_names.duplicated()][0]
        raise ValueError(
            f"Expected `{name}.obs_names` to be unique, found {repeated!r} more than once. "
            f"Run `{name}.obs_names_make_unique()`."
        )
    if adata.isbacked and adata.is_view:
        raise ValueError(
            "Expected an AnnData that can be written to, found a view of a backed one. Run `adata.to_memory()`, or "
            "choose the cells when preparing the problem."
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedPair:
    """A source and a target, their coupling, and the map trained on it.

    Attributes
    ----------
    source, target
        Labels of the two sides.
    source_rows, target_rows
        Rows of the coupled cells in the AnnData, ascending.
    coupling
        The solved unbalanced problem.
    transport_map
        The fitted map.
    history
        Record of its training.
    """

    source: object
    target: object
    source_rows: np.ndarray
    target_rows: np.ndarray
    coupling: Coupling
    transport_map: TransportMap
    history: History

    @property
    def metrics(self) -> dict[str, float]:
        """Mass, effective sample sizes, convergence and held-out fit, as numbers."""
        coupling, history = self.coupling, self.history
        ess_source, ess_target = coupling.effective_sample_size
        held_out = dict(zip(history.iteration, history.valid_divergence, strict=False))
        return {
            "transported_mass": coupling.transported_mass,
            "source_effective_sample_size": ess_source,
            "target_effective_sample_size": ess_target,
            "sinkhorn_iterations": coupling.n_iters,
            "marginal_error": coupling.marginal_error,
            "converged": coupling.converged,
            "cost_scale": coupling.scale,
            "epsilon": coupling.epsilon,
            "tau": np.asarray(coupling.tau),
            "marginal_penalty": np.asarray(coupling.marginal_penalty),
            "held_out_divergence": held_out.get(history.best_iteration, np.nan),
        }

    @property
    def label(self) -> str:
        """Name of the pair in ``.uns``; h5ad and zarr keys hold no slash."""
        return f"{self.source}_{self.target}".replace("/", "-")


def check_key_added(key_added: str) -> None:
    """Raise unless ``key_added`` can name slots."""
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        raise ValueError(f"Expected `key_added` to be a non-empty string without a slash, found {key_added!r}.")


def plain_rng(rng: jax.Array | int) -> np.ndarray | int:
    """Turn a seed or a key into what AnnData stores."""
    return int(rng) if isinstance(rng, (int, np.integer)) else np.asarray(jax.random.key_data(as_key(rng)))


def plain(value):
    """Turn a setting into what AnnData stores: strings, numbers, arrays and dicts of them; None is left out."""
    if isinstance(value, Method):
        settings = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        return {"name": value.name, **{name: setting for name, setting in settings.items() if setting is not None}}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)) and all(isinstance(item, (int, float)) for item in value):
        return np.asarray(value)
    if isinstance(value, (tuple, list)):
        return {str(i): plain(item) for i, item in enumerate(value)}
    if isinstance(value, Geodesic):
        return {"name": "geodesic", "n_neighbors": value.n_neighbors, "power": value.power}
    if value is None or isinstance(value, (str, bool, int, float, np.ndarray, np.generic)):
        return value
    # Costs and optimisers are named by their type: their repr holds an address that differs between runs.
    return type(value).__name__


def package_versions() -> dict[str, str]:
    """Versions of the packages a result depends on."""
    return {name: version(name) for name in RECORDED_PACKAGES}
