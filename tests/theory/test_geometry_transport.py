"""Parallel transport and holonomy: closed forms, independent integrations, symmetries, and the claimed error."""

import math

import numpy as np
import pytest

from lora_course.theory.geometry import EUCLIDEAN, INVARIANT, Factors, holonomy, parallel_transport
from lora_course.theory.geometry.transport import _difference

METRICS = [INVARIANT, EUCLIDEAN]
each_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda m: type(m).__name__)
each_seed = pytest.mark.parametrize("seed", range(3))


def exponential(X):
    r"""exp(X) for a skew X, by its eigenvectors."""
    w, V = np.linalg.eigh(1j * X)
    return (V * np.exp(-1j * w) @ V.conj().T).real


class Loop:
    r"""W(t) = L(t) W0 R(t), L and R rotations around a circle of radius ~ eps in two random planes of generators."""

    def __init__(self, d=6, k=5, r=2, eps=0.3, seed=0):
        rng = np.random.default_rng((d, k, r, seed))
        self.start = Factors(rng.normal(size=(d, r)), rng.normal(size=(r, k)))
        self.W0, self.eps = self.start.W, eps
        self.left, self.right = ([X - X.T for X in rng.normal(size=(2, n, n)) / 2] for n in (d, k))
        self.O, Q = np.linalg.qr(rng.normal(size=(2, r, r)))[0]
        self.M = self.O * np.geomspace(0.5, 3, r) @ Q

    def sides(self, t):
        a, b = math.cos(2 * math.pi * t) - 1, math.sin(2 * math.pi * t)
        return [exponential(self.eps * (a * X + b * Y)) for X, Y in (self.left, self.right)]

    def __call__(self, t):
        L, R = self.sides(t)
        return L @ self.W0 @ R


def circle_of_planes(angle):
    r"""W(t): projection to the plane normal to n(t), which runs around a circle at `angle` from the pole."""

    def normal(t):
        turn = 2 * math.pi * t
        return np.array([math.sin(angle) * math.cos(turn), math.sin(angle) * math.sin(turn), math.cos(angle)])

    e1, e2 = [math.cos(angle), 0, -math.sin(angle)], [0, 1, 0]
    frame = np.array([e1, e2], float).T
    return lambda t: np.eye(3) - np.outer(normal(t), normal(t)), Factors(frame, frame.T)


# --- closed forms and independent integrations


@each_metric
@pytest.mark.parametrize("angle", [0.3, 1.0, 2.0])
def test_planes_in_space_turn_by_the_solid_angle(metric, angle):
    r"""On projections both connections are that of the sphere: Foucault's pendulum turns by 2π (1 - cos angle)."""
    path, start = circle_of_planes(angle)
    h, turn = holonomy(path, start, metric), 2 * math.pi * (1 - math.cos(angle))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    assert abs(h - rotation).max() < 1e-7


