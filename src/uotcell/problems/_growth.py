"""Expected growth as prior mass."""

from __future__ import annotations

import numpy as np
from anndata import AnnData


def prior_masses(adata: AnnData, growth_key: str, sources: list[np.ndarray]) -> list[np.ndarray]:
    """Prior masses of the source cells of every pair, each summing to one, in proportion to their growth.

    Raises
    ------
    ValueError
        If the growth of source cells is not numeric, finite, non-negative and somewhere positive.
    """
    growth = adata.obs[growth_key]
    try:
        growth = growth.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected `adata.obs[{growth_key!r}]` to be numeric, found dtype {growth.dtype}.") from error
    masses = []
    for rows in sources:
        mass = growth[rows]
        if not np.isfinite(mass).all() or (mass < 0).any() or mass.sum() == 0:
            known = mass[~np.isnan(mass)]
            raise ValueError(
                f"Expected `adata.obs[{growth_key!r}]` of source cells to be finite, non-negative and not all zero, "
                f"found minimum {known.min(initial=np.inf):.3g}, sum {known.sum():.3g}, {len(mass) - len(known)} NaN. "
                "It counts expected descendants per cell; exponentiate a log growth rate first."
            )
        masses.append(mass / mass.sum())
    return masses
