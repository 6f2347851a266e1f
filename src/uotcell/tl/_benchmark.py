"""Compare methods on a perturbation screen in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from anndata import AnnData

from uotcell.benchmark import BenchmarkResult, read_screen, run_benchmark
from uotcell.methods import Method


def benchmark_perturbation(
    adata: AnnData | Mapping[str, AnnData],
    perturbation_key: str,
    control: object,
    *,
    use_rep: str = "X_pca",
    layer: str | None = None,
    groupby: str | None = None,
    conditions: Sequence | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
    min_cells: int = 20,
    truth: Mapping[str, object] | None = None,
    methods: Sequence[str | Method] | Mapping[str, str | Method] | None = None,
    tau_grid: Sequence[float] = (1.0, 0.99, 0.95, 0.9),
    seeds: int | Sequence[int] = 5,
    epsilon: float = 0.05,
    n_iters: int | Mapping[str, int] = 400,
    batch_size: int = 128,
    n_score_cells: int = 500,
    conditions_per_task: int = 12,
    fit_options: Mapping[str, object] | None = None,
    tune: str | None = None,
    out: str | Path = "uotcell_benchmark",
    client=None,
    progress: bool = True,
) -> BenchmarkResult:
    """Compare balanced and unbalanced maps with simpler ones on every condition of a perturbation screen.

    For every condition and seed, cells are split into training, validation and test. Every method is fitted to the
    training cells at every τ, τ is chosen on validation cells, and the images of test controls are compared with the
    treated test cells, as are those of baselines without a network.

    Every finished task is kept in ``out``. The same call goes on where an earlier one was stopped; a call with other
    settings is refused.

    Parameters
    ----------
    adata
        Annotated data, or several by name, which share the keys below. It is not changed.
    perturbation_key, control
        Column of ``.obs`` that says what was done to each cell, and its label for controls.
    use_rep, layer
        Matrix to compare cells in: a key of ``.obsm``, or ``"X"`` and optionally a layer.
    groupby
        Column of ``.obs``, such as the cell line: conditions are compared with the controls of their own group.
    conditions
        Labels to compare, all by default.
    valid_fraction, test_fraction
        Shares of the cells of every population for validation and test: 0.1, or 0.2 if one has fewer than 500 cells.
    min_cells
        Conditions with fewer training cells, or with fewer controls to train on, are left out, of which a warning
        tells.
    truth
        By label, an object with ``push(x)`` and ``survival(x)``, for simulated data.
    methods
        Names or instances of methods; as a dict, under names of your choice. Without any, only baselines are scored. By
        default the Monge gap and an ICNN of two layers of 32 with three inner steps, which scored as the larger default
        one does on screens of hundreds of cells in a third of the time.
    tau_grid
        τ to fit every method with; 1, the balanced problem, must be among them.
    seeds
        Number of seeds, or the seeds.
    epsilon
        ε of the couplings, in units of the mean cost.
    n_iters
        Training steps, one number or one by method.
    batch_size
        Most cells per batch and side; never more than the largest condition has.
    n_score_cells
        Most cells to score per condition and split: every score compares equally many predicted and observed cells.
    conditions_per_task
        Conditions that train together and are one task.
    fit_options
        Further arguments of :func:`uotcell.train.fit_many`: ``ema_decay``, ``log_every``, ``patience``,
        ``rescaling``, ``source_noise``.
    tune
        Choose τ for every ``"condition"`` or ``"dataset"``; by default for conditions if half of them have at least 100
        scored validation cells.
    out
        Folder of the results: ``results.csv``, ``perturbation.md``, ``config.json``, ``runs.json`` and ``tasks/``.
    client
        A ``dask.distributed.Client``. By default processes are started on this machine, from a script only below
        ``if __name__ == "__main__":``; ``"synchronous"`` runs one task after another in this process.
    progress
        Show a progress bar.

    Returns
    -------
    Scores of all cells, methods and τ, and of the families that the report compares.

    Raises
    ------
    KeyError, ValueError
        If the data or a setting are not as above, or ``out`` holds results of other settings.
    RuntimeError
        If tasks failed, after all others have finished; they run again with the next call.

    Examples
    --------
    >>> import tempfile, uotcell as uc
    >>> result = uc.tl.benchmark_perturbation(
    ...     uc.datasets.reprogramming(), "day", 10.0, methods=(), tau_grid=(1.0,), seeds=1,
    ...     conditions=[11.0], out=tempfile.mkdtemp(), client="synchronous", progress=False,
    ... )
    >>> sorted(result.families["family"].unique())[:3]
    ['ceiling', 'diagonal affine', 'entropic OT']
    """
    named = adata if isinstance(adata, Mapping) else {"data": adata}
    screens = [
        read_screen(
            data, perturbation_key, control, name=name, use_rep=use_rep, layer=layer, groupby=groupby,
            conditions=conditions, valid_fraction=valid_fraction, test_fraction=test_fraction, min_cells=min_cells,
            truth=truth,
        )
        for name, data in named.items()
    ]  # fmt: skip
    return run_benchmark(
        screens, methods=methods, tau_grid=tau_grid, seeds=seeds, epsilon=epsilon, n_iters=n_iters,
        batch_size=batch_size, n_score_cells=n_score_cells, conditions_per_task=conditions_per_task,
        fit_options=fit_options, tune=tune, out=out, client=client, progress=progress,
    )  # fmt: skip
