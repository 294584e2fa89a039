"""Gauge group, vertical and horizontal vectors, lifts, gradients, retractions, balancing: the theorems."""

import numpy as np
import pytest

from lora_course.theory import product_jacobian
from lora_course.theory.geometry import EUCLIDEAN, INVARIANT, Factors, dimension_counts

SHAPES = [(6, 5, 1), (8, 7, 2), (7, 10, 3), (4, 6, 4)]
METRICS = [INVARIANT, EUCLIDEAN]

each_shape = pytest.mark.parametrize("d,k,r", SHAPES)
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
each_seed = pytest.mark.parametrize("seed", range(3))


class Case:
    r"""A point, a tangent vector, a velocity of W, a gradient and two gauges, all random."""

    def __init__(self, d, k, r, seed=0):
        self.rng = rng = np.random.default_rng((d, k, r, seed))
        self.p = Factors(rng.normal(size=(d, r)), rng.normal(size=(r, k)))
        self.v, self.G = self.vector(), rng.normal(size=(d, k))
        self.dW = self.p.tangent_projection(rng.normal(size=(d, k)))
        self.O, Q = np.linalg.qr(rng.normal(size=(2, r, r)))[0]
        self.M = self.O * np.geomspace(0.4, 3, r) @ Q  # no rotation, and not close to one

    def vector(self):
        return self.rng.normal(size=self.p.B.shape), self.rng.normal(size=self.p.A.shape)

    def generator(self):
        return self.rng.normal(size=(len(self.p.A), len(self.p.A)))


def same(left, right, rtol=1e-10):
    r"""Pairs or matrices that agree to rounding."""
    left, right = (np.concatenate([np.ravel(part) for part in side]) for side in (left, right))
    return np.linalg.norm(left - right) <= rtol * max(1.0, np.linalg.norm(right))


def flat(v):
    return np.concatenate([v[0].ravel(), v[1].ravel()])


def jacobian_of_the_orbit(p):
    r"""Columns: (B X, -X A) for the r² unit matrices X."""
    r = len(p.A)
    return np.stack([flat(p.vertical(X.reshape(r, r))) for X in np.eye(r * r)], axis=1)


# --- the gauge group and its orbits


@each_shape
def test_the_gauge_group_acts_from_the_right_and_leaves_W(d, k, r):
    case = Case(d, k, r)
    p, M, N = case.p, case.M, case.O
    assert same(p.act(M).W, p.W)
    assert same((p.act(M).act(N).B, p.act(M).act(N).A), (p.act(M @ N).B, p.act(M @ N).A))
    assert same(p.gauge_to(p.act(M)), M)  # the action is free: M is determined by the two points


@each_shape
def test_the_fiber_is_one_orbit(d, k, r):
    p = Case(d, k, r).p
    U, s, Vt = np.linalg.svd(p.W)
    other = Factors(U[:, :r], s[:r, None] * Vt[:r])  # over the same W, made without a gauge
    M = p.gauge_to(other)
    assert same((p.act(M).B, p.act(M).A), (other.B, other.A))


@each_shape
def test_the_vertical_vectors_are_the_kernel_of_the_jacobian(d, k, r):
    p = Case(d, k, r).p
    J, orbit = product_jacobian(p.B, p.A), jacobian_of_the_orbit(p)
    assert abs(J @ orbit).max() < 1e-12
    assert np.linalg.matrix_rank(orbit) == r * r == J.shape[1] - np.linalg.matrix_rank(J)


@each_shape
def test_vertical_is_the_velocity_of_a_gauge_and_push_the_velocity_of_W(d, k, r):
    case = Case(d, k, r)
    p, X, t = case.p, case.generator(), 1e-6
    plus, minus = (p.act(np.eye(r) + s * t * X) for s in (1, -1))  # exp(tX) up to t²
    assert same(((plus.B - minus.B) / (2 * t), (plus.A - minus.A) / (2 * t)), p.vertical(X), 1e-6)
    dB, dA = case.v
    moved = ((p.B + t * dB) @ (p.A + t * dA) - (p.B - t * dB) @ (p.A - t * dA)) / (2 * t)
    assert same(p.push(case.v), moved, 1e-8)
    assert same(p.push(case.v).ravel(), product_jacobian(p.B, p.A) @ flat(case.v))


