"""Running tasks here and in processes, one of which dies."""

import os
import signal
import threading
import time
from dataclasses import dataclass

import pandas as pd
import pytest
from tiny_screen import SETTINGS, tiny_screen

from uotcell.benchmark import read_screen, run_benchmark
from uotcell.benchmark._runner import local_client, run_tasks
from uotcell.benchmark._store import read_json

# Baselines alone: what is tested is who runs them, and processes that die, not maps.
BASELINES = {**SETTINGS, "methods": (), "tau_grid": (1.0,), "seeds": 3, "conditions_per_task": 1}
N_TASKS = 9


@dataclass(frozen=True)
class Job:
    id: str
    dataset: str = "numbers"


def divide(job, numbers, by):
    return {"value": numbers[int(job.id)] / by}


def run_jobs(saved, numbers=(2.0, 4.0, 6.0), *, by=2, **settings):
    jobs = [Job(str(i)) for i in range(len(numbers))]
    return run_tasks(
        divide, jobs, {"numbers": numbers}, lambda job, result: saved.update({job.id: result["value"]}),
        arguments=(by,), progress=False, **settings,
    )  # fmt: skip


def test_tasks_run_here():
    saved = {}
    assert run_jobs(saved, client="synchronous") == {}
    assert saved == {"0": 1.0, "1": 2.0, "2": 3.0}


def test_a_failure_is_reported_and_the_others_go_on():
    saved = {}
    assert run_jobs(saved, (2.0, "four", 6.0), client="synchronous") == {
        "1": "TypeError: unsupported operand type(s) for /: 'str' and 'int'"
    }
    assert saved == {"0": 1.0, "2": 3.0}


def test_client_is_checked():
    with pytest.raises(TypeError, match=r"`client`.*found 'threads'"):
        run_jobs({}, client="threads")


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(ImportError, match=r'pip install "uotcell\[benchmark\]"'), local_client(1):
        pass


@pytest.fixture(scope="module")
def client():
    with local_client(2) as client:
        yield client


def test_workers_share_the_cores(client):
    from dask.system import CPU_COUNT

    threads = client.run(lambda: (os.environ["NPROC"], os.environ["OMP_NUM_THREADS"]))
    assert len({*client.run(os.getpid).values()} - {os.getpid()}) == 2
    assert set(threads.values()) == {(str(max(1, CPU_COUNT // 2)),) * 2}


def test_failures_in_processes(client):
    saved = {}
    failures = run_jobs(saved, (2.0, "four", 6.0), client=client)
    assert list(failures) == ["1"]
    assert failures["1"].startswith("TypeError: ")
    assert saved == {"0": 1.0, "2": 3.0}


def completions(dask_scheduler):
    """How often each task was completed, and which were taken from a worker that died."""
    completed, taken = {}, set()
    for entry in dask_scheduler.transition_log:
        key, start, finish = entry[:3]
        if start == "processing" and isinstance(key, tuple) and "seed" in key[1]:
            name = key[1]
            if finish == "memory":
                completed[name] = completed.get(name, 0) + 1
            elif finish == "released":
                taken.add(name)
    return completed, taken


def test_a_killed_worker_loses_its_task_only(client, tmp_path):
    """One of two processes is killed after its first result; every task still finishes, and none twice."""
    screens, tasks, killed = [read_screen(tiny_screen(), "drug", "control", use_rep="X")], tmp_path / "tasks", {}

    def kill_one():
        deadline = time.monotonic() + 300
        while not (files := list(tasks.glob("[!.]*.json"))) and time.monotonic() < deadline:
            time.sleep(0.01)
        killed["at"] = {file: file.stat().st_mtime_ns for file in files}
        killed["process"] = read_json(files[0])["process"]
        os.kill(killed["process"], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    result = run_benchmark(screens, **BASELINES, out=tmp_path, client=client)
    killer.join()

    files = list(tasks.glob("[!.]*.json"))
    assert len(files) == N_TASKS > len(killed["at"])
    assert all(file.stat().st_mtime_ns == at for file, at in killed["at"].items())
    completed, taken = client.run_on_scheduler(completions)
    assert len(completed) == N_TASKS
    # Taken from the dead process while it ran, or computed but not yet handed over: one task at most starts again.
    assert len(taken) + sum(completed.values()) - N_TASKS <= 1
    assert killed["process"] != os.getpid()
    assert killed["process"] not in client.run(os.getpid).values()

    # One condition and seed by itself, in this process: the same numbers, apart from its rank among the others.
    alone = [screens[0].restricted([("drug1", "")])]
    here = run_benchmark(alone, **{**BASELINES, "seeds": [1]}, out=tmp_path / "here", client="synchronous").scores
    there = result.scores.query("condition == 'drug1' and seed == 1").reset_index(drop=True)
    pd.testing.assert_frame_equal(*(s.drop(columns="discrimination_rank") for s in (here, there)), check_exact=True)
