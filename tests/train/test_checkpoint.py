"""Runs that are killed, interrupted or starved of disk go on and end as if nothing had been."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from tiny_screen import tiny_screen
from training_child import SETTINGS, Drift, coupling, outcome, spawn, train, train_with_short_files

import uotcell as uc
from uotcell.methods import ICNN
from uotcell.train import _checkpoint, _engine, _loop
from uotcell.train._interrupt import Interrupt

PLAIN = {"n_iters": 8, "batch_size": 16, "log_every": 2, "rng": 1, "valid_fraction": 0.0, "progress": False}
PARTIAL = "group_0/" + _checkpoint.PARTIAL


class Killed(BaseException):
    """Passes every handler, like a kill."""


@pytest.fixture(autouse=True)
def _ctrl_c_as_in_a_session():
    """Processes that run tests side by side ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def pair():
    return coupling()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def uninterrupted(pair, cache):
    """What the child ends with when it is left alone, without checkpoints."""
    process, receiver = spawn(train, pair, None, cache=cache)
    assert receiver.recv() == "begins"
    found = receiver.recv()
    process.join()
    return found


@pytest.fixture
def kill_after(monkeypatch):
    """Return a function that sets after how many checkpoints the run dies."""
    original = _checkpoint.Checkpoints.save

    def kill_after(n):
        saved = []

        def save(self, progress):
            original(self, progress)
            saved.append(progress.done)
            if len(saved) == n:
                raise Killed

        monkeypatch.setattr(_checkpoint.Checkpoints, "save", save)

    return kill_after


@pytest.fixture
def chunks(monkeypatch):
    """Count the chunks that are trained."""
    counted, original = [], _loop.train_chunk

    def train_chunk(settings, carry, step, *arguments):
        counted.append(int(step))
        return original(settings, carry, step, *arguments)

    monkeypatch.setattr(_loop, "train_chunk", train_chunk)
    return counted


def complete(directory):
    """Steps of the complete checkpoints."""
    return {int(path.name) for path in directory.glob("group_0/*") if path.name.isdigit()}


def test_killed_at_random_moments(pair, cache, uninterrupted, tmp_path):
    rng, kills, while_writing, runs = np.random.default_rng(), 0, 0, 0
    while kills < 20:
        directory = tmp_path / f"run{runs}"
        process, receiver = spawn(train, pair, directory, cache=cache)
        assert receiver.recv() == "begins"
        if kills < 2:  # while it compiles or reads, mostly
            time.sleep(rng.uniform(0.0, 1.0))
        else:
            found = set(directory.glob("group_0/*"))
            while process.is_alive() and set(directory.glob("group_0/*")) <= found:
                time.sleep(1e-3)
            time.sleep(rng.uniform(0.0, 0.25))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was done before the kill
            assert receiver.recv() == uninterrupted
            runs += 1
        else:
            assert process.exitcode == -signal.SIGKILL
            kills += 1
            while_writing += any(directory.glob(PARTIAL))
    print(f"{kills} kills, {while_writing} of them while a checkpoint was written")
    assert while_writing > 0
    process, receiver = spawn(train, pair, directory, cache=cache)
    assert receiver.recv() == "begins"
    assert receiver.recv() == uninterrupted
    process.join()
    assert not list(directory.glob(PARTIAL))
    assert complete(directory) == {SETTINGS["n_iters"] - SETTINGS["log_every"], SETTINGS["n_iters"]}


@pytest.mark.parametrize("lockstep", [True, False])
def test_groups_go_on_where_they_were(lockstep, kill_after, chunks, monkeypatch, tmp_path):
    monkeypatch.setattr(_engine, "on_accelerator", lambda: lockstep)
    couplings = [coupling(seed, shift) for seed, shift in enumerate((1.0, 2.0, 3.0))]
    call = {**PLAIN, "ema_decay": 0.9, "group_size": 2}
    expected = [outcome(*pair) for pair in uc.train.fit_many(Drift(), couplings, **call)]
    kill_after(5)
    with pytest.raises(Killed):
        uc.train.fit_many(Drift(), couplings, checkpoint_dir=tmp_path, **call)
    for trained in ([2, 4, 6], []):
        chunks.clear()
        resumed = uc.train.fit_many(Drift(), couplings, checkpoint_dir=tmp_path, **call)
        assert [outcome(*pair) for pair in resumed] == expected
        assert chunks == trained