@pytest.mark.parametrize("d,k,r", [(6, 5, 2), (10, 7, 3), (12, 9, 4)])
def test_dimensions_over_rank_r_and_at_the_start_of_lora(d, k, r):
    p = Case(d, k, r).p
    assert dimension_counts(p.B, p.A) == (r * (d + k), r * (d + k - r), r * r)
    assert dimension_counts(0 * p.B, p.A) == (r * (d + k), d * r, k * r)
    for b, a in [(1, r), (r - 1, 1), (0, 0), (r, 1)]:
        B, A = p.B * (np.arange(r) < b), p.A * (np.arange(r) < a)[:, None]
        assert dimension_counts(B, A).rank == d * a + k * b - a * b


# --- the tangent space of the base


@each_shape
def test_tangent_projection_is_orthogonal_on_the_image_of_the_jacobian(d, k, r):
    case = Case(d, k, r)
    J = product_jacobian(case.p.B, case.p.A)
    assert same(case.p.tangent_projection(case.G).ravel(), J @ np.linalg.pinv(J) @ case.G.ravel())
    assert same(case.p.tangent_projection(case.dW), case.dW)
    assert same(case.p.act(case.M).tangent_projection(case.G), case.p.tangent_projection(case.G))


# --- horizontal and vertical parts


@each_metric
@each_shape
@each_seed
def test_projection_is_idempotent_and_orthogonal_to_the_fiber(metric, d, k, r, seed):
    case = Case(d, k, r, seed)
    p, v = case.p, case.v
    along, up = metric.horizontal(p, v), metric.vertical(p, v)
    assert same((along.dB + up.dB, along.dA + up.dA), v)
    assert same(metric.horizontal(p, along), along) and same(metric.vertical(p, up), up)
    for _ in range(4):
        assert abs(metric.inner(p, along, p.vertical(case.generator()))) < 1e-10
    assert metric.norm(p, v) ** 2 == pytest.approx(metric.norm(p, along) ** 2 + metric.norm(p, up) ** 2)
    assert same(p.push(along), p.push(v))


@each_metric
@each_shape
def test_the_vertical_part_is_the_nearest_vertical_vector(metric, d, k, r):
    case = Case(d, k, r)
    p, v = case.p, case.v
    # the metric as a Gram matrix, entry by entry, and the least squares problem that it defines
    units = [(e[: d * r].reshape(d, r), e[d * r :].reshape(r, k)) for e in np.eye(r * (d + k))]
    gram = np.array([[metric.inner(p, u, w) for w in units] for u in units])
    orbit = jacobian_of_the_orbit(p)
    X = np.linalg.solve(orbit.T @ gram @ orbit, orbit.T @ gram @ flat(v))
    assert same(metric.vertical_generator(p, v), X.reshape(r, r))
    # and horizontal vectors: nothing horizontal is nearer than the projection
    distance = metric.norm(p, metric.vertical(p, v))
    for _ in range(4):
        other = metric.horizontal(p, case.vector())
        assert metric.norm(p, (v[0] - other.dB, v[1] - other.dA)) > distance


@each_shape
def test_what_horizontal_means_in_each_metric(d, k, r):
    case = Case(d, k, r)
    B, A = case.p.B, case.p.A
    dB, dA = INVARIANT.horizontal(case.p, case.v)
    assert same(B.T @ dB @ A @ A.T, B.T @ B @ dA @ A.T)
    assert same(np.linalg.pinv(B) @ dB, dA @ np.linalg.pinv(A))
    dB, dA = EUCLIDEAN.horizontal(case.p, case.v)
    assert same(B.T @ dB, dA @ A.T)
    moved = dB.T @ B + B.T @ dB - dA @ A.T - A @ dA.T  # the velocity of BᵀB - A Aᵀ
    assert abs(moved).max() < 1e-12


