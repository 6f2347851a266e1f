"""The directory of a model: crashes at any moment leave the old or the new one, and damage of any kind is found."""

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import uotcell
from uotcell._disk import _directory as disk
from uotcell._disk import read_format, read_model, write_model

FORMAT, OTHER = "uotcell.Toy", "uotcell.Another"
CONFIG = "config.json"


def write(directory, k, *, size=50, format=FORMAT):
    """Write a model of which every part says its number."""
    arrays = {"a": np.full(size, k, np.float32), "b/c": np.full((2, 3), k), "d": np.float64(k)}
    write_model(directory, format, {"versions": {"uotcell": "0.1"}, "number": k, "settings": {"x": [1.5, "é"]}}, arrays)


def number(directory, format=FORMAT):
    """Read a model back: its number, if all parts agree."""
    config, arrays = read_model(directory, format)
    numbers = {config["number"], *(value for array in arrays.values() for value in np.unique(array).tolist())}
    assert len(numbers) == 1
    assert config["settings"] == {"x": [1.5, "é"]}
    return numbers.pop()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def arrays_file(directory):
    return directory / json.loads((directory / CONFIG).read_text())["arrays"]["file"]


def forge(directory, *, data=None, **changes):
    """Change entries, and the arrays, as somebody who knows the hashes."""
    config = {**json.loads((directory / CONFIG).read_text()), **changes}
    if data is not None:
        digest = hashlib.sha256(data).hexdigest()
        config["arrays"] = {"file": f"arrays-{digest[:16]}.safetensors", "bytes": len(data), "sha256": digest}
        (directory / config["arrays"]["file"]).write_bytes(data)
    (directory / CONFIG).write_text(json.dumps({**config, "sha256": disk._content_hash(config)}))


@pytest.fixture
def saved(tmp_path):
    write(tmp_path / "model", 1)
    return tmp_path / "model"


def test_what_is_written_is_read(tmp_path):
    arrays = {"a": np.arange(6, dtype=np.int16).reshape(2, 3).T, "empty": np.zeros((0, 4)), "flag": np.array([True])}
    write_model(tmp_path / "deep" / "model", FORMAT, {"text": "ε", "none": None, "number": 0.1}, arrays)
    config, found = read_model(str(tmp_path / "deep" / "model"), FORMAT)
    assert (config["text"], config["none"], config["number"], config["schema"]) == ("ε", None, 0.1, 2)
    assert read_format(tmp_path / "deep" / "model") == FORMAT
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_save_replaces_the_model_and_leaves_two_files(saved):
    for k in (2, 2, 3):
        write(saved, k)
        assert number(saved) == k
        assert names(saved) == sorted([CONFIG, arrays_file(saved).name])


@pytest.mark.parametrize("name", ["arrays-0123456789abcdef.safetensors", ".uotcell-0123456789abcdef.tmp"])
def test_what_a_killed_first_save_left_does_not_block_the_next(tmp_path, name):
    (tmp_path / name).write_bytes(b"half")
    write(tmp_path, 1)
    assert names(tmp_path) == sorted([CONFIG, arrays_file(tmp_path).name])


def test_other_files_and_models_are_not_replaced(saved):
    with pytest.raises(ValueError, match=r"new, empty or a saved Another, found .*model' with uotcell\.Toy"):
        write(saved, 2, format=OTHER)
    (saved / "notes.txt").write_text("fitted on Tuesday")
    with pytest.raises(ValueError, match=r"saved Toy, found .*model' with other files"):
        write(saved, 2)
    assert number(saved) == 1
    assert (saved / "notes.txt").read_text() == "fitted on Tuesday"


class SimpleFile:
    """A file with some of its functions replaced."""

    def __init__(self, file, **functions):
        self.file, self.fileno = file, file.fileno
        vars(self).update(functions)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


