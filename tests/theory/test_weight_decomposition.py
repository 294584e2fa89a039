"""Magnitude and direction of a change, and what c (W0 + L) reaches: rescalings yes, missing directions no."""

import numpy as np
import pytest

from lora_course.theory import dora_fit, dora_parameters, magnitude_direction_change, numerical_rank, tail_energy

BOTH = pytest.mark.parametrize("by", ["row", "column"])
SEEDS = pytest.mark.parametrize("seed", range(4))


def draw(seed, d=12, k=17, q=3):
    rng = np.random.default_rng(seed)
    W0, E = rng.normal(size=(d, k)), rng.normal(size=(d, q)) @ rng.normal(size=(q, k))
    return rng, W0, E


def scaled(c, W, by):
    return c[:, None] * W if by == "row" else W * c


@BOTH
@SEEDS
def test_changes_are_those_of_the_slow_loop(seed, by):
    _, W0, E = draw(seed)
    rows, changed = (W0, W0 + E) if by == "row" else (W0.T, (W0 + E).T)
    M = np.mean([abs(np.linalg.norm(w) - np.linalg.norm(v)) for v, w in zip(rows, changed, strict=True)])
    cosines = [w @ v / np.linalg.norm(w) / np.linalg.norm(v) for v, w in zip(rows, changed, strict=True)]
    assert magnitude_direction_change(W0, W0 + E, by) == pytest.approx((M, 1 - np.mean(cosines)))


@BOTH
@SEEDS
def test_a_rescaling_changes_magnitudes_only_and_a_factor_on_the_layer_scales_them(seed, by):
    rng, W0, E = draw(seed)
    c = np.exp(rng.normal(size=len(W0) if by == "row" else len(W0.T)))
    assert magnitude_direction_change(W0, scaled(c, W0, by), by)[1] == pytest.approx(0, abs=1e-12)
    M, D = magnitude_direction_change(W0, W0 + E, by)
    assert magnitude_direction_change(5 * W0, 5 * (W0 + E), by) == pytest.approx((5 * M, D))


@BOTH
@SEEDS
def test_for_small_changes_magnitude_grows_linearly_and_direction_quadratically(seed, by):
    """Row w0 + t e: ΔM = t |e·w0| / ‖w0‖, ΔD = t² ‖e⊥‖² / (2 ‖w0‖²), each plus the next power of t."""
    _, W0, E = draw(seed)
    rows, moves = (W0, E) if by == "row" else (W0.T, E.T)
    n = np.linalg.norm(rows, axis=1)
    radial = (rows * moves).sum(1) / n
    across = (moves**2).sum(1) - radial**2
    t = 1e-5
    M, D = magnitude_direction_change(W0, W0 + t * E, by)
    assert pytest.approx(t * abs(radial).mean(), rel=1e-3) == M
    assert pytest.approx(t**2 * (across / n**2).mean() / 2, rel=2e-3) == D


@BOTH
@SEEDS
def test_one_step_of_several_layers_can_be_given_any_sign_by_rescaling_layers(seed, by):
    changes = [magnitude_direction_change(*pair, by) for pair in layers(seed)]
    M, D = np.array(changes).T
    for c, corr in ((D / M, 1), ((2 * D.max() - D) / M, -1)):
        again = [magnitude_direction_change(s * W0, s * W, by) for s, (W0, W) in zip(c, layers(seed), strict=True)]
        assert np.corrcoef(*np.array(again).T)[0, 1] == pytest.approx(corr)


def layers(seed):
    rng, *_ = draw(seed)
    return [(W0, W0 + 0.1 * s * rng.normal(size=W0.shape)) for s in (1, 2, 3, 5) for W0 in [rng.normal(size=(6, 8))]]


SHAPES = [(5, 7, 2), (7, 5, 3), (6, 6, 1), (4, 9, 0), (4, 4, 3), (6, 8, 5), (5, 6, 4)]  # the last three: all of dk


