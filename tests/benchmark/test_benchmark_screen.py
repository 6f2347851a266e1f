"""Reading a screen and splitting its cells."""

import numpy as np
import pytest
from tiny_screen import N_CELLS, tiny_screen, tiny_truth

import uotcell as uc
from uotcell.benchmark import read_screen
from uotcell.benchmark._split import N_HALVES, SPLITS, split_pair, split_rows

READ = {"perturbation_key": "drug", "control": "control", "use_rep": "X"}


def test_screen_holds_conditions_of_groups():
    adata = tiny_screen(2, lines=("A", "B"))
    adata = adata[~((adata.obs["drug"] == "drug1") & (adata.obs["line"] == "B"))].copy()
    screen = read_screen(adata, **READ, groupby="line", conditions=["drug1", "drug0"])
    assert screen.conditions == (("drug0", "A"), ("drug0", "B"), ("drug1", "A"))
    rows = screen.rows("drug0", "B")
    np.testing.assert_array_equal(
        screen.cells[rows], adata[(adata.obs["drug"] == "drug0") & (adata.obs["line"] == "B")].X
    )
    assert len(screen.cells) == 5 * N_CELLS


def test_labels_may_be_numbers():
    screen = read_screen(uc.datasets.reprogramming(), "day", 10.0)
    assert (screen.control, screen.conditions) == ("10.0", (("10.5", ""), ("11.0", "")))


def test_fractions_grow_for_small_conditions():
    small, large = (read_screen(tiny_screen(1, n_cells=n), **READ) for n in (60, 500))
    assert (small.valid_fraction, small.test_fraction) == (0.2, 0.2)
    assert (large.valid_fraction, large.test_fraction) == (0.1, 0.1)


def test_small_conditions_are_left_out_with_a_warning():
    adata = tiny_screen(2)
    few = adata[np.r_[0 : len(adata) - N_CELLS + 20]].copy()
    with pytest.warns(UserWarning, match="Left out 1 of 2 pairs.*drug1"):
        assert read_screen(few, **READ).conditions == (("drug0", ""),)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"perturbation_key": "dose"}, KeyError, "Expected `perturbation_key`"),
        ({"control": "dmso"}, ValueError, "Expected `control`.*found 'dmso'"),
        ({"conditions": ["drug7"]}, ValueError, "Expected `conditions`.*found 'drug7'"),
        ({"use_rep": "X_umap"}, KeyError, "Expected `use_rep`"),
        ({"name": "a/b"}, ValueError, "found 'a/b'"),
        ({"test_fraction": 0.95}, ValueError, "leave cells to train on"),
        ({"test_fraction": 0.01}, ValueError, "at least 5 validation and test cells"),
    ],
)
def test_refusals(change, error, message):
    with pytest.raises(error, match=message):
        read_screen(tiny_screen(1), **{**READ, **change})


def test_fingerprint_sees_cells_labels_and_truth():
    adata = tiny_screen(2)
    original = read_screen(adata, **READ, truth=tiny_truth(2)).fingerprint()
    assert original == read_screen(adata, **READ, truth=tiny_truth(2)).fingerprint()
    moved, renamed = adata.copy(), adata.copy()
    moved.X[0, 0] += 1e-3
    renamed.obs["drug"] = renamed.obs["drug"].astype(str).replace("drug1", "drug2")
    others = [
        read_screen(moved, **READ, truth=tiny_truth(2)),
        read_screen(renamed, **READ, truth=tiny_truth(2)),
        read_screen(adata, **READ),
        read_screen(adata, **READ, truth={"drug0": tiny_truth(3)["drug2"], "drug1": tiny_truth(3)["drug1"]}),
    ]
    assert all(other.fingerprint()["sha256"] != original["sha256"] for other in others)


@pytest.fixture(scope="module")
def screen():
    return read_screen(tiny_screen(3), **READ, truth=tiny_truth())


def test_splits_are_disjoint_and_complete(screen):
    for label in ("control", "drug1"):
        parts = split_rows(screen, label, "", 0)
        assert [len(parts[split]) for split in SPLITS] == [36, 12, 12]
        np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), screen.rows(label, ""))


def test_splits_depend_on_seed_and_label_alone(screen):
    parts = split_rows(screen, "drug1", "", 0)
    smaller = screen.restricted([("drug1", "")])
    for split in SPLITS:
        np.testing.assert_array_equal(parts[split], split_rows(smaller, "drug1", "", 0)[split])
    assert not np.array_equal(parts["test"], split_rows(screen, "drug1", "", 1)["test"])
    places = [split_rows(screen, label, "", 0)["test"] - screen.rows(label, "")[0] for label in ("drug0", "drug1")]
    assert not np.array_equal(*places)


def test_splits_are_those_of_the_problem(screen):
    adata = tiny_screen(3)
    problem = uc.problems.PerturbationProblem(adata).prepare(
        "drug", "control", use_rep="X", valid_fraction=0.2, test_fraction=0.2, rng=3
    )
    rows = problem._matched.split_rows(("drug1", None), "test")
    for label, expected in zip(("control", "drug1"), rows, strict=True):
        np.testing.assert_array_equal(split_rows(screen, label, "", 3)["test"], expected)


def test_conditions_share_the_split_of_their_controls(screen):
    pairs = [split_pair(screen, label, "", 0, 10) for label in ("drug0", "drug1")]
    for split in SPLITS:
        np.testing.assert_array_equal(pairs[0].source[split], pairs[1].source[split])


def as_set(cells):
    return set(map(tuple, np.asarray(cells).tolist()))


def test_draws_are_equally_many_and_from_their_split(screen):
    pair = split_pair(screen, "drug2", "", 0, 10)
    for split in ("valid", "test"):
        draw = pair.draws[split]
        assert [len(cells) for cells in draw[:4]] == [10] * 4
        assert draw.halves.shape == (N_HALVES, 5)
        assert all(len(set(half)) == 5 and set(half) <= set(range(10)) for half in draw.halves.tolist())
        assert as_set(draw.source) <= as_set(pair.source[split])
        assert as_set(draw.survivors) <= as_set(pair.source[split])
        assert as_set(draw.observed) <= as_set(pair.target[split])
        assert as_set(draw.replicate) <= as_set(pair.target["train"])
    assert not as_set(pair.draws["test"].observed) & as_set(pair.target["train"])
    again, other = split_pair(screen, "drug2", "", 0, 10), split_pair(screen, "drug2", "", 1, 10)
    np.testing.assert_array_equal(pair.draws["test"].observed, again.draws["test"].observed)
    assert not np.array_equal(pair.draws["test"].observed, other.draws["test"].observed)


def test_survivors_are_drawn_by_their_survival():
    screen = read_screen(tiny_screen(1, n_cells=1000), **READ, truth=tiny_truth(1))
    pair = split_pair(screen, "drug0", "", 0, 1000)
    # For N(0, 1) under a logistic survival the mean of those that survive is E[x s(x)] / E[s(x)] = 0.41.
    assert abs(pair.draws["test"].survivors[:, 0].mean() - 0.41) < 0.25
    assert abs(pair.source["test"][:, 0].mean()) < 0.2


def test_score_epsilon_is_a_tenth_of_the_mean_squared_distance(screen):
    pair = split_pair(screen, "drug0", "", 0, 10)
    x, y = pair.source["train"].astype(float), pair.target["train"].astype(float)
    expected = ((x[:, None] - y[None]) ** 2).sum(axis=-1).mean()
    assert pair.epsilon == pytest.approx(0.1 * expected)