class Failing:
    """Make the n-th file operation fail; a write fails with half of it done."""

    OPERATIONS = ("replace", "fsync", "open", "close", "unlink", "mkdir", "rmdir", "listdir", "scandir", "stat")

    def __init__(self, monkeypatch, n):
        self.left, self.failed = n, None
        for name in self.OPERATIONS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name), name))
        monkeypatch.setattr(disk, "open", self.open, raising=False)

    def wrapped(self, function, name):
        def call(*args, **kwargs):
            self.count(name)
            return function(*args, **kwargs)

        return call

    def count(self, name):
        self.left -= 1
        if self.left == 0:
            self.failed = name
            raise OSError(errno.ENOSPC, "No space left on device")

    def open(self, *args):
        self.count("open")
        file = open(*args)  # noqa: SIM115
        write = file.write

        def write_by_halves(data):
            write(data[: len(data) // 2])
            self.count("write")
            write(data[len(data) // 2 :])

        return SimpleFile(file, write=write_by_halves, flush=self.wrapped(file.flush, "flush"))


def test_any_operation_that_fails_leaves_the_old_model_whole(saved, monkeypatch):
    failed = []
    for n in range(1, 200):
        with monkeypatch.context() as patch:
            failing = Failing(patch, n)
            try:
                write(saved, 1 + n)
            except OSError:
                succeeded = False
            else:
                succeeded = True
        if failing.failed is None:
            break
        failed.append(failing.failed)
        # What fails without an error was of no account: the new model is there.
        assert number(saved) == (1 + n if succeeded else 1), failing.failed
        write(saved, 1)
        assert names(saved) == sorted([CONFIG, arrays_file(saved).name])
    assert {"open", "write", "flush", "fsync", "replace", "unlink"} <= set(failed)
    assert number(saved) == 1 + n


def test_a_full_disk_is_named_and_nothing_is_left_of_a_first_save(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path / "old", 1)
    monkeypatch.setattr(os, "fsync", full)
    for directory in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(OSError, match=rf"could not be saved in .*{directory.name}': No space.* is whole") as caught:
            write(directory, 2)
        assert caught.value.errno == errno.ENOSPC
    assert number(tmp_path / "old") == 1
    assert names(tmp_path / "old") == sorted([CONFIG, arrays_file(tmp_path / "old").name])
    assert names(tmp_path) == ["old"]


# A package of this name without the imports of ours: the child starts in a fraction of a second.
CHILD = """
import itertools, sys, types
import numpy as np
package = types.ModuleType("uotcell")
package.__path__ = [sys.argv[1]]
sys.modules["uotcell"] = package
from uotcell._disk import write_model
for k in itertools.count(int(sys.argv[3])):
    arrays = {"a": np.full(20_000, k, np.float32), "b/c": np.full((2, 3), k), "d": np.float64(k)}
    write_model(sys.argv[2], "uotcell.Toy", {"number": k, "settings": {"x": [1.5, "é"]}}, arrays)
    print("saved", flush=True)
"""


def test_a_process_killed_at_any_moment_leaves_a_whole_model(saved):
    delays, k = random.Random(0), 1
    path = str(Path(uotcell.__file__).parent)
    for _ in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, str(saved), str(k + 1)], stdout=subprocess.PIPE, text=True
        )
        # One save takes some milliseconds.
        assert child.stdout.readline() == "saved\n"
        time.sleep(delays.uniform(0.0, 0.03))
        child.kill()
        child.wait()
        child.stdout.close()
        found = number(saved)
        assert found > k
        k = int(found)
    write(saved, 1)
    assert names(saved) == sorted([CONFIG, arrays_file(saved).name])


def damaged(data):
    """Truncations and flipped bytes, everywhere in a file."""
    places = random.Random(0)
    for length in {0, 1, 7, 8, 9, len(data) - 1, *places.sample(range(len(data)), 40)}:
        yield data[:length]
    for _ in range(200):
        place = places.randrange(len(data))
        yield data[:place] + bytes([data[place] ^ places.randrange(1, 256)]) + data[place + 1 :]
    yield data + b"\0"
    yield b""


@pytest.mark.parametrize("which", [CONFIG, "arrays"])
def test_truncated_and_flipped_bytes_are_refused(saved, which):
    path = saved / CONFIG if which == CONFIG else arrays_file(saved)
    whole, refused = path.read_bytes(), 0
    for data in damaged(whole):
        path.write_bytes(data)
        try:
            # Another white space between the values of JSON is no damage.
            assert number(saved) == 1
        except (ValueError, FileNotFoundError) as error:
            refused += str(error).startswith("Expected")
        path.write_bytes(whole)
    assert refused > (240 if which == "arrays" else 200)


@pytest.mark.parametrize(
    ("old", "new"), [('"number": 1', '"number": 2'), ("1.5", "1.25"), ('"uotcell": "0.1"', '"uotcell": "0.2"')]
)
def test_an_edited_value_is_refused(saved, old, new):
    text = (saved / CONFIG).read_text()
    assert old in text
    (saved / CONFIG).write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=r"config\.json as it was saved, found another content"):
        read_model(saved, FORMAT)


def test_line_ends_of_another_system_are_no_damage(saved):
    (saved / CONFIG).write_bytes((saved / CONFIG).read_bytes().replace(b"\n", b"\r\n"))
    assert number(saved) == 1


def test_files_of_another_model_are_refused(saved, tmp_path):
    write(tmp_path / "other", 2)
    ours, theirs = arrays_file(saved), arrays_file(tmp_path / "other")
    whole = ours.read_bytes()
    shutil.copy(theirs, ours)
    with pytest.raises(ValueError, match="as it was saved, found another content: it is damaged"):
        read_model(saved, FORMAT)
    ours.write_bytes(whole)
    shutil.copy(tmp_path / "other" / CONFIG, saved / CONFIG)
    with pytest.raises(FileNotFoundError, match=f"found no .*{theirs.name}"):
        read_model(saved, FORMAT)
    with pytest.raises(ValueError, match=r"hold a uotcell\.Another, found a uotcell\.Toy"):
        read_model(tmp_path / "other", OTHER)


@pytest.mark.parametrize(
    "file",
    ["../outside/arrays-0123456789abcdef.safetensors", "/etc/passwd", "config.json", "", 5, None, ["a"]],
    ids=str,
)
def test_no_path_leads_out_of_the_directory(saved, file):
    entry = json.loads((saved / CONFIG).read_text())["arrays"]
    outside = saved.parent / "outside"
    outside.mkdir()
    shutil.copy(arrays_file(saved), outside / "arrays-0123456789abcdef.safetensors")
    forge(saved, arrays={**entry, "file": file})
    with pytest.raises(ValueError, match="to name its arrays, found"):
        read_model(saved, FORMAT)


@pytest.mark.parametrize("arrays", [None, [], "arrays", {}, {"file": "arrays-0123456789abcdef.safetensors"}], ids=str)
def test_a_config_without_its_arrays_is_refused(saved, arrays):
    forge(saved, arrays=arrays)
    with pytest.raises(ValueError, match="to name its arrays, found"):
        read_model(saved, FORMAT)


def bfloat16():
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(4)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80\x04K\x01.", bfloat16(), (2**62).to_bytes(8, "little") + b"{}", save({"a": np.ones(3)})[:-8]],
    ids=["empty", "a pickle", "bfloat16", "a huge header", "too short"],
)
def test_arrays_that_are_no_safetensors_of_numpy_are_refused(saved, data):
    forge(saved, data=data)
    with pytest.raises(ValueError, match="safetensors of numpy arrays, found another file"):
        read_model(saved, FORMAT)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"format": ', "\xff\xfe", "[]", "5", '{"format": NaN}', "[" * 100_000, '{"a":' * 100_000,
        "9" * 10_000, '{"name": "my-app"}', '{"format": 5}', '{"format": "somebody.else"}', '{"format": "uotcell.Toy"}',
        '{"format": "uotcell.Toy", "schema": "2"}', '{"format": "uotcell.Toy", "schema": true}',
        '{"format": "uotcell.Toy", "schema": 0}', '{"format": "uotcell.Toy", "schema": 2}',
        '{"format": "uotcell.Toy", "schema": 1}', '{"format": "uotcell.Toy", "schema": 2, "x": 1e999}',
        '{"format": "uotcell.Toy", "schema": 2, "x": "\\ud800"}',
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_foreign_or_broken_config_is_refused(saved, text):
    (saved / CONFIG).write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="Expected"):
        read_model(saved, FORMAT)


def test_a_config_that_is_too_deep_or_too_large_is_refused(saved, monkeypatch):
    deep = []
    for _ in range(100):
        deep = [deep]
    forge(saved, settings=deep)
    with pytest.raises(ValueError, match="found another content"):
        read_model(saved, FORMAT)
    monkeypatch.setattr(disk, "MAX_CONFIG_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        read_model(saved, FORMAT)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        write(saved.parent / "new", 1)
    assert not (saved.parent / "new").exists()


def test_a_newer_schema_is_refused_with_the_version_that_wrote_it(saved):
    forge(saved, schema=3, versions={"uotcell": "9.1"})
    with pytest.raises(ValueError, match=r"schema 2 or older, found 3, written by uotcell 9\.1\. Load it with"):
        read_model(saved, FORMAT)


def test_a_missing_file_is_named(saved):
    arrays_file(saved).unlink()
    with pytest.raises(FileNotFoundError, match=r"found no .*arrays-"):
        read_model(saved, FORMAT)
    with pytest.raises(FileNotFoundError, match=r"found no .*nowhere.config\.json"):
        read_model(saved / "nowhere", FORMAT)