@pytest.mark.parametrize(("d", "k", "r"), SHAPES)
@BOTH
def test_count_and_dimension_of_the_reachable_set(d, k, r, by):
    """The Jacobian of (m, A, B) -> m V / ‖V‖ has r² fewer dimensions than parameters, as LoRA's, and at most dk."""
    rng = np.random.default_rng(0)
    W0, A, B = rng.normal(size=(d, k)), rng.normal(size=(r, k)), rng.normal(size=(d, r))
    m = rng.uniform(1, 2, size=d if by == "row" else k)
    flat = np.concatenate([m, A.ravel(), B.ravel()])
    assert len(flat) == dora_parameters(d, k, r, by)

    def weight(p):
        m, A, B = p[: len(m_)], p[len(m_) : len(m_) + r * k].reshape(r, k), p[len(m_) + r * k :].reshape(d, r)
        V = W0 + B @ A
        return scaled(m / np.linalg.norm(V, axis=1 if by == "row" else 0), V, by).ravel()

    m_, h = m, 1e-6
    steps = h * np.eye(len(flat))
    J = np.stack([(weight(flat + e) - weight(flat - e)) / (2 * h) for e in steps], 1)
    assert np.linalg.matrix_rank(J, tol=1e-5) == min(d * k, len(flat) - r * r)


@BOTH
@SEEDS
def test_rescaled_weights_are_reached_at_rank_0_and_lora_needs_their_whole_rank(seed, by):
    rng, W0, _ = draw(seed)
    target = scaled(np.exp(rng.normal(size=len(W0) if by == "row" else len(W0.T))), W0, by)
    assert dora_fit(W0, target, 0, by).error == pytest.approx(0, abs=1e-20)
    assert numerical_rank(target - W0) == min(W0.shape) and tail_energy(target - W0, 11) > 1e-6


@SEEDS
def test_extra_directions_are_not_reached_below_their_rank_and_are_from_it_on(seed):
    _, W0, E = draw(seed)  # d = 12 >= 2 q + r with q = 3, r <= 3: the condition of the theorem
    norm = (E**2).sum()
    for r in range(3):
        found = dora_fit(W0, W0 + E, r)
        assert 0.2 * tail_energy(E, r) < found.error <= tail_energy(E, r) * (1 + 1e-12)
        # for each c the rank of what is missing is above r, as the theorem says
        for c in (np.ones(12), found.scale, np.random.default_rng(seed).normal(size=12)):
            assert numerical_rank(W0 + E - c[:, None] * W0) > r
    assert dora_fit(W0, W0 + E, 3).error < 1e-20 * norm


@BOTH
@SEEDS
def test_the_fit_is_of_its_form_and_never_worse_than_lora_or_magnitudes(seed, by):
    rng, W0, E = draw(seed)
    target = W0 + E + 0.3 * rng.normal(size=W0.shape)
    alone = dora_fit(W0, target, 0, by).error
    for r in (1, 2, 4):
        found = dora_fit(W0, target, r, by)
        assert found.error == pytest.approx(((target - found.fitted) ** 2).sum())
        assert found.error <= min(tail_energy(target - W0, r), alone) * (1 + 1e-12)
        assert numerical_rank(found.fitted - scaled(found.scale, W0, by), rtol=1e-9) <= r
        assert dora_fit(W0, target, r, by, rounds=5).error >= found.error


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda W: magnitude_direction_change(W, W[:2]), ValueError, "W must have the shape"),
        (lambda W: magnitude_direction_change(W, W, "rows"), ValueError, "by='rows'"),
        (lambda W: magnitude_direction_change(W, 0 * W), ValueError, "W must have a direction"),
        (lambda W: magnitude_direction_change("W", W), TypeError, "W0"),
        (lambda W: dora_parameters(3, 4, -1), ValueError, "r must"),
        (lambda W: dora_parameters(3, 4, 1, None), ValueError, "by=None"),
        (lambda W: dora_fit(W, W[:2], 1), ValueError, "target must have the shape"),
        (lambda W: dora_fit(W, W, 9), ValueError, "r must be at most 3"),
        (lambda W: dora_fit(W, W, 1, rounds=0), ValueError, "rounds"),
    ],
)
def test_bad_input_is_named(call, error, named):
    with pytest.raises(error, match=named):
        call(np.arange(12.0).reshape(3, 4) + 1)
