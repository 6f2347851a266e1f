"""A fit read back from AnnData is the fit: pairs, cells, images, weights, and the coupling solved again."""

import re
from types import SimpleNamespace

import anndata as ad
import jax
import numpy as np
import pandas as pd
import pytest
from ott.geometry.costs import PNormP
from written_by_hand import write_fit

import uotcell as uc
from uotcell.problems import TemporalProblem, _temporal
from uotcell.problems._transitions import read_fit
from uotcell.problems._written import read_pairs, solve_again

N_CELLS, N_DIMS = 24, 3


class Shift:
    """A map that needs no training: couplings and slots are what is read back."""

    method = SimpleNamespace(is_stochastic=False)

    @staticmethod
    def push(x):
        return np.asarray(x, np.float32) + 1


HISTORY = SimpleNamespace(
    iteration=[], valid_divergence=[], best_iteration=0, interrupted=False, device="none", to_dict=dict
)


def make_cells():
    rng = np.random.default_rng(0)
    day = rng.permutation(np.repeat([0.0, 1.0, 3.0], N_CELLS))
    cells = (rng.normal(size=(len(day), N_DIMS)) + np.outer(day, [1.0, 0.0, 0.0])).astype(np.float32)
    obs = pd.DataFrame({"day": day, "growth": rng.uniform(0.5, 2, len(day))}, index=[f"c{i}" for i in range(len(day))])
    return ad.AnnData(cells, obs=obs, obsm={"X_pca": cells})


@pytest.fixture(scope="module")
def fitted():
    """Everything a coupling depends on that is not a default, and two pairs of one source, the farther first."""
    adata = make_cells()
    problem = TemporalProblem(adata)
    problem.prepare("day", policy=[(0.0, 3.0), (0.0, 1.0), (1.0, 3.0)], growth_key="growth")
    settings = {
        "epsilon": 0.05,
        "marginal_penalty": (0.45, np.inf),
        "scale_cost": "median",
        "anchors": 20,
        "rng": jax.random.key(7),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_temporal, "fit_many", lambda *args, **kwargs: [(Shift, HISTORY)])
        problem.solve(**settings).write()
    return adata, problem


def through(kind, adata, path):
    """The same AnnData, as it comes back from a file."""
    if kind == "memory":
        return adata
    getattr(adata, f"write_{kind}")(path / f"cells.{kind}")
    return getattr(ad, f"read_{kind}")(path / f"cells.{kind}")


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr"])
def test_coupling_solved_again_is_that_of_the_fit(fitted, kind, tmp_path):
    adata, problem = fitted
    adata = through(kind, adata, tmp_path)
    pairs = read_pairs(adata, "uot")
    assert [(pair.source, pair.target, pair.index) for pair in pairs] == [("0.0", "1.0", 1), ("1.0", "3.0", 2)]
    for pair in pairs:
        expected, again = problem[float(pair.source), float(pair.target)], solve_again(adata, "uot", pair)
        for name in ("f", "g", "source_weights", "target_weights"):
            np.testing.assert_array_equal(getattr(again, name), getattr(expected.coupling, name))
        np.testing.assert_array_equal(again.push(pair.x), expected.coupling.push(pair.x))
        np.testing.assert_array_equal(pair.source_rows, expected.source_rows)
        np.testing.assert_array_equal(pair.target_rows, expected.target_rows)
        np.testing.assert_array_equal(pair.images, expected.transport_map.push(pair.x))
        assert pair.source_weights.mean() == pytest.approx(expected.coupling.transported_mass, rel=1e-5)


def test_geodesic_cost():
    adata = make_cells()
    day = adata.obs["day"].to_numpy()
    x, y = (adata.obsm["X_pca"][day == time] for time in (0.0, 1.0))
    write_fit(adata, "day", (0.0, 1.0), x)
    expected = uc.ot.solve_unbalanced(x, y, tau=(0.9, 1.0), cost=uc.ot.Geodesic(n_neighbors=10), epsilon=0.05)
    adata.uns["uot"]["params"] |= {
        "cost": {"name": "geodesic", "n_neighbors": 10, "power": 2.0}, "tau": np.array([0.9, 1.0]), "epsilon": 0.05,
    }  # fmt: skip
    recorded = {"cost_scale": expected.scale, "transported_mass": expected.transported_mass}
    adata.uns["uot"]["metrics"]["0.0_1.0"] = recorded
    again = solve_again(adata, "uot", read_pairs(adata, "uot")[0])
    np.testing.assert_array_equal(again.source_weights, expected.source_weights)


@pytest.mark.parametrize("kind", ["string", "category"])
def test_times_in_words(fitted, kind):
    """Labels are recorded as strings, whatever the column holds."""
    adata = fitted[0].copy()
    words = pd.Series([f"E{day}" for day in adata.obs["day"]], index=adata.obs_names)
    adata.obs["day"] = words.astype("category") if kind == "category" else words
    record = adata.uns["uot"]["pairs"]
    for side in ("source", "target"):
        record[side] = np.array([f"E{day}" for day in record[side]])
    pairs = read_pairs(adata, "uot")
    for pair, expected in zip(pairs, read_pairs(fitted[0], "uot"), strict=True):
        np.testing.assert_array_equal(pair.source_rows, expected.source_rows)
        np.testing.assert_array_equal(pair.target_rows, expected.target_rows)


