"""Keep a process that runs thousands of tests alive, off the network and without figures of the test before."""

import gc
import socket
import sys
from collections import Counter
from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

# Every compiled program holds some memory maps, of which Linux grants a process 65,530; past them compiling crashes.
MAPS, ENOUGH_MAPS = Path("/proc/self/maps"), 20_000

# Few tests that take long: a process that came to one of these files last would be waited for.
LONG_FILES = ("test_checkpoint", "test_fit_many", "test_gaussian", "test_genot", "test_howto", "test_memory_limit")

# An example may have to compile first.
settings.register_profile(
    "uotcell",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=15,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("uotcell")


def pytest_collection_modifyitems(items):
    n_tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.stem not in LONG_FILES, -n_tests[item.path]))


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs_in_time():
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > ENOUGH_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """Refuse every connection but those to this machine: no test may fetch anything."""

    def guarded(connect):
        def only_here(self, address):
            local = self.family not in (socket.AF_INET, socket.AF_INET6) or self.type != socket.SOCK_STREAM
            if not (local or str(address[0]).startswith("127.") or address[0] in ("localhost", "::1", "0.0.0.0")):
                raise RuntimeError(f"Expected no connection but to this machine, found one to {address}.")
            return connect(self, address)

        return only_here

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        yield
