"""Every public function that takes AnnData, called in one way.

Training sees arrays only. So a problem reads its cells from the shape, which are compared, and writes maps that were
trained on the same cells, which takes milliseconds. `test_fits_from_beginning_to_end` trains.
"""

from functools import lru_cache
from unittest.mock import patch

import numpy as np
from input_shapes import CONTENTS, DRUG, N_GENES, OBSM, QUICK, TYPE, lend, times

import uotcell as uc
from uotcell.problems import PerturbationProblem, TemporalProblem, TranslationProblem
from uotcell.problems._base import FittedPair

NEW = "µ new"
DRUGS = {"min_cells": 5, "test_fraction": 0.2, "valid_fraction": 0.2}
SCREEN = {"min_cells": 3, "valid_fraction": 0.35, "test_fraction": 0.35}


@lru_cache(None)
def drugs(content, where):
    return uc.tl.fit_perturbation(CONTENTS[content](), DRUG, "control", **where.options, **QUICK, **DRUGS)


@lru_cache(None)
def modalities(content, where):
    """Pair of a cloud with itself, with the map of a time course: what is read and written is under test."""
    problem = prepare_modalities(CONTENTS[content](), where)
    x = problem._own[0]
    pair = next(iter(times(content, where).fitted.values()))
    rows = np.arange(len(x))
    problem.fitted["source", "target"] = FittedPair(
        source="source", target="target", source_rows=rows, target_rows=rows, coupling=uc.ot.solve_unbalanced(x, x),
        transport_map=pair.transport_map, history=pair.history,
    )  # fmt: skip
    return problem


def prepare_modalities(adata, where, other=None):
    other = CONTENTS["plain"]() if other is None else other
    sides = {"use_rep": (where.use_rep, "X_pca"), "layer": (where.layer, None)}
    return TranslationProblem(adata, other).prepare(**sides)


def _temporal(adata, where, same):
    problem = lend(TemporalProblem(adata).prepare("day", **where.options), times(same, where))
    problem.write(NEW)
    between = problem.interpolate(0.5)
    return [list(problem._cells.values()), between.obs["weight"].to_numpy(), between.obsm.get("X_pca", between.X)]


def _perturbation(adata, where, same):
    known, problem = drugs(same, where), PerturbationProblem(adata).prepare(DRUG, "control", **where.options, **DRUGS)
    problem.fitted, problem.params = known.fitted, known.params | problem.params
    problem.write(NEW)
    predicted = problem.predict(adata, "5 µM/b", decode="pca" if where == OBSM and adata.n_vars == N_GENES else None)
    return [list(problem._matched.cells.values()), predicted.X, predicted.obs["predicted_mass"].to_numpy()]


def _translation(adata, where, same):
    other = CONTENTS["plain"]()
    known, problem = modalities(same, where), prepare_modalities(adata, where, other)
    problem.fitted, problem.params = known.fitted, known.params | problem.params
    problem.write(NEW)
    return [problem._own[0], other.obs[f"{NEW}_target_weight"].to_numpy()]


def _evaluate_interpolation(adata, where, _):
    """Read what is predicted from and compared with; the scores of arrays are under test elsewhere."""

    def sizes(point, settings, seed):
        return [{name: np.abs(getattr(point, name)).sum(axis=0)[0] for name in ("source", "truth", "target")}]

    options = {"use_rep": None, "layer": where.layer} if where.use_rep == "X" else where.options
    with patch("uotcell.tl._interpolation.score_left_out", sizes):
        table = uc.tl.evaluate_interpolation(adata, "day", **options, n_comps=2, seeds=1, key_added=NEW, progress=False)
    return table[["source", "truth", "target"]].to_numpy()


def _score_growth(adata, where, _):
    uc.pp.score_growth(
        adata, None, time_key="day", layer=where.layer, proliferation=[adata.var_names[0]],
        apoptosis=[adata.var_names[0]], key_added=NEW,
    )  # fmt: skip


def _to_cellrank(kind):
    def call(adata, where, _):
        problem = TemporalProblem(adata).prepare("day", **where.options)
        problem.fitted = dict.fromkeys(problem.pairs, True)  # it is read from the slots
        return problem.to_cellrank(kind=kind, n_neighbors=3, conn_weight=0).transition_matrix

    return call


