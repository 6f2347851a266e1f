import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from uotcell.pl._linear import fit_linear_map


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(200, 6)) + 50.0


def test_linear_image_is_recovered(x):
    matrix = np.random.default_rng(1).normal(size=(6, 2))
    fitted = fit_linear_map(x.astype(np.float32), (x @ matrix - 7.0).astype(np.float32))
    np.testing.assert_allclose(fitted.matrix, matrix, atol=1e-4)
    assert fitted.r_squared == pytest.approx(1.0)
    v = np.random.default_rng(2).normal(size=(200, 6))
    v[3, 0] = np.nan
    projected = fitted.project(v)
    assert np.isnan(projected[3]).all()
    np.testing.assert_allclose(np.delete(projected, 3, axis=0), np.delete(v @ matrix, 3, axis=0), atol=1e-3)


def test_fit_is_that_of_scikit_learn(x):
    embedding = np.column_stack([np.sin(x[:, 0]), x[:, 1] ** 2])
    fitted = fit_linear_map(x, embedding)
    reference = LinearRegression().fit(x, embedding)
    np.testing.assert_allclose(fitted.matrix, reference.coef_.T, atol=1e-10)
    plain = 1 - np.sum((embedding - reference.predict(x)) ** 2) / np.sum((embedding - embedding.mean(axis=0)) ** 2)
    assert fitted.r_squared == pytest.approx(1 - (1 - plain) * 199 / 193)


def test_turning_the_embedding_changes_nothing(x):
    embedding = np.column_stack([x[:, 0], x[:, 1] ** 2])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    plain, turned = fit_linear_map(x, embedding), fit_linear_map(x, embedding @ turn)
    assert turned.r_squared == pytest.approx(plain.r_squared)
    np.testing.assert_allclose(turned.matrix, plain.matrix @ turn, atol=1e-10)


def test_dimensions_of_noise_explain_nothing():
    rng = np.random.default_rng(3)
    found = [fit_linear_map(rng.normal(size=(100, 80)), rng.normal(size=(100, 2))).r_squared for _ in range(50)]
    assert abs(np.mean(found)) < 0.15  # without the adjustment 0.8


def test_too_few_cells(x):
    with pytest.raises(ValueError, match=r"found 7 cells in 6 dimensions\. Use `projection='neighbors'`"):
        fit_linear_map(x[:7], x[:7, :2])
    assert fit_linear_map(x[:8], x[:8, :2]).r_squared == pytest.approx(1.0)


def test_embedding_of_one_point(x):
    assert fit_linear_map(x, np.zeros((200, 2))).r_squared == 1.0
