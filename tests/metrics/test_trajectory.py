import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from uotcell.metrics import clonal_fate_accuracy, landing_shares, transition_share

LINE = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])  # three cells at the left, three at the right
SIDES = np.array(["left"] * 3 + ["right"] * 3)


def brute_force(pushed, target, labels, n_neighbors):
    names = sorted(set(labels))
    shares = np.zeros((len(pushed), len(names)))
    for i, point in enumerate(pushed):
        nearest = np.argsort(((target - point) ** 2).sum(axis=1))[:n_neighbors]
        for j in nearest:
            shares[i, names.index(labels[j])] += 1 / len(nearest)
    return shares, names


@pytest.mark.parametrize("n_neighbors", [1, 10, 40, 500])
def test_landing_shares(n_neighbors):
    rng = np.random.default_rng(0)
    pushed, target = rng.normal(size=(25, 4)), rng.normal(size=(40, 4))
    labels = rng.choice(["c", "a", "b"], size=40)
    shares, names = landing_shares(pushed, target, labels, n_neighbors=n_neighbors)
    expected, expected_names = brute_force(pushed, target, labels, n_neighbors)
    np.testing.assert_array_equal(names, expected_names)
    np.testing.assert_allclose(shares, expected)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


@pytest.mark.parametrize("labels", [pd.Categorical(SIDES), pd.Series(SIDES), SIDES.tolist()])
def test_kinds_of_labels(labels):
    shares, names = landing_shares(np.array([[1.0], [8.0]]), LINE, labels, n_neighbors=3)
    np.testing.assert_array_equal(names, ["left", "right"])
    np.testing.assert_array_equal(shares, [[1.0, 0.0], [0.0, 1.0]])


def test_transition_share_by_hand():
    pushed, labels = np.array([[1.0], [2.0], [11.0], [1.0]]), np.array(["left", "left", "left", "right"])
    arguments = {"pushed": pushed, "source_labels": labels, "target": LINE, "target_labels": SIDES, "n_neighbors": 3}
    assert transition_share(**arguments, origin="left", destination="right") == pytest.approx(1 / 3)
    assert transition_share(**arguments, origin="left", destination="left") == pytest.approx(2 / 3)
    assert transition_share(**arguments, origin="right", destination="left") == 1.0
    weights = np.array([1.0, 0.0, 3.0, 5.0])
    assert transition_share(**arguments, origin="left", destination="right", weights=weights) == pytest.approx(0.75)
    assert transition_share(**arguments, origin="left", destination="nowhere") == 0.0


def test_transition_share_of_no_mass():
    arguments = {"source_labels": ["left"], "target": LINE, "target_labels": SIDES, "destination": "left"}
    assert np.isnan(transition_share(np.zeros((1, 1)), origin="right", **arguments))
    assert np.isnan(transition_share(np.zeros((1, 1)), origin="left", weights=[0.0], **arguments))


def test_transition_share_of_numbered_clusters():
    clusters = np.array([1, 1, 1, 2, 2, 2])
    share = transition_share(LINE + 8.0, clusters, LINE, clusters, 1, 2, n_neighbors=3)
    assert share == transition_share(LINE + 8.0, clusters, LINE, clusters, "1", "2", n_neighbors=3) == 1.0


# Four clones. The source cells of the first land at the left, which it reached; those of the second at the left, which
# it did not; the third cell is of two clones of which one reached the right; the last clone is not seen again.
PUSHED = np.array([[0.0], [1.0], [1.0], [11.0], [11.0]])
SOURCE_CLONES = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
TARGET_CLONES = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    "kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, lambda clones: 3.0 * clones]
)
def test_clonal_fate_accuracy_by_hand(kind):
    accuracy = clonal_fate_accuracy(PUSHED, kind(SOURCE_CLONES), LINE, kind(TARGET_CLONES), SIDES, n_neighbors=3)
    assert accuracy == pytest.approx(3 / 4)


def test_clonal_fate_accuracy_takes_the_commonest_label():
    labels = np.array(["left", "right", "left", "right", "right", "right"])
    one = np.array([[1]])
    reached_left, reached_right = np.array([[1], [0], [0], [0], [0], [0]]), np.array([[0], [1], [0], [0], [0], [0]])
    assert clonal_fate_accuracy([[1.0]], one, LINE, reached_left, labels, n_neighbors=3) == 1.0
    assert clonal_fate_accuracy([[1.0]], one, LINE, reached_right, labels, n_neighbors=3) == 0.0
    both = np.maximum(reached_left, reached_right)
    assert clonal_fate_accuracy([[1.0]], one, LINE, both, labels, n_neighbors=3) == 1.0


def test_no_clone_of_both_times():
    with pytest.raises(ValueError, match="at least one clone with cells at both times, found none"):
        clonal_fate_accuracy(PUSHED[4:], SOURCE_CLONES[4:], LINE, TARGET_CLONES, SIDES)
