"""Limits of memory: how they are given, what is free, and that they change blocks but no result."""

import resource
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import uotcell as uc
from uotcell import _memory
from uotcell._memory import check_memory, free_bytes, in_words, memory_bytes, parse_memory, peak_bytes
from uotcell.methods import PairSummary
from uotcell.ot import _coupling, _solve
from uotcell.ot._coupling import TILE_ENTRIES, default_tile
from uotcell.ot._geometry import DENSE_BYTES, TILE_BYTES, PointGeometry


@pytest.mark.parametrize(
    ("limit", "n_bytes"),
    [
        (None, None), (1_000, 1_000), (2.5e9, 2_500_000_000), (np.int64(7), 7), ("6GB", 6 * 10**9), ("3kB", 3_000),
        (" 1.5 gib ", 3 * 2**29), ("512MiB", 2**29), ("2TB", 2 * 10**12),
    ],
)  # fmt: skip
def test_limits_are_bytes_or_words(limit, n_bytes):
    assert parse_memory(limit) == n_bytes


@pytest.mark.parametrize("limit", [0, -1, True, float("nan"), float("inf"), "6", "GB", "six GB", "6 bits", "-1GB", [1]])
def test_bad_limits(limit):
    with pytest.raises(ValueError, match=r"`memory_limit` to be a positive number of bytes, .* found"):
        parse_memory(limit)


@pytest.mark.parametrize("n_bytes", [1, 999, 1_000, 51_200, 123_456_789, 6 * 10**9, 3 * 10**13 + 1])
def test_what_a_message_asks_for_is_enough(n_bytes):
    assert n_bytes <= parse_memory(in_words(n_bytes)) <= 1.01 * n_bytes + 10


def test_too_much_is_refused_in_words():
    check_memory(1_000, 1_000, "numbers", "Take fewer")
    with pytest.raises(MemoryError) as error:
        check_memory(21_600_000_000, 10**9, "the path lengths", "Take fewer cells")
    assert str(error.value) == (
        "Expected the path lengths to fit into 1 GB (`memory_limit`), found that they need 21.6 GB. Take fewer cells, "
        "or set `memory_limit` to at least 21.6 GB if the machine has it."
    )
    with pytest.raises(MemoryError, match=r"into .* \(75% of what is free\), .* Take fewer\.$"):
        check_memory(10**18, None, "numbers", "Take fewer", settable=False)


def test_free_on_an_accelerator(monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 80_000, "bytes_in_use": 20_000}

    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert free_bytes() == 60_000
    assert memory_bytes(None) == 45_000


def test_free_on_a_cpu_is_the_least_of_all_limits(monkeypatch):
    monkeypatch.setattr(_memory, "_free_on_host", lambda: iter([300, 100, 200]))
    assert free_bytes() == 100
    monkeypatch.setattr(_memory, "_free_on_host", lambda: iter([]))
    assert free_bytes() == _memory.ASSUMED_BYTES
    monkeypatch.setattr(_memory, "_free_on_host", lambda: iter([-5]))
    assert memory_bytes(None) == 0


def test_address_space_counts(monkeypatch):
    without = free_bytes()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (held + 2**30, -1) if kind == resource.RLIMIT_AS else None)
    assert 0 < free_bytes() <= min(without + 2**30, 2**30 + 2**26)


@pytest.mark.parametrize("version", [1, 2])
def test_control_groups(version, tmp_path):
    membership, mount = tmp_path / "cgroup", tmp_path / "mount"
    if version == 1:
        membership.write_text("4:memory:/jobs/one\n3:cpuset:/\n0::/\n")
        top, names, cache = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "total_inactive_file"
    else:
        membership.write_text("0::/jobs/one\n")
        top, names, cache = mount, ("memory.max", "memory.current"), "inactive_file"
    (top / "jobs" / "one").mkdir(parents=True)
    for folder, limit, usage, cached in ((top / "jobs", "900", "500", 100), (top / "jobs" / "one", "1000", "300", 0)):
        for name, value in zip(names, (limit, usage), strict=True):
            (folder / name).write_text(f"{value}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{cache} {cached}\n")
    assert sorted(_memory._free_in_cgroups(membership, mount)) == [500, 700]
    (top / "jobs" / names[0]).write_text("max\n")
    assert list(_memory._free_in_cgroups(membership, mount)) == [700]


@pytest.mark.parametrize("n_columns", [1, 1_000, 50_000, 3 * TILE_ENTRIES])
def test_tiles_are_the_fastest_ones_or_powers_of_two_that_fit(n_columns):
    fastest = default_tile(n_columns, 10**12)
    assert fastest == max(1, TILE_ENTRIES // n_columns)
    for limit in np.geomspace(TILE_BYTES * n_columns, 10**9, 20):
        tile = default_tile(n_columns, int(limit) + 1)
        assert tile == fastest or (tile & (tile - 1) == 0 and tile * TILE_BYTES * n_columns <= limit + 1)
    with pytest.raises(MemoryError, match=rf"costs of a cell to {n_columns:,} others"):
        default_tile(n_columns, TILE_BYTES * n_columns - 1)
    assert default_tile(10, 3_000 * TILE_BYTES, n_rows=1_000) == 2


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 5)), rng.normal(size=(250, 5)) + 0.5


@pytest.fixture(scope="module")
def solved(cells):
    return uc.ot.solve_unbalanced(*cells, tau=0.95, epsilon=0.05, threshold=1e-5)


