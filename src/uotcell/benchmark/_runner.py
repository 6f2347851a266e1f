"""Run tasks on Dask, or one after another, and keep what finished."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

from uotcell.train._device import GPU_DRIVER_FILES

SYNCHRONOUS = "synchronous"
# A worker with jax, the cells of a screen and a few compiled programs.
WORKER_MEMORY = 2_000_000_000
# A task is given up when this many workers died while it ran: then it is the task that kills them.
ALLOWED_DEATHS = 5
MAX_ROUNDS = 10

Save = Callable[[object, dict], None]


def run_tasks(
    function: Callable[..., dict],
    tasks: Sequence,
    data: Mapping[str, object],
    save: Save,
    *,
    arguments: tuple = (),
    client=None,
    progress: bool = True,
    n_done: int = 0,
) -> dict[str, str]:
    """Run ``function(task, data[task.dataset], *arguments)`` for every task and save each result as it comes.

    Parameters
    ----------
    function
        Picklable.
    tasks
        Objects with ``id`` and ``dataset``.
    data
        By name, what the tasks of a data set share. Sent to every worker once.
    save
        Called here with a task and its result, as soon as it is there.
    arguments
        Further arguments.
    client
        A ``dask.distributed.Client``; ``None`` starts processes on this machine; ``"synchronous"`` runs the tasks here.
    progress
        Show a progress bar.
    n_done
        Tasks that were done before, for the bar.

    Returns
    -------
    By identity, the messages of tasks that raised. All others have been saved.
    """
    if client is not None and client != SYNCHRONOUS and not hasattr(client, "scatter"):
        raise TypeError(f"Expected `client` to be a dask.distributed.Client, 'synchronous' or None, found {client!r}.")
    if not tasks:
        return {}
    with tqdm(total=n_done + len(tasks), initial=n_done, disable=not progress, unit="task") as bar:
        if client == SYNCHRONOUS:
            return _run_here(function, tasks, data, save, arguments, bar)
        if client is not None:
            return _run_on_dask(function, tasks, data, save, arguments, bar, client)
        with local_client(n_tasks=len(tasks)) as own_client:
            return _run_on_dask(function, tasks, data, save, arguments, bar, own_client)


@contextmanager
def local_client(n_workers: int | None = None, *, n_tasks: int | None = None) -> Iterator:
    """Start worker processes on this machine and yield their client.

    Each runs one task at a time, on an equal share of the cores. By default there is one worker per core, as long as
    each has 2 GB of memory and a task; with a GPU there is one, because two would compete for its memory.

    Parameters
    ----------
    n_workers
        Number of processes.
    n_tasks
        Most workers that have something to do.

    Yields
    ------
    The client. The processes end with the context.

    Raises
    ------
    ImportError
        If dask.distributed is not installed.
    """
    try:
        import dask
        from dask.system import CPU_COUNT
        from distributed import Client, LocalCluster
        from distributed.system import MEMORY_LIMIT
    except ImportError as error:
        raise ImportError(
            "Expected dask.distributed for a benchmark in several processes, found none. Run "
            '`pip install "uotcell[benchmark]"`, or pass client="synchronous" (--workers 0) to do without.'
        ) from error
    if n_workers is None:
        most = 1 if _has_gpu() else min(CPU_COUNT, MEMORY_LIMIT // WORKER_MEMORY)
        n_workers = max(1, min(most, math.inf if n_tasks is None else n_tasks))
    threads = str(max(1, CPU_COUNT // n_workers))
    # NPROC bounds the threads of XLA on the CPU; the others those of numpy and scikit-learn.
    environment = dict.fromkeys(("NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_DEATHS,
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.nanny.pre-spawn-environ": environment,
        # Compiling holds the interpreter for longer than the seconds after which dask warns.
        "distributed.admin.tick.limit": "1h",
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, memory_limit=0, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _has_gpu() -> bool:
    """Whether jax would compute on a GPU, found out without starting it, which would claim the GPU's memory."""
    wanted = os.environ.get("JAX_PLATFORMS", "")
    plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "jax_rocm60_plugin")
    has_driver, has_plugin = any(Path(file).exists() for file in GPU_DRIVER_FILES), any(map(find_spec, plugins))
    return has_driver and has_plugin and (not wanted or any(name in wanted for name in ("cuda", "gpu", "rocm")))


def _run_here(function, tasks, data, save: Save, arguments: tuple, bar: tqdm) -> dict[str, str]:
    failures = {}
    for task in tasks:
        try:
            save(task, function(task, data[task.dataset], *arguments))
        except Exception as error:
            failures[task.id] = f"{type(error).__name__}: {error}"
        bar.update()
    return failures


def _run_on_dask(function, tasks, data, save: Save, arguments: tuple, bar: tqdm, client) -> dict[str, str]:
    """Submit all tasks and save them as they complete; once more those whose data died with the last worker."""
    from distributed import as_completed

    waiting, failures = {task.id: task for task in tasks}, {}
    for _ in range(MAX_ROUNDS):
        # Copied to every worker, so that one can die without taking the data along.
        shared = {name: client.scatter(data[name], broadcast=True, hash=False) for name in _names(waiting.values())}
        # Dask keeps back tasks of one name until a worker is free, so that a worker that dies takes one along.
        name, futures = f"uotcell-{uuid.uuid4().hex[:8]}", {}
        for rank, task in enumerate(waiting.values()):
            # A worker's death costs no retry: dask runs its task again by itself.
            future = client.submit(
                function, task, shared[task.dataset], *arguments, key=(name, task.id), priority=-rank, retries=0
            )
            futures[future] = task
        try:
            for future in as_completed(list(futures), loop=client.loop):
                task = futures.pop(future)
                if future.status in ("cancelled", "lost"):
                    continue
                error = future.exception()
                if error is None:
                    save(task, future.result())
                else:
                    failures[task.id] = f"{type(error).__name__}: {error}"
                del waiting[task.id], future
                bar.update()
        finally:
            client.cancel(list(futures))
        if not waiting:
            return failures
    return failures | dict.fromkeys(waiting, f"The data of the task were lost {MAX_ROUNDS} times: workers keep dying.")


def _names(tasks) -> list[str]:
    return sorted({task.dataset for task in tasks})
