"""How much memory a call may take, and what to say when that is not enough."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import jax

# Of the memory that is free, the share a call takes by default: others run beside it, and estimates are rough.
FREE_SHARE = 0.75
# Taken for free where a system does not tell.
ASSUMED_BYTES = 4 * 2**30
UNITS = {f"{prefix}{i}b": (1024 if i else 1000) ** k for i in ("", "i") for k, prefix in enumerate(" kmgt") if k}


def parse_memory(limit: float | str | None) -> int | None:
    """Turn ``memory_limit`` into bytes; None, for most of what is free, stays None."""
    if limit is None:
        return None
    found = limit
    if isinstance(limit, str) and (match := re.fullmatch(r"\s*(\d+\.?\d*)\s*([kmgt]i?b)\s*", limit.lower())):
        found = float(match[1]) * UNITS[match[2]]
    if isinstance(found, bool) or not isinstance(found, Real) or not 1 <= found < float("inf"):
        raise ValueError(
            "Expected `memory_limit` to be a positive number of bytes, a string such as '6GB' or '512MiB', or None for "
            f"{FREE_SHARE:.0%} of what is free, found {limit!r}."
        )
    return int(found)


def memory_bytes(memory_limit: int | None) -> int:
    """Bytes a call may take: the limit itself, or by default a share of what is free where it computes."""
    return int(FREE_SHARE * free_bytes()) if memory_limit is None else memory_limit


def free_bytes() -> int:
    """Free memory of the device that computes, in bytes; on a CPU that of this process."""
    statistics = jax.devices()[0].memory_stats() or {}
    if statistics.get("bytes_limit"):
        return statistics["bytes_limit"] - statistics["bytes_in_use"]
    return max(0, min(_free_on_host(), default=ASSUMED_BYTES))


def on_accelerator() -> bool:
    """Whether the device that computes is another than the CPU."""
    return jax.devices()[0].platform != "cpu"


def check_memory(needed: int, memory_limit: int | None, what: str, remedy: str, *, settable: bool = True) -> None:
    """Raise ``MemoryError`` unless ``needed`` bytes are within the limit; the message says what needs them.

    ``settable`` is whether the caller takes a `memory_limit`.
    """
    allowed = memory_bytes(memory_limit)
    if needed > allowed:
        limit = f"{FREE_SHARE:.0%} of what is free" if memory_limit is None else "`memory_limit`"
        other = f", or set `memory_limit` to at least {in_words(needed)} if the machine has it" if settable else ""
        raise MemoryError(
            f"Expected {what} to fit into {in_words(allowed)} ({limit}), found that they need {in_words(needed)}. "
            f"{remedy}{other}."
        )


def in_words(n_bytes: int) -> str:
    """Bytes in the largest unit that leaves a number of at least one, rounded up so that it can be given as a limit."""
    unit, size = max(((u, s) for u, s in UNITS.items() if "i" not in u and s <= max(n_bytes, 1000)), key=lambda u: u[1])
    return f"{-(-n_bytes * 100 // size) / 100:g} {unit.upper()}"


def peak_bytes(function: Callable, *arguments: Any) -> int:
    """Bytes that ``function`` holds at once beside its arguments, of which shapes will do; nothing is compiled.

    What its program computes is taken to be held from where it appears to where it is last used. That is an estimate:
    the compiled maps of this package took between 0.3 and 1.2 times as much.
    """
    return _peak(jax.make_jaxpr(function)(*arguments).jaxpr)


def _peak(program: Any) -> int:
    last = {id(variable): i for i, step in enumerate(program.eqns) for variable in step.invars}
    last |= {id(variable): len(program.eqns) for variable in program.outvars}
    held, peak, released = 0, 0, [0] * (len(program.eqns) + 1)
    for i, step in enumerate(program.eqns):
        inner = [p for p in jax.tree.leaves(step.params, is_leaf=lambda p: hasattr(p, "eqns")) if hasattr(p, "eqns")]
        for variable in step.outvars:
            size = math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
            held += size
            released[last.get(id(variable), i)] += size
        peak = max(peak, held + max((_peak(getattr(p, "jaxpr", p)) for p in inner), default=0))
        held -= released[i]
    return peak


def _free_on_host() -> Iterator[int]:
    """Yield what each of the limits of this process leaves."""
    if meminfo := _read("/proc/meminfo"):
        yield int(re.search(r"MemAvailable:\s*(\d+)", meminfo)[1]) * 1024
    elif hasattr(os, "sysconf"):  # macOS tells its size only
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield from _free_in_cgroups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    if held := _read("/proc/self/statm"):
        import resource  # not on Windows, which has no /proc either

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft - int(held.split()[0]) * resource.getpagesize()


def _free_in_cgroups(membership: Path, mount: Path) -> Iterator[int]:
    """Yield what the control groups of this process, of version 1 or 2, and their parents leave."""
    for line in (_read(membership) or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            root, limit, usage, cache = mount, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, cache = mount / "memory", "total_inactive_file"
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        # In a container the path may be that of the host, of which only the root is seen.
        for folder in (group, *group.parents):
            most = (_read(folder / limit) or "max").strip()
            if most != "max":
                # The cache of files counts as used but is given back.
                cached = re.search(rf"^{cache} (\d+)", _read(folder / "memory.stat") or "", re.MULTILINE)
                yield int(most) - int(_read(folder / usage) or 0) + (int(cached[1]) if cached else 0)
            if folder == root:
                break


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None
