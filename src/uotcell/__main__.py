"""Command line: ``python -m uotcell demo`` and ``python -m uotcell benchmark perturbation``."""

from __future__ import annotations

import argparse
import sys


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the command."""
    from uotcell.benchmark._cli import add_benchmark

    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="python -m uotcell", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="fit balanced and unbalanced maps on embedded data and compare them")
    demo.add_argument("--data", choices=("reprogramming", "hematopoiesis"), default="reprogramming")
    demo.add_argument("--out", default="uotcell_demo", help="folder for the h5ad and the picture")
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)
    add_benchmark(commands)
    options = parser.parse_args(arguments)
    options.run(options, arguments)


def _demo(options: argparse.Namespace, arguments: list[str]) -> None:
    from uotcell._demo import run_demo

    run_demo(options.data, options.out, rng=options.seed)


if __name__ == "__main__":
    main()
