"""Tuning and comparisons, on rows made by hand."""

import numpy as np
import pandas as pd
import pytest

from uotcell.benchmark._selection import best_baseline, family_names, select_families
from uotcell.benchmark._statistics import (
    bootstrap_mean,
    by_condition,
    compare,
    difference_by_seed,
    effect_sizes,
    scaled,
)

CONDITIONS = [f"drug{i}" for i in range(6)]


def table(**families):
    index = pd.MultiIndex.from_product([CONDITIONS[: len(next(iter(families.values())))], [""]])
    return pd.DataFrame({name.replace("_", " "): values for name, values in families.items()}, index=index)


def test_scaled_scores():
    values = table(ceiling=[1.0, 2.0, 3.9], mean_shift=[3.0, 4.0, 4.0], icnn=[2.0, 5.0, 3.0])
    result = scaled(values, "sinkhorn_divergence")
    assert result["icnn"].tolist() == [0.5, -0.5]  # the third ceiling is no better than the mean shift
    assert result["mean shift"].tolist() == [0, 0]
    assert result["ceiling"].tolist() == [1, 1]
    larger = table(ceiling=[0.9, 0.5], mean_shift=[0.5, 0.9], icnn=[0.7, 0.7])
    assert scaled(larger, "mean_r2")["icnn"].tolist() == pytest.approx([0.5])


def test_bootstrap():
    values = np.random.default_rng(0).normal(2.0, 1.0, size=100)
    found = bootstrap_mean([*values, np.nan])
    assert found.mean == pytest.approx(values.mean())
    assert found.n == 100
    error = values.std() / 10
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.05)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.05)
    assert found == bootstrap_mean(values)
    assert bootstrap_mean([]).n == 0


def test_compare_counts_wins():
    ours, theirs = pd.Series([1.0, 2.0, 3.0, 4.0, np.nan]), pd.Series([2.0, 4.0, 2.0, 4.0, 1.0])
    found = compare(ours, theirs, "mmd")
    assert (found.wins, found.n) == (2, 4)
    assert found.change == pytest.approx((-0.5 + 0) / 2)
    assert compare(ours, theirs, "mean_r2").wins == 1
    clear = compare(pd.Series(range(6)), pd.Series(range(1, 7)), "mmd")
    assert (clear.wins, clear.p_value) == (6, pytest.approx(2 / 2**6))  # all six differences of one sign
    assert np.isnan(compare(theirs, theirs, "mmd").p_value)


def test_differences_by_seed():
    rows = [
        {"seed": seed, "condition": condition, "group": "", "family": family, "score": value}
        for seed, condition, family, value in (
            (0, "a", "x", 3.0), (0, "a", "y", 1.0), (0, "b", "x", 2.0), (0, "b", "y", 4.0),
            (1, "a", "x", 3.0), (1, "a", "y", 2.0), (1, "b", "x", 9.0), (1, "b", "y", NONE),
        )
    ]  # fmt: skip
    assert difference_by_seed(pd.DataFrame(rows), "score", "x", "y").to_dict() == {0: 0.0, 1: 1.0}


def test_effect_sizes_are_thirds():
    values = table(identity=[2.0, 12.0, 6.0, 4.0, 10.0, 8.0], ceiling=[2.0] * 6)
    assert effect_sizes(values).tolist() == ["small", "large", "medium", "small", "large", "medium"]
    assert effect_sizes(values[:2]).tolist() == ["medium", "medium"]


def score_row(method, tau, split, divergence, *, condition="drug0", seed=0, n_score=20, weighting="unweighted"):
    return {
        "dataset": "data", "condition": condition, "group": "", "seed": seed, "method": method, "tau": tau,
        "split": split, "weighting": weighting, "n_score": n_score, "sinkhorn_divergence": divergence, "error": "",
        "halves": [divergence] * 2 if split == "valid" else NONE,
    }  # fmt: skip


def score_table(valid, test, **shared):
    """Rows of one condition from {(method, τ): divergence} of both splits."""
    parts = (("valid", valid), ("test", test))
    rows = [score_row(*key, split, value, **shared) for split, values in parts for key, value in values.items()]
    return rows


NONE = float("nan")
BASE = {("identity", NONE): 10.0, ("mean_shift", NONE): 4.0, ("ceiling", NONE): 1.0}


def chosen(families, family="UOT-ICNN"):
    some = families[families["family"] == family].set_index("condition")["tau"]
    return some.sort_index().to_dict()


def test_tau_is_chosen_on_validation_cells():
    valid = {**BASE, ("icnn", 1.0): 3.0, ("icnn", 0.9): 2.0}
    test = {**BASE, ("icnn", 1.0): 2.5, ("icnn", 0.9): 5.0}  # the test cells would choose otherwise
    families = select_families(pd.DataFrame(score_table(valid, test)))
    assert chosen(families) == {"drug0": 0.9}
    divergence = families.set_index("family")["sinkhorn_divergence"]
    assert divergence["UOT-ICNN"] == 5.0
    assert divergence["OT-ICNN"] == 2.5
    assert set(families["family"]) == {"identity", "mean shift", "ceiling", "OT-ICNN", "UOT-ICNN"}
    assert set(families["split"]) == {"test"}


