"""Splits that depend on the seed, the label and the number of cells, and on nothing else."""

import jax
import numpy as np
import pytest

from uotcell.problems._splits import SPLITS, check_fractions, split_stratum, stable_hash

TENTHS = {"valid_fraction": 0.1, "test_fraction": 0.1}


def counts(split):
    return dict(zip(SPLITS, np.bincount(split, minlength=3).tolist(), strict=True))


@pytest.mark.parametrize(
    ("n", "fractions", "expected"),
    [
        (100, (0.1, 0.1), {"train": 80, "valid": 10, "test": 10}),
        (100, (0.0, 0.25), {"train": 75, "valid": 0, "test": 25}),
        (57, (0.2, 0.0), {"train": 46, "valid": 11, "test": 0}),
        (100, (0.0, 0.0), {"train": 100, "valid": 0, "test": 0}),
        # One at least where the fraction is not zero.
        (4, (0.1, 0.1), {"train": 2, "valid": 1, "test": 1}),
        (1, (0.1, 0.1), {"train": 0, "valid": 0, "test": 1}),
    ],
)
def test_sizes(n, fractions, expected):
    valid_fraction, test_fraction = fractions
    split = split_stratum("drug", n, valid_fraction=valid_fraction, test_fraction=test_fraction, rng=0)
    assert counts(split) == expected
    assert (split.shape, split.dtype) == ((n,), np.int8)


def test_seed_label_and_size_decide():
    split = split_stratum("drug", 100, **TENTHS, rng=3)
    for same in (3, np.int64(3), jax.random.key(3)):
        np.testing.assert_array_equal(split, split_stratum("drug", 100, **TENTHS, rng=same))
    for label, rng in (("drug", 4), ("drug2", 3), ("grud", 3), ("drug", jax.random.fold_in(jax.random.key(3), 0))):
        assert (split != split_stratum(label, 100, **TENTHS, rng=rng)).any()


def test_every_cell_is_tested_equally_often():
    tested = np.mean([split_stratum("drug", 20, **TENTHS, rng=rng) == 2 for rng in range(1_000)], axis=0)
    np.testing.assert_allclose(tested, 0.1, atol=0.04)  # four standard deviations


def test_raising_one_fraction_keeps_the_test_cells():
    split = split_stratum("drug", 100, **TENTHS, rng=0)
    other = split_stratum("drug", 100, valid_fraction=0.3, test_fraction=0.1, rng=0)
    np.testing.assert_array_equal(split == 2, other == 2)


def test_hash_is_the_same_everywhere():
    assert stable_hash("123456789") == 0xCBF43926  # the check value of CRC-32
    assert stable_hash("β-lapachone") == stable_hash("β-lapachone")


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ((-0.1, 0.1), r"`valid_fraction` to be in \[0, 1\), found -0\.1"),
        ((0.1, 1.0), r"`test_fraction` to be in \[0, 1\), found 1\.0"),
        ((np.nan, 0.1), r"`valid_fraction` to be in \[0, 1\), found nan"),
        ((0.5, 0.5), r"leave cells to train on, found 0\.5 and 0\.5\. Lower one"),
    ],
)
def test_fractions_out_of_range(fractions, message):
    with pytest.raises(ValueError, match=message):
        check_fractions(*fractions)