@pytest.mark.parametrize("pair", [(0.0, 1.0), (0, 1), ("0.0", "1.0"), [0.0, np.float32(1)]])
def test_one_pair_by_any_name(fitted, pair):
    assert len(read_pairs(fitted[0], "uot", pair)) == 1


BAD = {
    "no fit": ({"key": "ot"}, KeyError, r"`key_added` of a time course.*found 'ot'.*\['uot'\].*Run `uc\.tl\.fit_traj"),
    "no pair": ({"pair": (1.0, 2.0)}, KeyError, r"one of \[\('0\.0', '3\.0'\), .*found \(1\.0, 2\.0\)"),
    "far pair": ({"pair": (0.0, 3.0)}, KeyError, r"images were written, found \(0\.0, 3\.0\): .* for '1\.0'"),
    "half a pair": ({"pair": "01"}, ValueError, r"\(source, target\), found '01'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD)
def test_what_does_not_exist(fitted, arguments, error, message):
    with pytest.raises(error, match=message):
        read_pairs(fitted[0], **{"key": "uot"} | arguments)


def test_a_screen_is_no_time_course(fitted):
    adata = fitted[0].copy()
    adata.uns["screen"] = {"params": {}, "pairs": {"condition": np.array(["a"])}}
    with pytest.raises(KeyError, match="`key_added` of a time course"):
        read_pairs(adata, "screen")


def test_slots_that_were_lost(fitted):
    for slot, name in (("obsm", "uot_push"), ("obsm", "uot_velocity"), ("obs", "uot_source_weight")):
        adata = fitted[0].copy()
        del getattr(adata, slot)[name]
        with pytest.raises(KeyError, match=rf"`adata\.{slot}` to hold '{name}'.*Put it back"):
            read_pairs(adata, "uot")
    adata = fitted[0].copy()
    del adata.obs["day"]
    with pytest.raises(KeyError, match=r"to hold 'day' of the fit .*Put it back"):
        read_pairs(adata, "uot")


def test_other_cells_than_those_of_the_fit(fitted):
    day = fitted[0].obs["day"]
    with pytest.raises(ValueError, match="found 24 source cells with an image and 0 target cells"):
        read_pairs(fitted[0][day == 0].copy(), "uot")
    wide = fitted[0].copy()
    wide.obsm["X_pca"] *= 1.1
    with pytest.raises(ValueError, match=r"Expected the cells of the fit, .* Use the AnnData of the fit, or fit again"):
        solve_again(wide, "uot", read_pairs(wide, "uot")[0])
    wider = fitted[0].copy()
    wider.obsm["X_pca"] = np.ones((wider.n_obs, 5))
    with pytest.raises(ValueError, match="'X_pca' with the 3 dimensions of the fit, found 5"):
        read_pairs(wider, "uot")


def test_a_cost_without_a_name_cannot_be_solved_again(fitted):
    adata = fitted[0].copy()
    adata.uns["uot"]["params"]["cost"] = type(PNormP(1.5)).__name__
    with pytest.raises(ValueError, match=r"recorded by its name, \['cosine', .*found 'PNormP'.*\"entropic\" out of"):
        solve_again(adata, "uot", read_pairs(adata, "uot")[0])


NOT_A_LABEL = np.array([object()])
HOSTILE = ["../../etc", 10**30, None, [["a"], ["b"]], {}, NOT_A_LABEL, np.array([np.inf, 0.0]), b"\x80\x04", True]


@pytest.mark.parametrize(
    "slot",
    ["params", "pairs", "metrics"]
    + [f"params/{name}" for name in ("time_key", "use_rep", "layer", "rng", "epsilon", "tau", "cost", "scale_cost")]
    + [f"params/{name}" for name in ("anchors", "growth_key", "marginal_penalty")]
    + [f"pairs/{name}" for name in ("source", "target", "time_difference")],
)
def test_a_file_of_anyone_is_read_or_refused(slot):
    """Whatever stands where a fit wrote something else: it is data, and errors say so."""
    for value in (*HOSTILE, "missing"):
        adata = make_cells()
        x = adata[adata.obs["day"] == 0.0].obsm["X_pca"]
        write_fit(adata, "day", (0.0, 1.0), x)
        adata.uns["uot"]["metrics"]["0.0_1.0"] = {"transported_mass": 1.0, "cost_scale": 1.0}
        *folders, name = slot.split("/")
        record = adata.uns["uot"]
        for folder in folders:
            record = record[folder]
        if isinstance(value, str) and value == "missing":
            record.pop(name, None)
        else:
            record[name] = value
        try:
            read_fit(adata, "uot")
            solve_again(adata, "uot", read_pairs(adata, "uot")[0])
        except (KeyError, ValueError, uc.ConvergenceError) as error:
            assert re.match(r"['\"]?(Expected|Transported|The )", str(error)), (value, error)  # noqa: PT017


@pytest.mark.parametrize("slot", ["uot_push", "uot_velocity"])
@pytest.mark.parametrize("value", [np.full((72, 3), "a"), np.full((72, 3), None), np.zeros((72, 2, 2))])
def test_slots_of_other_kinds_are_refused(slot, value):
    adata = make_cells()
    write_fit(adata, "day", (0.0, 1.0), adata[adata.obs["day"] == 0.0].obsm["X_pca"])
    adata.obsm[slot] = value
    with pytest.raises(ValueError, match=rf"Expected `adata\.obsm\['{slot}'\]` to hold floating-point numbers"):
        read_pairs(adata, "uot")