def _read_screen(adata, where, _):
    screen = uc.benchmark.read_screen(adata, DRUG, "control", **where.options, **SCREEN)
    return [screen.cells, screen.labels == "control", len(screen.conditions)]


def _velocity_stream(of_gene):
    def call(adata, where, _):
        with patch("matplotlib.axes.Axes.streamplot") as streamplot:
            ax = uc.pl.velocity_stream(
                adata, color=adata.var_names[0] if of_gene else TYPE, n_neighbors=3, n_grid=4, min_mass=0.1, show=False
            )
        return [*streamplot.call_args.args, ax.collections[0].get_array() if of_gene else 0]

    return call


def _drawn(axes):
    """Numbers behind the points and lines that were drawn."""
    axes = np.ravel(axes)
    points = [np.ma.filled(points.get_offsets(), np.nan) for ax in axes for points in ax.collections]
    return points + [line.get_xydata() for ax in axes for line in ax.lines]


def _interpolation(adata, where, same):
    problem = times(same, where)
    animation = uc.pl.animate_interpolation(adata, problem, [0.5], color=TYPE, n_neighbors=3)
    animation._draw_was_started = True  # or matplotlib asks whether it was forgotten
    return _drawn(uc.pl.interpolation(adata, problem, [0.5], color=TYPE, n_neighbors=3, show=False))


# Of `uc.tl.benchmark_perturbation` it is `read_screen` that reads AnnData, and `uc.metrics` takes arrays.
CALLS = {
    "TemporalProblem": _temporal,
    "PerturbationProblem": _perturbation,
    "TranslationProblem": _translation,
    "tl.transitions": lambda adata, *_: uc.tl.transitions(
        adata, TYPE, allowed={"all": {"früh": ["früh"]}}, n_neighbors=3, n_bootstrap=3, controls=(), key_added=NEW
    ).to_numpy(),
    "tl.clonal_fate": lambda adata, *_: uc.tl.clonal_fate(
        adata, TYPE, n_neighbors=3, n_bootstrap=3, controls=(), key_added=NEW
    )["score"].to_numpy(),
    "tl.cross_boundary_direction": lambda adata, *_: uc.tl.cross_boundary_direction(
        adata, TYPE, [("früh", "spät/2")], n_neighbors=5, n_bootstrap=3, key_added=NEW
    )["score"].to_numpy(),
    "tl.transition_matrix": lambda adata, *_: uc.tl.transition_matrix(adata, n_neighbors=3, key_added=NEW),
    "tl.evaluate_interpolation": _evaluate_interpolation,
    "pp.score_growth": _score_growth,
    "benchmark.read_screen": _read_screen,
    "push and pull, time": lambda adata, where, same: [
        times(same, where).push(adata, 0, 1), times(same, where).pull(adata, 1, 3)
    ],
    "push and pull, drug": lambda adata, where, same: [
        drugs(same, where).push(adata, "drug a"), drugs(same, where).pull(adata, "5 µM/b")
    ],
    "predict": lambda adata, where, same: drugs(same, where).predict(adata, "drug a").X,
    "push, modality": lambda adata, where, same: modalities(same, where).push(adata),
    "to_cellrank, precomputed": _to_cellrank("precomputed"),
    "to_cellrank, realtime": _to_cellrank("realtime"),
    "pl.velocity_stream": _velocity_stream(of_gene=False),
    "pl.velocity_stream, gene": _velocity_stream(of_gene=True),
    "pl.growth": lambda adata, *_: _drawn(uc.pl.growth(adata, show=False)),
    "pl.weight_markers": lambda adata, where, _: _drawn(
        uc.pl.weight_markers(adata, adata.var_names[0], layer=where.layer, groupby=TYPE, show=False)
    ),
    "pl.interpolation": _interpolation,
    "pl.history": lambda adata, *_: sorted(_drawn(uc.pl.history(adata, show=False)), key=np.sum),
    "pl.transitions": lambda adata, *_: _drawn(uc.pl.transitions(adata, show=False)),
    "pl.sankey": lambda adata, *_: _drawn(uc.pl.sankey(adata, show=False)),
}  # fmt: skip
