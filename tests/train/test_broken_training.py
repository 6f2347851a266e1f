"""Training that stops being finite: the step and the term are named, and what was good is kept."""

import jax
import numpy as np
import pytest
from tiny_screen import tiny_screen
from training_child import Drift, coupling

import uotcell as uc
from uotcell.methods import FlowMatching
from uotcell.train import _engine, _program

PLAIN = {"batch_size": 16, "log_every": 5, "rng": 1, "valid_fraction": 0.0, "progress": False}


@pytest.fixture(scope="module")
def pair():
    return coupling()


def broken(method, pair, **options):
    with pytest.raises(uc.ConvergenceError) as caught:
        uc.train.fit(method, pair, **{**PLAIN, "n_iters": 20, **options})
    return caught.value


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Drift(nan_loss_at=7), "found loss=nan for pair 0 at step 7. Lower `learning_rate`"),
        (
            Drift(nan_gradient_at=7),
            "Expected finite parameters, found others for pair 0 at step 7. The losses are finite",
        ),
    ],
    ids=["loss", "gradient"],
)
def test_the_step_before_is_kept(method, message, pair):
    error = broken(method, pair)
    assert message in str(error)
    (fitted, history), expected = error.results[0], uc.train.fit(Drift(), pair, n_iters=6, **PLAIN)[0]
    np.testing.assert_array_equal(fitted.params["shift"], expected.params["shift"])
    assert history.iteration == [5, 6]
    assert history.best_iteration == 6
    assert np.isfinite(history.losses["loss"]).all()
    assert error.failed == [0]


def test_the_average_of_the_good_steps_is_kept(pair):
    error = broken(Drift(nan_loss_at=7), pair, ema_decay=0.9)
    expected, _ = uc.train.fit(Drift(), pair, n_iters=6, ema_decay=0.9, **PLAIN)
    np.testing.assert_array_equal(error.results[0][0].params["shift"], expected.params["shift"])


def test_a_step_size_far_too_large(pair):
    error = broken(FlowMatching(hidden=(4,), learning_rate=1e30), pair)
    assert "found loss=inf for pair 0 at step 2. Lower `learning_rate`" in str(error)
    fitted, history = error.results[0]
    assert history.iteration == [1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.params))


def test_nothing_is_kept_of_a_first_step(pair):
    error = broken(Drift(nan_gradient_at=1), pair)
    assert "pair 0 at step 1" in str(error)
    assert error.results == [None]


def test_validation_alone(pair):
    error = broken(Drift(far=True), pair, valid_fraction=0.2)
    assert "None of the validation divergences converged for pair 0. The map sends held-out cells far" in str(error)
    assert error.results[0][1].iteration == [5, 10, 15, 20]


def test_a_batch_without_a_coupling(pair, monkeypatch):
    def draw(rng, data, shape, *_):
        return _program.draw_global(rng, data, shape), np.float32(np.nan)

    monkeypatch.setattr(_program, "draw_minibatch", draw)
    error = broken(Drift(), pair, rescaling="minibatch", batch_size=17)
    assert "Expected a finite coupling of every batch, found another for pair 0 at step 1" in str(error)
    assert "raise `tau`, `epsilon` or `batch_size`" in str(error)


@pytest.mark.parametrize("lockstep", [True, False])
def test_one_pair_does_not_cost_the_others(lockstep, monkeypatch, tmp_path):
    monkeypatch.setattr(_engine, "on_accelerator", lambda: lockstep)
    pairs = [coupling(0, 1.0), coupling(1, 5.0), coupling(2, 1.0)]
    call = {**PLAIN, "n_iters": 20, "rng": [1, 2, 3], "names": ["a", "b", "c"]}
    bad = Drift(nan_loss_at=7, where_shift_exceeds=3.0)
    expected = uc.train.fit_many(Drift(), pairs, **call)
    for _ in range(2):  # trained, and read back from the checkpoints
        with pytest.raises(uc.ConvergenceError, match="found loss=nan for b at step 7") as caught:
            uc.train.fit_many(bad, pairs, checkpoint_dir=tmp_path, **call)
        assert caught.value.failed == [1]
        assert [history.iteration[-1] for _, history in caught.value.results] == [20, 6, 20]
        for i in (0, 2):
            found, alone = caught.value.results[i][0].params["shift"], expected[i][0].params["shift"]
            np.testing.assert_allclose(found, alone, rtol=1e-6)


def test_the_other_conditions_stay_fitted():
    adata = tiny_screen(2, n_cells=40)
    problem = uc.problems.PerturbationProblem(adata).prepare("drug", "control", use_rep="X", min_cells=5)
    bad = Drift(nan_loss_at=7, where_shift_exceeds=1.25)
    with pytest.raises(uc.ConvergenceError, match="found loss=nan for 'drug1' at step 7"):
        problem.solve(bad, tau=1.0, n_iters=10, batch_size=64, progress=False)
    assert list(problem.fitted) == [("drug0", None)]
    assert list(adata.obsm) == ["X_pca"]
    problem.write()
    assert sorted(adata.obsm) == ["X_pca", "uot_push_drug0"]