@each_shape
def test_the_connection_form_reproduces_generators_and_turns_with_the_gauge(d, k, r):
    case = Case(d, k, r)
    p, X, M = case.p, case.generator(), case.M
    assert same(INVARIANT.vertical_generator(p, p.vertical(X)), X)
    omega = INVARIANT.vertical_generator(p, case.v)
    assert same(INVARIANT.vertical_generator(p.act(M), p.carry(case.v, M)), np.linalg.solve(M, omega @ M))


@each_shape
def test_the_trace_of_the_connection_form_is_an_exact_differential(d, k, r):
    case = Case(d, k, r)

    def quarter_log(t):
        q = case.p.retract((t * case.v[0], t * case.v[1]))
        return (np.linalg.slogdet(q.B.T @ q.B)[1] - np.linalg.slogdet(q.A @ q.A.T)[1]) / 4

    slope = (quarter_log(1e-5) - quarter_log(-1e-5)) / 2e-5
    assert np.trace(INVARIANT.vertical_generator(case.p, case.v)) == pytest.approx(slope, abs=1e-7)


# --- lifts


@each_metric
@each_shape
@each_seed
def test_the_lift_projects_back_and_is_the_shortest(metric, d, k, r, seed):
    case = Case(d, k, r, seed)
    p, lift = case.p, metric.horizontal_lift(case.p, case.dW)
    assert same(p.push(lift), case.dW)
    assert metric.vertical_share(p, lift) < 1e-24
    for _ in range(4):
        X = case.generator()
        longer = (lift.dB + p.B @ X, lift.dA - X @ p.A)
        assert same(p.push(longer), case.dW) and metric.norm(p, longer) > metric.norm(p, lift)
    assert same(metric.horizontal_lift(p, p.push(case.v)), metric.horizontal(p, case.v))
    assert same(metric.horizontal_lift(p, case.G), metric.horizontal_lift(p, p.tangent_projection(case.G)))


@each_shape
def test_the_invariant_lift_in_closed_form(d, k, r):
    case = Case(d, k, r)
    (B, A), dW = (case.p.B, case.p.A), case.dW
    Bp, Ap = np.linalg.pinv(B), np.linalg.pinv(A)
    K = Bp @ dW @ Ap / 2
    expected = (np.eye(d) - B @ Bp) @ dW @ Ap + B @ K, Bp @ dW @ (np.eye(k) - Ap @ A) + K @ A
    assert same(INVARIANT.horizontal_lift(case.p, dW), expected)


@each_shape
def test_the_euclidean_lift_is_the_pseudoinverse_of_the_jacobian(d, k, r):
    case = Case(d, k, r)
    J = product_jacobian(case.p.B, case.p.A)
    assert same(flat(EUCLIDEAN.horizontal_lift(case.p, case.dW)), np.linalg.pinv(J) @ case.dW.ravel())


@each_shape
def test_the_metric_that_the_invariant_one_gives_the_base(d, k, r):
    case = Case(d, k, r)
    p, dW = case.p, case.dW
    P, Q = p.B @ np.linalg.pinv(p.B), np.linalg.pinv(p.A) @ p.A
    parts = [(dW - P @ dW) @ Q, P @ (dW - dW @ Q), P @ dW @ Q]
    expected = sum(weight * (part**2).sum() for weight, part in zip((1, 1, 0.5), parts, strict=True))
    for M in (np.eye(r), case.M, case.O):
        q = p.act(M)
        assert INVARIANT.norm(q, INVARIANT.horizontal_lift(q, dW)) ** 2 == pytest.approx(expected)


# --- invariance: all of GL(r) for one metric, O(r) for the other


@each_shape
@each_seed
def test_the_invariant_metric_and_all_it_defines_are_carried_by_every_gauge(d, k, r, seed):
    case = Case(d, k, r, seed)
    p, v, w, M = case.p, case.v, case.vector(), case.M
    q = p.act(M)
    assert INVARIANT.inner(q, p.carry(v, M), p.carry(w, M)) == pytest.approx(INVARIANT.inner(p, v, w))
    assert same(INVARIANT.horizontal(q, p.carry(v, M)), p.carry(INVARIANT.horizontal(p, v), M))
    assert same(INVARIANT.horizontal_lift(q, case.dW), p.carry(INVARIANT.horizontal_lift(p, case.dW), M))
    assert same(INVARIANT.gradient(q, case.G), p.carry(INVARIANT.gradient(p, case.G), M))