@pytest.mark.parametrize("r", [1, 2, 3])
def test_the_gauge_equation_along_a_section_gives_the_same_holonomy(r):
    r"""Independent: in the section (L B0, A0 R), p = section · g is horizontal iff g' = -ω(section') g."""
    loop, steps = Loop(r=r), 400
    B0, A0 = loop.start.B, loop.start.A

    def omega(t, h=1e-4):
        (L, R), (L1, R1), (L0, R0) = loop.sides(t), loop.sides(t + h), loop.sides(t - h)
        B, A, dB, dA = L @ B0, A0 @ R, (L1 - L0) @ B0 / (2 * h), A0 @ (R1 - R0) / (2 * h)
        return (np.linalg.pinv(B) @ dB - dA @ np.linalg.pinv(A)) / 2

    def product(n):
        g = np.eye(r)
        for i in range(n):
            X = omega((i + 0.5) / n) / n
            g = np.linalg.solve(np.eye(r) + X / 2, (np.eye(r) - X / 2) @ g)  # exp(-X) up to X³
        return g

    reference = (4 * product(steps) - product(steps // 2)) / 3
    assert abs(holonomy(loop, loop.start) - reference).max() < 2e-6


def test_fine_steps_that_need_no_differential_equation_come_to_the_same_point():
    r"""Independent: from (B, A) to the only nearby pair over W₁ with B⁺B₁ = A₁A⁺, which is of first order."""
    loop = Loop()

    def chain(n):
        B, A = loop.start.B, loop.start.A
        for i in range(n):
            W, Bp, Ap = loop((i + 1) / n), np.linalg.pinv(B), np.linalg.pinv(A)
            w, V = np.linalg.eig(Bp @ W @ Ap)
            root = (V / np.sqrt(w) @ np.linalg.inv(V)).real
            B, A = W @ Ap @ root, root @ Bp @ W
        return np.linalg.pinv(loop.start.B) @ B

    assert abs(2 * chain(2000) - chain(1000) - holonomy(loop, loop.start)).max() < 1e-5


# --- the symmetries


@each_metric
def test_the_curve_lies_over_the_path_and_is_horizontal(metric):
    loop = Loop()
    result = parallel_transport(loop, loop.start, metric, tolerance=1e-8)
    assert result.times[0] == 0 and result.times[-1] == 1 and (np.diff(result.times) > 0).all()
    assert result.end is result.points[-1] and len(result.points) == len(result.times)
    for t, p in zip(result.times, result.points, strict=True):
        assert abs(p.W - loop(t)).max() < 1e-8
    for i in range(0, len(result.points) - 2, 5):  # differences of three neighbors: first order in the steps
        before, p, after = result.points[i : i + 3]
        chord = after.B - before.B, after.A - before.A
        assert metric.vertical_share(p, chord) < 1e-3
    imbalance = [p.imbalance() for p in result.points]
    drift = max(abs(moment - imbalance[0]).max() for moment in imbalance)
    assert drift < 1e-7 if metric is EUCLIDEAN else drift > 1e-2


@each_seed
def test_the_holonomy_turns_with_the_gauge_and_steps_and_error_do_not(seed):
    loop = Loop(seed=seed)
    there, other = (parallel_transport(loop, p) for p in (loop.start, loop.start.act(loop.M)))
    assert len(there.times) == len(other.times) and abs(there.times - other.times).max() < 1e-6
    assert other.error == pytest.approx(there.error, rel=1e-5)
    h, turned = holonomy(loop, loop.start), holonomy(loop, loop.start.act(loop.M))
    assert abs(turned - np.linalg.solve(loop.M, h @ loop.M)).max() < 1e-12


@each_metric
@each_seed
def test_the_reversed_loop_gives_the_inverse(metric, seed):
    loop = Loop(seed=seed)
    h = holonomy(loop, loop.start, metric)
    # a transport comes back to where it started, so the loop must be run back from there
    back = holonomy(lambda t: loop(1 - t), loop.start.act(h), metric)
    assert abs(h @ back - np.eye(2)).max() < 1e-7


@each_metric
@pytest.mark.parametrize(
    "clock", [lambda t: t**2, lambda t: t * t * (3 - 2 * t), lambda t: t + math.sin(6 * t * math.pi) / 8]
)
def test_transport_does_not_depend_on_the_parametrization(metric, clock):
    r"""The last clock runs back and forth: what is gone twice and back once counts once."""
    loop = Loop()
    one, other = (parallel_transport(f, loop.start, metric, tolerance=1e-6) for f in (loop, lambda t: loop(clock(t))))
    assert abs(one.end.B - other.end.B).max() < 2e-6 and abs(one.end.A - other.end.A).max() < 2e-6


def test_loops_compose_in_the_other_order():
    first, second, other = Loop(seed=0), Loop(seed=0), Loop(seed=1)
    second.left, second.right = other.left, other.right
    one, two = (holonomy(loop, first.start) for loop in (first, second))
    at = parallel_transport(first, first.start).end
    both = first.start.gauge_to(parallel_transport(second, at).end)
    assert abs(both - two @ one).max() < 1e-6 < 1e-2 < abs(both - one @ two).max()


@pytest.mark.parametrize("r", [1, 2, 3])
@each_seed
def test_the_determinant_of_the_holonomy_is_one_in_size(r, seed):
    loop = Loop(r=r, seed=seed)
    h = holonomy(loop, loop.start)
    assert abs(np.linalg.det(h)) == pytest.approx(1, abs=1e-7)
    if r == 1:
        assert h[0, 0] == pytest.approx(1, abs=1e-7)
    else:
        assert abs(h - np.eye(r)).max() > 1e-2


@each_metric
def test_the_sign_is_the_holonomy_that_rank_one_has(metric):
    u, v = np.eye(4)[:2], np.eye(3)[1:]

    def path(t):  # both unit vectors end at their negatives
        c, s = math.cos(math.pi * t), math.sin(math.pi * t)
        return np.outer(c * u[0] + s * u[1], c * v[0] + s * v[1])

    assert holonomy(path, Factors(u[:1].T, v[:1]), metric) == pytest.approx(-1, abs=1e-7)


@each_seed
def test_the_holonomy_of_a_small_loop_grows_with_its_area(seed):
    sizes = [abs(holonomy(Loop(eps=eps, seed=seed), Loop(seed=seed).start) - np.eye(2)).max() for eps in (0.02, 0.01)]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.1)


def test_euclidean_transport_belongs_to_the_rotations():
    r"""Orthogonal for a balanced start, carried by rotations; with another gauge the transport is another."""
    loop = Loop()
    start = loop.start.balanced()
    h = holonomy(loop, start, EUCLIDEAN)
    assert abs(h.T @ h - np.eye(2)).max() < 1e-7 and abs(h - np.eye(2)).max() > 1e-2
    turned = holonomy(loop, start.act(loop.O), EUCLIDEAN)
    assert abs(turned - loop.O.T @ h @ loop.O).max() < 1e-7
    other = holonomy(loop, start.act(loop.M), EUCLIDEAN)
    assert abs(other - np.linalg.solve(loop.M, h @ loop.M)).max() > 1e-2
    invariant = holonomy(loop, start)
    assert abs(invariant.T @ invariant - np.eye(2)).max() > 1e-2


# --- the error


@each_metric
def test_the_error_is_what_was_asked_for(metric):
    loop = Loop()
    best = parallel_transport(loop, loop.start, metric, tolerance=1e-9)
    steps = []
    for tolerance in (1e-3, 1e-5, 1e-6):
        result = parallel_transport(loop, loop.start, metric, tolerance=tolerance)
        wrong = np.hypot(np.linalg.norm(result.end.B - best.end.B), np.linalg.norm(result.end.A - best.end.A))
        assert wrong < 10 * tolerance and result.drift < 10 * tolerance and 0 < result.error <= tolerance
        steps.append(len(result.times))
    assert steps[0] < steps[1] < steps[2]


def test_a_given_velocity_saves_differences_and_changes_nothing():
    path, start = circle_of_planes(1.0)

    def velocity(t):
        turn, n = 2 * math.pi * t, np.linalg.svd(path(t))[0][:, 2]
        n = n * np.sign(n[2])
        dn = 2 * math.pi * math.sin(1.0) * np.array([-math.sin(turn), math.cos(turn), 0])
        return -np.outer(dn, n) - np.outer(n, dn)

    assert abs(holonomy(path, start, velocity=velocity) - holonomy(path, start)).max() < 1e-9


def test_differences_are_exact_for_polynomials_and_stay_inside():
    seen = []

    def path(t):
        seen.append(t)
        return np.array([[t**n for n in range(7)]])

    for t in (0.0, 1e-3, 0.4, 0.9995, 1.0):
        expected = [n * t ** max(n - 1, 0) for n in range(7)]
        assert abs(_difference(path, t) - expected).max() < 1e-10
    assert 0 <= min(seen) and max(seen) <= 1 + 1e-15


def test_what_cannot_be_transported_is_refused():
    loop = Loop()
    far = Loop(seed=1).start
    with pytest.raises(ValueError, match=r"start must lie over path\(0\)"):
        parallel_transport(loop, far)
    with pytest.raises(ValueError, match=r"path must be a loop over start"):
        holonomy(lambda t: loop(t / 2), loop.start)
    with pytest.raises(ValueError, match=r"start must be Factors with a B A of the shape of path\(t\), \(6, 5\)"):
        parallel_transport(loop, (loop.start.B, loop.start.A))
    with pytest.raises(ValueError, match="tolerance must be above 0"):
        parallel_transport(loop, loop.start, tolerance=0)
    with pytest.raises(RuntimeError, match="most_steps=3 reach t = 0"):
        parallel_transport(loop, loop.start, most_steps=3)


def test_a_path_that_leaves_the_rank_is_refused():
    path = lambda t: np.diag([1.0, 1 - 2 * t, 0])  # noqa: E731
    with pytest.raises((ValueError, RuntimeError)):
        parallel_transport(path, Factors(np.eye(3)[:, :2], np.eye(2, 3)), most_steps=100)
