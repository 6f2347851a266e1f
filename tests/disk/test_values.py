"""Values as JSON and arrays: types come back, and nothing comes back that is not listed."""

import json
import math

import numpy as np
import pytest

from uotcell._disk import Decoder, Encoder, Kind


class Point:
    def __init__(self, x):
        self.x = x


KINDS = (Kind("point", Point, lambda point: {"x": point.x}, lambda packed: Point(**packed)),)
VALUES = [
    None, True, False, 3, -(10**30), 0.1, math.inf, -math.inf, "ε", "", [], [1, [2.5]], (), (1, ("a", None)), {},
    {"a": {"b": (1,)}}, {1: "a", 1.5: "b", "c": 2, None: 3, ("x", None): 4}, {"$": 1}, np.float32(0.1), np.float64(2.0),
    np.int64(-3), np.uint8(7), np.bool_(True), np.str_("day"), np.datetime64("2024-05-01T12:00", "ns"),
    np.timedelta64(3, "D"),
]  # fmt: skip


def there_and_back(value, kinds=KINDS):
    encoder = Encoder(kinds)
    text = json.dumps(encoder.encode(value, "value"), allow_nan=False)
    return Decoder(encoder.arrays, kinds).decode(json.loads(text))


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_with_their_types(value):
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, np.generic):
        assert found.dtype == value.dtype


def test_nan_comes_back():
    assert math.isnan(there_and_back(math.nan))
    found = there_and_back(np.float32(math.nan))
    assert math.isnan(found)
    assert type(found) is np.float32


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int16).reshape(2, 3).T, np.array([1.5, math.nan], np.float32), np.zeros((0, 3)),
        np.array(2.5), np.array([True]), np.array(["X_pca", "é"]), np.array([["a", "bc"]]), np.array("one"),
    ],
    ids=str,
)  # fmt: skip
def test_arrays_come_back(array):
    found = there_and_back({"a": [array]})["a"][0]
    np.testing.assert_array_equal(found, array)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)


def test_equal_arrays_are_kept_once():
    encoder = Encoder()
    encoder.encode([np.arange(3), np.arange(3), np.arange(3.0), np.arange(3).reshape(3, 1)], "value")
    assert len(encoder.arrays) == 3


def test_listed_types_come_back_and_others_are_refused():
    assert there_and_back([Point(3)])[0].x == 3
    for value in (
        Point(3),
        {"a": {1, 2}},
        [lambda: 0],
        np.array([None]),
        np.array([1j]),
        1j,
        b"a",
        type("Int", (int,), {})(3),
    ):
        with pytest.raises(ValueError, match=r"Expected `problem.*` to be made of numbers, strings and arrays"):
            Encoder().encode({"a": value}, "problem")


@pytest.mark.parametrize(
    "value",
    [
        {"$": "point", "value": 3}, {"$": "os.system", "value": "true"}, {"$": "array", "value": "none"},
        {"$": "tuple"},
        {"$": "number", "value": 3, "dtype": "object"}, {"$": "number", "value": 3, "dtype": "V1000000000"},
        {"$": "date", "value": 3, "dtype": "O"}, {"$": "strings", "value": [5]}, {"$": "float", "value": "1e5"},
        {"$": "strings", "value": ["a" * 100_000] + ["a"] * 1_000}, {"$": ["tuple"], "value": []},
        {"$": "dict", "value": 3},
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_no_encoder_writes_is_refused(value):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Decoder({}, ()).decode(value)