def test_a_solve_takes_tiles_where_the_cost_does_not_fit(cells, solved, monkeypatch):
    tiles = []
    original = _solve.annealed_sinkhorn
    monkeypatch.setattr(_solve, "annealed_sinkhorn", lambda g, **kwargs: tiles.append(g.tile) or original(g, **kwargs))
    whole = DENSE_BYTES * 300 * 250
    for limit in (whole, whole // 20):
        limited = uc.ot.solve_unbalanced(*cells, tau=0.95, epsilon=0.05, threshold=1e-5, memory_limit=limit)
        assert limited.memory_limit == limit
        np.testing.assert_allclose(limited.source_weights, solved.source_weights, rtol=1e-4)
    assert tiles == [None, 8]


def test_a_limit_changes_no_draw(solved):
    limited = replace(solved, memory_limit=100_000)
    assert default_tile(250, 100_000) == 16
    np.testing.assert_array_equal(limited.sample_pairs(0, 48), solved.sample_pairs(0, 48))
    rows, columns = np.arange(0, 300, 10), np.arange(250)
    pools = [coupling.sample_partners(0, rows, columns, 8) for coupling in (limited, solved)]
    np.testing.assert_array_equal(*pools)
    with pytest.raises(MemoryError, match=r"pools of 128 partners of 256 cells .* a method that needs no pairs"):
        limited.sample_partners(0, np.arange(250), columns, 128)


def test_cells_are_mapped_as_many_at_a_time_as_fit(cells, monkeypatch):
    method = uc.methods.MongeGap(hidden=(8,))
    params = method.init(jax.random.key(0), 5, PairSummary.standard(5, 5)).params
    frame = {"shift": np.zeros(5), "scale": 1.0, "target_shift": np.zeros(5), "target_scale": 1.0}
    fitted = uc.methods.TransportMap(method=method, params=params, **frame)
    sizes = []
    original = uc.methods.MongeGap.push
    monkeypatch.setattr(uc.methods.MongeGap, "push", lambda self, p, x: sizes.append(len(x)) or original(self, p, x))
    whole = fitted.push(cells[0])
    assert sizes == [512]
    limited = replace(fitted, memory_limit=10_000).push(cells[0])
    assert 1 < sizes[-1] < 128
    np.testing.assert_allclose(limited, whole, atol=1e-5)
    replace(fitted, memory_limit=1).push(cells[0], batch_size=300)  # a size that is given rules
    assert sizes[-1] == 300
    with pytest.raises(MemoryError, match=r"images of a single cell to fit into 0.01 KB .* Use a smaller network"):
        replace(fitted, memory_limit=10).push(cells[0])


def test_estimate_of_a_program():
    x = jax.ShapeDtypeStruct((1_000, 100), jnp.float32)
    assert peak_bytes(lambda x: (x + 1).sum(), x) == 400_000 + 4
    # Both are needed until the last step; inside a loop, what the loop hands on and what a step makes.
    assert peak_bytes(lambda x: jnp.sin(x) @ jnp.cos(x).T, x) == 2 * 400_000 + 4_000_000
    loop = partial(jax.lax.fori_loop, 0, 3, lambda i, x: x * 2.0)
    assert 2 * 400_000 <= peak_bytes(loop, x) < 2 * 400_000 + 100


def test_metrics_refuse_what_does_not_fit(monkeypatch):
    x = np.random.default_rng(0).normal(size=(60, 3))
    expected = uc.metrics.mmd(x + 1, x, widths=[1.0]), uc.metrics.energy_distance(x + 1, x)
    monkeypatch.setattr(_memory, "free_bytes", lambda: 20_000)
    for measure in (uc.metrics.mmd, partial(uc.metrics.sinkhorn_divergence, epsilon=1.0), uc.metrics.monge_gap):
        with pytest.raises(MemoryError, match=r"to fit into 15 KB \(75% of what is free\).* Take a random part"):
            measure(x + 1, x)
    with pytest.raises(MemoryError, match="between 60 points a side"):
        uc.metrics.wasserstein(x + 1, x)
    # These go through the pairs in blocks.
    monkeypatch.setattr("uotcell.metrics._kernel._BLOCK_ENTRIES", 500)
    np.testing.assert_allclose([uc.metrics.mmd(x + 1, x, widths=[1.0]), uc.metrics.energy_distance(x + 1, x)], expected)


def test_default_tiles_do_not_change_with_free_memory(monkeypatch):
    """Bit-equal results from run to run: ample memory is ample, however much there is."""
    for free in (10**9, 10**11):
        monkeypatch.setattr(_memory, "free_bytes", lambda free=free: free)
        assert default_tile(4_000, None) == _coupling.TILE_ENTRIES // 4_000


def test_an_accelerator_keeps_what_fits_and_takes_larger_tiles(monkeypatch):
    held = []
    monkeypatch.setattr(_solve, "DENSE_ENTRIES", 10)
    monkeypatch.setattr(
        _solve, "PointGeometry", lambda *args, tile: held.append(tile) or PointGeometry(*args, tile=tile)
    )
    x = np.random.default_rng(0).normal(size=(60, 2))
    for fits in (True, False):
        for module in (_solve, _coupling):
            monkeypatch.setattr(module, "on_accelerator", lambda fits=fits: fits)
        uc.ot.solve_unbalanced(x, x + 1, tau=0.95)
    assert held == [None, _coupling.TILE_ENTRIES // 60]
    monkeypatch.setattr(_coupling, "on_accelerator", lambda: True)
    assert default_tile(4_000, 10**12) == _coupling.ACCELERATOR_TILE_ENTRIES // 4_000