@each_shape
@each_seed
def test_the_euclidean_metric_and_all_it_defines_are_carried_by_rotations(d, k, r, seed):
    case = Case(d, k, r, seed)
    p, v, w, M = case.p, case.v, case.vector(), case.O
    q = p.act(M)
    assert EUCLIDEAN.inner(q, p.carry(v, M), p.carry(w, M)) == pytest.approx(EUCLIDEAN.inner(p, v, w))
    assert same(EUCLIDEAN.horizontal(q, p.carry(v, M)), p.carry(EUCLIDEAN.horizontal(p, v), M))
    assert same(EUCLIDEAN.horizontal_lift(q, case.dW), p.carry(EUCLIDEAN.horizontal_lift(p, case.dW), M))
    assert same(EUCLIDEAN.gradient(q, case.G), p.carry(EUCLIDEAN.gradient(p, case.G), M))


@each_shape
@each_seed
def test_a_gauge_that_is_no_rotation_carries_no_euclidean_horizontal_vector_to_one(d, k, r, seed):
    case = Case(d, k, r, seed)
    p, M = case.p, case.M
    q, v = p.act(M), EUCLIDEAN.gradient(p, case.G)
    assert EUCLIDEAN.vertical_share(p, v) < 1e-24 < 1e-5 < EUCLIDEAN.vertical_share(q, p.carry(v, M))
    assert not same(EUCLIDEAN.horizontal_lift(q, case.dW), p.carry(EUCLIDEAN.horizontal_lift(p, case.dW), M), 1e-3)


# --- gradients


@each_metric
@each_shape
def test_the_gradient_represents_the_derivative_in_its_own_metric(metric, d, k, r):
    case = Case(d, k, r)
    p, gradient = case.p, metric.gradient(case.p, case.G)
    for _ in range(4):
        v = case.vector()
        assert metric.inner(p, gradient, v) == pytest.approx((case.G * p.push(v)).sum())
    assert metric.vertical_share(p, gradient) < 1e-24
    (other,) = set(METRICS) - {metric}
    assert other.vertical_share(p, gradient) > 1e-4


@each_shape
def test_the_invariant_gradient_is_the_preconditioned_one(d, k, r):
    case = Case(d, k, r)
    p, (plain_B, plain_A) = case.p, EUCLIDEAN.gradient(case.p, case.G)
    preconditioned = plain_B @ np.linalg.inv(p.A @ p.A.T), np.linalg.inv(p.B.T @ p.B) @ plain_A
    assert same(INVARIANT.gradient(p, case.G), preconditioned)
    P, Q = p.B @ np.linalg.pinv(p.B), np.linalg.pinv(p.A) @ p.A
    assert same(p.push(INVARIANT.gradient(p, case.G)), case.G @ Q + P @ case.G)


@pytest.mark.parametrize("d,k,r", SHAPES[1:])
def test_a_step_of_signs_is_horizontal_in_neither_metric(d, k, r):
    case = Case(d, k, r)
    signs = tuple(np.sign(part) for part in EUCLIDEAN.gradient(case.p, case.G))  # Adam's first step
    assert min(metric.vertical_share(case.p, signs) for metric in METRICS) > 1e-3


# --- retractions


@each_shape
def test_retraction_starts_with_the_vector_and_commutes_with_the_gauge(d, k, r):
    case = Case(d, k, r)
    p, (dB, dA), M = case.p, case.v, case.M
    assert same(p.retract((0 * dB, 0 * dA)).W, p.W)
    t = 1e-6
    slope = (p.retract((t * dB, t * dA)).W - p.retract((-t * dB, -t * dA)).W) / (2 * t)
    assert same(slope, p.push(case.v), 1e-8)
    one, other = p.retract(case.v).act(M), p.act(M).retract(p.carry(case.v, M))
    assert same((one.B, one.A), (other.B, other.A))


