"""Problems on disk: they answer as before, with or without their AnnData, and know theirs from another."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import optax
import pandas as pd
import pytest
from anndata import AnnData
from drug_cells import QUICK as DRUG_FIT
from drug_cells import make_cells
from safetensors.numpy import load, save

import uotcell as uc
from uotcell._disk import SCHEMA, Decoder, Encoder, write_model
from uotcell.methods import GENOT, ICNN
from uotcell.problems import PerturbationProblem, TemporalProblem, TranslationProblem
from uotcell.problems._storage import KINDS

N_CELLS, N_DIMS = 24, 3
FIT = {"method": ICNN(hidden=(8, 8), n_inner=1), "n_iters": 4, "batch_size": 16, "progress": False}
UNSEEN = np.random.default_rng(9).normal(size=(7, N_DIMS)).astype(np.float32)
ARRAYS = ("x", "y", "a", "b", "f", "g", "source_weights", "target_weights")


def course(labels=(0.0, 1.0, 3.0), *, in_features=False):
    """Cells of three times that drift along the first axis, in random order."""
    rng = np.random.default_rng(0)
    index = rng.permutation(np.repeat(np.arange(len(labels)), N_CELLS))
    cells = (rng.normal(size=(len(index), N_DIMS)) + np.outer(index, [1.0, 0.0, 0.0])).astype(np.float32)
    day = pd.Series(labels, dtype=None)[index].to_numpy() if not isinstance(labels, pd.Categorical) else labels[index]
    obs = pd.DataFrame({"day": day, "growth": rng.random(len(index)) + 0.5})
    obs.index = [f"cell{i}" for i in range(len(index))]
    return AnnData(cells + 1, obs=obs, var=pd.DataFrame(index=["a", "b", "c"]), obsm={"X_pca": cells})


def two_sides():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=(36, 2))
    sides = []
    for cells, name in ((x, "x"), (y, "y")):
        obs = pd.DataFrame(index=[f"{name}{i}" for i in range(len(cells))])
        sides.append(AnnData(obs=obs, obsm={"X_pca": cells, "shared": np.float32(cells[:, :1] * 3)}))
    return tuple(sides)


@pytest.fixture(scope="module")
def temporal():
    return TemporalProblem(course()).prepare("day", growth_key="growth").solve(**FIT, learn_rescaling=True)


@pytest.fixture(scope="module")
def perturbation():
    problem = PerturbationProblem(make_cells(("a", "b"), drugs=("mild",)))
    return problem.prepare("drug", "control", groupby="line").solve(**DRUG_FIT, cost="euclidean")


@pytest.fixture(scope="module")
def translation():
    problem = TranslationProblem(*two_sides()).prepare(shared_rep="shared")
    method = GENOT(hidden=(8,), n_steps=2, n_samples=2)
    return problem.solve(method, anchors=30, n_iters=2, batch_size=16, progress=False)


PROBLEMS = ("temporal", "perturbation", "translation")


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return request.getfixturevalue(request.param)


def adata_of(problem):
    """Copies of the AnnData of a problem, as `uc.load` takes them."""
    if isinstance(problem, TranslationProblem):
        return problem.adata.copy(), problem.adata_y.copy()
    return problem.adata.copy()


def push(problem, key):
    if isinstance(problem, TranslationProblem):
        return problem.push(np.concatenate([UNSEEN, UNSEEN[:, :1]], axis=1))
    return problem.push(UNSEEN, *key)


def check_same(found, problem):
    assert type(found) is type(problem)
    assert list(found.fitted) == list(problem.fitted)
    assert repr(found.params) == repr(problem.params)
    for key, pair in problem.fitted.items():
        loaded = found.fitted[key]
        assert type(loaded) is type(pair)
        assert (loaded.source, loaded.target, loaded.label) == (pair.source, pair.target, pair.label)
        assert repr(loaded.metrics) == repr(pair.metrics)
        assert repr(loaded.history) == repr(pair.history)
        np.testing.assert_array_equal(loaded.source_rows, pair.source_rows)
        np.testing.assert_array_equal(loaded.target_rows, pair.target_rows)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(loaded.coupling, name), getattr(pair.coupling, name))
        np.testing.assert_array_equal(loaded.coupling.sample_pairs(0, 20), pair.coupling.sample_pairs(0, 20))
        cells = np.resize(UNSEEN, (7, pair.coupling.x.shape[1]))
        np.testing.assert_array_equal(loaded.coupling.source_rescaling(cells), pair.coupling.source_rescaling(cells))
        np.testing.assert_array_equal(push(found, key), push(problem, key))
        if pair.transport_map.rescaling is not None:
            expected = pair.transport_map.rescaling.target_rescaling(cells)
            np.testing.assert_array_equal(loaded.transport_map.rescaling.target_rescaling(cells), expected)


def check_same_slots(found, expected):
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    assert set(found.obsm) == set(expected.obsm)
    for name in expected.obsm:
        np.testing.assert_array_equal(found.obsm[name], expected.obsm[name])
    assert repr(found.uns) == repr(expected.uns)


def test_a_problem_comes_back(problem, tmp_path):
    problem.save(tmp_path / "model")
    check_same(uc.load(tmp_path / "model"), problem)
    given = adata_of(problem)
    loaded = uc.load(tmp_path / "model", given)
    check_same(loaded, problem)
    expected = adata_of(problem)
    original = replace_data(problem, expected)
    original.write("fit")
    loaded.write("fit")
    pairs = zip(given, expected, strict=True) if isinstance(given, tuple) else [(given, expected)]
    for found, wanted in pairs:
        check_same_slots(found, wanted)


def replace_data(problem, adata):
    """Return the problem on other AnnData."""
    other = object.__new__(type(problem))
    vars(other).update(vars(problem), _adatas=adata if isinstance(adata, tuple) else (adata,))
    return other


def test_a_loaded_problem_is_saved_as_it_was(problem, tmp_path):
    problem.save(tmp_path / "model")
    uc.load(tmp_path / "model").save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "model")


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_without_its_data_a_problem_does_what_needs_only_the_model(temporal, perturbation, tmp_path):
    temporal.save(tmp_path / "temporal")
    loaded = uc.load(tmp_path / "temporal")
    found, expected = loaded.interpolate(0.3), temporal.interpolate(0.3)
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    np.testing.assert_array_equal(found.obsm["X_pca"], expected.obsm["X_pca"])
    np.testing.assert_array_equal(loaded.pull(UNSEEN, 0.0, 1.0), temporal.pull(UNSEEN, 0.0, 1.0))
    again = loaded.solve(**FIT)
    np.testing.assert_array_equal(again.push(UNSEEN, 1.0, 3.0), temporal.push(UNSEEN, 1.0, 3.0))
    perturbation.save(tmp_path / "perturbation")
    loaded = uc.load(tmp_path / "perturbation")
    loadings = np.ones((N_DIMS, len(perturbation.adata.var_names)))
    for decode in (None, lambda images: images @ loadings):
        found, expected = (p.predict(UNSEEN, "mild", group="b", decode=decode) for p in (loaded, perturbation))
        np.testing.assert_array_equal(found.X, expected.X)
        pd.testing.assert_frame_equal(found.obs, expected.obs)
        assert found.var_names.tolist() == expected.var_names.tolist()
    for call in (
        loaded.write, lambda: loaded.predict(UNSEEN, "mild", group="b", decode="pca"),
        lambda: loaded.prepare("drug", "control"), lambda: loaded.adata, uc.load(tmp_path / "temporal").to_cellrank,
    ):  # fmt: skip
        with pytest.raises(
            RuntimeError, match=r"with its AnnData, found one that was loaded without\. Give it: `uc\.load"
        ):
            call()


def test_features_are_found_by_name_without_the_data(tmp_path):
    adata = course()
    problem = TemporalProblem(adata).prepare("day", use_rep="X", policy=[(0.0, 1.0)]).solve(**FIT)
    problem.save(tmp_path / "model")
    loaded = uc.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.push(adata[:, ["c", "a", "b"]], 0.0, 1.0), problem.push(adata, 0.0, 1.0))
    assert loaded.interpolate(0.5).var_names.tolist() == ["a", "b", "c"]
    renamed = course()
    renamed.var_names = ["a", "c", "b"]
    with pytest.raises(ValueError, match=r"features of the fit in their order, found 3 with other names"):
        uc.load(tmp_path / "model", renamed)


def test_another_anndata_is_refused(temporal, translation, tmp_path):
    temporal.save(tmp_path / "model")
    adata = course()
    renamed, rounded = course(), course()
    renamed.obs_names = [f"{name}-1" for name in adata.obs_names]
    rounded.obsm["X_pca"][5, 1] = np.nextafter(rounded.obsm["X_pca"][5, 1], np.float32(9))
    for other in (renamed, adata[::-1].copy(), adata[:50].copy()):
        with pytest.raises(
            ValueError, match=rf"the 72 cells of the fit in their order, found {other.n_obs}.*Give the AnnData"
        ):
            uc.load(tmp_path / "model", other)
    with pytest.raises(ValueError, match=r"values of the fit in \['X_pca'\], found others"):
        uc.load(tmp_path / "model", rounded)
    del rounded.obsm["X_pca"]
    with pytest.raises(KeyError, match="`use_rep` to be 'X' or one of"):
        uc.load(tmp_path / "model", rounded)
    with pytest.raises(ValueError, match="to be one AnnData for a TemporalProblem, found 2"):
        uc.load(tmp_path / "model", (adata, adata))
    with pytest.raises(TypeError, match="`adata` to be an AnnData, found str"):
        uc.load(tmp_path / "model", "adata.h5ad")
    translation.save(tmp_path / "sides")
    x, y = two_sides()
    with pytest.raises(ValueError, match=r"a tuple \(adata_x, adata_y\) for a TranslationProblem, found 1"):
        uc.load(tmp_path / "sides", x)
    with pytest.raises(ValueError, match=r"the 40 cells of the fit in their order, found 36"):
        uc.load(tmp_path / "sides", (y, x))
    y.obsm["shared"] = y.obsm["shared"] * 2
    with pytest.raises(ValueError, match=r"values of the fit in \['X_pca', 'shared'\], found others"):
        uc.load(tmp_path / "sides", (x, y))


def test_any_model_is_loaded_and_none_taken_for_another(temporal, tmp_path):
    temporal[0.0, 1.0].transport_map.save(tmp_path / "map")
    loaded = uc.load(tmp_path / "map")
    np.testing.assert_array_equal(loaded.push(UNSEEN), temporal.push(UNSEEN, 0.0, 1.0))
    with pytest.raises(ValueError, match="no `adata` for a map"):
        uc.load(tmp_path / "map", course())
    temporal.save(tmp_path / "problem")
    with pytest.raises(
        ValueError, match=r"hold a uotcell\.TransportMap, found a uotcell\.TemporalProblem\. `uc\.load`"
    ):
        uc.methods.TransportMap.load(tmp_path / "problem")
    write_model(tmp_path / "else", "uotcell.Oracle", {}, {})
    with pytest.raises(ValueError, match=r"a model of one of .*found 'uotcell\.Oracle'"):
        uc.load(tmp_path / "else")


def test_config_says_what_the_problem_is(temporal, tmp_path):
    temporal.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert (config["format"], config["schema"], config["seed"]) == ("uotcell.TemporalProblem", 2, 0)
    assert {"uotcell", "jax", "ott-jax", "anndata"} <= set(config["versions"])
    params = config["state"]["params"]
    assert (params["method"]["value"]["name"], params["epsilon"], params["use_rep"]) == ("icnn", 0.01, "X_pca")
    assert config["data"][0]["n_obs"] == 72
    assert len(config["data"][0]["representation"]) == 64
    assert [entry["key"]["value"] for entry in config["pairs"]] == [[0.0, 1.0], [1.0, 3.0]]


DAYS = pd.to_datetime(["2024-05-01", "2024-05-02", "2024-05-04"])


@pytest.mark.parametrize(
    "labels",
    [("E8.5", "E9.0", "E10"), (1, 2, 4), pd.Categorical(DAYS, DAYS, ordered=True)],
    ids=["strings", "integers", "dates"],
)
def test_labels_keep_their_types(labels, tmp_path):
    problem = TemporalProblem(course(labels)).prepare("day").solve(**FIT)
    problem.save(tmp_path / "model")
    loaded = uc.load(tmp_path / "model")
    check_same(loaded, problem)
    for found, expected in zip(loaded.pairs, problem.pairs, strict=True):
        assert (found, [*map(type, found)]) == (expected, [*map(type, expected)])


@pytest.mark.parametrize(
    "label",
    [
        pd.Timestamp("2024-05-01 12:00:00.000000001"), pd.Timestamp("2024-05-01", tz="Europe/Berlin"),
        pd.Timestamp("2024-05-01").as_unit("s"), pd.Timedelta("1 days 00:00:01"), np.int64(3), np.float32(0.1),
        np.str_("E8.5"), True, None,
    ],
    ids=repr,
)  # fmt: skip
def test_any_label_keeps_its_type(label):
    encoder = Encoder(KINDS)
    packed = json.loads(json.dumps(encoder.encode({(label, None): 1}, "labels")))
    [(found, _)] = Decoder(encoder.arrays, KINDS).decode(packed)
    assert (found, type(found), str(found)) == (label, type(label), str(label))
    assert getattr(found, "unit", None) == getattr(label, "unit", None)


def test_what_cannot_be_saved_is_named_and_nothing_is_written(temporal, tmp_path):
    with pytest.raises(RuntimeError, match=r"Run `\.solve"):
        TemporalProblem(course()).prepare("day").save(tmp_path / "model")
    interval = replace_data(temporal, temporal.adata)
    interval.params = {**temporal.params, "bin": pd.Interval(0, 1)}
    with pytest.raises(ValueError, match=r"`params\.bin` to be made of numbers.*of type Interval"):
        interval.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_optimiser_is_left_out_and_still_recorded(temporal, tmp_path):
    problem = replace_data(temporal, course())
    problem.params = {**temporal.params, "method": replace(FIT["method"], optimizer=optax.sgd(0.1))}
    problem.save(tmp_path / "model")
    adata = course()
    uc.load(tmp_path / "model", adata).write()
    problem.write()
    check_same_slots(adata, problem.adata)
    assert "optimizer" in adata.uns["uot"]["params"]["method"]


def stored(name):
    """Config and arrays of a problem of this schema, to be written again with hashes that fit."""
    directory = Path(__file__).parents[1] / "fixtures" / f"schema_{SCHEMA}" / name
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    arrays = load((directory / config["arrays"]["file"]).read_bytes())
    return {name: config[name] for name in ("versions", "seed", "data", "state", "axes", "pairs")}, arrays


def test_a_record_of_an_older_release_is_read_and_of_a_later_one_refused(tmp_path):
    config, arrays = stored("temporal")
    del config["pairs"][0]["history"]["stopped_early"]
    write_model(tmp_path / "older", "uotcell.TemporalProblem", config, arrays)
    assert uc.load(tmp_path / "older")["E8.5", "E9.0"].history.stopped_early is False
    config["pairs"][0]["history"]["mood"] = "good"
    write_model(tmp_path / "later", "uotcell.TemporalProblem", config, arrays)
    with pytest.raises(ValueError, match=r"hold a whole TemporalProblem.*mood.*written by uotcell"):
        uc.load(tmp_path / "later")


def forgeries(config, arrays):
    """Models with parts that are missing or do not fit, by what is wrong with them."""
    pair = config["pairs"][0]
    for part in ("state", "axes", "pairs"):
        for value in (None, 5, [5], {"a": 1}):
            yield f"{part} is {value}", {**config, part: value}, arrays
        yield f"no {part}", {key: value for key, value in config.items() if key != part}, arrays
    yield "a function replaced", {**config, "state": {**config["state"], "push": 5}}, arrays
    for part in pair:
        yield f"no {part}", {**config, "pairs": [{key: value for key, value in pair.items() if key != part}]}, arrays
    for part in ("source_rows", "target_rows"):
        fields = {key: value for key, value in pair["fields"].items() if key != part}
        yield f"no {part}", {**config, "pairs": [{**pair, "fields": fields}]}, arrays
    cells = next(key for key in arrays if key.startswith("values/") and arrays[key].ndim == 2)
    yield "fewer cells", config, {**arrays, cells: arrays[cells][:-1]}
    yield "cells of integers", config, {**arrays, cells: arrays[cells].astype(int)}
    yield "one dimension less", config, {**arrays, cells: np.ascontiguousarray(arrays[cells][:, :-1])}
    for key, array in arrays.items():
        if key.startswith("pairs/0/") and array.ndim:
            yield f"short {key}", config, {**arrays, key: np.ascontiguousarray(array[..., :-1])}
            yield f"no {key}", config, {name: other for name, other in arrays.items() if name != key}


@pytest.mark.parametrize("name", PROBLEMS)
def test_parts_that_are_missing_or_do_not_fit_are_refused(name, tmp_path):
    kind = f"{name.capitalize()}Problem"
    accepted = []
    for what, config, arrays in forgeries(*stored(name)):
        write_model(tmp_path / "forged", f"uotcell.{kind}", config, arrays)
        try:
            uc.load(tmp_path / "forged")
        except ValueError as error:
            if f"hold a whole {kind}" in str(error):
                continue
        accepted.append(what)
    assert accepted == []


def test_files_are_safetensors_and_json_only(problem, tmp_path):
    problem.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    assert sorted(contents(tmp_path / "model")) == sorted(["config.json", config["arrays"]["file"]])
    data = (Path(tmp_path) / "model" / config["arrays"]["file"]).read_bytes()
    assert save(load(data))
