import numpy as np
import pandas as pd
import pytest

from uotcell.problems._times import parse_times, time_codes


def column(values, **kwargs):
    return pd.Series(values, name="day", **kwargs)


def categories(values, order, *, ordered=True):
    return column(pd.Categorical(values, categories=order, ordered=ordered))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(column([3, 1, 1, 2]), {1: 1.0, 2: 2.0, 3: 3.0}, id="integers"),
        pytest.param(column([10.5, 10.0, 10.5]), {10.0: 10.0, 10.5: 10.5}, id="floats"),
        pytest.param(column([-1.0, 0.0, 2.0]), {-1.0: -1.0, 0.0: 0.0, 2.0: 2.0}, id="negative numbers"),
        pytest.param(column([2, 1], dtype="Int64"), {1: 1.0, 2: 2.0}, id="nullable integers"),
        pytest.param(column(["E14.5", "E8", "E9.25"]), {"E8": 8.0, "E9.25": 9.25, "E14.5": 14.5}, id="prefix"),
        pytest.param(column(["48h", "6h", "120h"]), {"6h": 6.0, "48h": 48.0, "120h": 120.0}, id="suffix"),
        pytest.param(
            column(pd.to_datetime(["2020-03-01 12:00", "2020-02-28 00:00"])),
            {pd.Timestamp("2020-02-28"): 0.0, pd.Timestamp("2020-03-01 12:00"): 2.5},
            id="dates, over a leap day",
        ),
        pytest.param(
            column(pd.to_timedelta(["36h", "-1D"])),
            {pd.Timedelta("-1D"): -1.0, pd.Timedelta("36h"): 1.5},
            id="durations",
        ),
        pytest.param(
            categories(pd.to_timedelta(["2D", "1D"]), pd.to_timedelta(["2D", "1D"])),
            {pd.Timedelta("2D"): 0.0, pd.Timedelta("1D"): 1.0},
            id="ordered durations, order against the time",
        ),
        pytest.param(column(["10", "9"]), {"9": 9.0, "10": 10.0}, id="numeric strings"),
        pytest.param(column(["48h", "6h"], dtype="string"), {"6h": 6.0, "48h": 48.0}, id="string dtype"),
        pytest.param(column(["D2", "D-2", "D0"]), {"D-2": -2.0, "D0": 0.0, "D2": 2.0}, id="before and after"),
        pytest.param(categories(["10", "2"], ["2", "10"]), {"2": 2.0, "10": 10.0}, id="ordered numeric strings"),
        pytest.param(categories([4, 2, 6], [2, 4, 6]), {2: 2.0, 4: 4.0, 6: 6.0}, id="ordered numbers"),
        pytest.param(
            categories(["adult", "embryo"], ["embryo", "pup", "adult"]),
            {"embryo": 0.0, "adult": 1.0},
            id="ordered without numbers, one unused",
        ),
        pytest.param(categories(["2", "10"], ["10", "2"]), {"10": 0.0, "2": 1.0}, id="order against the numbers"),
        pytest.param(categories(["24h", "2d"], ["24h", "2d"]), {"24h": 0.0, "2d": 1.0}, id="ordered, mixed units"),
        pytest.param(categories(["1.0", "1"], ["1", "1.0"]), {"1": 0.0, "1.0": 1.0}, id="ordered, one number twice"),
        pytest.param(
            categories(["day-10", "day-11"], ["day-10", "day-11"]), {"day-10": 0.0, "day-11": 1.0}, id="ordered, hyphen"
        ),
        pytest.param(
            categories(["10", "2"], ["10", "2"], ordered=False), {"2": 2.0, "10": 10.0}, id="unordered numeric"
        ),
        pytest.param(
            categories(["d4", "d2"], ["d2", "d3", "late", "d4"], ordered=False),
            {"d2": 2.0, "d4": 4.0},
            id="unordered, unused categories",
        ),
    ],
)
def test_labels_in_order_of_time(values, expected):
    times = parse_times(values)
    assert times == expected
    assert list(times) == list(expected)
    assert all(type(number) is float for number in times.values())


@pytest.mark.parametrize("dtype", ["Int64", "float32", "category", "datetime64[ns]", "timedelta64[ns]", "string"])
def test_every_cell_has_the_place_of_its_time(dtype):
    values = column([3, 1, 2, 1]).astype("str" if dtype == "string" else "int64").astype(dtype)
    times = parse_times(values)
    assert time_codes(values, times).tolist() == [2, 0, 1, 0]


def test_labels_are_python_values():
    assert [type(label) for label in parse_times(column([1, 2]))] == [int, int]
    assert [type(label) for label in parse_times(column([1.0, 2.0], dtype="float32"))] == [float, float]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(column(["24h", "2d"]), id="mixed units"),
        pytest.param(column(["P0", "E18.5"]), id="mixed stages"),
        pytest.param(column(["1", "1.0"]), id="one number twice"),
        pytest.param(column(["rep1_d2", "rep1_d3"]), id="two numbers in a label"),
        pytest.param(column(["early", "late"]), id="no numbers"),
        pytest.param(categories(["early", "late"], ["early", "late"], ordered=False), id="unordered categories"),
        pytest.param(column([True, False]), id="booleans"),
        pytest.param(column([1, "2"]), id="numbers and strings"),
        pytest.param(column([0.0, np.inf]), id="infinite"),
        # As minus signs, which they would be next to "day0", these would turn time around.
        pytest.param(column(["day-10", "day-11"]), id="hyphen or minus"),
    ],
)
def test_what_is_no_time_is_refused(values):
    with pytest.raises(ValueError, match=r"adata\.obs\['day'\].*'E14\.5', found .*pd\.Categorical.*ordered=True"):
        parse_times(values)


@pytest.mark.parametrize(
    "values",
    [
        column([1.0, np.nan]),
        column([1, None], dtype="Int64"),
        column(["d1", None]),
        categories(["d1", None], ["d1", "d2"]),
        column(pd.to_datetime(["2020-01-01", None])),
    ],
    ids=["float", "nullable", "string", "ordered", "date"],
)
def test_missing_times_are_refused(values):
    with pytest.raises(ValueError, match=r"every cell to have a time, found 1 missing .*'day'.*Subset"):
        parse_times(values)
