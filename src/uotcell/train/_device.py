"""Where training runs, and a word when it should run elsewhere."""

from __future__ import annotations

import warnings
from pathlib import Path

import jax

GPU_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/kfd")


def describe_device() -> str:
    """Platform and name of the device that computes, such as ``"gpu: NVIDIA H100"`` or ``"cpu"``."""
    device = jax.devices()[0]
    return device.platform if device.platform == device.device_kind else f"{device.platform}: {device.device_kind}"


def warn_if_gpu_unused() -> None:
    """Warn when this machine has a GPU driver but jax computes on the CPU."""
    drivers = [path for path in GPU_DRIVER_FILES if Path(path).exists()]
    if drivers and jax.devices()[0].platform == "cpu":
        warnings.warn(
            f"A GPU driver is present ({drivers[0]}) but jax computes on the CPU, which is many times slower. Install "
            'the GPU build with `pip install "uotcell[gpu]"`, or set JAX_PLATFORMS=cpu knowingly and ignore this.',
            stacklevel=3,
        )
