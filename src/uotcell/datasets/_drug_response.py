"""Known responses to 35 drugs: where a cell moves, and how many descendants it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from uotcell.datasets._perturbations import melanoma_4i, melanoma_4i_drug_counts

# Signed markers of the surviving cells' response, and signed markers of the cells that survive.
MECHANISMS = {
    "mapk": ("-pERK -Ki67 +MelA +Area", "+Sox9 -MelA"),
    "receptor": ("-pEGFR -pMET -pAKT", "-pEGFR -pMET"),
    "dna": ("+Area +PCNA -Ki67", "-Ki67 -PCNA"),
    "tubulin": ("+aTUB +Roundness -Area", "-Ki67 -PCNA"),
    "growth": ("-pS6k1 -Ki67 -Area", "-pS6k1 -Ki67"),
    "immune": ("+CD45 -pS6k1", "-CD45"),
    "stress": ("+TotProtein +ClCasp3 -Area", "-ClCasp3 -TotProtein"),
}
DRUGS_BY_MECHANISM = {
    "mapk": "trametinib dabrafenib ulixertinib mln2480 trametinib_dabrafenib vemurafenib_cobimetinib",
    "receptor": "sorafenib regorafenib imatinib dasatinib erlotinib crizotinib midostaurin",
    "dna": "hydroxyurea cisplatin decitabine olaparib temozolomide dacarbazine melphalan cisplatin_olaparib",
    "tubulin": "paclitaxel vindesine",
    "growth": "everolimus palbociclib",
    "immune": "dexamethasone lenalidomide",
    "stress": "ixazomib panobinostat staurosporine pomalidomide_carfilzomib_dexamethasone "
    "ixazomib_lenalidomide_dexamethasone",
    "mapk receptor": "trametinib_erlotinib trametinib_midostaurin",
    "mapk stress": "trametinib_panobinostat",
}
# Descendants after 40 hours without a drug, at a doubling time of 30 hours; the largest ratio counted is 2.2.
UNTREATED_GROWTH = 2.5
# Two divisions in 40 hours.
MOST_DESCENDANTS = 4.0
N_STRETCHED = 10
LARGEST_LOG_STRETCH = 0.3
LARGEST_CONTRACTION = 0.35
# Random streams start from [what is drawn, seed, …], so that no two draws share one.
RESPONSE_STREAM = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class DrugResponse:
    r"""What one drug does to a cell: a Monge map, and the number of descendants.

    With the logistic function σ,

    - ``push(x) = A x + b + Σₖ hₖ σ((wₖ·x − tₖ)/ℓₖ) wₖ``. Its Jacobian is symmetric and positive definite, with
      eigenvalues above 0.39, so it is the gradient of a strictly convex function and the optimal map for the squared
      distance between any population and its image (Brenier).
    - ``survival(x) = M σ(v·x − c)``, the expected number of descendants of a cell 40 hours later.

    Build it with :func:`drug_responses`.

    Attributes
    ----------
    name
        The drug.
    mechanism
        Names of the mechanisms it was given, joined by a space.
    mean_survival
        Mean of ``survival`` over the real cells at 8 hours, the drug's ``ratio_48h_to_8h``.
    stretch, shift
        ``A``, shape ``(50, 50)``, and ``b``, shape ``(50,)``.
    ridges, heights, thresholds, lengths
        ``wₖ``, shape ``(2, 50)``, and ``hₖ``, ``tₖ``, ``ℓₖ``, shapes ``(2,)``.
    survival_weights, survival_offset, most_descendants
        ``v``, shape ``(50,)``, ``c`` and ``M``.
    """

    name: str
    mechanism: str
    mean_survival: float
    stretch: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)
    ridges: np.ndarray = field(repr=False)
    heights: np.ndarray = field(repr=False)
    thresholds: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    survival_weights: np.ndarray = field(repr=False)
    survival_offset: float = field(repr=False)
    most_descendants: float = field(repr=False)

    def push(self, x: ArrayLike) -> np.ndarray:
        """Image of cells under the drug.

        Parameters
        ----------
        x
            Cells with the features of :func:`melanoma_4i`, shape ``(k, 50)``.

        Returns
        -------
        Where they move if they survive, shape ``(k, 50)``, float64.
        """
        x = self._check(x)
        gates = expit((x @ self.ridges.T - self.thresholds) / self.lengths)
        return x @ self.stretch + self.shift + (gates * self.heights) @ self.ridges

    def survival(self, x: ArrayLike) -> np.ndarray:
        """Count the expected descendants of cells under the drug.

        Parameters
        ----------
        x
            Cells with the features of :func:`melanoma_4i`, shape ``(k, 50)``.

        Returns
        -------
        Descendants per cell, in ``(0, most_descendants)``, shape ``(k,)``, float64. Below one, the cell is more likely
        to die than to divide.
        """
        return self.most_descendants * expit(self._check(x) @ self.survival_weights - self.survival_offset)

    def _check(self, x: ArrayLike) -> np.ndarray:
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.shift):
            raise ValueError(
                f"Expected `x` to have shape (n_cells, {len(self.shift)}), the features of "
                f"uotcell.datasets.melanoma_4i(), found {x.shape}."
            )
        bad = ~np.isfinite(x).all(axis=1)
        if bad.any():
            raise ValueError(f"Expected `x` to be finite, found NaN or inf in {bad.sum()} of {len(x)} rows.")
        return x


def drug_responses(rng: int = 0) -> dict[str, DrugResponse]:
    r"""Give every drug of :func:`melanoma_4i_drug_counts` a known response, set from real cells and real counts.

    All means, variances and directions below are those of the 1,962 real melanoma cells at 8 hours.

    **Directions.** Each drug has one or two of seven mechanisms, which name markers that fall or rise, such as
    ``-pERK -Ki67 +MelA +Area``. The sum of the standardised markers, with their signs and both in nucleus and cell, is
    a score, and its covariance with the 50 features is a *programme*: the direction in which real cells differ when
    these markers differ. Cells are moved along the programme of the response, and survive by their position along the
    programme of the survivors.

    **Strength.** A drug's *lost growth* is ``log(2.5 / ratio_48h_to_8h)``, where 2.5 is the growth without drug at a
    doubling time of 30 hours; it runs from 0.1 (imatinib) to 3.8 (pomalidomide_carfilzomib_dexamethasone). The mean
    displacement is 2.09 times the square root of lost growth relative to that of trametinib with erlotinib, whose mean
    moved by 2.09 from 8 to 48 hours in the real data, times a seeded factor in (0.75, 1.25). (The real shift includes
    selection, so the movement is if anything too large.)

    **Map.** A common shift along the response programme; a logistic step against it, half as high as the displacement
    but never contracting by more than 0.35, because cells that are already low cannot fall as far; a step a quarter as
    high along the survivors' programme, because those that survive adapt; and a stretch of the ten leading principal
    axes by up to ``exp(±0.3)``, seeded, normal with deviation 0.2 × lost growth / largest lost growth.

    **Survival.** A logistic function of the survivors' programme. No cell leaves more than four times the mean of its
    drug, nor more than 4 (two divisions). Its steepness per standard deviation is 2 for the weakest and 4 for the
    strongest drug, times a seeded factor in (0.8, 1.25). The offset is solved such that the mean over the real cells is
    the real ``ratio_48h_to_8h``.

    Parameters
    ----------
    rng
        Seed of the factors called seeded, not negative.

    Returns
    -------
    The response of each of the 35 drugs by name, in the order of the table.

    Notes
    -----
    Mechanisms and markers are our reading of pharmacology, not measurements; the counts are real. In the six drugs
    with mechanism ``stress`` cells move towards the state in which others died (high ClCasp3): there death and movement
    cannot be told apart from two snapshots, and no weights should be expected to be right.

    Survival depends on a programme, a direction of large variance. This was chosen after a trial in which it depended
    on the marker score itself, which can change while no feature of large variance does: squared distances hardly saw
    it, and the rank correlation of unbalanced weights with survival had a median near 0.5 over twelve drugs, against
    0.85 as it is now (see :func:`simulate_drug_screen`).

    Examples
    --------
    >>> import uotcell as uc
    >>> response = uc.datasets.drug_responses()["panobinostat"]
    >>> cells = uc.datasets.melanoma_4i()[:1962].X
    >>> response.push(cells).shape, round(float(response.survival(cells).mean()), 6)
    ((1962, 50), 0.227528)
    """
    check_seed(rng)
    adata = melanoma_4i()
    cells = np.asarray(adata.X[adata.obs["hour"] == 8], np.float64)
    ratios = melanoma_4i_drug_counts()["ratio_48h_to_8h"]
    moved = adata.X[adata.obs["hour"] == 48].mean(axis=0, dtype=np.float64) - cells.mean(axis=0)
    lost_growth = np.log(UNTREATED_GROWTH / ratios)
    displacement = np.linalg.norm(moved) * np.sqrt(lost_growth / lost_growth["trametinib_erlotinib"])

    # The leading principal axes, in columns.
    axes = np.linalg.eigh(np.cov(cells, rowvar=False))[1][:, -N_STRETCHED:]
    mechanisms = {drug: kind for kind, drugs in DRUGS_BY_MECHANISM.items() for drug in drugs.split()}
    return {
        drug: _response(
            drug, mechanisms[drug], cells, list(adata.var_names), axes, ratio=float(ratios[drug]),
            displacement=float(displacement[drug]), strength=float(lost_growth[drug] / lost_growth.max()),
            rng=np.random.default_rng([RESPONSE_STREAM, rng, index]),
        )
        for index, drug in enumerate(ratios.index)
    }  # fmt: skip


def check_seed(rng: int) -> None:
    """Raise unless the seed is an integer of at least zero."""
    if not isinstance(rng, (int, np.integer)) or isinstance(rng, bool) or rng < 0:
        raise ValueError(f"Expected `rng` to be a seed, an integer of at least 0, found {rng!r}.")


def _response(drug, mechanism, cells, features, axes, *, ratio, displacement, strength, rng) -> DrugResponse:
    """Response of one drug; ``drug_responses`` says how each number is set."""
    kinds = [MECHANISMS[kind] for kind in mechanism.split()]
    response, survivors = (_programme(" ".join(markers), cells, features) for markers in zip(*kinds, strict=True))
    displacement = displacement * rng.uniform(0.75, 1.25)
    steepness = 2 * (1 + strength) * rng.uniform(0.8, 1.25)
    log_stretch = 0.2 * strength * rng.standard_normal(N_STRETCHED)

    ridges = np.stack([response, survivors])
    lengths = (cells @ ridges.T).std(axis=0)
    most_contracting = 4 * LARGEST_CONTRACTION * lengths[0]
    heights = np.array([-min(displacement / 2, most_contracting), displacement / 4])
    thresholds = cells.mean(axis=0) @ ridges.T

    log_stretch = np.clip(log_stretch, -LARGEST_LOG_STRETCH, LARGEST_LOG_STRETCH)
    stretch = np.eye(cells.shape[1]) + (axes * np.expm1(log_stretch)) @ axes.T
    gates = expit((cells @ ridges.T - thresholds) / lengths)
    without_shift = cells @ stretch + (gates * heights) @ ridges
    shift = displacement * response - (without_shift - cells).mean(axis=0)

    weights = steepness / lengths[1] * survivors
    score = cells @ weights
    most_descendants = min(MOST_DESCENDANTS, MOST_DESCENDANTS * ratio)
    offset = brentq(lambda c: most_descendants * expit(score - c).mean() - ratio, score.min() - 50, score.max() + 50)
    return DrugResponse(
        name=drug, mechanism=mechanism, mean_survival=ratio, stretch=stretch, shift=shift, ridges=ridges,
        heights=heights, thresholds=thresholds, lengths=lengths, survival_weights=weights,
        survival_offset=float(offset), most_descendants=most_descendants,
    )  # fmt: skip


def _programme(markers: str, cells: np.ndarray, features: list[str]) -> np.ndarray:
    """Return the unit direction in which cells differ when the signed markers do, by covariance."""
    signs = {marker[1:]: 1 if marker[0] == "+" else -1 for marker in markers.split()}
    loadings = np.array([signs.get(name.rpartition("_")[2], 0) for name in features])
    centred = cells - cells.mean(axis=0)
    direction = centred.T @ (centred @ (loadings / cells.std(axis=0)))
    return direction / np.linalg.norm(direction)
