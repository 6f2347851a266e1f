"""Kernels of CellRank from a fitted time course, and what its estimators make of them."""

import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from cellrank.estimators import GPCCA
from cellrank.kernels import ConnectivityKernel, PrecomputedKernel, RealTimeKernel
from fitted_slots import fitted_course, random_course
from scipy import sparse
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

import uotcell as uc
from uotcell.problems._cellrank import cellrank_kernel

FATES = ["Monocyte", "Baso", "Neutrophil", "Mast"]  # those with at least 30 cells at day 6
OPTIONS = {
    "key": "uot", "kind": "precomputed", "n_neighbors": 8, "empty_rows": "self", "min_weight": 0.1, "conn_weight": 0.0,
    "batch_size": 64,
}  # fmt: skip


def kernel_of(adata, **options):
    """The kernel from slots alone, without a problem that was solved."""
    return cellrank_kernel(adata, **(OPTIONS | options))


def with_graph(adata):
    sc.pp.neighbors(adata, n_neighbors=10, use_rep="X_pca", method="gauss")
    return adata


@pytest.fixture
def adata():
    return random_course()


@pytest.fixture
def _quick_neighbors(monkeypatch):
    """CellRank finds neighbours within a time by scanpy, whose default compiles for seconds."""
    monkeypatch.setattr(sc.pp, "neighbors", partial(sc.pp.neighbors, method="gauss"))


@pytest.fixture(scope="module")
def course():
    """Hematopoiesis from day 4 to day 6, and a problem whose map is written."""
    adata = uc.datasets.hematopoiesis()
    adata = with_graph(adata[adata.obs["day"] >= 4].copy())
    problem = uc.tl.fit_trajectory(
        adata, "day", method=uc.methods.ICNN(hidden=(16,), n_inner=1), tau=0.95, n_iters=200, batch_size=128,
        valid_fraction=0.0, progress=False,
    )  # fmt: skip
    return adata, problem


@pytest.fixture(scope="module")
def kernel(course):
    return course[1].to_cellrank()


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


class TestPrecomputed:
    def test_is_the_transition_matrix(self, course):
        adata, problem = course
        slots = set(adata.obs), set(adata.obsp), set(adata.uns)
        kernel = problem.to_cellrank(conn_weight=0, n_neighbors=12, empty_rows="absorb")
        assert isinstance(kernel, PrecomputedKernel)
        assert kernel.adata is adata
        assert (set(adata.obs), set(adata.obsp), set(adata.uns)) == slots
        expected = uc.tl.transition_matrix(adata.copy(), n_neighbors=12, empty_rows="absorb")
        np.testing.assert_array_equal(dense(kernel.transition_matrix), expected.toarray())

    def test_is_mixed_with_neighbors(self, course, kernel):
        adata = course[0]
        neighbors = ConnectivityKernel(adata).compute_transition_matrix().transition_matrix
        expected = 0.8 * uc.tl.transition_matrix(adata.copy()) + 0.2 * neighbors
        np.testing.assert_allclose(dense(kernel.transition_matrix), dense(expected), atol=1e-12)
        np.testing.assert_allclose(dense(kernel.transition_matrix).sum(axis=1), 1.0, atol=1e-12)

    def test_needs_a_graph(self, adata):
        with pytest.raises(KeyError, match=r"'connectivities', found \[\].*sc\.pp\.neighbors\(adata, use_rep='X_pca'"):
            kernel_of(adata, conn_weight=0.2)


