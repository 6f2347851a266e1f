"""Command line: ``python -m uotcell demo``."""

from __future__ import annotations

import argparse


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(prog="python -m uotcell", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="fit balanced and unbalanced maps on embedded data and compare them")
    demo.add_argument("--data", choices=("reprogramming", "hematopoiesis"), default="reprogramming")
    demo.add_argument("--out", default="uotcell_demo", help="folder for the h5ad and the picture")
    demo.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    from uotcell._demo import run_demo

    run_demo(options.data, options.out, rng=options.seed)


if __name__ == "__main__":
    main()
