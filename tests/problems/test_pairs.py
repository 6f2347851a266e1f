import numpy as np
import pytest

from uotcell.problems._pairs import choose_pairs

TIMES = {"d2": 2.0, "d4": 4.0, "d6": 6.0}


def test_sequential():
    assert choose_pairs(TIMES, "sequential") == [("d2", "d4"), ("d4", "d6")]


@pytest.mark.parametrize(
    ("reference", "expected"),
    [(None, [("d2", "d4"), ("d2", "d6")]), ("d2", [("d2", "d4"), ("d2", "d6")]), ("d4", [("d4", "d6")])],
)
def test_star(reference, expected):
    assert choose_pairs(TIMES, "star", reference) == expected


def test_star_from_a_time_of_zero():
    assert choose_pairs({0: 0.0, 1: 1.0}, "star", 0) == [(0, 1)]


@pytest.mark.parametrize("pairs", [[("d2", "d6")], [("d4", "d6"), ("d2", "d4")], (["d2", "d4"], ["d2", "d6"])])
def test_explicit_pairs_keep_their_order(pairs):
    assert choose_pairs(TIMES, pairs) == [tuple(pair) for pair in pairs]


def test_explicit_pairs_by_equal_numbers():
    assert choose_pairs({1.0: 1.0, 2.0: 2.0}, [(1, np.float64(2))]) == [(1.0, 2.0)]


@pytest.mark.parametrize(
    ("times", "policy", "reference", "message"),
    [
        ({"d2": 2.0}, "sequential", None, r"at least two time points, found \['d2'\].*time_key"),
        ({}, [("d2", "d4")], None, r"at least two time points, found \[\]"),
        (TIMES, "circle", None, "'sequential', 'star' or a list of pairs, found 'circle'"),
        (TIMES, None, None, "'sequential', 'star' or a list of pairs, found None"),
        (TIMES, ("d2", "d4"), None, r"a list of pairs, found \('d2', 'd4'\)"),
        (TIMES, [2.0, 4.0], None, r"a list of pairs, found \[2\.0, 4\.0\]"),
        (TIMES, [], None, r"distinct \(source, target\) pairs, found \[\]"),
        (TIMES, [("d2", "d4", "d6")], None, r"distinct \(source, target\) pairs, found .*'d6'"),
        (TIMES, [("d2", "d4"), ("d2", "d4")], None, r"distinct \(source, target\) pairs, found"),
        (TIMES, [("d2", "d5")], None, r"pairs of \['d2', 'd4', 'd6'\], found 'd5'"),
        (TIMES, [("d4", "d2")], None, r"source before its target, found \('d4', 'd2'\)"),
        (TIMES, [("d4", "d4")], None, r"source before its target, found \('d4', 'd4'\)"),
        (TIMES, "star", "d6", r"one of \['d2', 'd4'\], before the last time, found 'd6'"),
        (TIMES, "star", "d5", r"one of \['d2', 'd4'\], before the last time, found 'd5'"),
        (TIMES, "sequential", "d2", "`policy`='star' with `reference`, found 'sequential'"),
        (TIMES, [("d2", "d4")], "d2", r"`policy`='star' with `reference`, found \["),
    ],
)
def test_what_cannot_be_paired_is_refused(times, policy, reference, message):
    with pytest.raises(ValueError, match=message):
        choose_pairs(times, policy, reference)
