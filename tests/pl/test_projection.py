import numpy as np
import pytest
from scipy.stats import multivariate_normal

from uotcell.pl._projection import place_points, project_push, project_velocity, velocity_grid

FIELDS = {
    "translation": lambda x: np.full_like(x, [1.0, 0.5]),
    "rotation": lambda x: 0.5 * x @ np.array([[0.0, 1.0], [-1.0, 0.0]]),
    "expansion": lambda x: 0.5 * x,
}


@pytest.fixture
def plane():
    return np.random.default_rng(0).uniform(-3, 3, (600, 2))


def project(projection, x, v, embedding, **kwargs):
    if projection == "push":
        return project_push(x, x + v, embedding, **kwargs)
    push = None if projection == "near" else x + v
    return project_velocity(x, v, embedding, push=push, **kwargs)


def cosines(a, b):
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
@pytest.mark.parametrize("field", FIELDS)
def test_direction_is_kept_when_the_embedding_is_the_representation(plane, field, projection):
    v = FIELDS[field](plane)
    assert np.median(cosines(project(projection, plane, v, plane), v)) > 0.95


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_direction_is_kept_from_more_dimensions(plane, projection):
    rng = np.random.default_rng(1)
    lift = np.linalg.qr(rng.normal(size=(20, 2)))[0].T
    x = plane @ lift + rng.normal(0, 0.1, (600, 20))
    truth = FIELDS["rotation"](plane)
    assert np.median(cosines(project(projection, x, truth @ lift, plane), truth)) > 0.95


def test_push_length_is_the_displacement_inside_the_cloud(plane):
    v = np.full_like(plane, [0.8, 0.0])
    inside = (np.abs(plane) < 1.5).all(axis=1)
    projected = project_push(plane, plane + v, plane, n_neighbors=10)[inside]
    np.testing.assert_allclose(projected.mean(axis=0), [0.8, 0.0], atol=0.03)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_map_that_moves_nothing_projects_to_zero(plane, projection):
    np.testing.assert_allclose(project(projection, plane, np.zeros_like(plane), plane), 0.0, atol=1e-12)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_opposite_fields_point_apart(plane, projection):
    v = FIELDS["translation"](plane)
    forth, back = project(projection, plane, v, plane), project(projection, plane, -v, plane)
    assert np.median(cosines(forth, back)) < -0.95


def test_candidates_around_the_push_reach_across_a_gap():
    # Two clouds 20 apart in the representation that lie one above the other in the embedding.
    rng = np.random.default_rng(0)
    x, day = rng.normal(size=(400, 5)), np.repeat([0.0, 20.0], 200)
    x[:, 0] += day
    embedding = np.column_stack([x[:, 0] - day, day])
    v = np.where(day[:, None] == 0, np.eye(5)[0] * 20.0, np.nan)
    source = day == 0
    across = cosines(project_velocity(x, v, embedding, push=x + v)[source], np.array([[0.0, 1.0]]))
    around = cosines(project_velocity(x, v, embedding)[source], np.array([[0.0, 1.0]]))
    assert across.min() > 0.9
    np.testing.assert_allclose(around, 0.0, atol=1e-12)


def test_velocity_equals_the_formula_cell_by_cell(plane):
    x, v, n_neighbors, sharpness = plane[:80], FIELDS["rotation"](plane[:80]), 7, 4.0
    projected = project_velocity(x, v, x, push=x + v, n_neighbors=n_neighbors, sharpness=sharpness)
    for i in range(len(x)):
        others = np.delete(np.arange(len(x)), i)
        near = others[np.argsort(np.linalg.norm(x[others] - x[i], axis=1))[:n_neighbors]]
        ahead = np.argsort(np.linalg.norm(x - x[i] - v[i], axis=1))[:n_neighbors]
        candidates = sorted({*near, *ahead} - {i})
        steps = x[candidates] - x[i]
        weights = np.exp(sharpness * cosines(steps, v[i][None]))
        expected = (weights / weights.sum() - 1 / len(candidates)) @ steps
        np.testing.assert_allclose(projected[i], expected, atol=1e-12)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_cells_without_a_field_are_nan_and_change_nothing_else(plane, projection):
    v = FIELDS["rotation"](plane)
    partial = v.copy()
    partial[::3] = np.nan
    whole, masked = project(projection, plane, v, plane), project(projection, plane, partial, plane)
    assert np.isnan(masked[::3]).all()
    kept = np.isfinite(partial).all(axis=1)
    np.testing.assert_allclose(masked[kept], whole[kept], atol=1e-12)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_order_of_the_cells_does_not_matter(plane, projection):
    v, order = FIELDS["rotation"](plane), np.random.default_rng(2).permutation(600)
    expected = project(projection, plane, v, plane)[order]
    np.testing.assert_allclose(project(projection, plane[order], v[order], plane[order]), expected, atol=1e-10)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_blocks_and_number_of_cells_do_not_matter(plane, projection, monkeypatch):
    v = FIELDS["rotation"](plane)
    whole = project(projection, plane, v, plane)
    monkeypatch.setattr("uotcell.pl._projection._BLOCK", 7)
    np.testing.assert_allclose(project(projection, plane, v, plane), whole, atol=1e-12)


