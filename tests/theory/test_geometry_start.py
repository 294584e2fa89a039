"""The bundle that contains LoRA's start, the metric of the optimizer that runs, curvature, and no global gauge."""

import numpy as np
import pytest
import torch

from lora_course.adapters import LoRALinear, PreconditionedSGD
from lora_course.theory.geometry import (
    EUCLIDEAN,
    INVARIANT,
    DampedMetric,
    Factors,
    RowFactors,
    dimension_counts,
    parallel_transport,
)

SHAPES = [(6, 5, 1), (8, 6, 2), (7, 10, 3)]
each_case = pytest.mark.parametrize("d,k,r,seed", [(*shape, seed) for shape in SHAPES for seed in range(3)])
size = np.linalg.norm


class Case:
    def __init__(self, d, k, r, seed):
        self.rng = np.random.default_rng((d, k, r, seed, 12))
        self.p, self.G = self.point(Factors, d, k, r), self.rng.normal(size=(d, k))
        self.start = RowFactors(np.zeros((d, r)), self.p.A)
        self.M, self.X = self.rng.normal(size=(2, r, r))
        self.u, self.v = (INVARIANT.horizontal(self.p, self.vector()) for _ in "uv")

    def point(self, kind, d, k, r):
        return kind(self.rng.normal(size=(d, r)), self.rng.normal(size=(r, k)))

    def vector(self):
        return self.rng.normal(size=self.p.B.shape), self.rng.normal(size=self.p.A.shape)


def orbit(B, A):
    r"""Dimension of the orbit of GL(r): the rank of X -> (B X, -X A)."""
    r = len(A)
    units = np.eye(r * r).reshape(-1, r, r)
    return np.linalg.matrix_rank([np.concatenate([(B @ X).ravel(), (X @ A).ravel()]) for X in units])


def of_rank(A, rank):
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    return U * (s * (np.arange(len(s)) < rank)) @ Vt


# --- the bundle P_A


@each_case
def test_over_the_start_there_is_a_copy_of_the_group(d, k, r, seed):
    c = Case(d, k, r, seed)
    assert np.allclose(c.start.gauge_to(c.start.act(c.M)), c.M)
    assert np.allclose(c.p.gauge_to(c.p.act(c.M)), RowFactors(c.p.B, c.p.A).gauge_to(RowFactors(c.p.B, c.p.A).act(c.M)))
    assert orbit(c.start.B, c.start.A) == r**2 == dimension_counts(c.p.B, c.p.A).kernel
    # what fails at the start is that (B, A) -> B A is a submersion: r (k - r) more directions turn the row space
    assert dimension_counts(c.start.B, c.start.A).kernel == r**2 + r * (k - r)


@each_case
def test_row_space_and_product_move_in_as_many_directions_at_the_start_as_elsewhere(d, k, r, seed):
    c = Case(d, k, r, seed)
    for p in (c.start, RowFactors(of_rank(c.p.B, r - 1), c.p.A), RowFactors(c.p.B, c.p.A)):
        Q_perp, J = np.eye(k) - p.A_pinv @ p.A, []
        for i in range(r * (d + k)):
            unit = np.zeros(r * (d + k))
            unit[i] = 1
            dB, dA = unit[: d * r].reshape(d, r), unit[d * r :].reshape(r, k)
            J.append(np.concatenate([p.push((dB, dA)).ravel(), (p.A_pinv @ dA @ Q_perp).ravel()]))
        assert np.linalg.matrix_rank(J, tol=1e-9) == r * (d + k - r)


@each_case
def test_the_group_acts_freely_iff_one_factor_has_full_rank(d, k, r, seed):
    c = Case(d, k, r, seed)
    for b in range(r + 1):
        for a in range(r + 1):
            free = orbit(of_rank(c.p.B, b), of_rank(c.p.A, a)) == r**2
            assert free == (r in (a, b))


