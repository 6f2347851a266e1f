"""Maps on disk: what comes back, what is refused, and that nothing half-written ever stands there."""

import hashlib
import json
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import optax
import ott.geometry.costs as ott_costs
import pytest
from safetensors.numpy import load, save

import uotcell as uc
from uotcell.methods import ICNN, FlowMatching, MongeGap, TransportMap, _storage
from uotcell.methods._registry import METHODS

TINY = {"n_iters": 2, "batch_size": 16, "progress": False}
CONFIG, ARRAYS = "config.json", "arrays.safetensors"


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


def edit(directory, **changes):
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps({**config, **changes}))


def replace_arrays(directory, **changes):
    """Write other arrays, with a checksum that fits; None drops one."""
    arrays = {**load((directory / ARRAYS).read_bytes()), **changes}
    data = save({name: array for name, array in arrays.items() if array is not None})
    (directory / ARRAYS).write_bytes(data)
    edit(directory, sha256=hashlib.sha256(data).hexdigest())


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
    assert sorted(path.name for path in (tmp_path / "deep" / "down").rglob("*")) == sorted([ARRAYS, CONFIG, "map"])


def test_the_settings_are_readable(saved):
    config = json.loads((saved / CONFIG).read_text(encoding="utf-8"))
    assert config["format"] == "uotcell.TransportMap"
    assert config["schema"] == 1
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


def test_a_failed_save_leaves_the_old_map_and_nothing_else(saved, coupling, fitted, cells, monkeypatch):
    other, _ = uc.train.fit(replace(fitted.method, learning_rate=0.2), coupling, **TINY)

    def full(*args, **kwargs):
        raise OSError("disk full")

    # The arrays are written first: the settings find the disk full.
    monkeypatch.setattr(_storage.Path, "write_text", full)
    with pytest.raises(OSError, match="disk full"):
        other.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["map"]
    np.testing.assert_array_equal(TransportMap.load(saved).push(cells[0]), fitted.push(cells[0]))
    monkeypatch.undo()
    other.save(saved)
    np.testing.assert_array_equal(TransportMap.load(saved).push(cells[0]), other.push(cells[0]))
    assert [path.name for path in saved.parent.iterdir()] == ["map"]


def test_a_failed_exchange_puts_the_old_map_back(saved, fitted, cells, monkeypatch):
    rename = _storage.Path.rename

    def fails_on_the_new_one(self, target):
        if self.name == "new":
            raise OSError("device busy")
        return rename(self, target)

    monkeypatch.setattr(_storage.Path, "rename", fails_on_the_new_one)
    with pytest.raises(OSError, match="device busy"):
        fitted.save(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["map"]
    np.testing.assert_array_equal(TransportMap.load(saved).push(cells[0]), fitted.push(cells[0]))


def test_an_empty_directory_is_used_and_one_of_other_files_is_not_touched(fitted, tmp_path):
    (tmp_path / "empty").mkdir()
    fitted.save(tmp_path / "empty")
    TransportMap.load(tmp_path / "empty")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"new, empty or a saved map, found .*thesis' with files"):
        fitted.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    "files",
    [{CONFIG: '{"name": "my-app"}', "index.js": "code"}, {CONFIG: "[]"}, {CONFIG: "not json", ARRAYS: ""}],
    ids=["another project", "another config", "not json"],
)
def test_a_foreign_config_does_not_make_a_directory_ours(fitted, tmp_path, files):
    (tmp_path / "app").mkdir()
    for name, text in files.items():
        (tmp_path / "app" / name).write_text(text)
    with pytest.raises(ValueError, match="new, empty or a saved map"):
        fitted.save(tmp_path / "app")
    assert {path.name: path.read_text() for path in (tmp_path / "app").iterdir()} == files


def test_files_beside_a_saved_map_are_not_deleted(saved, fitted):
    (saved / "notes.txt").write_text("fitted on Tuesday")
    with pytest.raises(ValueError, match="new, empty or a saved map"):
        fitted.save(saved)
    assert (saved / "notes.txt").read_text() == "fitted on Tuesday"
    TransportMap.load(saved)


def test_a_file_in_the_way_is_not_replaced(fitted, tmp_path):
    (tmp_path / "map").write_text("a file")
    with pytest.raises(ValueError, match="new, empty or a saved map"):
        fitted.save(tmp_path / "map")
    assert (tmp_path / "map").read_text() == "a file"


@pytest.mark.parametrize("damage", ["truncated", "edited", "empty"])
def test_damaged_arrays_are_refused(saved, damage):
    data = (saved / ARRAYS).read_bytes()
    edited = data[:-1] + bytes([data[-1] ^ 1])
    (saved / ARRAYS).write_bytes({"truncated": data[:-8], "edited": edited, "empty": b""}[damage])
    with pytest.raises(ValueError, match="it is damaged"):
        TransportMap.load(saved)


@pytest.mark.parametrize("text", ["", "{", '{"format": ', b"\xff\xfe\x00".decode("latin-1")])
def test_a_damaged_config_is_refused(saved, text):
    (saved / CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"config\.json to be JSON, found a file that is damaged"):
        TransportMap.load(saved)


@pytest.mark.parametrize("name", [CONFIG, ARRAYS])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"found no .*{name}"):
        TransportMap.load(saved)
    with pytest.raises(FileNotFoundError, match="found no"):
        TransportMap.load(saved / "nowhere")


def test_another_format_schema_or_method_is_refused(saved):
    edit(saved, format="somebody.else")
    with pytest.raises(ValueError, match=r"describe a uotcell\.TransportMap, found something else"):
        TransportMap.load(saved)
    edit(saved, format="uotcell.TransportMap", schema=2, versions={"uotcell": "9.1"})
    with pytest.raises(ValueError, match=r"schema 1, found 2, written by uotcell 9\.1"):
        TransportMap.load(saved)
    edit(saved, schema=1, method={"name": "psychic", "settings": {}, "not_saved": {}})
    with pytest.raises(ValueError, match=r"one of the methods \['flow_matching', .*found 'psychic'\. If it is"):
        TransportMap.load(saved)


@pytest.mark.parametrize("key", ["schema", "sha256", "method", "same_space", "rescaling_hidden"])
def test_a_config_without_an_entry_is_refused(saved, key):
    config = json.loads((saved / CONFIG).read_text())
    del config[key]
    (saved / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"'{key}'"):
        TransportMap.load(saved)


def test_arrays_that_do_not_fit_the_method_are_refused(saved):
    name = next(key for key in load((saved / ARRAYS).read_bytes()) if "layers" in key and "kernel" in key)
    replace_arrays(saved, **{name: np.zeros((3, 9), np.float32)})
    with pytest.raises(ValueError, match=r"of shape \(3, 8\) for this method, found shape \(3, 9\)"):
        TransportMap.load(saved)
    replace_arrays(saved, **{name: None})
    with pytest.raises(ValueError, match=r"of shape \(3, 8\) for this method, found nothing"):
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
