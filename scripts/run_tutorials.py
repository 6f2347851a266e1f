"""Run the tutorials as they stand; a cell that raises, or a notebook that takes too long, is a failure.

``python scripts/run_tutorials.py`` checks all of them, ``--write`` keeps the outputs for the documentation, and names
choose some. Needs the extra ``tutorials``.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

FOLDER = Path(__file__).parents[1] / "tutorials"
LIMIT = 240  # seconds a notebook may take


def run(path: Path, write: bool) -> tuple[str, float]:
    """Execute one notebook; return what went wrong, empty if nothing, and the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    # Times of execution would make every run a change.
    client = NotebookClient(notebook, timeout=LIMIT, record_timing=False, resources={"metadata": {"path": str(FOLDER)}})
    begin = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        return str(error), time.perf_counter() - begin
    seconds = time.perf_counter() - begin
    if seconds > LIMIT:
        return f"took {seconds:.0f} s, more than {LIMIT}", seconds
    if write:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, path)
    return "", seconds


def main() -> int:
    """Run what the command line asks for and print a line per notebook."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of file names, such as 100; all by default")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks run at a time")
    arguments = parser.parse_args()
    paths = [
        path
        for path in sorted(FOLDER.glob("[0-9]*.ipynb"))
        if not arguments.names or path.name.startswith(tuple(arguments.names))
    ]
    if not paths:
        parser.error(f"no notebook in {FOLDER} begins with {arguments.names}")
    # Tutorials fetch nothing: what kernels ask of the network goes to a port where nobody answers.
    os.environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    # The file of a picture depends on the backend of matplotlib, which a shell may have set for scripts.
    os.environ.pop("MPLBACKEND", None)
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for path, (problem, seconds) in zip(
            paths, pool.map(lambda path: run(path, arguments.write), paths), strict=True
        ):
            failed += bool(problem)
            print(f"{'FAILED' if problem else 'passed'} {seconds:4.0f} s  {path.name}\n{problem}".rstrip(), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