def test_another_fiber_and_a_row_space_too_small_are_refused():
    c = Case(8, 6, 2, 0)
    for other in (c.point(RowFactors, 8, 6, 2), c.point(RowFactors, 8, 6, 3)):
        with pytest.raises(ValueError, match="same fiber"):
            c.start.gauge_to(other)
    with pytest.raises(ValueError, match="A must have rank r = 2"):
        RowFactors(c.p.B, of_rank(c.p.A, 1))
    with pytest.raises(ValueError, match="the same r"):
        RowFactors(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="damping"):
        DampedMetric(0.0)


# --- the metric of the optimizer that runs


@each_case
@pytest.mark.parametrize("at_start", [True, False])
def test_the_damped_metric_is_invariant_and_its_form_is_a_connection(d, k, r, seed, at_start):
    c, g = Case(d, k, r, seed), DampedMetric(0.3)
    p = c.start if at_start else RowFactors(c.p.B, c.p.A)
    v, there = c.vector(), p.act(c.M)
    carried = p.carry(v, c.M)
    assert g.inner(p, v, v) > 0
    assert np.isclose(g.inner(there, carried, carried), g.inner(p, v, v), rtol=1e-7)
    assert np.allclose(g.vertical_generator(p, p.vertical(c.X)), c.X)
    form = g.vertical_generator(p, v)
    assert np.allclose(g.vertical_generator(there, carried), np.linalg.solve(c.M, form @ c.M), rtol=1e-6, atol=1e-7)
    assert abs(g.inner(p, g.horizontal(p, v), p.vertical(c.X))) < 1e-9 * g.norm(p, v) * g.norm(p, p.vertical(c.X))
    slope = (c.G * p.push(v)).sum()  # the gradient represents the derivative
    assert np.isclose(g.inner(p, g.gradient(p, c.G), v), slope)


@each_case
def test_the_optimizer_that_runs_is_horizontal_in_the_damped_metric_from_the_start_on_and_not_in_g(d, k, r, seed):
    c, damping = Case(d, k, r, seed), 1e-2
    layer = LoRALinear(torch.nn.Linear(k, d, bias=False, dtype=torch.float64), r=r, alpha=r)
    with torch.no_grad():
        layer.lora_A.copy_(torch.tensor(c.p.A))
    optimizer, T = PreconditionedSGD(layer, 0.05, damping=damping), torch.tensor(c.G)
    worst = 0.0
    for _ in range(20):
        B, A = (F.detach().numpy().copy() for F in (layer.lora_B, layer.lora_A))
        optimizer.zero_grad()
        (0.5 * ((layer.delta_weight() - T) ** 2).sum()).backward()
        optimizer.step()
        v = B - layer.lora_B.detach().numpy(), A - layer.lora_A.detach().numpy()
        p = RowFactors(B, A)
        expected = DampedMetric(damping).gradient(p, B @ A - c.G)
        assert all(np.allclose(0.05 * e, part, atol=1e-9) for e, part in zip(expected, v, strict=True))
        assert DampedMetric(damping).vertical_share(p, v) < 1e-18
        if np.linalg.matrix_rank(B) == r:
            worst = max(worst, INVARIANT.vertical_share(p, v))
    assert worst > 1e-6


@each_case
def test_there_are_invariant_metrics_with_other_connections(d, k, r, seed):
    c = Case(d, k, r, seed)
    S, T = c.p.B.T @ c.p.B, c.p.A @ c.p.A.T

    def other(p, u, v):  # tr(S⁻¹ dBᵀdB) + tr(T⁻¹ dA dAᵀ)
        S, T = p.B.T @ p.B, p.A @ p.A.T
        return np.trace(np.linalg.solve(S, u[0].T @ v[0])) + np.trace(np.linalg.solve(T, u[1] @ v[1].T))

    v, M = c.vector(), c.M
    carried = c.p.carry(v, M)
    assert np.isclose(other(c.p.act(M), carried, carried), other(c.p, v, v), rtol=1e-7)
    if r > 1:  # horizontal there: BᵀdB S⁻¹ = T⁻¹ dA Aᵀ; a velocity of the part inside both spaces
        dB = c.p.B @ c.X
        dA = T @ c.p.B.T @ dB @ np.linalg.inv(S) @ np.linalg.inv(T) @ c.p.A
        assert abs(other(c.p, (dB, dA), c.p.vertical(c.M))) < 1e-8 * other(c.p, (dB, dA), (dB, dA))
        assert INVARIANT.vertical_share(c.p, (dB, dA)) > 1e-3
        assert DampedMetric(10.0).vertical_share(c.p, c.u) > 1e-6  # and g_δ has another than g


