"""Break one thing at a time in `ot/` and `methods/`, and see whether their tests notice.

A sample of mutants, deterministic by seed, each in a fresh process on a copy of the package. Prints a Markdown table,
and every mutant that survived: either a test is missing, or the change makes no difference. A reader must judge.

    python scripts/mutation_test.py --sample 100 --jobs 2 > mutants.md
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "uotcell"

# Processes fork from one that has imported what the package needs, but neither the package nor any device of jax.
FRESH = multiprocessing.get_context("forkserver")
# Added to pytest's status, to tell it from that of a process that came to nothing.
RAN = 100
PRELOADED = ["diffrax", "flax.nnx", "optax", "ott", "pytest", "scanpy", "sklearn"]
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "1",
    # A mutant compiles only what it changes.
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "uotcell-programs"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}

# The tests of a file, quickest first; a run stops at the first failure.
QUADRATIC = ["tests/ot/test_quadratic.py"]
FLOWS = ["tests/methods/test_flow_matching.py", "tests/methods/test_genot.py"]
TESTS = {
    "ot/_alternation.py": QUADRATIC,
    "ot/_annealing.py": ["tests/ot/test_extremes.py"],
    "ot/_base.py": ["tests/ot/test_solve.py"],
    "ot/_batch.py": ["tests/ot/test_batch.py"],
    "ot/_coupling.py": ["tests/ot/test_solve.py"],
    "ot/_divergence.py": ["tests/metrics/test_distribution.py"],
    "ot/_extend.py": ["tests/ot/test_geodesic.py", *QUADRATIC],
    "ot/_gaussian.py": ["tests/ot/test_gaussian.py", "tests/ot/test_gaussian_map.py"],
    "ot/_geodesic.py": ["tests/ot/test_geodesic.py"],
    "ot/_geometry.py": ["tests/ot/test_geometry.py", "tests/ot/test_solve.py"],
    "ot/_inputs.py": ["tests/ot/test_solve.py"],
    "ot/_quadratic.py": QUADRATIC,
    "ot/_quadratic_batch.py": QUADRATIC,
    "ot/_quadratic_coupling.py": QUADRATIC,
    "ot/_sampling.py": ["tests/ot/test_sampling.py", "tests/ot/test_solve.py"],
    "ot/_scale.py": ["tests/ot/test_solve.py", "tests/ot/test_geodesic.py"],
    "ot/_settings.py": ["tests/ot/test_solve.py"],
    "ot/_sinkhorn.py": ["tests/ot/test_sinkhorn.py", "tests/ot/test_solve.py"],
    "ot/_solve.py": ["tests/ot/test_solve.py", "tests/ot/test_geodesic.py"],
    "ot/_spaces.py": QUADRATIC,
    "ot/_starts.py": ["tests/ot/test_starts.py", *QUADRATIC],
    "ot/_storage.py": ["tests/ot/test_coupling_storage.py"],
    "ot/_structured.py": ["tests/ot/test_geodesic.py", *QUADRATIC],
    "methods/_base.py": ["tests/methods/test_icnn.py", "tests/methods/test_battery.py"],
    "methods/_flow.py": FLOWS,
    "methods/_flow_matching.py": FLOWS,
    "methods/_genot.py": ["tests/methods/test_genot.py"],
    "methods/_icnn.py": ["tests/methods/test_icnn.py", "tests/methods/test_battery.py"],
    "methods/_monge_gap.py": ["tests/methods/test_monge_gap.py", "tests/methods/test_battery.py"],
    "methods/_ode.py": FLOWS,
    "methods/_registry.py": ["tests/methods/test_own_method.py", "tests/methods/test_battery.py"],
    "methods/_rescaling.py": ["tests/train/test_rescaling.py"],
    "methods/_storage.py": ["tests/methods/test_storage.py"],
    "methods/_straight.py": ["tests/methods/test_battery.py"],
    "methods/_transport_map.py": ["tests/methods/test_battery.py", "tests/methods/test_storage.py", *FLOWS],
}

SWAPPED_OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
# The opposite, and the one that differs at the boundary.
COMPARISONS = {
    ast.Lt: (ast.GtE, ast.LtE), ast.LtE: (ast.Gt, ast.Lt), ast.Gt: (ast.LtE, ast.GtE), ast.GtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
}  # fmt: skip
SWAPPED_NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "argmin": "argmax"}


class Mutant(NamedTuple):
    """One change: the file, the line, the code before and after, and the whole file after."""

    file: str
    line: int
    before: str
    after: str
    source: str


def changes(node: ast.AST) -> Iterator[Callable[[], None]]:
    """Functions that each change one thing about a node, in place."""

    def setting(owner, name: str, value) -> Callable[[], None]:
        return lambda: setattr(owner, name, value)

    if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPPED_OPERATORS:
        yield setting(node, "op", SWAPPED_OPERATORS[type(node.op)]())
    elif isinstance(node, ast.Compare):
        for operator in COMPARISONS.get(type(node.ops[0]), ()):
            yield setting(node, "ops", [operator(), *node.ops[1:]])
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield setting(node, "op", ast.UAdd())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield setting(node, "operand", ast.UnaryOp(ast.Not(), node.operand))
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        value = node.value
        yield setting(node, "value", not value if isinstance(value, bool) else value * 2 or type(value)(1))
    elif isinstance(node, ast.keyword) and node.arg == "axis" and getattr(node.value, "value", None) in (0, 1):
        yield setting(node, "value", ast.Constant(1 - node.value.value))
    elif isinstance(node, ast.Attribute) and node.attr in SWAPPED_NAMES:
        yield setting(node, "attr", SWAPPED_NAMES[node.attr])
    elif isinstance(node, ast.Name) and node.id in SWAPPED_NAMES:
        yield setting(node, "id", SWAPPED_NAMES[node.id])
    elif isinstance(node, (ast.Call, ast.Tuple)):
        name = "args" if isinstance(node, ast.Call) else "elts"
        parts = getattr(node, name)
        # Of different kinds, such as a function and an array, they would only fail to run.
        alike = len(parts) > 1 and all(isinstance(part, (ast.Name, ast.Attribute)) for part in parts[:2])
        if alike and not isinstance(getattr(node, "ctx", None), ast.Store) and "isinstance" not in ast.unparse(node):
            yield setting(node, name, [parts[1], parts[0], *parts[2:]])
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield setting(node, "value", ast.Constant(None))


def nodes(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.stmt | None]]:
    """Nodes that compute, each with its statement: no annotations, decorators, messages or docstrings."""

    def walk(node: ast.AST, statement):
        if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return
        statement = node if isinstance(node, ast.stmt) else statement
        yield node, statement
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "decorator_list", "slice" if isinstance(node, ast.AnnAssign) else ""):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, statement)

    yield from walk(tree, None)


def mutants(file: str) -> list[Mutant]:
    """Every mutant of a file that is not written the same."""
    text = (PACKAGE / file).read_text()
    places = [(i, k) for i, (node, _) in enumerate(nodes(ast.parse(text))) for k, _ in enumerate(list(changes(node)))]
    unchanged, found = ast.unparse(ast.parse(text)), []
    for i, k in places:
        tree = ast.parse(text)
        node, statement = list(nodes(tree))[i]
        if statement is None or "TypeVar" in ast.unparse(statement):
            continue
        line, before = node.lineno if hasattr(node, "lineno") else statement.lineno, _shown(node)
        list(changes(node))[k]()
        ast.fix_missing_locations(tree)
        if (source := ast.unparse(tree)) != unchanged:
            found.append(Mutant(file, line, before, _shown(node), source))
    return found


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    if isinstance(node, ast.BinOp) and len(text) > 90:
        text = " ".join(ast.unparse(ast.BinOp(ast.Name("…"), node.op, node.right)).split())
    return text if len(text) <= 90 else f"{text[:87]}…"


def run(folder: Path, tests: list[str], timeout: float | None) -> str:
    """Run tests on the package in a folder, in a fresh process; say how it went."""
    process = FRESH.Process(target=run_here, args=(folder, tests))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        return "timeout"
    if process.exitcode not in (RAN, RAN + 1, RAN + 2) and process.exitcode >= 0:
        raise RuntimeError(f"Expected tests to run, found exit code {process.exitcode} for {' '.join(tests)}.")
    return "survived" if process.exitcode == RAN else "killed"


def run_here(folder: Path, tests: list[str]) -> None:
    """Run tests on the package in a folder, silently, and end with pytest's status."""
    import pytest

    os.chdir(ROOT)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    options = ["-x", "-q", "-n", "0", "-p", "no:randomly", "-p", "no:cacheprovider", "--tb=no"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # for what was imported before
    sys.exit(RAN + int(pytest.main([*options, *tests])))


def main() -> None:
    """Draw, break, run, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=100, help="mutants drawn, in proportion to those of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--timeout", type=float, default=600, help="seconds after which a mutant counts as noticed")
    parser.add_argument("--files", nargs="+", choices=sorted(TESTS), default=sorted(TESTS), metavar="FILE")
    arguments = parser.parse_args()

    os.environ.update(ENVIRONMENT)
    FRESH.set_forkserver_preload(PRELOADED)
    everything = [mutant for file in arguments.files for mutant in mutants(file)]
    drawn = random.Random(arguments.seed).sample(everything, min(arguments.sample, len(everything)))
    with tempfile.TemporaryDirectory() as scratch:

        def judge(numbered: tuple[int, Mutant | None], tests: list[str] | None = None) -> str:
            number, mutant = numbered
            folder = Path(scratch) / str(number)
            shutil.copytree(PACKAGE, folder / "uotcell", ignore=shutil.ignore_patterns("__pycache__"))
            if mutant is not None:
                (folder / "uotcell" / mutant.file).write_text(mutant.source)
            outcome = run(folder, tests or TESTS[mutant.file], None if mutant is None else arguments.timeout)
            shutil.rmtree(folder)
            if mutant is not None:
                print(f"{outcome}: {mutant.file}:{mutant.line} {mutant.before} -> {mutant.after}", file=sys.stderr)
            return outcome

        # Without a mutant all must pass; this also compiles what most mutants share.
        needed = sorted({test for mutant in drawn for test in TESTS[mutant.file]})
        if judge((-1, None), needed) != "survived":
            sys.exit("The tests do not pass on the package as it is.")
        begin = time.monotonic()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            outcomes = list(pool.map(judge, enumerate(drawn)))
        seconds = time.monotonic() - begin

    table = defaultdict(lambda: {"drawn": 0, "survived": 0, "of": 0})
    for mutant in everything:
        table[mutant.file]["of"] += 1
    for mutant, outcome in zip(drawn, outcomes, strict=True):
        table[mutant.file]["drawn"] += 1
        table[mutant.file]["survived"] += outcome == "survived"
    killed = sum(outcome != "survived" for outcome in outcomes)
    print(
        f"{killed} of {len(drawn)} mutants killed ({outcomes.count('timeout')} by timeout), drawn with seed "
        f"{arguments.seed} from {len(everything)}, in {seconds:.0f} s.\n"
    )
    print("| file | mutants | drawn | survived |\n|---|---|---|---|")
    for file, row in table.items():
        print(f"| `{file}` | {row['of']} | {row['drawn']} | {row['survived']} |")
    print("\n| survivor | before | after |\n|---|---|---|")
    for mutant, outcome in zip(drawn, outcomes, strict=True):
        if outcome == "survived":
            before, after = (text.replace("|", "\\|") for text in (mutant.before, mutant.after))
            print(f"| `{mutant.file}:{mutant.line}` | `{before}` | `{after}` |")


if __name__ == "__main__":
    main()
