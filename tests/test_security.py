"""What no module of the package may do: run code from data, start processes, unpickle, or reach for the network."""

import ast
import socket
from pathlib import Path

import pytest

import uotcell as uc

SOURCE = Path(uc.__file__).parent
# Modules that execute what they read, start programs, or talk to others.
FORBIDDEN_IMPORTS = {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "subprocess", "socket", "urllib", "http",
    "ftplib", "ctypes", "tarfile", "yaml", "torch", "requests", "pooch", "importlib",
}  # fmt: skip
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "system", "popen", "mktemp", "extractall", "import_module", "read_pickle", "to_pickle", "execv",
    "execve", "spawnv",
}  # fmt: skip
# The two exceptions, and why: downloads go by hash through one file; the command line imports what its user names.
ALLOWED = {
    "datasets/_fetch.py": {"pooch", "requests"},
    "benchmark/_cli.py": {"importlib", "import_module"},
}
METADATA = {"importlib.metadata", "importlib.resources", "importlib.util"}  # look at what is installed


def offences(code: str) -> set[str]:
    """Names in a module that are on one of the lists, and loads of arrays that might unpickle."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {n.name.split(".")[0] for n in node.names if n.name not in METADATA} & FORBIDDEN_IMPORTS
        elif isinstance(node, ast.ImportFrom) and not node.level:
            root = node.module.split(".")[0]
            found |= {root} & FORBIDDEN_IMPORTS if node.module not in METADATA else set()
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} & FORBIDDEN_ATTRIBUTES
        elif isinstance(node, ast.Name):
            found |= {node.id} & FORBIDDEN_NAMES
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.add("allow_pickle")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            found |= {"np.load"} if "allow_pickle" not in {keyword.arg for keyword in node.keywords} else set()
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_runs_no_code_from_data_and_reaches_for_no_network(path):
    name = path.relative_to(SOURCE).as_posix()
    assert offences(path.read_text(encoding="utf-8")) <= ALLOWED.get(name, set())


@pytest.mark.parametrize(
    ("code", "offence"),
    [
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import os.path, subprocess as s", "subprocess"),
        ("from urllib.request import urlopen", "urllib"),
        ("import importlib", "importlib"),
        ("eval(text)", "eval"),
        ("run = exec", "exec"),
        ("os.system(name)", "system"),
        ("archive.extractall(folder)", "extractall"),
        ("tempfile.mktemp()", "mktemp"),
        ("np.load(path)", "np.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("read(path, allow_pickle=trusted)", "allow_pickle"),
    ],
)
def test_offences_are_found(code, offence):
    assert offences(code) == {offence}


def test_what_is_harmless_is_no_offence():
    harmless = (
        "from importlib.metadata import version\nnp.load(path, allow_pickle=False)\nlowered.compile()\nre.compile('a')"
    )
    assert offences(harmless) == set()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])  # reserved for documentation
def test_the_suite_reaches_for_no_network(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        for connect in (connection.connect, connection.connect_ex):
            with pytest.raises(
                RuntimeError, match=rf"Expected no connection but to this machine, found one to .*{host}"
            ):
                connect((host, 443))