# --- the two metrics on the matrices of rank r


@each_case
def test_the_preconditioned_gradient_moves_W_by_PG_and_GQ_and_the_embedded_one_by_PGQ_less(d, k, r, seed):
    c = Case(d, k, r, seed)
    P, Q, G = c.p.B @ c.p.B_pinv, c.p.A_pinv @ c.p.A, c.G
    moved = c.p.push(INVARIANT.gradient(c.p, G))
    assert np.allclose(moved, P @ G + G @ Q)
    assert np.allclose(moved - c.p.tangent_projection(G), P @ G @ Q)

    def base(Y, Z):  # the metric on the base: what lies inside both spaces counts half
        return (Y * Z).sum() - (P @ Y @ Q * Z).sum() / 2

    Z = c.p.tangent_projection(c.rng.normal(size=(d, k)))
    lift = INVARIANT.horizontal_lift(c.p, Z)
    assert np.isclose(INVARIANT.inner(c.p, lift, lift), base(Z, Z))
    assert np.isclose(base(moved, Z), (G * Z).sum())  # its gradient there


@each_case
def test_at_a_balanced_pair_euclidean_and_invariant_horizontal_agree_iff_the_two_matrices_commute(d, k, r, seed):
    c = Case(d, k, r, seed)
    p = c.p.balanced()
    N, s = p.B.T @ p.B, c.rng.normal(size=3)
    commuting = s[0] * np.eye(r) + s[1] * N + s[2] * N @ N
    for BdB, agree in [(commuting, True), (c.X, r == 1)]:
        v = p.B_pinv.T @ BdB, BdB @ p.A_pinv.T  # BᵀdB = dA Aᵀ = the matrix
        assert EUCLIDEAN.vertical_share(p, v) < 1e-20
        assert (INVARIANT.vertical_share(p, v) < 1e-18) == agree


# --- curvature


def derivative_of_the_form(p, u, v, h=1e-5):
    def form(t, along, of):
        return INVARIANT.vertical_generator(p.retract([t * part for part in along]), of)

    return (form(h, u, v) - form(-h, u, v) - form(h, v, u) + form(-h, v, u)) / (2 * h)


@each_case
def test_the_curvature_in_closed_form_is_the_exterior_derivative_of_the_form(d, k, r, seed):
    c = Case(d, k, r, seed)
    found = INVARIANT.curvature(c.p, c.u, c.v)
    assert np.allclose(found, derivative_of_the_form(c.p, c.u, c.v), atol=1e-5 * (1 + size(found)))
    assert np.allclose(found, -INVARIANT.curvature(c.p, c.v, c.u))
    there = c.p.act(c.M)
    carried = INVARIANT.curvature(there, c.p.carry(c.u, c.M), c.p.carry(c.v, c.M))
    assert np.allclose(carried, np.linalg.solve(c.M, found @ c.M), rtol=1e-5, atol=1e-7)
    assert (size(found) < 1e-10) == (r == 1)


@each_case
def test_velocities_BY_and_YA_have_minus_the_commutator_as_curvature(d, k, r, seed):
    c = Case(d, k, r, seed)
    Y, Z = c.X, c.M
    bracket = Y @ Z - Z @ Y
    u, v = (c.p.B @ Y, Y @ c.p.A), (c.p.B @ Z, Z @ c.p.A)
    assert INVARIANT.vertical_share(c.p, u) < 1e-20
    # the bracket of the two linear fields, (B [Y, Z], -[Y, Z] A), is vertical
    brackets = c.p.B @ Y @ Z - c.p.B @ Z @ Y, Z @ Y @ c.p.A - Y @ Z @ c.p.A
    assert all(np.allclose(one, two) for one, two in zip(brackets, c.p.vertical(bracket), strict=True))
    assert np.allclose(INVARIANT.curvature(c.p, u, v), -bracket)


