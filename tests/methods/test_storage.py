"""Maps on disk: what comes back, and what is refused. The files themselves are tested in `tests/disk`."""

import hashlib
import json
import time
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import optax
import ott.geometry.costs as ott_costs
import pytest
from safetensors.numpy import load, save

import uotcell as uc
from uotcell._disk._directory import _content_hash
from uotcell.methods import ICNN, FlowMatching, MongeGap, TransportMap, _storage
from uotcell.methods._registry import METHODS

TINY = {"n_iters": 2, "batch_size": 16, "progress": False}
CONFIG = "config.json"


@pytest.fixture(scope="module")
def cells():
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 3)) * 5 + 100, rng.normal(size=(50, 3)) + 102


@pytest.fixture(scope="module")
def coupling(cells):
    return uc.ot.solve_unbalanced(*cells, tau=0.95)


@pytest.fixture(scope="module")
def fitted(coupling):
    return uc.train.fit(MongeGap(hidden=(8,), learning_rate=0.1), coupling, **TINY)[0]


@pytest.fixture
def saved(fitted, tmp_path):
    fitted.save(tmp_path / "map")
    return tmp_path / "map"


def edit(directory, *, without="", **changes):
    """Change entries, or drop one, as somebody who knows the hash."""
    config = {**json.loads((directory / CONFIG).read_text()), **changes}
    config.pop(without, None)
    (directory / CONFIG).write_text(json.dumps({**config, "sha256": _content_hash(config)}))


def arrays_of(directory):
    return directory / json.loads((directory / CONFIG).read_text())["arrays"]["file"]


def replace_arrays(directory, **changes):
    """Write other arrays, with a checksum that fits; None drops one."""
    path = arrays_of(directory)
    arrays = {**load(path.read_bytes()), **changes}
    data = save({name: array for name, array in arrays.items() if array is not None})
    path.write_bytes(data)
    edit(directory, arrays={"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def test_a_map_comes_back_with_its_settings_and_its_bits(fitted, cells, tmp_path):
    fitted.save(tmp_path / "deep" / "down" / "map")
    loaded = TransportMap.load(str(tmp_path / "deep" / "down" / "map"))
    assert loaded.method == fitted.method
    assert loaded.rescaling is None
    for name in ("shift", "target_shift"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name))
        assert getattr(loaded, name).dtype == np.float64
    assert (loaded.scale, loaded.target_scale) == (fitted.scale, fitted.target_scale)
    np.testing.assert_array_equal(loaded.push(cells[0]), fitted.push(cells[0]))
    names = [path.name for path in (tmp_path / "deep" / "down").rglob("*")]
    assert sorted(names) == sorted([arrays_of(tmp_path / "deep" / "down" / "map").name, CONFIG, "map"])


def test_the_settings_are_readable(saved):
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    assert config["format"] == "uotcell.TransportMap"
    assert config["schema"] == 2
    assert config["method"]["name"] == "monge_gap"
    assert config["method"]["settings"]["hidden"] == [8]
    assert config["versions"]["uotcell"] == version("uotcell")


def test_tuples_come_back_as_tuples(coupling, tmp_path):
    method = FlowMatching(hidden=(8, 4), n_steps=3, noise=0.1, noise_schedule="bridge")
    uc.train.fit(method, coupling, **TINY)[0].save(tmp_path / "map")
    loaded = TransportMap.load(tmp_path / "map").method
    assert loaded == method
    assert hash(loaded) == hash(method)


def test_rescaling_networks_are_saved_replaced_and_dropped(fitted, coupling, cells, tmp_path):
    networks = uc.train.fit_rescaling(coupling, n_iters=2, hidden=(8, 4))
    fitted.with_rescaling(networks).save(tmp_path / "map")
    loaded = TransportMap.load(tmp_path / "map")
    assert loaded.rescaling.hidden == (8, 4)
    np.testing.assert_array_equal(loaded.rescaling.source_rescaling(cells[0]), networks.source_rescaling(cells[0]))
    np.testing.assert_array_equal(loaded.rescaling.target_rescaling(cells[1]), networks.target_rescaling(cells[1]))
    fitted.save(tmp_path / "map")
    assert TransportMap.load(tmp_path / "map").rescaling is None


def test_another_model_is_not_replaced_or_taken_for_a_map(saved, fitted):
    edit(saved, format="uotcell.TemporalProblem")
    with pytest.raises(ValueError, match=r"saved TransportMap, found .*map' with uotcell\.TemporalProblem"):
        fitted.save(saved)
    with pytest.raises(ValueError, match=r"hold a uotcell\.TransportMap, found a uotcell\.TemporalProblem"):
        TransportMap.load(saved)


def test_an_unknown_method_is_refused(saved):
    edit(saved, method={"name": "psychic", "settings": {}, "not_saved": {}})
    with pytest.raises(ValueError, match=r"one of the methods \['flow_matching', .*found 'psychic'\. If it is"):
        TransportMap.load(saved)


@pytest.mark.parametrize("key", ["method", "same_space", "rescaling_hidden"])
def test_a_config_without_an_entry_is_refused(saved, key):
    edit(saved, without=key)
    with pytest.raises(ValueError, match=f"'{key}'"):
        TransportMap.load(saved)


@pytest.mark.parametrize(
    "settings",
    [
        {"hidden": [10**9]}, {"hidden": [10**9, 10**9]}, {"hidden": [10**30]}, {"hidden": [8] * 100_000},
        {"hidden": [8.5]}, {"hidden": ["8"]}, {"hidden": [[8]]}, {"hidden": 8}, {"hidden": {}}, {"hidden": [True]},
        {"activation": ["gelu"]}, {"learning_rate": "fast"}, {"cost": 7},
    ],
    ids=lambda settings: str(settings)[:40],
)  # fmt: skip
def test_settings_that_are_none_are_refused_before_they_take_memory(saved, settings):
    method = json.loads((saved / CONFIG).read_text())["method"]
    edit(saved, method={**method, "settings": {**method["settings"], **settings}})
    start = time.monotonic()
    with pytest.raises(ValueError, match="Expected"):
        TransportMap.load(saved)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("hidden", [[10**9], [8] * 100_000, "many", [None]], ids=lambda hidden: str(hidden)[:20])
def test_rescaling_networks_that_are_none_are_refused(saved, hidden):
    replace_arrays(saved, **{
        f"rescaling/{side}/{name}": np.zeros(3) if name == "shift" else np.ones(())
        for side in ("source", "target") for name in ("shift", "scale", "unit")
    })  # fmt: skip
    edit(saved, rescaling_hidden=hidden)
    with pytest.raises(ValueError, match="Expected"):
        TransportMap.load(saved)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("shift", None), ("shift", np.zeros(3, np.float32)), ("shift", np.zeros((3, 1))), ("shift", np.full(3, np.nan)),
        ("scale", np.ones(1)), ("target_shift", np.zeros(4)), ("shift", np.zeros(0)),
    ],
    ids=str,
)  # fmt: skip
def test_shifts_and_scales_that_are_none_are_refused(saved, name, array):
    replace_arrays(saved, **{name: array})
    with pytest.raises(ValueError, match="Expected"):
        TransportMap.load(saved)


