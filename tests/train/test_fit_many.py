"""Many pairs as one program: the same maps as one by one, one compilation, loud failures that name the pair."""

import re

import jax
import numpy as np
import optax
import pytest

import uotcell as uc
from uotcell._memory import parse_memory
from uotcell.methods import ICNN, MongeGap
from uotcell.train import _engine, _program

SMALL = {"n_iters": 40, "batch_size": 32, "progress": False}
METHODS = [ICNN(hidden=(8,), n_inner=1), MongeGap(hidden=(8,), learning_rate=1e-2)]


@pytest.fixture(scope="module")
def couplings():
    rng = np.random.default_rng(0)
    sizes = [(150, 90), (60, 130), (200, 200)]
    return [
        uc.ot.solve_unbalanced(rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + shift, tau=tau)
        for (n, m), shift, tau in zip(sizes, (0.5, 1.0, 2.0), (0.9, 0.95, 1.0), strict=True)
    ]


@pytest.fixture(scope="module", params=METHODS, ids=lambda m: m.name)
def alone(couplings, request):
    """Return a method, and what it gives for each pair alone."""
    seeds = (3, 4, 5)
    return request.param, [
        uc.train.fit(request.param, c, rng=s, **SMALL) for c, s in zip(couplings, seeds, strict=True)
    ]


@pytest.mark.parametrize("lockstep", [True, False])
def test_equals_fitting_each_alone(couplings, alone, lockstep, monkeypatch):
    monkeypatch.setattr(_engine, "on_accelerator", lambda: lockstep)
    x = np.random.default_rng(1).normal(size=(20, 3))
    method, expected = alone
    together = uc.train.fit_many(method, couplings, rng=[3, 4, 5], **SMALL)
    for (fitted, history), (alone, alone_history) in zip(together, expected, strict=True):
        np.testing.assert_allclose(fitted.push(x), alone.push(x), atol=2e-3)
        np.testing.assert_allclose(history.valid_divergence, alone_history.valid_divergence, rtol=2e-2, atol=1e-3)
        np.testing.assert_allclose(list(history.baseline.values()), list(alone_history.baseline.values()), rtol=1e-3)
        assert history.best_iteration == alone_history.best_iteration


def test_one_compilation_for_any_number_of_pairs(couplings):
    method = MongeGap(hidden=(4,))
    before = _program.train_chunk._cache_size()
    uc.train.fit_many(method, [couplings[i % 3] for i in range(7)], group_size=3, **SMALL)
    assert _program.train_chunk._cache_size() == before + 1
    uc.train.fit_many(method, couplings, group_size=3, **SMALL)
    assert _program.train_chunk._cache_size() == before + 1


def test_groups_change_nothing(couplings):
    x = np.random.default_rng(1).normal(size=(20, 3))
    together, in_groups = (
        uc.train.fit_many(METHODS[1], couplings, rng=7, group_size=size, **SMALL) for size in (None, 2)
    )
    for (a, _), (b, _) in zip(together, in_groups, strict=True):
        np.testing.assert_allclose(a.push(x), b.push(x), atol=1e-4)


def test_groups_shrink_when_memory_is_short(couplings, monkeypatch):
    sizes = []
    original = _engine.train_group

    def spy(group, *arguments):
        sizes.append(len(group.names))
        return original(group, *arguments)

    monkeypatch.setattr(_engine, "train_group", spy)
    with pytest.raises(MemoryError, match=r"states of a pair to fit into 5 KB .* need .* KB\. Train on fewer") as error:
        uc.train.fit_many(METHODS[0], couplings, memory_limit="5KB", **SMALL)
    needed = re.search(r"need ([\d.]+ KB)", str(error.value))[1]
    fits = uc.train.fit_many(METHODS[0], couplings, memory_limit=needed, **SMALL)
    assert sizes == [1, 1, 1]
    assert {fitted.memory_limit for fitted, _ in fits} == {parse_memory(needed)}


def test_unseen_cells_choose_the_parameters(couplings):
    rng = np.random.default_rng(2)
    valid = [(rng.normal(size=(30, 3)), rng.normal(size=(25, 3)) + shift) for shift in (0.5, 1.0, 2.0)]
    for coupling, (fitted, history), (x, y) in zip(
        couplings, uc.train.fit_many(METHODS[1], couplings, valid=valid, **SMALL), valid, strict=True
    ):
        weights = {"a": coupling.source_rescaling(x), "b": coupling.target_rescaling(y)}
        found = uc.metrics.sinkhorn_divergence(fitted.push(x), y, epsilon=history.valid_epsilon, **weights)
        assert found == pytest.approx(min(history.valid_divergence), rel=1e-2, abs=1e-3)


def test_patience_of_one_pair_does_not_stop_the_others(couplings):
    wild = ICNN(hidden=(8,), n_inner=1, learning_rate=0.1, decay="constant")
    together = uc.train.fit_many(wild, couplings, rng=[3, 4, 5], log_every=4, patience=2, **{**SMALL, "n_iters": 80})
    for (_, history), coupling, seed in zip(together, couplings, (3, 4, 5), strict=True):
        _, expected = uc.train.fit(wild, coupling, rng=seed, log_every=4, patience=2, **{**SMALL, "n_iters": 80})
        assert history.iteration == expected.iteration
        assert history.stopped_early == expected.stopped_early


def test_a_failing_pair_is_named(couplings):
    broken = ICNN(hidden=(8,), n_inner=1, optimizer=optax.scale(np.nan))
    with pytest.raises(uc.ConvergenceError, match="for dasatinib at step 1, imatinib at step 1, x at step 1"):
        uc.train.fit_many(broken, couplings, names=["dasatinib", "imatinib", "x"], **SMALL)


def test_bad_arguments(couplings):
    flat = uc.ot.solve_unbalanced(np.random.default_rng(0).normal(size=(30, 2)), np.ones((30, 2)) + np.eye(30, 2))
    for arguments, message in (
        ({"couplings": []}, "at least one coupling"),
        ({"couplings": [couplings[0], flat]}, r"couplings of one dimension, found \[2, 3\]"),
        ({"rng": [1, 2]}, "one entry of `rng` per coupling, 3, found 2"),
        ({"names": ["a"]}, "one entry of `names` per coupling"),
        ({"group_size": 0}, "`group_size` to be an integer of at least 1"),
        ({"rescaling": "minibatch"}, "balanced on the same sides .* found tau"),
        ({"valid": [(np.ones((0, 3)), np.ones((2, 3)))] * 3}, "hold cells of both sides"),
        ({"valid": [(np.ones((2, 2)), np.ones((2, 3)))] * 3}, "`valid x` to have 3 dimensions"),
        ({"valid": [(np.ones((2, 3)), np.ones((2, 3)))] * 3, "valid_fraction": 0.1}, "one of `valid` and"),
    ):
        with pytest.raises(ValueError, match=message):
            uc.train.fit_many(METHODS[0], **{"couplings": couplings, **SMALL, **arguments})


def test_keys_derived_from_one_seed_differ(couplings):
    twice = uc.train.fit_many(METHODS[0], [couplings[0]] * 2, rng=jax.random.key(0), **SMALL)
    assert not np.allclose(twice[0][0].push(np.ones((1, 3))), twice[1][0].push(np.ones((1, 3))), atol=1e-6)