@pytest.mark.parametrize("seed", range(3))
def test_a_small_loop_has_one_less_curvature_times_area_as_holonomy(seed):
    c = Case(8, 6, 2, seed)
    misses = []
    for small in (0.02, 0.01):

        def path(t, small=small):
            x, y = np.cos(2 * np.pi * t) - 1, np.sin(2 * np.pi * t)
            return c.p.retract([small * (x * a + y * b) for a, b in zip(c.u, c.v, strict=True)]).W

        end = parallel_transport(path, c.p, tolerance=1e-10).end
        predicted = np.eye(2) - np.pi * small**2 * INVARIANT.curvature(c.p, c.u, c.v)
        misses.append(size(c.p.gauge_to(end) - predicted))
    assert misses[0] < 0.3 * size(np.eye(2) - predicted) * 4
    assert 5 < misses[0] / misses[1] < 12  # third order: 8


# --- no global gauge


@pytest.mark.parametrize("d,k,r", [(2, 2, 1), (6, 5, 1), (6, 5, 3), (4, 4, 3)])
def test_a_half_turn_on_both_sides_returns_W_and_changes_the_sign_of_the_determinant(d, k, r):
    # B and A go on closed curves up to D = diag(-1, 1, ...). A choice s(W) = (B, A) in the gauge M(t) along the loop
    # would need D M(1) = M(0), so that det M changes its sign on the way without a zero: there is none. (r < d, r < k.)
    def pair(t):
        B, A = np.eye(d)[:, :r].copy(), np.eye(k)[:r].copy()
        turn = np.cos(np.pi * t), np.sin(np.pi * t)
        B[0, 0], B[r, 0] = turn
        A[0, 0], A[0, r] = turn
        return Factors(B, A)

    D = np.diag([-1.0] + [1.0] * (r - 1))
    assert np.allclose(pair(1).W, pair(0).W) and np.allclose(pair(0).gauge_to(pair(1)), D)
    h = pair(0).gauge_to(parallel_transport(lambda t: pair(t).W, pair(0)).end)
    assert np.isclose(np.linalg.det(h), -1)
    if r == 1:
        assert np.allclose(h, -1)


# --- what gradient flow keeps from B = 0, and what finite steps lose


@each_case
def test_from_b_zero_gradient_flow_keeps_A_above_its_start(d, k, r, seed):
    from lora_course.labs import gradient_flow

    c = Case(d, k, r, seed)
    flow = gradient_flow(c.start, lambda W: W - c.G, EUCLIDEAN.gradient, duration=0.5, steps=400)
    A0 = c.start.A
    for p in flow.points[::40]:
        assert np.allclose(p.A @ p.A.T, p.B.T @ p.B + A0 @ A0.T, atol=1e-5)
        least = np.linalg.svd(A0)[1].min()
        assert np.linalg.svd(p.A)[1].min() > least - 1e-6
    balanced = gradient_flow(c.p.balanced(), lambda W: W - c.G, EUCLIDEAN.gradient, duration=0.3, steps=400).end
    assert size(balanced.imbalance()) < 1e-5  # a balanced start, as that of PiSSA, stays so


def steps_and_transport(p, T, lr, count):
    r"""‖M - I‖ from the pair after finite steps to the one carried along the path that these steps make."""
    carried = p
    for _ in range(count):
        v = [-lr * part for part in INVARIANT.gradient(p, p.W - T)]
        carried = parallel_transport(
            lambda t, p=p, v=v: p.retract([t * part for part in v]).W, carried, tolerance=1e-10
        ).end
        p = p.retract(v)
    return size(p.gauge_to(carried) - np.eye(len(p.A)))


@pytest.mark.parametrize("seed", range(3))
def test_a_finite_step_leaves_the_transported_curve_by_second_order_and_a_fixed_time_by_first(seed):
    c = Case(8, 6, 2, seed)
    step = [steps_and_transport(c.p, c.G, lr, 1) for lr in (0.02, 0.01)]
    whole = [steps_and_transport(c.p, c.G, 0.2 / count, count) for count in (10, 20)]
    assert 3 < step[0] / step[1] < 5
    assert 1.7 < whole[0] / whole[1] < 2.5
