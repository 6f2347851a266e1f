"""Alias tables and draws against the weights they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from uotcell.ot._sampling import alias_table, draw, draw_columns, partners


def probabilities(table):
    n = int(table.n_rows)
    accept, alias = np.asarray(table.accept, np.float64)[:n], np.asarray(table.alias)[:n]
    out = accept.copy()
    np.add.at(out, alias, 1 - accept)
    return out / len(accept)


@pytest.mark.parametrize("size", [None, 1024])
def test_table_stands_for_the_weights_exactly(size):
    weights = np.random.default_rng(0).gamma(0.3, size=700)
    weights[::7] = 0
    table = alias_table(weights, size=size)
    found = probabilities(table)
    np.testing.assert_allclose(found, weights / weights.sum(), atol=1e-8)
    assert np.all(found[::7] == 0)
    assert len(table.accept) == len(table.alias) == (size or 700)


def test_draws_follow_the_weights():
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0])
    rows = np.asarray(draw(jax.random.key(0), alias_table(weights, size=8), (40_000,)))
    counts = np.bincount(rows, minlength=8)
    assert counts[[0, 3, 5, 6, 7]].sum() == 0
    assert chisquare(counts[[1, 2, 4]], 40_000 * weights[[1, 2, 4]] / 8).pvalue > 1e-3


def test_padding_changes_no_draw():
    weights = np.random.default_rng(0).gamma(0.3, size=700)
    tables = (alias_table(weights), alias_table(weights, size=1024))
    plain, padded = (draw(jax.random.key(0), table, (10_000,)) for table in tables)
    np.testing.assert_array_equal(plain, padded)


def test_columns_follow_their_rows():
    log_weights = jnp.log(jnp.asarray([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]))
    many = jnp.repeat(log_weights, 20_000, axis=0)
    columns = np.asarray(draw_columns(jax.random.uniform(jax.random.key(0), (40_000, 1)), many))
    counts = np.bincount(columns[:20_000], minlength=3)
    assert counts[1] == 0
    assert chisquare(counts[[0, 2]], [5_000, 15_000]).pvalue > 1e-3
    assert np.all(columns[20_000:] == 1)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [1.0, np.nan]])
def test_bad_weights(weights):
    with pytest.raises(ValueError, match="non-negative, finite and not all zero"):
        alias_table(np.array(weights))


def test_a_threshold_that_rounds_up_to_the_whole_row_stays_on_columns_with_mass():
    log_weights = jnp.log(jnp.array([[0.2, 0.3, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0]]))
    # The largest draw below one: 127 and it are 128 in float32.
    offsets = jnp.full((2, 1), np.nextafter(np.float32(1), 0))
    assert partners(offsets, log_weights, 128).max(axis=1).tolist() == [2, 0]
    assert draw_columns(offsets, log_weights).tolist() == [2, 0]
