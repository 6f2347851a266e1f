import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from fitted_slots import fitted_course, random_course
from scipy import sparse
from scipy.sparse.csgraph import connected_components

import uotcell as uc

SLOT = "uot_transition_matrix"


@pytest.fixture
def adata():
    return random_course()


def dense_reference(adata, n_neighbors, min_weight=0.1):
    """The chain with ``empty_rows="self"``, entry by entry from the formula, for pairs that are the next times."""
    day = adata.obs["day"].to_numpy()
    x, push = adata.obsm["X_pca"].astype(float), adata.obsm["uot_push"].astype(float)
    weight = adata.obs["uot_source_weight"].to_numpy(float)
    times = np.unique(day)
    matrix = np.eye(adata.n_obs)
    for i in range(adata.n_obs):
        if day[i] == times[-1] or weight[i] <= min_weight * weight[day == day[i]].mean():
            continue
        targets = np.flatnonzero(day == times[np.searchsorted(times, day[i]) + 1])
        distances = np.sqrt(((push[i] - x[targets]) ** 2).sum(axis=1))
        nearest = np.argsort(distances)[:n_neighbors]
        kernel = np.exp(-0.5 * (distances[nearest] / distances[nearest].mean()) ** 2)
        matrix[i] = 0.0
        matrix[i, targets[nearest]] = kernel / kernel.sum()
    return matrix


def test_four_cells_by_hand():
    # The first image is 1 and 3 away from its two nearest cells (bandwidth 2), the second 1 and 6 (bandwidth 3.5).
    adata = fitted_course([0, 1, 0, 1, 1], [[0], [1], [5], [3], [10]], [[0], [0], [9], [0], [0]], pairs=[(0, 1)])
    near, far = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-10 / 7))
    expected = np.eye(5)
    expected[0] = [0, near, 0, 1 - near, 0]
    expected[2] = [0, 0, 0, 1 - far, far]
    np.testing.assert_allclose(uc.tl.transition_matrix(adata, n_neighbors=2).toarray(), expected, atol=1e-15)


def test_closed_class_by_hand():
    # Two nearest of 1, 3, 10 themselves included: {1, 3}, {3, 1}, {10, 3}; so 3 steps to 10 too.
    adata = fitted_course([0, 1, 1, 1], [[0], [1], [3], [10]], [[0], [0], [0], [0]], pairs=[(0, 1)])
    matrix = uc.tl.transition_matrix(adata, n_neighbors=2, empty_rows="absorb").toarray()[1:, 1:]
    kernel = np.array(
        [
            [1, np.exp(-2), 0],  # distances 0, 2: bandwidth 1
            [np.exp(-4 / 18), 1, np.exp(-49 / 18)],  # 2, 0, 7: bandwidth 3
            [0, np.exp(-2), 1],  # 7, 0: bandwidth 3.5
        ]
    )
    np.testing.assert_allclose(matrix, kernel / kernel.sum(axis=1, keepdims=True), atol=1e-15)


@pytest.mark.parametrize("n_dims", [3, 20])  # searched by a tree, and by comparing all
@pytest.mark.parametrize("n_neighbors", [1, 7, 40])
def test_equals_the_formula(n_dims, n_neighbors):
    adata = random_course(n_dims=n_dims)
    adata.obsm["X_pca"] += 1_000  # far from the origin
    adata.obsm["uot_push"] += 1_000
    matrix = uc.tl.transition_matrix(adata, n_neighbors=n_neighbors)
    np.testing.assert_allclose(matrix.toarray(), dense_reference(adata, n_neighbors), atol=1e-12)


@pytest.mark.parametrize("empty_rows", ["self", "absorb"])
def test_form(adata, empty_rows):
    matrix = uc.tl.transition_matrix(adata, n_neighbors=6, empty_rows=empty_rows)
    assert sparse.isspmatrix_csr(matrix)
    assert matrix.dtype == np.float64
    assert matrix.shape == (adata.n_obs, adata.n_obs)
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)), 1.0, atol=1e-14)
    assert (matrix.data > 0).all()
    for array in (matrix.data, matrix.indices):
        assert (array if array.base is None else array.base).size == matrix.nnz  # nothing allocated beyond it
    assert sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr)).has_canonical_format  # not what it was told