def test_every_so_many_steps(pair, kill_after, tmp_path):
    kill_after(2)
    with pytest.raises(Killed):
        uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, checkpoint_every=3, **PLAIN)
    assert complete(tmp_path) == {4, 8}
    with pytest.raises(ValueError, match="`checkpoint_dir` with `checkpoint_every`"):
        uc.train.fit(Drift(), pair, checkpoint_every=3, **PLAIN)
    with pytest.raises(ValueError, match="`checkpoint_every` to be an integer of at least 1"):
        uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, checkpoint_every=0, **PLAIN)


def test_another_run_is_refused(pair, tmp_path):
    uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, **PLAIN)
    for change, message in (
        ({"n_iters": 10}, "n_iters is 8 there and 10 here"),
        ({"rng": 2}, "hash of the random keys is"),
        ({"method": Drift(learning_rate=0.1)}, r"method learning_rate is 0\.001 there and 0\.1 here"),
        ({"coupling": coupling(seed=1)}, "hash of the training cells and their weights is"),
        ({"method": ICNN(hidden=(4,), n_inner=1)}, "method class is 'Drift' there and 'ICNN' here"),
    ):
        call = {"method": Drift(), "coupling": pair, **PLAIN, **change}
        with pytest.raises(ValueError, match=rf"of another: .*{message}.*Choose another `checkpoint_dir`"):
            uc.train.fit(checkpoint_dir=tmp_path, **call)
    assert complete(tmp_path) == {6, 8}


def test_a_damaged_checkpoint_is_passed_over(pair, kill_after, tmp_path):
    expected = outcome(*uc.train.fit(Drift(), pair, **PLAIN))
    kill_after(3)
    with pytest.raises(Killed):
        uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, **PLAIN)

    def damage(step):
        for path in (tmp_path / f"group_0/{step}/arrays").rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    damage(6)
    with pytest.warns(UserWarning, match="checkpoint of step 6 in .* is damaged"):
        resumed = uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, **PLAIN)
    assert outcome(*resumed) == expected
    assert complete(tmp_path) == {6, 8}
    damage(6), damage(8)
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match=r"found only damaged ones\. Remove the folder"),
    ):
        uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, **PLAIN)


def test_changed_arrays_are_noticed(pair, monkeypatch, tmp_path):
    uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, **PLAIN)
    monkeypatch.setattr(_checkpoint, "_digest", lambda tree: "another")
    with (
        pytest.warns(UserWarning, match="its arrays are not those that were written"),
        pytest.raises(ValueError, match="only damaged ones"),
    ):
        uc.train.fit(Drift(), pair, checkpoint_dir=tmp_path, **PLAIN)


def test_a_full_disk_keeps_the_checkpoint_before(pair, cache, kill_after, tmp_path):
    call = {**PLAIN, "checkpoint_dir": tmp_path}
    kill_after(1)
    with pytest.raises(Killed):
        uc.train.fit(Drift(), pair, **call)
    process, receiver = spawn(train_with_short_files, 1_000, Drift(), pair, cache=cache, **call)
    message = receiver.recv()
    process.join()
    assert message.startswith(f"Could not write the checkpoint of step 4 into {tmp_path}")
    assert "MB are free: " in message
    assert "That of step 2 is intact: make room, and run the same call again" in message
    assert [path.name for path in (tmp_path / "group_0").iterdir()] == ["2"]
    assert outcome(*uc.train.fit(Drift(), pair, **call)) == outcome(*uc.train.fit(Drift(), pair, **PLAIN))


