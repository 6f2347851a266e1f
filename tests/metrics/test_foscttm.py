"""The fraction of samples closer than the true match against a plain double loop."""

import numpy as np
import pytest

from uotcell.metrics import _foscttm, discrimination_rank, foscttm

rng = np.random.default_rng(0)
TARGET = rng.normal(size=(40, 3))
PUSHED = TARGET + rng.normal(scale=0.8, size=(40, 3))


def naive(pushed, target):
    n, total = len(pushed), 0.0
    for points, candidates in ((pushed, target), (target, pushed)):
        for i in range(n):
            own = ((points[i] - candidates[i]) ** 2).sum()
            for j in set(range(n)) - {i}:
                other = ((points[i] - candidates[j]) ** 2).sum()
                total += 1.0 if other < own else 0.5 if other == own else 0.0
    return total / (2 * n * (n - 1))


@pytest.mark.parametrize("entries", [1, 90, 800, 1 << 22])
def test_agrees_with_a_double_loop(entries, monkeypatch):
    monkeypatch.setattr(_foscttm, "_BLOCK_ENTRIES", entries)
    assert foscttm(PUSHED, TARGET) == pytest.approx(naive(PUSHED, TARGET), rel=1e-12)
    assert 0.02 < foscttm(PUSHED, TARGET) < 0.3


def test_agrees_with_a_double_loop_of_ties():
    pushed, target = np.round(PUSHED), np.round(TARGET)
    assert foscttm(pushed, target) == pytest.approx(naive(pushed, target), rel=1e-12)
    assert naive(pushed, target) != naive(PUSHED, TARGET)


def test_is_the_mean_rank_of_both_directions():
    there, back = discrimination_rank(PUSHED, TARGET), discrimination_rank(TARGET, PUSHED)
    assert foscttm(PUSHED, TARGET) == pytest.approx((there.mean() + back.mean()) / 2, rel=1e-12)
    assert there.mean() != back.mean()


def test_perfect_and_worst():
    assert foscttm(TARGET, TARGET) == 0
    assert foscttm(TARGET + 1e-6, TARGET) == 0
    assert foscttm(TARGET[:2], TARGET[1::-1]) == 1


def test_unrelated_cells_are_chance():
    draws = [foscttm(*np.random.default_rng(seed).normal(size=(2, 50, 4))) for seed in range(40)]
    assert np.mean(draws) == pytest.approx(0.5, abs=4 * np.std(draws) / np.sqrt(40))


@pytest.mark.parametrize("point", [0.0, 7.0])
def test_one_point_for_all_is_chance(point):
    assert foscttm(np.full((40, 3), point), TARGET) == pytest.approx(0.5)


def test_invariances():
    order, shift = rng.permutation(40), rng.normal(size=3)
    expected = foscttm(PUSHED, TARGET)
    assert foscttm(TARGET, PUSHED) == expected
    assert foscttm(PUSHED[order], TARGET[order]) == pytest.approx(expected, rel=1e-12)
    assert foscttm(3 * PUSHED + shift, 3 * TARGET + shift) == pytest.approx(expected, rel=1e-12)
    assert foscttm(PUSHED[order], TARGET) > expected
    assert foscttm(PUSHED.tolist(), TARGET.tolist()) == expected


@pytest.mark.parametrize(
    ("pushed", "target", "message"),
    [
        (PUSHED[:5], TARGET, r"one shape .* found \(5, 3\) and \(40, 3\)\. Row i"),
        (PUSHED[:, :2], TARGET, r"one shape .* found \(40, 2\) and \(40, 3\)"),
        (PUSHED[:1], TARGET[:1], r"at least two cells, found \(1, 3\)"),
        (np.where(PUSHED > 1, np.nan, PUSHED), TARGET, "`pushed` to be finite"),
        (PUSHED, TARGET[0], r"`target` .* found shape \(3,\)"),
    ],
)
def test_bad_input(pushed, target, message):
    with pytest.raises(ValueError, match=message):
        foscttm(pushed, target)
