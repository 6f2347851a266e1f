"""Scores of one map."""

import numpy as np
import pytest
from tiny_screen import tiny_screen, tiny_truth

import uotcell as uc
from uotcell.benchmark import read_screen
from uotcell.benchmark._baselines import mean_shift
from uotcell.benchmark._scores import CEILING, DISTRIBUTION_METRICS, Candidate, score_rows
from uotcell.benchmark._split import split_pair


@pytest.fixture(scope="module")
def pair():
    screen = read_screen(tiny_screen(3), "drug", "control", use_rep="X", truth=tiny_truth())
    return split_pair(screen, "drug1", "", 0, 500)


@pytest.fixture(scope="module")
def coupling(pair):
    return uc.ot.solve_unbalanced(pair.source["train"], pair.target["train"], tau=0.9)


def by_key(rows):
    return {(row["split"], row["weighting"]): row for row in rows}


def test_scores_of_a_map_without_weights(pair):
    push = mean_shift(pair.source["train"], pair.target["train"])
    rows = by_key(score_rows(pair, Candidate(method="mean_shift", push=push)))
    assert set(rows) == {(split, weighting) for split in ("valid", "test") for weighting in ("unweighted", "weighted")}
    row, draw = rows["test", "unweighted"], pair.draws["test"]
    for name, metric in DISTRIBUTION_METRICS.items():
        assert row[name] == metric(push(draw.source), draw.observed, a=None)
    assert row["sinkhorn_divergence"] == uc.metrics.sinkhorn_divergence(
        push(draw.source), draw.observed, epsilon=pair.epsilon
    )
    assert {**row, "weighting": "weighted"} == rows["test", "weighted"]
    assert row["n_score"] == 12
    assert (row["condition"], row["group"], row["seed"], row["error"]) == ("drug1", "", 0, "")
    np.testing.assert_allclose(row["mean"], push(draw.source).mean(axis=0))


def test_weights_count_predicted_cells_only(pair, coupling):
    rows = by_key(score_rows(pair, Candidate(method="entropic", tau=0.9, push=coupling.push, coupling=coupling)))
    draw = pair.draws["test"]
    weights, pushed = coupling.source_rescaling(draw.source), coupling.push(draw.source)
    expected = uc.metrics.sinkhorn_divergence(pushed, draw.observed, epsilon=pair.epsilon, a=weights)
    assert rows["test", "weighted"]["sinkhorn_divergence"] == pytest.approx(expected, rel=1e-3)
    assert rows["test", "weighted"]["mmd"] == pytest.approx(uc.metrics.mmd(pushed, draw.observed, a=weights))
    assert rows["test", "unweighted"]["mmd"] == pytest.approx(uc.metrics.mmd(pushed, draw.observed))
    np.testing.assert_allclose(rows["test", "weighted"]["mean"], np.average(pushed, axis=0, weights=weights))
    for row in rows.values():
        assert row["transported_mass"] == coupling.transported_mass < 1
        assert 0 < row["effective_sample_size"] < 1
        assert row["score_epsilon"] == pair.epsilon


def test_balanced_weights_are_not_used(pair):
    balanced = uc.ot.solve_unbalanced(pair.source["train"], pair.target["train"])
    rows = by_key(score_rows(pair, Candidate(method="entropic", tau=1.0, push=balanced.push, coupling=balanced)))
    assert rows["test", "weighted"]["mmd"] == rows["test", "unweighted"]["mmd"]


def test_ceiling_predicts_treated_cells_by_treated_cells(pair):
    row = by_key(score_rows(pair, Candidate(method=CEILING)))["test", "unweighted"]
    draw = pair.draws["test"]
    assert row["mmd"] == uc.metrics.mmd(draw.replicate, draw.observed)
    assert "map_error" not in row


def test_scores_against_the_truth(pair, coupling):
    true_map = Candidate(method="icnn", tau=0.9, push=pair.truth.push, coupling=coupling)
    row = by_key(score_rows(pair, true_map))["test", "unweighted"]
    assert row["map_error"] == 0
    assert row["survivor_divergence"] == pytest.approx(0, abs=1e-4)
    off = Candidate(method="icnn", push=lambda x: pair.truth.push(x) + np.array([3.0, 0, 0]))
    wrong = by_key(score_rows(pair, off))["test", "unweighted"]
    assert wrong["survivor_divergence"] == pytest.approx(9, rel=1e-3)
    variance = pair.draws["test"].survivors.var(axis=0, dtype=float).sum()
    assert wrong["map_error"] == pytest.approx(100 * 9 / variance)
    assert "weight_spearman" not in wrong
    assert "map_error" not in by_key(score_rows(pair, true_map))["valid", "unweighted"]


def test_weight_spearman_ranks_weights_by_survival(pair):
    class Coupling:
        transported_mass, effective_sample_size, x = 0.5, (30.0, 30.0), np.zeros((36, 3))

        def __init__(self, sign):
            self.sign = sign

        def source_rescaling(self, x):
            return np.exp(self.sign * x[:, 0])

    for sign in (1, -1):
        candidate = Candidate(method="icnn", tau=0.9, push=pair.truth.push, coupling=Coupling(sign))
        assert by_key(score_rows(pair, candidate))["test", "weighted"]["weight_spearman"] == pytest.approx(sign)


def test_a_map_that_does_not_exist_says_why(pair):
    rows = score_rows(pair, Candidate(method="icnn", tau=0.9, error="no mass"))
    assert len(rows) == 4
    assert all(row["error"] == "no mass" and "mmd" not in row for row in rows)


def test_a_map_to_infinity_is_an_error(pair):
    with pytest.raises(uc.ConvergenceError, match="infinity"):
        score_rows(pair, Candidate(method="icnn", push=lambda x: x * np.inf))