class TestRealTime:
    def test_couplings_carry_mass(self, course):
        adata, problem = course
        kernel = problem.to_cellrank(kind="realtime", conn_weight=0)
        assert isinstance(kernel, RealTimeKernel)
        assert kernel.adata is adata
        assert adata.obs["day"].dtype == np.float64
        assert adata.obs["uot_time"].cat.categories.tolist() == [4.0, 6.0]
        np.testing.assert_array_equal(adata.obs["uot_time"].astype(float), adata.obs["day"])
        coupling = kernel.couplings[4.0, 6.0]
        mass = np.asarray(coupling.X.sum(axis=1)).ravel()
        np.testing.assert_allclose(mass, adata.obs["uot_source_weight"][adata.obs["day"] == 4] / 316, rtol=1e-6)
        assert mass.sum() == pytest.approx(problem[4.0, 6.0].coupling.transported_mass, rel=1e-5)
        expected = uc.tl.transition_matrix(adata.copy())
        np.testing.assert_allclose(dense(kernel.transition_matrix), expected.toarray(), atol=1e-12)

    @pytest.mark.parametrize("empty_rows", ["self", "absorb"])
    def test_no_row_is_uniform(self, adata, empty_rows):
        weight = adata.obs["uot_source_weight"].to_numpy(copy=True)
        weight[np.flatnonzero(adata.obs["day"] == 0)[:3]] = 0.0
        adata.obs["uot_source_weight"] = weight
        expected = uc.tl.transition_matrix(adata, n_neighbors=8, empty_rows=empty_rows)
        assert (adata.obs["uot_transition_matrix"] == "dying").sum() > 3
        kernel = kernel_of(adata, kind="realtime", empty_rows=empty_rows)
        np.testing.assert_allclose(dense(kernel.transition_matrix), expected.toarray(), atol=1e-12)
        assert kernel.transition_matrix.nnz == expected.nnz
        assert [coupling.X.nnz for coupling in kernel.couplings.values()] == [40 * 8] * 2

    @pytest.mark.usefixtures("_quick_neighbors")
    def test_is_mixed_with_neighbors_of_the_same_time(self, adata):
        day = adata.obs["day"].to_numpy()
        expected = uc.tl.transition_matrix(adata, n_neighbors=8, empty_rows="absorb").toarray()
        moving = (adata.obs["uot_transition_matrix"] == "moving").to_numpy()
        found = dense(kernel_of(adata, kind="realtime", empty_rows="absorb", conn_weight=0.3).transition_matrix)
        np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)
        neighbors = np.zeros_like(found)
        for time in np.unique(day):
            rows = np.flatnonzero(day == time)
            part = AnnData(obsm={"X_pca": adata.obsm["X_pca"][rows]})
            sc.pp.neighbors(part, use_rep="X_pca")
            block = ConnectivityKernel(part).compute_transition_matrix().transition_matrix
            neighbors[np.ix_(rows, rows)] = dense(block)
        np.testing.assert_allclose(found[moving], 0.7 * expected[moving] + 0.3 * neighbors[moving], atol=1e-6)
        np.testing.assert_allclose(found[~moving], 0.7 * expected[~moving] + 0.3 * neighbors[~moving], atol=1e-6)

    @pytest.mark.parametrize(
        "labels",
        [
            pytest.param(["E9.5", "E10.5", "E11.5"], id="strings"),
            pytest.param(pd.CategoricalDtype(["late", "mid", "early"][::-1], ordered=True), id="ordered"),
            pytest.param([9, 10, 11], id="integers"),
        ],
    )
    def test_times_in_any_form(self, labels):
        adata = random_course(times=(0.0, 1.0, 2.0))
        expected = kernel_of(adata.copy(), kind="realtime").transition_matrix
        names = list(getattr(labels, "categories", labels))
        column = adata.obs["day"].map(dict(enumerate(names)))
        adata.obs["day"] = column.astype(labels) if isinstance(labels, pd.CategoricalDtype) else column
        adata.uns["uot"]["pairs"] |= {"source": np.asarray(names[:2], str), "target": np.asarray(names[1:], str)}
        before = adata.obs["day"].copy()
        kernel = kernel_of(adata, kind="realtime")
        np.testing.assert_array_equal(dense(kernel.transition_matrix), dense(expected))
        pd.testing.assert_series_equal(adata.obs["day"], before)

    def test_needs_a_map_from_every_time_but_the_last(self):
        day = np.repeat([0, 1, 3], 6)
        cells = np.random.default_rng(0).normal(size=(18, 2))
        with pytest.raises(ValueError, match=r"every time but the last with `kind`='realtime', found none from \[1\]"):
            kernel_of(fitted_course(day, cells, cells, pairs=[(0, 1), (0, 3)]), kind="realtime")
        adata = fitted_course(day, cells, cells, pairs=[(0, 3), (1, 3), (0, 1)])
        assert set(kernel_of(adata, kind="realtime").couplings) == {(0.0, 1.0), (1.0, 3.0)}
        adata.obsm["uot_push"][7] = np.nan
        with pytest.raises(ValueError, match=r"found none for 1 cells \(first: 'cell7'\)"):
            kernel_of(adata, kind="realtime")

    def test_neighbors_in_a_layer(self, adata):
        adata = AnnData(
            np.zeros_like(adata.obsm["X_pca"]), obs=adata.obs, uns=dict(adata.uns),
            obsm={name: adata.obsm[name] for name in ("uot_push", "uot_velocity")},
            layers={"scaled": adata.obsm["X_pca"]},
        )  # fmt: skip
        adata.uns["uot"]["params"] |= {"use_rep": "X", "layer": "scaled"}
        with pytest.raises(ValueError, match=r"a fit in layer 'scaled', found 0.2"):
            kernel_of(adata, kind="realtime", conn_weight=0.2)
        assert "uot_time" not in adata.obs
        assert isinstance(kernel_of(adata, kind="realtime"), RealTimeKernel)