def test_n_neighbors_beyond_a_time_point_takes_all_of_it(adata):
    everything = uc.tl.transition_matrix(adata, n_neighbors=500, empty_rows="absorb")
    np.testing.assert_array_equal(
        everything.toarray(), uc.tl.transition_matrix(adata, n_neighbors=40, empty_rows="absorb").toarray()
    )


@pytest.mark.parametrize("empty_rows", ["self", "absorb"])
def test_batches_change_nothing(adata, empty_rows):
    whole = uc.tl.transition_matrix(adata, n_neighbors=6, empty_rows=empty_rows)
    for batch_size in (1, 7):
        parts = uc.tl.transition_matrix(adata, n_neighbors=6, empty_rows=empty_rows, batch_size=batch_size)
        np.testing.assert_array_equal(parts.indices, whole.indices)
        np.testing.assert_allclose(parts.data, whole.data, rtol=1e-13)


@pytest.mark.parametrize("empty_rows", ["self", "absorb"])
def test_memory_is_not_that_of_all_pairs(empty_rows):
    n = 4_000
    adata = random_course(n=n, times=(0.0, 1.0))
    tracemalloc.start()
    uc.tl.transition_matrix(adata, n_neighbors=5, empty_rows=empty_rows, batch_size=256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * n * 8 / 10


def test_states(adata):
    matrix = uc.tl.transition_matrix(adata, n_neighbors=6)
    state, day = adata.obs[SLOT], adata.obs["day"]
    assert list(state.cat.categories) == ["moving", "dying", "end"]
    np.testing.assert_array_equal(state == "end", day == 3)
    np.testing.assert_array_equal(state == "dying", (day < 3) & (adata.obs["uot_source_weight"] < 0.1))
    assert 5 < (state == "dying").sum() < 30
    np.testing.assert_array_equal(matrix.diagonal() == 1, state != "moving")


@pytest.mark.parametrize(("min_weight", "n_dying"), [(0.0, 1), (0.1, 2), (0.5, 3), (0.99, 3)])
def test_min_weight_is_a_share_of_the_mean(min_weight, n_dying):
    weight = [0.0, 2.0, 8.0, 70.0, 1.0]  # mean 20 over the four sources: shares 0, 0.1, 0.4 and 3.5
    adata = fitted_course([0, 0, 0, 0, 1], np.arange(5)[:, None], np.arange(5)[:, None], weight, pairs=[(0, 1)])
    uc.tl.transition_matrix(adata, min_weight=min_weight)
    assert (adata.obs[SLOT] == "dying").sum() == n_dying


def test_classes_are_closed_and_apart(adata):
    matrix = uc.tl.transition_matrix(adata, n_neighbors=4, empty_rows="absorb")
    state, day = adata.obs[SLOT].to_numpy(str), adata.obs["day"].to_numpy()
    resting = np.flatnonzero(state != "moving")
    rows, columns = matrix[resting].nonzero()
    rows = resting[rows]
    np.testing.assert_array_equal(state[rows], state[columns])
    np.testing.assert_array_equal(day[rows], day[columns])
    assert (matrix.diagonal()[resting] > 0).all()
    within = matrix[resting][:, resting]
    np.testing.assert_array_equal((within > 0).toarray(), (within > 0).toarray().T)
    assert connected_components(within, connection="strong")[0] == connected_components(within, connection="weak")[0]


def test_coinciding_cells_keep_a_step_to_themselves():
    day = np.repeat([0, 1], [2, 12])
    adata = fitted_course(day, np.zeros((14, 2)), np.zeros((14, 2)), pairs=[(0, 1)])
    matrix = uc.tl.transition_matrix(adata, n_neighbors=3, empty_rows="absorb")
    assert (matrix.diagonal()[2:] > 0).all()
    np.testing.assert_allclose(np.asarray(matrix.sum(axis=1)), 1.0, atol=1e-14)
    np.testing.assert_allclose(matrix[:2].data, 1 / 3)


def test_images_far_from_all_cells():
    adata = random_course(times=(0.0, 1.0))
    adata.obsm["uot_push"] *= 1e6
    np.testing.assert_allclose(np.asarray(uc.tl.transition_matrix(adata).sum(axis=1)), 1.0, atol=1e-14)


def test_error_names_cells_and_times(adata):
    dying = adata.obs["uot_source_weight"] < 0.1
    first, second = ((dying & (adata.obs["day"] == day)).sum() for day in (0, 1))
    before = set(adata.obs), set(adata.obsp), set(adata.uns)
    message = f"found none of {first + second} cells: {first} dying at 0.0, {second} dying at 1.0"
    with pytest.raises(ValueError, match=message):
        uc.tl.transition_matrix(adata, empty_rows="error")
    assert (set(adata.obs), set(adata.obsp), set(adata.uns)) == before
    # The last time point leads nowhere in every time course.
    matrix = uc.tl.transition_matrix(adata, empty_rows="error", min_weight=0.0)
    assert (matrix.diagonal()[adata.obs["day"] == 3] == 1).all()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_the_nearest_of_several_targets_counts(order):
    pairs = [[(0, 1), (0, 3), (1, 3)][i] for i in order]
    day = np.repeat([0, 1, 3], 6)
    cells = np.random.default_rng(0).normal(size=(18, 2))
    adata = fitted_course(day, cells, cells, pairs=pairs)
    rows, columns = uc.tl.transition_matrix(adata, n_neighbors=3).nonzero()
    assert set(zip(day[rows], day[columns], strict=True)) == {(0, 1), (1, 3), (3, 3)}


def test_a_star_leaves_times_without_a_map():
    day = np.repeat([0, 1, 3], 6)
    cells = np.random.default_rng(0).normal(size=(18, 2))
    adata = fitted_course(day, cells, cells, pairs=[(0, 1), (0, 3)])
    matrix = uc.tl.transition_matrix(adata, n_neighbors=3, empty_rows="absorb")
    rows, columns = matrix.nonzero()
    assert set(zip(day[rows], day[columns], strict=True)) == {(0, 1), (1, 1), (3, 3)}
    assert (adata.obs[SLOT][day > 0] == "end").all()
    with pytest.raises(ValueError, match="found none of 6 cells: 6 end at 1"):
        uc.tl.transition_matrix(adata, empty_rows="error")
    # The images are at day 1: the cells of day 3 are not needed for them, those of day 1 are.
    np.testing.assert_array_equal(
        uc.tl.transition_matrix(adata[day < 3].copy(), n_neighbors=3)[:6].toarray(), matrix[:6, :12].toarray()
    )
    with pytest.raises(ValueError, match="cells at '1', the target of '0', found none"):
        uc.tl.transition_matrix(adata[day != 1].copy())


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda day: day.astype("category"), id="categories"),
        pytest.param(lambda day: day.astype(np.float32), id="float32"),
        pytest.param(lambda day: day.astype(str), id="strings"),
    ],
)
def test_time_columns(adata, convert):
    expected = uc.tl.transition_matrix(adata).toarray()
    adata.obs["day"] = convert(adata.obs["day"])
    before = adata.obs["day"].copy()
    np.testing.assert_array_equal(uc.tl.transition_matrix(adata).toarray(), expected)
    pd.testing.assert_series_equal(adata.obs["day"], before)


