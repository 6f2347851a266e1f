"""One fitted pair, and what every problem writes into AnnData."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.metadata import version

import numpy as np

from uotcell.methods import ICNN, Method, TransportMap
from uotcell.ot import UnbalancedCoupling
from uotcell.train import History

METHODS: dict[str, type[Method]] = {"icnn": ICNN}
DEFAULT_TAU = 0.95
RECORDED_PACKAGES = ("uotcell", "jax", "flax", "optax", "ott-jax", "anndata", "numpy")


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedPair:
    """A source and a target, their coupling, and the map trained on it.

    Attributes
    ----------
    source, target
        Labels of the two sides.
    source_rows, target_rows
        Their rows in the AnnData, ascending.
    time_difference
        Target time minus source time, in units of the time column.
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
    time_difference: float
    coupling: UnbalancedCoupling
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


def resolve_method(method: str | Method) -> Method:
    """Turn a method name into its defaults; pass a method through."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise ValueError(f"Expected `method` to be one of {sorted(METHODS)} or a `Method`, found {method!r}.")
    return METHODS[method]()


def check_key_added(key_added: str) -> None:
    """Raise unless ``key_added`` can name slots."""
    if not isinstance(key_added, str) or not key_added or "/" in key_added:
        raise ValueError(f"Expected `key_added` to be a non-empty string without a slash, found {key_added!r}.")


def plain(value):
    """Turn a setting into what AnnData stores: strings, numbers, arrays and dicts of them; None is left out."""
    if isinstance(value, Method):
        settings = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        return {"name": value.name, **{name: setting for name, setting in settings.items() if setting is not None}}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, (tuple, list)) and all(isinstance(item, (int, float)) for item in value):
        return np.asarray(value)
    if value is None or isinstance(value, (str, bool, int, float, np.ndarray, np.generic)):
        return value
    # Costs and optimisers are named by their type: their repr holds an address that differs between runs.
    return type(value).__name__


def package_versions() -> dict[str, str]:
    """Versions of the packages a result depends on."""
    return {name: version(name) for name in RECORDED_PACKAGES}
