"""Keep a process that compiles thousands of programs alive."""

import gc
from pathlib import Path

import jax
import pytest

# Every compiled program holds some memory maps, of which Linux grants a process 65,530; past them compiling crashes.
MAPS, ENOUGH_MAPS = Path("/proc/self/maps"), 20_000


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs_in_time():
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > ENOUGH_MAPS:
        jax.clear_caches()
        gc.collect()
