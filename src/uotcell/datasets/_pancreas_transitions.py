"""Which cell types of the developing mouse pancreas may turn into which, within a day."""

from __future__ import annotations

_FEV = ["Fev+ Alpha", "Fev+ Beta", "Fev+ Delta", "Fev+ Epsilon", "Fev+ Pyy"]
_ALLOWED = {
    "EB": {
        "Fev+ Alpha": ["Fev+ Alpha", "Alpha"],
        "Fev+ Beta": ["Fev+ Beta", "Beta"],
        "Fev+ Delta": ["Fev+ Delta", "Delta"],
        "Fev+ Epsilon": ["Fev+ Epsilon", "Epsilon"],
        "Fev+ Pyy": ["Fev+ Pyy", "Fev+ Delta", "Fev+ Epsilon", "Delta", "Epsilon"],
        "Alpha": ["Alpha"],
        "Beta": ["Beta"],
        "Delta": ["Delta"],
        "Epsilon": ["Epsilon"],
    },
    "Ngn3 EP": {
        "Ngn3 low EP": ["Ngn3 low EP", "Ngn3 High early", "Ngn3 High late", *_FEV],
        "Ngn3 High early": ["Ngn3 High early", "Ngn3 High late", *_FEV],
        "Ngn3 High late": ["Ngn3 High late", *_FEV],
    },
    "NEB": {
        "Multipotent": ["Multipotent", "Tip", "Trunk", "Acinar", "Ductal", "Ngn3 low EP"],
        "Tip": ["Tip", "Acinar"],
        "Trunk": ["Trunk", "Ductal", "Ngn3 low EP"],
        "Acinar": ["Acinar"],
        "Ductal": ["Ductal", "Ngn3 low EP"],
    },
}


def pancreas_transitions() -> dict[str, dict[str, list[str]]]:
    """Return the allowed transitions of cell types in mouse pancreatic endocrinogenesis, E14.5 to E15.5, by lineage.

    For the ``allowed`` of :func:`uotcell.tl.transitions`. The types are those of ``clusters_fig6_fine_final`` in the
    data of [1]_ (GEO GSE132188); the lineages, endocrine branch (EB), Ngn3+ endocrine progenitors and precursors (Ngn3
    EP) and non-endocrine branch (NEB), are those by which [2]_ compares balanced with unbalanced maps.

    Returns
    -------
    A new dict at each call, ``{lineage: {source type: [target types]}}``. Every type may stay what it is.

    Notes
    -----
    **Not the list of** [2]_, whose exact transitions we could not find. In the notebooks published with its first
    version (theislab/unbalanced_monge_maps_single_cell, ``pancreas1415_wot.ipynb``), fates after any time are right if
    tip and acinar cells become acinar, ductal cells ductal, hormone+ cells stay what they are, Ngn3 high and Fev+ cells
    become any of alpha, beta, delta and epsilon, and multipotent cells anything. Shares computed with our list are
    therefore not to be compared with the numbers printed there. What follows was decided here, by the roadmap of [1]_
    (Ngn3 low progenitors, Ngn3 high precursors, Fev+ cells, hormone+ cells) for one day:

    - Within a day a cell goes at most from Ngn3 low to Fev+, or from Fev+ to hormone+, and never back. Ngn3 High cells
      that already make a hormone a day later count as wrong.
    - Fev+ cells keep to the hormone they are named after. "Fev+ Pyy", which later work regroups with "Fev+ Epsilon" as
      progenitors of epsilon and delta cells [3]_, may become these.
    - Trunk and ductal cells are bipotent, and may become ductal or Ngn3 low; tip cells are committed to acinar.
    - No hormone+ cell becomes another; that epsilon cells may turn into alpha cells is left out.

    References
    ----------
    .. [1] Bastidas-Ponce et al. (2019), Comprehensive single cell mRNA profiling reveals a detailed roadmap for
       pancreatic endocrinogenesis, Development 146(12), dev173849, doi:10.1242/dev.173849
    .. [2] Eyring, Klein, Uscidda et al. (2024), Unbalancedness in neural Monge maps improves unpaired domain
       translation, ICLR, arXiv:2311.15100
    .. [3] Klein et al. (2025), Mapping cells through time and space with moscot, Nature 638, 1065-1075,
       doi:10.1038/s41586-024-08453-2

    Examples
    --------
    >>> import uotcell as uc
    >>> uc.datasets.pancreas_transitions()["EB"]["Fev+ Alpha"]
    ['Fev+ Alpha', 'Alpha']
    """
    return {
        lineage: {source: list(targets) for source, targets in moves.items()} for lineage, moves in _ALLOWED.items()
    }
