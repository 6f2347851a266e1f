"""100,000 cells in 50 dimensions fit, map and write within 6 GB of address space, and a small limit takes less."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("limited_fit.py")


def test_a_fit_in_six_gigabytes():
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"}
    # Programs that are compiled in a hurry hold more.
    environment.pop("XLA_FLAGS", None)
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-2_000:]
    start, little, much = map(int, run.stdout.split())
    # Costs between 4,000 anchors are held where they may be, 20 bytes each, and computed in tiles where not.
    assert little - start < 1_000_000_000
    assert much - little > 100_000_000
