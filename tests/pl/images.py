"""Compare a figure with the picture of it in ``baseline/``.

After a change that is meant to be seen, write the pictures anew, look at them, and commit them:
``UOTCELL_WRITE_BASELINES=1 python -m pytest tests/pl/test_images.py``.
"""

import os
from pathlib import Path

from matplotlib.testing.compare import compare_images

BASELINE = Path(__file__).parent / "baseline"
WRITE = "UOTCELL_WRITE_BASELINES" in os.environ
OPTIONS = {"dpi": 50, "metadata": {"Software": None}}
# Root mean square over pixels and channels, of 255. Between Pythons it is zero; what must not pass is in the tests.
TOLERANCE = 0.5


def write_picture(figure, name, *, baseline=BASELINE):
    """Make a figure the picture of that name."""
    figure.savefig(baseline / f"{name}.png", **OPTIONS)


def assert_looks_like(figure, name, folder, *, baseline=BASELINE):
    """Fail if a figure is not the picture of that name; what was drawn and where it differs is left in `folder`."""
    expected, drawn = folder / f"{name}-expected.png", folder / f"{name}.png"
    # Comparing leaves files beside the expected picture: not among those that are committed.
    expected.write_bytes((baseline / f"{name}.png").read_bytes())
    figure.savefig(drawn, **OPTIONS)
    difference = compare_images(expected, drawn, TOLERANCE)
    assert difference is None, difference
