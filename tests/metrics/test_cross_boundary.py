"""Cross-boundary direction: fields with known answers, the plain loop of the definition, and what has no direction."""

import numpy as np
import pytest

from uotcell.metrics import _direction, cross_boundary_direction
from uotcell.metrics._resampling import bootstrap_means, percentile_interval, weighted_mean

LINE = np.arange(12.0)[:, None]
TYPES = np.repeat(["A", "B", "C"], 4)
EDGES = [("A", "B"), ("B", "C")]


@pytest.mark.parametrize(("v", "score"), [(1.0, 1.0), (-0.1, -1.0), (0.0, 0.0)])
def test_along_a_line(v, score):
    scores, overall = cross_boundary_direction(LINE, np.full((12, 1), v), TYPES, EDGES, n_neighbors=4)
    np.testing.assert_array_equal(scores, [score, score])
    assert overall == score


def test_an_angle():
    """Sixty degrees off the way: cosine one half, whatever the length."""
    x = np.column_stack([LINE, np.zeros(12)])
    v = 7 * np.column_stack([np.full(12, np.cos(np.pi / 3)), np.full(12, np.sin(np.pi / 3))])
    scores, _ = cross_boundary_direction(x, v, TYPES, EDGES, n_neighbors=3)
    np.testing.assert_allclose(scores, 0.5)


def plain_loop(x, v, labels, edges, n_neighbors):
    scores = []
    for start, end in edges:
        cells = []
        for i in np.flatnonzero(labels == start):
            others = np.delete(np.arange(len(x)), i)
            nearest = others[np.argsort(np.linalg.norm(x[others] - x[i], axis=1))[:n_neighbors]]
            behind = nearest[labels[nearest] == end]
            if len(behind) and not np.isnan(v[i]).any():
                steps = x[behind] - x[i]
                cosines = steps @ v[i] / np.linalg.norm(steps, axis=1) / np.linalg.norm(v[i])
                cells.append(cosines.mean())
        scores.append(np.mean(cells))
    return np.array(scores)


@pytest.mark.parametrize(("n_neighbors", "block"), [(5, 200), (30, 4_000_000), (500, 4_000_000)])
def test_plain_loop(n_neighbors, block, monkeypatch):
    monkeypatch.setattr(_direction, "BLOCK_ENTRIES", block)
    rng = np.random.default_rng(0)
    labels = rng.choice(["A", "B", "C"], 60)
    x = rng.normal(size=(60, 3)) + (labels == "B")[:, None]
    v = rng.normal(size=(60, 3))
    v[::5] = np.nan
    scores, overall = cross_boundary_direction(x, v, labels, EDGES, n_neighbors=n_neighbors)
    np.testing.assert_allclose(scores, plain_loop(x, v, labels, EDGES, n_neighbors))
    assert overall == pytest.approx(scores.mean())


def test_edges_without_a_boundary():
    scores, overall = cross_boundary_direction(LINE, np.ones((12, 1)), TYPES, [("A", "C"), ("A", "B")], n_neighbors=2)
    np.testing.assert_array_equal(scores, [np.nan, 1.0])
    assert overall == 1.0
    scores, overall = cross_boundary_direction(LINE, np.full((12, 1), np.nan), TYPES, EDGES)
    assert np.isnan([*scores, overall]).all()


def test_many_copies_of_a_cell():
    """A copy is no direction; the cell itself may not be among its nearest."""
    x, labels = np.array([[0.0]] * 9 + [[1.0]]), np.array(["A"] * 8 + ["B"] * 2)
    scores, _ = cross_boundary_direction(x, np.ones((10, 1)), labels, [("A", "B")], n_neighbors=9)
    assert scores[0] == 0.5  # one neighbour of B at the place of the cell, one ahead
    # One fewer than were found, whether or not the cell is among them.
    nearest = _direction._without_self(np.array([[3, 1, 2], [0, 1, 2]]), np.array([1, 7]))
    np.testing.assert_array_equal(nearest, [[3, 2], [0, 1]])


BAD = {
    "shape of v": ((LINE, np.ones((12, 2)), TYPES, EDGES), r"shapes \(12, 1\), \(12, 2\) and \(12,\)"),
    "labels": ((LINE, LINE, TYPES[:3], EDGES), r"and \(3,\)"),
    "nan": ((LINE + np.nan, LINE, TYPES, EDGES), "`x` to be finite"),
    "inf": ((LINE, LINE + np.inf, TYPES, EDGES), "`v` to be finite, or NaN .* found inf"),
    "no edges": ((LINE, LINE, TYPES, []), r"list of pairs of types .*found \[\]"),
    "one edge": ((LINE, LINE, TYPES, ("A", "B")), r"list of pairs of types .*found \('A', 'B'\)"),
    "unknown": ((LINE, LINE, TYPES, [("A", "D")]), r"types \['A', 'B', 'C'\], found \('A', 'D'\)"),
    "loop": ((LINE, LINE, TYPES, [("A", "A")]), r"between two of the types .*found \('A', 'A'\)"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        cross_boundary_direction(*arguments)


def test_bootstrap_of_a_mean():
    """Of n equal weights, the standard error of the mean."""
    values = np.random.default_rng(0).normal(size=400)
    draws = bootstrap_means(values, np.ones(400), n_draws=2_000, generator=np.random.default_rng(1))
    assert draws.std() == pytest.approx(values.std() / 20, rel=0.05)
    low, high = percentile_interval(draws, 0.95)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.08)
    wide = percentile_interval(draws, 0.99)
    assert wide[0] < low < values.mean() < high < wide[1]


def test_means_without_weight():
    assert np.isnan(weighted_mean(np.ones(3), np.zeros(3)))
    assert weighted_mean(np.array([1.0, 4.0]), np.array([2.0, 1.0])) == 2.0
    draws = bootstrap_means(np.ones(3), np.zeros(3), n_draws=5, generator=np.random.default_rng(0))
    assert np.isnan([*draws, *percentile_interval(draws, 0.9)]).all()