@pytest.mark.parametrize("kind", ["precomputed", "realtime"])
class TestBothKinds:
    # Writing into a view makes it a copy of its own, and anndata says so.
    @pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
    def test_views_and_sparse_expression(self, adata, kind):
        expected = dense(kernel_of(adata[10:].copy(), kind=kind).transition_matrix)
        sparse_x = AnnData(
            sparse.random(adata.n_obs, 5, 0.3, format="csr", dtype=np.float32, random_state=0),
            obs=adata.obs, obsm=dict(adata.obsm), uns=dict(adata.uns),
        )  # fmt: skip
        np.testing.assert_array_equal(dense(kernel_of(sparse_x[10:], kind=kind).transition_matrix), expected)
        assert "uot_time" not in sparse_x.obs

    def test_options(self, adata, kind):
        for options, message in (
            ({"conn_weight": 1.0}, r"`conn_weight` to be in \[0, 1\), found 1.0"),
            ({"conn_weight": -0.1}, "`conn_weight`"),
            ({"n_neighbors": 0}, "`n_neighbors`"),
            ({"empty_rows": "error"}, "Expected outgoing mass of every cell before 3.0"),
        ):
            with pytest.raises(ValueError, match=message):
                kernel_of(adata, kind=kind, **options)
        assert "uot_time" not in adata.obs

    def test_without_cellrank(self, adata, kind, monkeypatch):
        monkeypatch.setitem(sys.modules, "cellrank.kernels", None)
        with pytest.raises(ImportError, match=r'pip install "uotcell\[cellrank\]"'):
            kernel_of(adata, kind=kind)
        assert "uot_time" not in adata.obs


def test_unknown_options(course):
    problem = course[1]
    with pytest.raises(ValueError, match=r"`kind` to be one of \['precomputed', 'realtime'\], found 'velocity'"):
        problem.to_cellrank(kind="velocity")
    with pytest.raises(TypeError, match="threshold"):
        problem.to_cellrank(threshold=None)


def test_only_the_fit_that_was_written(course):
    adata, problem = course
    with pytest.raises(RuntimeError, match=r"Run `\.prepare|Run `\.solve"):
        uc.problems.TemporalProblem(adata).to_cellrank()
    with pytest.raises(KeyError, match=r"a time course .* found 'other'"):
        problem.to_cellrank(key="other")
    copy = adata.copy()
    copy.uns["screen"] = {"params": {}, "pairs": {"condition": np.asarray(["drug"])}}
    copy.uns["uot"]["pairs"]["source"] = np.asarray(["2.0"])
    problem.adata = copy
    try:
        with pytest.raises(ValueError, match="found those of another fit"):
            problem.to_cellrank()
        with pytest.raises(KeyError, match=r"a time course .* found 'screen'"):
            problem.to_cellrank(key="screen")
    finally:
        problem.adata = adata