def test_strings_are_in_order_of_time():
    adata = random_course(times=(9.0, 10.0, 11.0))
    expected = uc.tl.transition_matrix(adata).toarray()
    adata.obs["day"] = adata.obs["day"].map("E{}".format)
    for side in ("source", "target"):
        adata.uns["uot"]["pairs"][side] = np.asarray([f"E{label}" for label in adata.uns["uot"]["pairs"][side]])
    np.testing.assert_array_equal(uc.tl.transition_matrix(adata).toarray(), expected)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_round_trip(adata, tmp_path, kind):
    matrix = uc.tl.transition_matrix(adata, empty_rows="absorb", n_neighbors=5)
    getattr(adata, f"write_{kind}")(tmp_path / f"cells.{kind}")
    again = getattr(ad, f"read_{kind}")(tmp_path / f"cells.{kind}")
    np.testing.assert_array_equal(again.obsp[SLOT].toarray(), matrix.toarray())
    assert again.obs[SLOT].tolist() == adata.obs[SLOT].tolist()
    settings = {"key": "uot", "n_neighbors": 5, "empty_rows": "absorb", "min_weight": 0.1}
    assert again.uns[SLOT] == adata.uns[SLOT] == settings
    matrix_again = uc.tl.transition_matrix(again, empty_rows="absorb", n_neighbors=5)
    np.testing.assert_array_equal(matrix_again.toarray(), matrix.toarray())