@pytest.mark.parametrize("d,k,r", SHAPES[:3])
def test_the_two_retractions_agree_to_first_order_and_the_svd_is_nearest(d, k, r):
    case = Case(d, k, r)
    p, lift = case.p, INVARIANT.horizontal_lift(case.p, case.dW)
    gaps = []
    for t in (1e-3, 5e-4):
        additive, nearest = p.retract((t * lift.dB, t * lift.dA)), p.retract_by_svd(t * case.dW)
        gaps.append(np.linalg.norm(additive.W - nearest.W))
        target = p.W + t * case.dW
        assert np.linalg.norm(nearest.W - target) < np.linalg.norm(additive.W - target)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)
    assert abs(nearest.imbalance()).max() < 1e-12


# --- balancing


@each_shape
@each_seed
def test_balancing_is_the_one_positive_definite_gauge(d, k, r, seed):
    case = Case(d, k, r, seed)
    q = case.p.balanced()
    M = case.p.gauge_to(q)
    assert abs(q.imbalance()).max() < 1e-10 and same(q.W, case.p.W)
    assert same(M, M.T, 1e-9) and np.linalg.eigvalsh(M + M.T)[0] > 0
    assert same((q.balanced().B, q.balanced().A), (q.B, q.A))
    turned = q.act(case.O)  # the other balanced points: one orbit of O(r)
    assert abs(turned.imbalance()).max() < 1e-10
    other = case.p.act(case.M).balanced()
    rotation = q.gauge_to(other)
    assert same(rotation @ rotation.T, np.eye(r))


@each_shape
@each_seed
def test_the_nuclear_norm_is_the_least_energy_in_the_fiber(d, k, r, seed):
    case = Case(d, k, r, seed)
    nuclear = np.linalg.svd(case.p.W, compute_uv=False).sum()
    assert case.p.nuclear_norm() == pytest.approx(nuclear) == pytest.approx(case.p.balanced().energy())
    for _ in range(4):
        q = case.p.balanced().act(np.eye(r) + 0.3 * case.generator())
        assert q.energy() > nuclear + 1e-9 and q.nuclear_norm() == pytest.approx(nuclear)


# --- bad input


def test_points_without_full_rank_are_refused():
    p = Case(8, 7, 2).p
    with pytest.raises(ValueError, match="B must have rank r = 2, it has rank 0"):
        Factors(0 * p.B, p.A)
    with pytest.raises(ValueError, match="A must have rank r = 2, it has rank 1"):
        Factors(p.B, p.A * [[1], [0]])
    with pytest.raises(ValueError, match="B must have rank r = 3, it has rank 2"):
        Factors(np.eye(2, 3), np.eye(3, 5))
    with pytest.raises(ValueError, match="with the same r"):
        Factors(p.B, p.A.T)


def test_a_bad_argument_is_named():
    case = Case(8, 7, 2)
    p, (dB, dA) = case.p, case.v
    for call, says in [
        (lambda: p.act(np.zeros((2, 2))), "M must be invertible"),
        (lambda: p.act(np.eye(3)), r"M must have the shape \(2, 2\), got \(3, 3\)"),
        (lambda: p.vertical(np.eye(3)), "X must have the shape"),
        (lambda: p.push((dB, dA.T)), r"dA must have the shape \(2, 7\)"),
        (lambda: p.push(dB), "a tangent vector must be a pair"),
        (lambda: p.tangent_projection(dB), r"Z must have the shape \(8, 7\)"),
        (lambda: INVARIANT.horizontal_lift(p, dB), "dW must have the shape"),
        (lambda: EUCLIDEAN.gradient(p, dB), "G must have the shape"),
        (lambda: p.gauge_to(Case(8, 7, 2, 1).p), "other must lie in the same fiber"),
        (lambda: INVARIANT.vertical_share(p, (0 * dB, 0 * dA)), "v must not be zero"),
        (lambda: dimension_counts(p.B, p.A.T), "with the same r"),
    ]:
        with pytest.raises(ValueError, match=says):
            call()


def test_a_point_keeps_its_own_copy():
    B, A = np.ones((3, 1)), np.ones((1, 2))
    p = Factors(B, A)
    B[:] = 7
    assert (p.B == 1).all() and p.shape == (3, 2, 1)