class TestEstimators:
    def test_dense_gpcca_finds_the_fates(self, course, kernel):
        estimator = GPCCA(kernel)
        with threadpool_limits(1):  # threads of LAPACK that wait for each other take most of the time
            estimator.compute_schur(n_components=8, method="brandts")
        estimator.compute_macrostates(n_states=6, cluster_key="cell_type")
        assert estimator.eigendecomposition["D"][0] == pytest.approx(1.0, abs=1e-6)
        names = {name.split("_")[0] for name in estimator.macrostates.cat.categories}
        assert set(FATES) <= names

    def test_death_is_a_fate_of_its_own(self):
        # Day 0 steps to day 1, where some cells die; the others step on to day 2.
        adata = random_course(times=(0.0, 1.0, 2.0))
        adata.obs.loc[adata.obs["day"] == 0, "uot_source_weight"] = 1.0
        matrix = uc.tl.transition_matrix(adata, n_neighbors=8, empty_rows="absorb").toarray()
        dying, end = ((adata.obs["uot_transition_matrix"] == state).to_numpy() for state in ("dying", "end"))
        assert 3 < dying.sum() < 20
        estimator = GPCCA(kernel_of(adata, empty_rows="absorb"))
        estimator.compute_schur(n_components=5, method="brandts")
        # One eigenvalue 1 for each closed class.
        n_classes = sparse.csgraph.connected_components(matrix[dying | end][:, dying | end])[0]
        assert (estimator.eigendecomposition["D"].real > 1 - 1e-8).sum() == n_classes == 2
        names = adata.obs_names.to_numpy()
        estimator.set_terminal_states({"death": names[dying].tolist(), "day 2": names[end].tolist()})
        estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
        death = np.asarray(estimator.fate_probabilities["death"]).ravel()
        first = (adata.obs["day"] == 0).to_numpy()
        np.testing.assert_allclose(death[first], matrix[first][:, dying].sum(axis=1), atol=1e-5)
        assert 0.02 < death[first].mean() < 0.5

    def test_fate_probabilities_agree_with_clones(self, course, kernel):
        """Rank correlation, over day-4 cells of clones seen at both days, with the share of each fate in the clone.

        The mean over the fates was 0.4, and that of permuted clones up to 0.2. The map does not account for it: with
        every cell left in its place, the day-6 cells nearest to it give the same correlation.
        """
        adata = course[0]
        day, cell_type = adata.obs["day"].to_numpy(), adata.obs["cell_type"].to_numpy(str)
        estimator = GPCCA(kernel)
        estimator.set_terminal_states(
            {fate: adata.obs_names[(day == 6) & (cell_type == fate)].tolist() for fate in FATES}
        )
        estimator.compute_fate_probabilities(solver="direct", use_petsc=False, show_progress_bar=False)
        probabilities = np.hstack([np.asarray(estimator.fate_probabilities[fate]).reshape(-1, 1) for fate in FATES])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-4)

        clones = adata.obsm["X_clone"].toarray()
        seen = clones[day == 4].any(axis=0) & clones[day == 6].any(axis=0)
        clones = clones[:, seen]
        shares = np.stack([clones[(day == 6) & (cell_type == fate)].sum(axis=0) for fate in FATES], axis=1)
        shares /= clones[day == 6].sum(axis=0)[:, None]
        cells = np.flatnonzero((day == 4) & clones.any(axis=1))
        clone = clones[cells].argmax(axis=1)
        assert (len(cells), seen.sum()) == (180, 113)

        def correlation(order):
            return np.array([spearmanr(probabilities[cells, i], shares[order][clone, i])[0] for i in range(len(FATES))])

        observed = correlation(np.arange(seen.sum()))
        rng = np.random.default_rng(0)
        permuted = np.stack([correlation(rng.permutation(seen.sum())) for _ in range(99)])
        assert observed.mean() > permuted.mean(axis=1).max()  # p = 0.01
        assert (observed > 0).all()
