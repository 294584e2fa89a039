"""What chapter 12 says of the bundle over the matrices of rank r, and of curves in it, beside tests/theory."""

import numpy as np
import pytest

from lora_course.labs import gradient_flow
from lora_course.labs.gauge_flow import Loop
from lora_course.theory import adapter_parameters, degrees_of_freedom
from lora_course.theory.geometry import EUCLIDEAN, INVARIANT, Factors, dimension_counts, parallel_transport


def pair(d, k, r, seed):
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(d, r)), rng.normal(size=(r, k)))


@pytest.mark.parametrize("d,k,r", [(6, 5, 2), (10, 7, 3), (12, 12, 4), (9, 4, 1)])
def test_dimensions_add_up_with_a_fiber_of_r_squared_and_not_of_r(d, k, r):
    p = pair(d, k, r, 0)
    counts = dimension_counts(p.B, p.A)
    assert counts.parameters == adapter_parameters(d, k, r) == degrees_of_freedom(d, k, r) + r**2
    assert (counts.rank, counts.kernel) == (degrees_of_freedom(d, k, r), r**2)
    assert (counts.parameters == degrees_of_freedom(d, k, r) + r) == (r == 1)
    at_start = dimension_counts(0 * p.B, p.A)
    assert (at_start.rank, at_start.kernel) == (d * r, k * r)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_columns_and_rows_of_a_matrix_are_a_local_section(seed):
    # the block of r rows and r columns is invertible on an open set of W, and the pair depends on W smoothly there
    W, r = pair(8, 6, 3, seed).W, 3
    B, A = W[:, :r], np.linalg.solve(W[:r, :r], W[:r])
    assert np.allclose(B @ A, W, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_each_metrics_gradient_flow_is_the_transport_of_that_metric_over_its_own_path(seed):
    start, target = pair(7, 5, 2, seed), np.random.default_rng(seed + 9).normal(size=(7, 5))
    ends = {}
    for metric, other in [(INVARIANT, EUCLIDEAN), (EUCLIDEAN, INVARIANT)]:
        flow = gradient_flow(start, lambda W: W - target, metric.gradient, duration=0.5, steps=100)
        for along in (metric, other):
            end = parallel_transport(flow.path, start, along, velocity=flow.velocity, tolerance=1e-7).end
            ends[metric, along] = np.linalg.norm(flow.end.gauge_to(end) - np.eye(2))
        assert ends[metric, metric] < 1e-4 < 1e-2 < ends[metric, other]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_euclidean_flow_keeps_the_imbalance_and_a_flow_of_more_steps_is_nearer(seed):
    start, target = pair(7, 5, 2, seed), np.random.default_rng(seed + 9).normal(size=(7, 5))

    def flow(steps):
        return gradient_flow(start, lambda W: W - target, EUCLIDEAN.gradient, duration=0.5, steps=steps)

    coarse, fine, finest = flow(40), flow(80), flow(640)
    assert np.allclose(finest.end.imbalance(), start.imbalance(), rtol=0, atol=1e-6)
    errors = [np.linalg.norm(f.end.W - finest.end.W) for f in (coarse, fine)]
    assert errors[0] > 8 * errors[1]  # fourth order: 16 times, for small steps


def test_the_path_of_a_flow_goes_through_its_points_with_their_velocities():
    start, target = pair(7, 5, 2, 0), np.random.default_rng(9).normal(size=(7, 5))
    flow = gradient_flow(start, lambda W: W - target, INVARIANT.gradient, duration=0.5, steps=50)
    for i in (0, 7, 50):
        t, p = i / 50, flow.points[i]
        assert np.allclose(flow.path(t), p.W, rtol=0, atol=1e-12)
        slope = -0.5 * p.push(INVARIANT.gradient(p, p.W - target))
        assert np.allclose(flow.velocity(t), slope, rtol=0, atol=1e-10)
    t, h = 0.313, 1e-6
    assert np.allclose(flow.velocity(t), (flow.path(t + h) - flow.path(t - h)) / (2 * h), rtol=0, atol=1e-5)


@pytest.mark.parametrize("change,what", [({"duration": 0}, "duration=0"), ({"steps": 0}, "steps=0")])
def test_bad_input_of_a_flow_is_named(change, what):
    with pytest.raises(ValueError, match=what):
        gradient_flow(pair(4, 3, 2, 0), lambda W: W, INVARIANT.gradient, **change)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_a_loop_is_closed_and_leaves_with_the_velocity_of_its_second_axis(r):
    loop = Loop(r, 0.3)
    assert np.allclose(loop.W(1), loop.W(0)) and not np.allclose(loop.W(0.5), loop.W(0))
    (_, Y), (_, Z) = loop.axes
    v = 2 * np.pi * 0.3 * (Y @ loop.start.W + loop.start.W @ Z)
    assert np.allclose(loop.velocity(0), v, atol=1e-6)
    assert np.allclose(loop.start.imbalance(), 0)
