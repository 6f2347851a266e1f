"""One battery for every method: a newcomer adds one line to ``CASES``."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from gaussian_oracle import make_oracle

import uotcell as uc
from uotcell.methods import GENOT, ICNN, FlowMatching, Method, MongeGap, TransportMap, _transport_map
from uotcell.methods._registry import METHODS
from uotcell.train import _program


@dataclass(frozen=True)
class Case:
    """A method small and fast for mechanical checks, and as it is trained to reach known answers.

    ``n_iters`` are the steps of that training, globally and where batches are rescaled one by one; ``bound`` is the
    error allowed against the closed form, in percent of the variance of the target.
    """

    small: Method
    trained: Method
    n_iters: dict[str, int]
    bound: float


CASES = {
    "icnn": Case(
        ICNN(hidden=(16, 16), n_inner=2), ICNN(hidden=(64, 64), n_inner=4), {"global": 600, "minibatch": 150}, 2.0
    ),
    "monge_gap": Case(
        MongeGap(hidden=(16, 16)), MongeGap(hidden=(64, 64), learning_rate=1e-2), {"global": 300, "minibatch": 300}, 5.0
    ),
    "flow_matching": Case(
        FlowMatching(hidden=(16, 16), n_steps=10), FlowMatching(hidden=(64, 64), learning_rate=3e-3, n_steps=10),
        {"global": 500, "minibatch": 500}, 3.0,
    ),
    "genot": Case(
        GENOT(hidden=(16, 16)), GENOT(hidden=(64, 64), learning_rate=3e-3), {"global": 600, "minibatch": 600}, 3.0
    ),
}  # fmt: skip
# Of batches of 128 cells, whose own couplings are biased.
MINIBATCH_BOUND = 5.0
RESCALINGS = ("global", "minibatch")
CONFIGS = [
    (name, kind, rescaling)
    for name, case in CASES.items()
    for kind in ("balanced", "unbalanced", *(["quadratic"] if case.small.crosses_spaces else []))
    for rescaling in RESCALINGS
]
SMALL = {"n_iters": 20, "batch_size": 32, "log_every": 10, "progress": False}
# Without held-out cells, and with an average short enough for short runs.
TRAINED = {"valid_fraction": 0.0, "ema_decay": 0.99, "progress": False}


def two_clusters(n, upper, lower, at, rng):
    """Cells around (at, ±3), this many above and below of every ten."""
    side = np.repeat([3.0, -3.0], [n * upper // 10, n * lower // 10])
    return np.stack([np.full(len(side), at), side], axis=1) + 0.4 * rng.normal(size=(len(side), 2))


def couple(kind, seed=0):
    """Two clusters 3:7 that become 7:3; across spaces, the target with a feature more."""
    rng = np.random.default_rng(seed)
    x, y = two_clusters(120, 3, 7, 0.0, rng), two_clusters(100, 7, 3, 4.0, rng)
    if kind == "quadratic":
        y = np.concatenate([y, rng.normal(size=(100, 1))], axis=1)
        return uc.ot.solve_quadratic(x, y, tau=0.95, epsilon=0.05, n_starts=3)
    return uc.ot.solve_unbalanced(x, y, tau={"balanced": 1.0, "unbalanced": 0.95}[kind], epsilon=0.05)


@pytest.fixture(scope="module")
def couplings():
    return {kind: couple(kind) for kind in ("balanced", "unbalanced", "quadratic")}


@pytest.fixture(scope="module", params=CONFIGS, ids="-".join)
def fit(couplings, request):
    """Return the fitted map and history of a configuration, its coupling, and a function that fits it again."""
    name, kind, rescaling = request.param

    def again(coupling=couplings[kind], **options):
        return uc.train.fit(replace(CASES[name].small), coupling, rescaling=rescaling, **{**SMALL, "rng": 1, **options})

    return *again(), couplings[kind], again


@pytest.fixture(scope="module")
def unseen():
    return np.random.default_rng(9).normal(size=(100, 2)) * 2


def test_no_method_is_forgotten():
    ours = {name for name, method in METHODS.items() if method.__module__.startswith("uotcell.")}
    assert set(CASES) == ours
    assert all(case.small.name == case.trained.name == name for name, case in CASES.items())


def test_shapes_and_types(fit, unseen):
    fitted, history, coupling, _ = fit
    dim = coupling.y.shape[1]
    answers = {(100, dim): [fitted.push(unseen)], (2, 100, dim): [fitted.sample(unseen, 2, rng=0)]}
    if type(fitted.method).pull is not Method.pull:
        answers[100, dim].append(fitted.pull(unseen))
    if coupling.same_space:
        answers[100, dim] += [fitted.interpolate(unseen, 0.5), fitted.velocity(unseen)]
    for shape, arrays in answers.items():
        for array in arrays:
            assert array.shape == shape
            assert array.dtype == np.float32
            assert np.isfinite(array).all()
    assert history.iteration == [10, 20]
    if not fitted.method.is_stochastic:
        np.testing.assert_array_equal(fitted.sample(unseen, 2)[1], fitted.push(unseen))


def test_the_same_seed_gives_the_same_bits(fit, unseen):
    fitted, history, _, again = fit
    same, same_history = again()
    other, _ = again(rng=2)
    np.testing.assert_array_equal(same.push(unseen), fitted.push(unseen))
    assert same_history.losses == history.losses
    assert not np.array_equal(other.push(unseen), fitted.push(unseen))


def test_a_second_fit_of_equal_shapes_compiles_nothing(fit, unseen):
    fitted, _, coupling, again = fit
    fitted.push(unseen)
    programs = _program.train_chunk, _program.push_pairs, _program.valid_divergence, _transport_map._apply
    before = [program._cache_size() for program in programs]
    # Other cells under the same τ, another seed and number of steps.
    moved = replace(coupling, x=coupling.x[::-1] * 1.1, source_weights=coupling.source_weights[::-1])
    other, _ = again(moved, rng=3, n_iters=18)
    other.push(unseen[:90])
    assert [program._cache_size() for program in programs] == before


def test_saved_and_loaded_it_pushes_the_same_bits(fit, unseen, tmp_path):
    fitted = fit[0]
    fitted.save(tmp_path / "map")
    loaded = TransportMap.load(tmp_path / "map")
    assert loaded.method == fitted.method
    np.testing.assert_array_equal(loaded.push(unseen), fitted.push(unseen))


def test_unseen_cells_are_pushed_in_chunks_as_at_once(fit, unseen):
    fitted = fit[0]
    np.testing.assert_allclose(fitted.push(unseen, batch_size=32), fitted.push(unseen), atol=1e-5)


@cache
def spy(name):
    """A method that learns nothing and records where its batches are."""

    class Spy(type(CASES[name].small)):
        def update(self, state, batch, rng, progress):
            return state, {"loss": batch.source[..., 1].mean(), "target": batch.target[..., 1].mean()}

    return Spy(hidden=(4,))


@pytest.mark.parametrize("rescaling", RESCALINGS)
@pytest.mark.parametrize("kind", ["balanced", "unbalanced"])
@pytest.mark.parametrize("name", CASES)
def test_training_draws_follow_the_rescaled_weights(name, kind, rescaling, couplings):
    coupling = couplings[kind]
    fitted, history = uc.train.fit(
        spy(name), coupling, rescaling=rescaling, n_iters=300, batch_size=32, log_every=300, valid_fraction=0.0,
        progress=False,
    )  # fmt: skip
    for loss, cells, weights, prior in (
        ("loss", coupling.x, coupling.source_weights, coupling.a),
        ("target", coupling.y, coupling.target_weights, coupling.b),
    ):
        height, weights, prior = (np.asarray(v, np.float64) for v in (cells[:, 1], weights, prior))
        # Clusters are six apart: this is the share of cells in the upper one.
        found = (history.losses[loss][0] * fitted.scale + fitted.shift[1] - coupling.shift[1] - height.min()) / 6
        expected, unweighted = (((w @ height) / w.sum() - height.min()) / 6 for w in (weights, prior))
        assert found == pytest.approx(expected, abs=0.02 if rescaling == "global" else 0.06)
        assert abs(expected - unweighted) > 0.1 or kind == "balanced"


def test_mass_is_that_of_both_marginals(couplings):
    for kind, coupling in couplings.items():
        for weights in (coupling.source_weights, coupling.target_weights):
            assert np.asarray(weights, np.float64).sum() == pytest.approx(coupling.transported_mass, rel=2e-3)
        assert (coupling.transported_mass == pytest.approx(1.0, rel=1e-3)) is (kind == "balanced")


@pytest.mark.parametrize("rescaling", RESCALINGS)
@pytest.mark.parametrize(("kind", "penalty"), [("balanced", np.inf), ("unbalanced", 12.0)])
@pytest.mark.parametrize("name", CASES)
def test_reaches_the_closed_form(name, kind, penalty, rescaling):
    case, oracle = CASES[name], make_oracle(2, penalty)
    penalty = oracle.penalty / oracle.mean_cost
    coupling = uc.ot.solve_unbalanced(*oracle.sample(1000, seed=1), marginal_penalty=penalty)
    batch_size = {"global": 256, "minibatch": 128}[rescaling]
    fitted, _ = uc.train.fit(
        case.trained, coupling, n_iters=case.n_iters[rescaling], batch_size=batch_size, rescaling=rescaling, **TRAINED
    )
    assert oracle.l2_uvp(fitted.push) <= (case.bound if rescaling == "global" else MINIBATCH_BOUND)


@pytest.fixture(scope="module")
def swap():
    """Two clusters 6:4 become 4:6; the penalty is chosen as docs/concepts.md says: λ = c / (2 log r)."""
    rng = np.random.default_rng(0)
    x, y = two_clusters(1000, 6, 4, 0.0, rng), two_clusters(1000, 4, 6, 4.0, rng)
    penalty = 6.0**2 / (2 * np.log(2.0))
    return x, {
        "balanced": uc.ot.solve_unbalanced(x, y, scale_cost=1.0, epsilon=0.3),
        "unbalanced": uc.ot.solve_unbalanced(x, y, scale_cost=1.0, epsilon=0.3, marginal_penalty=penalty),
    }


def crossing_mass(method, n_iters, x, coupling):
    fitted, _ = uc.train.fit(method, coupling, n_iters=n_iters, **TRAINED)
    crosses = np.sign(fitted.sample(x, rng=1)[0, :, 1]) != np.sign(x[:, 1])
    weights = np.asarray(coupling.source_weights, float)
    return weights[crosses].sum() / weights.sum()


@pytest.mark.parametrize("name", CASES)
def test_figure_2_mass_crosses_only_when_it_must(name, swap):
    case, (x, couplings) = CASES[name], swap
    crossing = {kind: crossing_mass(case.trained, case.n_iters["global"], x, c) for kind, c in couplings.items()}
    assert crossing["balanced"] > 0.1
    assert crossing["unbalanced"] < 0.1 * crossing["balanced"]


def test_figure_2_flows_of_independent_pairs_are_worst(swap):
    """Ways of independent pairs cross, which their flow cannot: it bends, and moves more than its cells are displaced.

    The energy of a flow is the mean square of its velocity, that of straight ways the mean squared displacement.
    """
    case, (x, couplings) = CASES["flow_matching"], swap
    bend, times = {}, (np.arange(10) + 0.5) / 10
    for pairs in ("plan", "independent"):
        method = replace(case.trained, coupling=pairs)
        fitted, _ = uc.train.fit(method, couplings["balanced"], n_iters=case.n_iters["global"], **TRAINED)
        ways = zip(times, fitted.trajectory(x, times), strict=True)
        energy = np.mean([(fitted.velocity(position, t) ** 2).sum(1).mean() for t, position in ways])
        bend[pairs] = energy / ((fitted.push(x) - x) ** 2).sum(1).mean() - 1
    assert bend["independent"] > 5 * bend["plan"]