@pytest.mark.parametrize("run", range(6))
def test_ctrl_c_returns_the_map_so_far(pair, run, tmp_path):
    # So long that only the interrupt ends it: it cannot come late.
    endless = {**PLAIN, "n_iters": 10**8, "log_every": 10, "checkpoint_dir": tmp_path, "checkpoint_every": 20}
    seconds = np.random.default_rng().uniform(0.0, 0.2) if run == 0 else np.random.default_rng().uniform(0.3, 1.0)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.warns(UserWarning, match=r"Stopped after \d+ of 100000000 steps: pair 0\. Run the same call"):
            fitted, history = uc.train.fit(Drift(), pair, **endless)
    except KeyboardInterrupt:  # before the first record
        assert not complete(tmp_path)
        return
    finally:
        timer.join()
    step = history.iteration[-1]
    assert history.interrupted
    assert history.iteration == list(range(10, step + 1, 10))
    assert len(history.losses["loss"]) == len(history.iteration)
    assert max(complete(tmp_path)) == history.best_iteration == step
    expected, _ = uc.train.fit(Drift(), pair, **{**PLAIN, "n_iters": step, "log_every": 10})
    np.testing.assert_array_equal(fitted.params["shift"], expected.params["shift"])


def test_ctrl_c_leaves_out_pairs_without_a_map(pair, monkeypatch):
    calls, original = [], Interrupt.wait_for

    def wait_for(self, array):
        calls.append(1)
        if len(calls) == 6:  # the second record of the second of three groups
            signal.raise_signal(signal.SIGINT)
        original(self, array)

    monkeypatch.setattr(Interrupt, "wait_for", wait_for)
    message = r"Stopped after 2 of 8 steps: b\. Without a map: c\. Give a `checkpoint_dir`"
    with pytest.warns(UserWarning, match=message):
        fits = uc.train.fit_many(
            Drift(), [pair] * 3, names=["a", "b", "c"], group_size=1, **{**PLAIN, "rng": [1, 2, 3]}
        )
    assert fits[2] is None
    assert [(history.iteration[-1], history.interrupted) for _, history in fits[:2]] == [(8, False), (2, True)]
    calls[:] = [1] * 5
    with pytest.raises(KeyboardInterrupt):
        uc.train.fit(Drift(), pair, **PLAIN)


def test_a_screen_goes_on_where_it_was(kill_after, chunks, tmp_path):
    call = {"method": Drift(), "use_rep": "X", "n_iters": 40, "batch_size": 16, "min_cells": 5, "progress": False}
    expected, found = (tiny_screen(2, n_cells=30) for _ in range(2))
    uc.tl.fit_perturbation(expected, "drug", "control", **call)
    kill_after(15)
    with pytest.raises(Killed):
        uc.tl.fit_perturbation(found, "drug", "control", checkpoint_dir=tmp_path, **call)
    assert not found.uns
    chunks.clear()
    uc.tl.fit_perturbation(found, "drug", "control", checkpoint_dir=tmp_path, **call)
    assert len(chunks) == 5
    for drug in ("drug0", "drug1"):
        np.testing.assert_array_equal(found.obsm[f"uot_push_{drug}"], expected.obsm[f"uot_push_{drug}"])
        records = [adata.uns["uot"]["history"][drug] for adata in (found, expected)]
        np.testing.assert_array_equal(*(record["valid_divergence"] for record in records))


def test_ctrl_c_in_a_time_course_writes_what_there_is(chunks, monkeypatch, tmp_path):
    adata = tiny_screen(2, n_cells=30)
    adata.obs["day"] = np.repeat([0.0, 1.0, 2.0], 30)
    call = {
        "time_key": "day", "method": Drift(), "use_rep": "X", "n_iters": 40, "batch_size": 16, "progress": False,
        "checkpoint_dir": tmp_path,
    }  # fmt: skip
    original, moment = Interrupt.wait_for, [0]

    def wait_for(self, array):
        if len(chunks) == moment[0]:
            signal.raise_signal(signal.SIGINT)
        original(self, array)

    monkeypatch.setattr(Interrupt, "wait_for", wait_for)
    for moment[0], records, message in (
        (21, [20], r"Without a map: \[\(1\.0, 2\.0\)\]"),
        (5, [20, 4], r"Stopped after 8 of 40 steps: 1\.0_2\.0"),
    ):
        chunks.clear()
        with pytest.warns(UserWarning, match=message):
            uc.tl.fit_trajectory(adata, **call)
        history = adata.uns["uot"]["history"]
        assert [len(record["iteration"]) for record in history.values()] == records
        assert [record["interrupted"] for record in history.values()] == [n < 20 for n in records]
    assert np.isfinite(adata.obsm["uot_push"][:60]).all()
