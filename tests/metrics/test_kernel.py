import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from uotcell.metrics import energy_distance, mmd

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(40, 3)), rng.normal(loc=[1.0, 0.5, 0.0], scale=0.7, size=(25, 3))
A, B = rng.uniform(size=40), rng.uniform(size=25)


def sklearn_mmd(x, y, widths, a, b):
    a, b = a / a.sum(), b / b.sum()
    values = []
    for width in widths:
        gamma = 1 / (2 * width**2)
        within = a @ rbf_kernel(x, gamma=gamma) @ a + b @ rbf_kernel(y, gamma=gamma) @ b
        values.append(within - 2 * a @ rbf_kernel(x, y, gamma=gamma) @ b)
    return np.mean(values)


@pytest.mark.parametrize("widths", [[1.0], [0.1, 0.5, 3.0]])
@pytest.mark.parametrize(("a", "b"), [(np.ones(40), np.ones(25)), (A, B)], ids=["uniform", "weighted"])
def test_mmd_agrees_with_sklearn(widths, a, b):
    assert mmd(X, Y, widths=widths, a=a, b=b) == pytest.approx(sklearn_mmd(X, Y, widths, a, b), rel=1e-10)


@pytest.mark.parametrize("n_observed", [24, 25])  # even and odd numbers of pairs
def test_default_widths_are_of_the_observed_cells(n_observed):
    y = Y[:n_observed]
    widths = np.array([0.5, 1.0, 2.0]) * np.median(pdist(y))
    for x in (X, 10 * X):
        assert mmd(x, y) == pytest.approx(mmd(x, y, widths=widths), rel=1e-12)


def test_default_widths_leave_copies_out():
    assert mmd(X, np.repeat(Y, 5, axis=0)) == pytest.approx(mmd(X, Y), rel=1e-12)


def test_default_widths_scale_with_the_data():
    assert mmd(1e3 * X, 1e3 * Y) == pytest.approx(mmd(X, Y), rel=1e-10)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.5), (0.5, 0.0), (1.5, 1.0)])
def test_mmd_of_gaussians(scale, shift):
    # E k = (σ² / s)^{d/2} exp(−‖μ − ν‖² / 2s) with s = σ² + the two variances; self-pairs add (1 − E k)/n to either
    # within-term.
    n, d, width = 300, 4, 1.5

    def expected_kernel(variances, distance):
        s = width**2 + variances
        return (width**2 / s) ** (d / 2) * np.exp(-(distance**2) / (2 * s))

    within = expected_kernel(2.0, 0.0), expected_kernel(2 * scale**2, 0.0)
    expected = sum(w + (1 - w) / n for w in within) - 2 * expected_kernel(1 + scale**2, shift * np.sqrt(d))
    draw = np.random.default_rng(1)
    values = [mmd(draw.normal(size=(n, d)), draw.normal(shift, scale, size=(n, d)), widths=[width]) for _ in range(20)]
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))
    assert np.std(values) < 0.2 * expected


def test_mmd_limits():
    # Narrow kernels see every cell alone; wide ones see the means, k ≈ 1 − ‖x − y‖² / 2σ².
    assert mmd(X, Y, widths=[1e-4]) == pytest.approx(1 / 40 + 1 / 25)
    assert mmd([[0.0]], [[9.0]], widths=[0.1]) == pytest.approx(2.0)
    wide = ((X.mean(axis=0) - Y.mean(axis=0)) ** 2).sum() / 1e3**2
    assert mmd(X, Y, widths=[1e3]) == pytest.approx(wide, rel=1e-4)


@pytest.mark.parametrize("widths", [[], [0.0], [-1.0, 1.0], [np.nan], [np.inf], 1.0])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match=r"Expected `widths` to be a list of positive numbers, found"):
        mmd(X, Y, widths=widths)


@pytest.mark.parametrize("y", [Y[:1], np.ones((5, 3))])
def test_no_default_width_for_one_observed_cell(y):
    with pytest.raises(ValueError, match=r"`y` to hold two different cells with mass, found one\. Give `widths`"):
        mmd(X, y)
    assert mmd(X, y, widths=[1.0]) > 0


@pytest.mark.parametrize(("a", "b"), [(np.ones(40), np.ones(25)), (A, B)], ids=["uniform", "weighted"])
def test_energy_distance_agrees_with_scipy(a, b):
    for x, y in zip(X.T, Y.T, strict=True):
        expected = stats.energy_distance(x, y, a, b) ** 2
        assert energy_distance(x[:, None], y[:, None], a=a, b=b) == pytest.approx(expected, rel=1e-10)


def test_energy_distance_by_formula():
    a, b = A / A.sum(), B / B.sum()
    value = 0.0
    for (p, mass_p), (q, mass_q), factor in ((((X, a), (Y, b), 2)), ((X, a), (X, a), -1), ((Y, b), (Y, b), -1)):
        distances = np.sqrt(((p[:, None] - q) ** 2).sum(axis=-1))
        value += factor * (mass_p[:, None] * mass_q * distances).sum()
    assert energy_distance(X, Y, a=A, b=B) == pytest.approx(value, rel=1e-10)


def test_energy_distance_of_gaussians():
    # E|Z| of Z ~ N(μ, s²) is that of the folded normal; self-pairs take 1/n off either within-term.
    n, shift, scale = 300, 0.8, 0.5

    def expected_distance(mean, std):
        return stats.foldnorm.mean(abs(mean) / std, scale=std)

    within = expected_distance(0, np.sqrt(2)) * (1 + scale) * (1 - 1 / n)
    expected = 2 * expected_distance(shift, np.hypot(1, scale)) - within
    draw = np.random.default_rng(1)
    values = [energy_distance(draw.normal(size=(n, 1)), draw.normal(shift, scale, size=(n, 1))) for _ in range(40)]
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))
    assert np.std(values) < 0.3 * expected


def test_energy_distance_sees_more_than_means():
    wide = 2 * (X - X.mean(axis=0)) + X.mean(axis=0)
    assert energy_distance(X, wide) > 0.1
    assert energy_distance(3 * X, 3 * Y) == pytest.approx(3 * energy_distance(X, Y))


@pytest.mark.parametrize("distance", [energy_distance, lambda *sides, **masses: mmd(*sides, widths=[0.5], **masses)])
def test_symmetric_and_not_negative(distance):
    assert distance(Y, X, a=B, b=A) == pytest.approx(distance(X, Y, a=A, b=B), rel=1e-10)
    for seed in range(5):
        x = np.random.default_rng(seed).normal(size=(30, 5))
        assert 0 <= distance(x, x[::-1]) < 1e-12
        assert distance(x, x + 0.1) > 1e-4