@pytest.mark.parametrize("projection", ["near", "neighbors", "push"])
def test_float32_in_float64_out(plane, projection):
    x = plane.astype(np.float32)
    projected = project(projection, x, FIELDS["expansion"](x), x)
    assert projected.dtype == np.float64
    assert projected.shape == (600, 2)
    assert all(array.dtype == np.float64 for array in velocity_grid(x, projected.astype(np.float32)))


@pytest.mark.parametrize("projection", ["neighbors", "push"])
@pytest.mark.parametrize("n_neighbors", [0, 600])
def test_impossible_number_of_neighbors(plane, projection, n_neighbors):
    with pytest.raises(ValueError, match=f"smaller than the number of cells, 600, found {n_neighbors}"):
        project(projection, plane, plane, plane, n_neighbors=n_neighbors)


def test_extreme_sharpness_and_far_push_stay_finite(plane):
    v = FIELDS["translation"](plane)
    assert np.isfinite(project_velocity(plane, v, plane, sharpness=1e6)).all()
    assert np.isfinite(project_push(plane, plane + 1e8 * v, plane)).all()


def test_coinciding_cells():
    x = np.zeros((10, 3))
    for projected in (
        project_push(x, x + 1.0, x[:, :2], n_neighbors=4),
        project_velocity(x, x + 1.0, x[:, :2], push=x + 1.0, n_neighbors=4),
    ):
        np.testing.assert_array_equal(projected, np.zeros((10, 2)))


def test_grid_reproduces_a_linear_field():
    x = np.random.default_rng(0).uniform(-3, 3, (5000, 2))
    matrix = np.array([[0.4, -1.0], [0.7, 0.2]])
    xs, ys, u, v = velocity_grid(x, x @ matrix.T + [2.0, -1.0], n_grid=30)
    inside = np.ix_(np.abs(ys) < 2, np.abs(xs) < 2)
    points = np.stack(np.meshgrid(xs, ys), axis=-1)
    expected = points @ matrix.T + [2.0, -1.0]
    assert np.abs(u - expected[..., 0])[inside].max() < 0.05 * np.abs(expected[..., 0]).max()
    assert np.abs(v - expected[..., 1])[inside].max() < 0.05 * np.abs(expected[..., 1]).max()


def test_grid_equals_direct_kernel_sums(plane):
    field = FIELDS["rotation"](plane)
    xs, ys, u, v = velocity_grid(plane, field, n_grid=12, smooth=0.7, min_mass=3.0)
    spread = 0.7 * np.array([xs[1] - xs[0], ys[1] - ys[0]])
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            kernel = multivariate_normal([x, y], np.diag(spread**2))
            weights = kernel.pdf(plane) / kernel.pdf([x, y])
            expected = weights @ field / weights.sum() if weights.sum() >= 3.0 else np.full(2, np.nan)
            np.testing.assert_allclose([u[row, column], v[row, column]], expected, atol=1e-10)
    assert 0 < np.isnan(u).sum() < u.size


def test_grid_ignores_cells_without_a_field(plane):
    field = FIELDS["rotation"](plane)
    field[np.abs(plane).max(axis=1) > 2] = np.nan
    extremes = np.array([plane.min(axis=0), plane.max(axis=0)])
    kept = np.isfinite(field).all(axis=1)
    alone = velocity_grid(np.vstack([plane[kept], extremes]), np.vstack([field[kept], np.full((2, 2), np.nan)]))
    for array, expected in zip(velocity_grid(plane, field), alone, strict=True):
        np.testing.assert_allclose(array, expected, atol=1e-12)


def test_grid_covers_all_cells_and_is_even(plane):
    xs, ys, u, v = velocity_grid(plane, FIELDS["expansion"](plane), n_grid=25)
    assert (xs.shape, ys.shape, u.shape, v.shape) == ((25,), (25,), (25, 25), (25, 25))
    assert xs[0] < plane[:, 0].min() < plane[:, 0].max() < xs[-1]
    np.testing.assert_allclose(np.diff(ys), np.diff(ys)[0])


def test_grid_without_any_field_is_empty(plane):
    _, _, u, v = velocity_grid(plane, np.full_like(plane, np.nan), min_mass=0.0)
    assert np.isnan(u).all()
    assert np.isnan(v).all()


def test_points_are_placed_by_the_formula(plane):
    rng = np.random.default_rng(3)
    embedding, points = rng.normal(size=(600, 2)), rng.uniform(-3, 3, (5, 2))
    placed = place_points(points, plane, embedding, n_neighbors=9)
    for point, found in zip(points, placed, strict=True):
        distances = np.linalg.norm(plane - point, axis=1)
        near = np.argsort(distances)[:9]
        weights = np.exp(-0.5 * (distances[near] / distances[near].mean()) ** 2)
        np.testing.assert_allclose(found, weights @ embedding[near] / weights.sum(), atol=1e-12)


def test_place_of_no_points(plane):
    assert place_points(np.empty((0, 2)), plane, plane).shape == (0, 2)
