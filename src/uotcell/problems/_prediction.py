"""Predicted cells as an AnnData."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from anndata import AnnData

from uotcell._errors import ConvergenceError


def prediction(
    images: np.ndarray,
    obs: pd.DataFrame,
    columns: dict,
    *,
    use_rep: str,
    genes: pd.Index,
    decoder: Callable[[np.ndarray], np.ndarray] | None,
    clip: bool,
) -> AnnData:
    """Put images into an AnnData, as features where they are or can be decoded to.

    Parameters
    ----------
    images
        Pushed cells, shape ``(n, n_dims)``.
    obs
        Annotation of the cells before.
    columns
        Columns to set in it.
    use_rep
        Representation of the images.
    genes
        Names of the features of the data of the fit.
    decoder
        From images to features, if any.
    clip
        Set negative features to zero.
    """
    if not np.isfinite(images).all():
        raise ConvergenceError("Expected finite images of all cells, found NaN or inf: they overflow float32.")
    holds_features = decoder is not None or use_rep == "X"
    if clip and not holds_features:
        raise ValueError(
            f"Expected `decode` with `clip`=True, found None: coordinates of {use_rep!r} may be negative. Give "
            "`decode`, or leave out `clip`."
        )
    values = images if decoder is None else _decoded(decoder, images)
    if not holds_features:
        names = pd.Index([f"{use_rep}_{i}" for i in range(values.shape[1])])
    elif values.shape[1] == len(genes):
        names = genes
    else:
        names = pd.Index([f"decoded_{i}" for i in range(values.shape[1])])
    result = AnnData(
        np.maximum(values, 0) if clip else values,
        obs=obs.assign(**columns),
        var=pd.DataFrame(index=names),
        obsm={} if use_rep == "X" else {use_rep: images},
    )
    if holds_features:
        result.uns["negative_fraction"] = float((values < 0).mean())
    return result


def _decoded(decoder: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    values = np.asarray(decoder(images))
    if values.ndim != 2 or len(values) != len(images) or values.dtype.kind not in "fiub":
        raise ValueError(
            f"Expected `decode` to return a numeric array of shape ({len(images)}, n_genes), found shape "
            f"{values.shape} and dtype {values.dtype}."
        )
    return values.astype(np.float32)