def test_arrays_that_do_not_fit_the_method_are_refused(saved):
    name = next(key for key in load(arrays_of(saved).read_bytes()) if "layers" in key and "kernel" in key)
    replace_arrays(saved, **{name: np.zeros((3, 9), np.float32)})
    with pytest.raises(ValueError, match=r"of shape \(3, 8\) and float32 for this method, found shape \(3, 9\)"):
        TransportMap.load(saved)
    replace_arrays(saved, **{name: np.zeros((3, 8))})
    with pytest.raises(ValueError, match=r"\(3, 8\) and float32 for this method, found shape \(3, 8\) and float64"):
        TransportMap.load(saved)
    replace_arrays(saved, **{name: None})
    with pytest.raises(ValueError, match=r"of shape \(3, 8\) and float32 for this method, found nothing"):
        TransportMap.load(saved)


def test_settings_the_method_does_not_know_are_refused(saved):
    method = json.loads((saved / CONFIG).read_text())["method"]
    edit(saved, method={**method, "settings": {**method["settings"], "n_heads": 4}})
    with pytest.raises((TypeError, ValueError), match="n_heads"):
        TransportMap.load(saved)


def test_what_only_serves_training_is_left_out_and_named(coupling, cells, tmp_path):
    method = MongeGap(
        hidden=(8,), cost=ott_costs.PNormP(1.5), gap_weight=lambda progress: progress, optimizer=optax.sgd(0.1)
    )
    fitted, _ = uc.train.fit(method, coupling, **TINY)
    fitted.save(tmp_path / "map")
    left_out = json.loads((tmp_path / "map" / CONFIG).read_text())["method"]["not_saved"]
    assert set(left_out) == {"cost", "gap_weight", "optimizer"}
    assert left_out["cost"] == "PNormP"
    loaded = TransportMap.load(tmp_path / "map")
    assert loaded.method == MongeGap(hidden=(8,))
    np.testing.assert_array_equal(loaded.push(cells[0]), fitted.push(cells[0]))


@pytest.fixture
def known_methods(monkeypatch):
    monkeypatch.setattr("uotcell.methods._registry.METHODS", known := dict(METHODS))
    monkeypatch.setattr(_storage, "METHODS", known)


def test_a_method_of_ones_own_is_loaded_once_it_is_registered(coupling, cells, tmp_path, known_methods):
    @dataclass(frozen=True, kw_only=True)
    class Mine(ICNN):
        name = "mine"

    fitted, _ = uc.train.fit(Mine(hidden=(8,), n_inner=1), coupling, **TINY)
    fitted.save(tmp_path / "map")
    with pytest.raises(ValueError, match=r"found 'mine'\. If it is your own"):
        TransportMap.load(tmp_path / "map")
    uc.methods.register(Mine)
    np.testing.assert_array_equal(TransportMap.load(tmp_path / "map").push(cells[0]), fitted.push(cells[0]))


def test_a_setting_that_the_map_needs_and_no_file_can_hold_is_refused(coupling, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Twisted(ICNN):
        name = "twisted"
        twist: object = None

    fitted, _ = uc.train.fit(Twisted(hidden=(8,), n_inner=1, twist=np.sin), coupling, **TINY)
    with pytest.raises(ValueError, match=r"to save it, found twist=.*`training_only`"):
        fitted.save(tmp_path / "map")
    assert not (tmp_path / "map").exists()
