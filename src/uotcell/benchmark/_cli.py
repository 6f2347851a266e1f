"""``python -m uotcell benchmark perturbation``."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from uotcell import datasets
from uotcell.benchmark._config import resolve_methods
from uotcell.benchmark._run import run_benchmark
from uotcell.benchmark._runner import SYNCHRONOUS, local_client
from uotcell.benchmark._screen import Screen, read_screen

DEFAULT_DATA = ("crispr_screens", "drug_simulator")
# A look at whether everything works, in minutes.
QUICK = {"seeds": 1, "tau_grid": (1.0, 0.95), "n_iters": 50, "n_score_cells": 100}
QUICK_CONDITIONS = 2


def add_benchmark(commands) -> None:
    """Add the command to the parser of commands."""
    benchmark = commands.add_parser("benchmark", help="compare methods, in as many processes as the machine has cores")
    kinds = benchmark.add_subparsers(dest="benchmark", required=True)
    parser = kinds.add_parser("perturbation", help="maps from controls to treated cells", argument_default=None)
    parser.add_argument(
        "--data",
        nargs="+",
        default=list(DEFAULT_DATA),
        metavar="NAME_OR_FILE",
        help=f"{', '.join(LOADERS)}, CellOT's 8h.h5ad, or any h5ad with --perturbation-key (default: %(default)s)",
    )
    parser.add_argument("--out", default="uotcell_benchmark", help="folder; an earlier run in it is resumed")
    parser.add_argument("--conditions", nargs="+", help="labels to compare (default: all)")
    parser.add_argument("--methods", nargs="*", help="names of methods (default: monge_gap and a small icnn)")
    parser.add_argument(
        "--import",
        nargs="+",
        default=[],
        dest="modules",
        metavar="MODULE",
        help="modules that register further methods",
    )
    parser.add_argument("--tau", nargs="+", type=float, dest="tau_grid", help="the grid (default: 1 0.99 0.95 0.9)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: 5)")
    parser.add_argument("--epsilon", type=float, help="in units of the mean cost (default: 0.05)")
    parser.add_argument("--n-iters", type=int, help="training steps (default: 400)")
    parser.add_argument("--batch-size", type=int, help="(default: 128)")
    parser.add_argument("--n-score-cells", type=int, help="most cells to score (default: 500)")
    parser.add_argument("--conditions-per-task", type=int, help="conditions that train together (default: 12)")
    parser.add_argument("--source-noise", type=float, help="noise on source cells, in units of their spread")
    parser.add_argument("--patience", type=int, help="records without progress after which training stops")
    parser.add_argument("--tune", choices=("condition", "dataset"), help="what τ is chosen for")
    parser.add_argument("--workers", type=int, help="processes (default: one per core); 0 runs all in this one")
    parser.add_argument("--scheduler", help="address of a running dask scheduler, instead of --workers")
    parser.add_argument("--quick", action="store_true", help="two conditions, one seed, two τ, 50 steps")
    files = parser.add_argument_group("for h5ad files")
    files.add_argument("--perturbation-key", help="column of .obs that says what was done to each cell")
    files.add_argument("--features", help="without --perturbation-key: CellOT's features.txt, the features to keep")
    files.add_argument("--control", default="control", help="its label for controls (default: %(default)s)")
    files.add_argument("--use-rep", default="X_pca", help="key of .obsm, or X (default: %(default)s)")
    files.add_argument("--groupby", help="column of .obs; conditions are compared with the controls of their own group")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Run the benchmark and print its report."""
    parser = options.parser
    if options.workers is not None and options.scheduler is not None:
        parser.error("give --workers or --scheduler, not both")
    if options.workers is not None and options.workers < 0:
        parser.error(f"expected --workers to be 0 or more, found {options.workers}")
    for module in options.modules:
        importlib.import_module(module)
    try:
        resolve_methods(options.methods)
    except ValueError as error:
        parser.error(str(error))
    screens = [_load(name, options, parser.error) for name in options.data]
    if options.conditions is not None:
        known = {label for screen in screens for label, _ in screen.conditions}
        if unknown := sorted(set(options.conditions) - known):
            parser.error(f"expected --conditions among {sorted(known)}, found {unknown}")
        screens = [s for s in screens if set(options.conditions) & {label for label, _ in s.conditions}]
        screens = [_only(s, lambda label, _: label in options.conditions) for s in screens]
    if options.quick:
        screens = [_only(s, lambda _, number: number < QUICK_CONDITIONS) for s in screens]
    given = ("seeds", "tau_grid", "epsilon", "n_iters", "batch_size", "n_score_cells", "conditions_per_task")
    settings = QUICK if options.quick else {}
    settings = settings | {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    fit_options = {name: getattr(options, name) for name in ("source_noise", "patience")}
    with _client(options) as client:
        result = run_benchmark(
            screens,
            methods=options.methods,
            fit_options={name: value for name, value in fit_options.items() if value is not None},
            tune=options.tune,
            out=options.out,
            client=client,
            command=shlex.join(["python", "-m", "uotcell", *arguments]),
            **settings,
        )
    print(result.to_markdown())
    print(f"Wrote {Path(options.out) / 'results.csv'} and {Path(options.out) / 'perturbation.md'}.")


def _client(options: argparse.Namespace):
    """Return a context that gives the client."""
    if options.scheduler is not None:
        from distributed import Client

        return Client(options.scheduler)
    if options.workers == 0:
        return nullcontext(SYNCHRONOUS)
    return nullcontext(None) if options.workers is None else local_client(options.workers)


def _load(name: str, options: argparse.Namespace, fail: Callable) -> Screen:
    if name in LOADERS:
        return LOADERS[name]()
    path = Path(name)
    if not path.is_file():
        fail(f"expected --data to be one of {list(LOADERS)} or a file, found {name!r}")
    if options.perturbation_key is None:
        adata = datasets.read_cellot_4i(path, features=options.features)
        return read_screen(adata, "drug", "control", name=path.stem, use_rep="X")
    import anndata

    return read_screen(
        anndata.read_h5ad(path),
        options.perturbation_key,
        options.control,
        name=path.stem,
        use_rep=options.use_rep,
        groupby=options.groupby,
    )


def _only(screen: Screen, wanted: Callable[[str, int], bool]) -> Screen:
    """Return the screen with the conditions for whose label and number ``wanted`` is true."""
    return screen.restricted([pair for number, pair in enumerate(screen.conditions) if wanted(pair[0], number)])


def _crispr_screens() -> Screen:
    return read_screen(datasets.crispr_screens(), "perturbation", "control", name="crispr_screens", groupby="cell_type")


def _drug_simulator() -> Screen:
    # A tenth of 500 cells would be too few to choose τ for every drug.
    return read_screen(
        datasets.simulate_drug_screen(rng=0),
        "drug",
        "control",
        name="drug_simulator",
        use_rep="X",
        valid_fraction=0.2,
        test_fraction=0.2,
        truth=datasets.drug_responses(rng=0),
    )


def _melanoma_4i() -> Screen:
    adata = datasets.melanoma_4i()
    adata.obs["hour"] = adata.obs["hour"].map("{:g} h".format)
    return read_screen(adata, "hour", "8 h", name="melanoma_4i", use_rep="X", test_fraction=0.2)


LOADERS = {"crispr_screens": _crispr_screens, "drug_simulator": _drug_simulator, "melanoma_4i": _melanoma_4i}