def three_conditions(n_score):
    """The first condition has a large effect and gains nothing; for the others τ = 0.9 halves the divergence."""
    large = {("identity", NONE): 1000.0, ("icnn", 1.0): 100.0, ("icnn", 0.9): 110.0}
    small = {("identity", NONE): 10.0, ("icnn", 1.0): 4.0, ("icnn", 0.9): 2.0}
    rows = score_table(large, large, condition="drug0", n_score=n_score)
    for condition in ("drug1", "drug2"):
        rows += score_table(small, small, condition=condition, n_score=n_score)
    return pd.DataFrame(rows)


def test_large_effects_do_not_choose_for_all():
    assert chosen(select_families(three_conditions(20))) == {"drug0": 0.9, "drug1": 0.9, "drug2": 0.9}


def test_a_gain_within_one_standard_error_is_none():
    def choice(*gains):
        rows = []
        for i, gain in enumerate(gains):
            valid = {("identity", NONE): 10.0, ("icnn", 1.0): 4.0, ("icnn", 0.9): 4.0 - gain}
            rows += score_table(valid, valid, condition=f"drug{i}")
        return set(chosen(select_families(pd.DataFrame(rows), tune="dataset")).values())

    assert choice(1.0, 1.1, 0.9) == {0.9}
    assert choice(1.0, -0.9, 0.1) == {1.0}
    assert choice(0.0, 0.0, 0.0) == {1.0}
    assert choice(-1.0, -1.1, -0.9) == {1.0}
    assert choice(float("nan"), 1.0, 1.0) == {1.0}  # a map that does not exist somewhere is no choice


def test_a_gain_within_one_standard_error_of_halves_is_none_for_one_condition():
    def choice(*gains):
        valid = {("identity", NONE): 10.0, ("icnn", 1.0): 4.0, ("icnn", 0.9): 4.0 - np.mean(gains)}
        scores = pd.DataFrame(score_table(valid, valid, n_score=200))
        rows = (scores["tau"] == 0.9) & (scores["split"] == "valid")
        scores.loc[rows, "halves"] = scores.loc[rows, "halves"].map(lambda _: [4.0 - gain for gain in gains])
        scores.loc[~rows, "halves"] = scores.loc[~rows, "halves"].map(lambda h: [4.0] * len(gains))
        return chosen(select_families(scores))["drug0"]

    assert choice(1.0, 1.1, 0.9) == 0.9
    assert choice(1.0, -0.9, 0.1) == 1.0
    assert choice(-1.0, -1.1, -0.9) == 1.0
    assert choice(1.0, 1.1, NONE) == 1.0  # the divergence of the whole is missing


def test_many_validation_cells_choose_for_each_condition():
    assert chosen(select_families(three_conditions(100))) == {"drug0": 1.0, "drug1": 0.9, "drug2": 0.9}
    assert chosen(select_families(three_conditions(100), tune="dataset")) == {"drug0": 0.9, "drug1": 0.9, "drug2": 0.9}
    assert chosen(select_families(three_conditions(20), tune="condition")) == {"drug0": 1.0, "drug1": 0.9, "drug2": 0.9}
    with pytest.raises(ValueError, match="`tune`"):
        select_families(three_conditions(20), tune="test")


def test_seeds_and_weightings_choose_for_themselves():
    rows = []
    for seed, weighting, better in (
        (0, "unweighted", 1.0),
        (1, "unweighted", 0.9),
        (0, "weighted", 0.9),
        (1, "weighted", 1.0),
    ):
        values = {("identity", NONE): 10.0, ("icnn", 1.0): 3.0, ("icnn", 0.9): 3.0}
        values[("icnn", better)] = 2.0
        rows += score_table(values, values, seed=seed, weighting=weighting)
    families = select_families(pd.DataFrame(rows))
    some = families[families["family"] == "UOT-ICNN"].set_index(["seed", "weighting"])["tau"]
    assert some.to_dict() == {
        (0, "unweighted"): 1.0, (1, "unweighted"): 0.9, (0, "weighted"): 0.9, (1, "weighted"): 1.0
    }  # fmt: skip


def test_maps_that_do_not_exist_are_not_chosen():
    values = {("identity", NONE): 10.0, ("icnn", 1.0): 3.0, ("icnn", 0.9): NONE}
    assert chosen(select_families(pd.DataFrame(score_table(values, values)))) == {"drug0": 1.0}


def test_ties_go_to_the_balanced_map():
    values = {("identity", NONE): 10.0, ("icnn", 0.9): 3.0, ("icnn", 1.0): 3.0}
    assert chosen(select_families(pd.DataFrame(score_table(values, values)))) == {"drug0": 1.0}


def test_best_baseline_is_chosen_on_validation_cells():
    valid = {**BASE, ("entropic", 1.0): 5.0, ("entropic", 0.9): 3.0, ("icnn", 1.0): 0.1}
    test = {**BASE, ("entropic", 1.0): 5.0, ("entropic", 0.9): 9.0, ("icnn", 1.0): 0.1}
    scores = pd.DataFrame(score_table(valid, test))
    assert best_baseline(scores, select_families(scores), "data", "unweighted") == "entropic UOT"


def test_family_names():
    assert family_names("monge_gap") == ("OT-MG", "UOT-MG")
    assert family_names("entropic") == ("entropic OT", "entropic UOT")
    assert family_names("wide") == ("OT-wide", "UOT-wide")


def test_by_condition_averages_seeds():
    rows = [score_row("identity", NONE, "test", value, seed=seed) for seed, value in enumerate((1.0, 3.0))]
    values = by_condition(pd.DataFrame(rows).assign(family="identity"), "sinkhorn_divergence")
    assert values["identity"].to_dict() == {("drug0", ""): 2.0}