def test_names(adata):
    for name in ("push", "velocity", "source_weight"):
        slot = adata.obs if name == "source_weight" else adata.obsm
        slot[f"fit_{name}"] = slot[f"uot_{name}"]
    adata.uns["fit"] = adata.uns["uot"]
    uc.tl.transition_matrix(adata, key="fit")
    uc.tl.transition_matrix(adata, key="fit", key_added="chain")
    assert set(adata.obsp) == {"fit_transition_matrix", "chain"}
    assert {"fit_transition_matrix", "chain"} == set(adata.obs) & set(adata.uns)


# Writing into a view makes it a copy of its own, and anndata says so.
@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_part_of_the_cells(adata):
    part = np.flatnonzero((adata.obs["day"] > 0) & (np.arange(adata.n_obs) % 3 > 0))
    view, copy = adata[part], adata[part].copy()
    matrix = uc.tl.transition_matrix(view)
    np.testing.assert_array_equal(matrix.toarray(), uc.tl.transition_matrix(copy).toarray())
    np.testing.assert_allclose(matrix.toarray(), dense_reference(copy, 30), atol=1e-12)
    assert SLOT not in adata.obsp


@pytest.mark.parametrize("layer", [None, "scaled"])
def test_fit_of_sparse_features(adata, layer):
    expected = uc.tl.transition_matrix(adata, empty_rows="absorb").toarray()
    cells = sparse.csr_matrix(adata.obsm.pop("X_pca"))
    other = ad.AnnData(
        cells if layer is None else 2 * cells,
        obs=adata.obs,
        obsm=dict(adata.obsm),
        uns=dict(adata.uns),
        layers={"scaled": cells},
    )
    other.uns["uot"]["params"] = {"time_key": "day", "use_rep": "X"} | ({} if layer is None else {"layer": layer})
    np.testing.assert_array_equal(uc.tl.transition_matrix(other, empty_rows="absorb").toarray(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbors": 0}, "`n_neighbors` to be a positive integer, found 0"),
        ({"n_neighbors": 2.5}, "`n_neighbors` to be a positive integer"),
        ({"batch_size": 0}, "`batch_size` to be a positive integer"),
        ({"empty_rows": "uniform"}, r"`empty_rows` to be one of \['self', 'absorb', 'error'\], found 'uniform'"),
        ({"min_weight": 1.0}, r"`min_weight` to be a share of the mean weight in \[0, 1\), found 1.0"),
        ({"min_weight": np.nan}, "`min_weight`"),
        ({"key_added": "a/b"}, "`key_added`"),
    ],
)
def test_options(adata, options, message):
    with pytest.raises(ValueError, match=message):
        uc.tl.transition_matrix(adata, **options)
    assert not list(adata.obsp)


def test_unknown_options_raise(adata):
    with pytest.raises(TypeError, match="sharpness"):
        uc.tl.transition_matrix(adata, sharpness=1)
    with pytest.raises(TypeError):
        uc.tl.transition_matrix(adata, "uot")


def test_missing_slots(adata):
    with pytest.raises(KeyError, match=r"a time course .* found 'ot'.*Run `uc.tl.fit_trajectory"):
        uc.tl.transition_matrix(adata, key="ot")
    for slots, name in ((adata.obsm, "uot_push"), (adata.obs, "uot_source_weight"), (adata.obs, "day")):
        value = slots[name].copy()
        del slots[name]
        with pytest.raises(KeyError, match=f"to hold '{name}'"):
            uc.tl.transition_matrix(adata)
        slots[name] = value
    del adata.obsm["X_pca"]
    with pytest.raises(KeyError, match="`use_rep` to be 'X' or one of"):
        uc.tl.transition_matrix(adata)


def test_cells_that_do_not_belong_to_the_fit(adata):
    with pytest.raises(ValueError, match=r"cells at '3.0', the target of '1.0', found none"):
        uc.tl.transition_matrix(adata[adata.obs["day"] < 3].copy())
    adata.obs["day"] = 3.0 - adata.obs["day"]
    with pytest.raises(ValueError, match="Their times have changed since the fit"):
        uc.tl.transition_matrix(adata)
