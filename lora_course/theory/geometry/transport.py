r"""Horizontal curves over a path of matrices of rank r: parallel transport, and the holonomy of a loop.

W(t): (d, k), of rank r, 0 <= t <= 1, the path; p(t) = (B(t), A(t)) over it, B A = W(t), p'(t) horizontal.
Dormand and Prince's Runge-Kutta pair of orders 5 and 4: the difference of both is the error that steps are chosen by.
"""

from dataclasses import dataclass

import numpy as np

from .._validate import matrix, positive_integer, positive_number
from .factors import Factors, Tangent
from .metrics import INVARIANT

_STAGES = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]
_TIMES = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1]
_ERROR = [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]


@dataclass(frozen=True, eq=False)
class Transport:
    r"""A horizontal curve: `points` (Factors) at the increasing `times`, which begin with 0 and end with 1.

    `error` is the sum of the estimated errors of all steps, relative to the size of the point; `drift` is
    ‖B A - W(1)‖ / ‖W(1)‖ at the end, measured, which no estimate knows of.
    """

    times: np.ndarray
    points: tuple
    error: float
    drift: float

    @property
    def end(self):
        r"""The last point, over W(1)."""
        return self.points[-1]


def parallel_transport(path, start, metric=INVARIANT, velocity=None, tolerance=1e-7, most_steps=10_000):
    r"""Carry the point `start` over W(0) along the path, horizontally for `metric`; return a Transport.

    path: a function of one number t in [0, 1] that returns W(t), (d, k), of rank r and smooth. velocity: W'(t) as
    such a function; left out, it is taken from differences of 7 values of W, at a distance of 0.002, good to about
    1e-12 for a path that turns around once. Each step's estimated error is at most tolerance · (length of the
    step in t), measured by the metric and relative to the point; with the invariant metric, neither the steps nor
    the error depend on the gauge of `start`. With the Euclidean one the curve is a horizontal lift, too, but of no
    connection of the GL(r)-bundle: starts that differ by a gauge go on differing by it only if it is orthogonal.

    Raises ValueError if start is not over W(0) or a rank drops on the way, RuntimeError if most_steps do not suffice.
    """
    tolerance, most_steps = positive_number("tolerance", tolerance), positive_integer("most_steps", most_steps)
    if _distance(start, path, 0.0) > 1e-8:
        raise ValueError("start must lie over path(0): its B A is another matrix")

    def slope(t, p):
        return metric.horizontal_lift(p, velocity(t) if velocity else _difference(path, t))

    t, p, step, error, times, points = 0.0, start, 0.02, 0.0, [0.0], [start]
    slopes = [slope(t, p)]
    for _ in range(most_steps):
        step = min(step, 1 - t)
        for weights, time in zip(_STAGES, _TIMES, strict=True):
            new = p.retract(_combine(step, weights, slopes))
            slopes.append(slope(min(t + time * step, 1.0), new))
        wrong = metric.norm(new, _combine(step, _ERROR, slopes)) / metric.norm(new, (new.B, new.A))
        if wrong <= tolerance * step:
            t, p, error, slopes = (1.0 if step == 1 - t else t + step), new, error + wrong, slopes[-1:]
            times.append(t)
            points.append(p)
        else:
            slopes = slopes[:1]
        if t == 1:
            return Transport(np.array(times), tuple(points), error, _distance(p, path, 1.0))
        step *= min(5.0, max(0.2, 0.9 * (tolerance * step / max(wrong, 1e-300)) ** 0.25))
    raise RuntimeError(f"most_steps={most_steps} reach t = {t:.3g} only; allow more, or a larger tolerance")


def holonomy(path, start, metric=INVARIANT, velocity=None, tolerance=1e-7, most_steps=10_000):
    r"""The h, (r, r), with which the transport around a loop ends: at (B h, h⁻¹ A) for start = (B, A).

    For the invariant metric: the start (B M, M⁻¹ A) gives M⁻¹ h M, the reversed loop h⁻¹, one loop and then
    another h₂ h₁, and |det h| = 1; so for r = 1 it is 1 or -1. For the Euclidean metric and a balanced start it is
    orthogonal. Arguments and errors as in :func:`parallel_transport`; ValueError unless path(1) = path(0).
    """
    if _distance(start, path, 1.0) > 1e-8:
        raise ValueError("path must be a loop over start: path(1) is not the B A of start")
    return start.B_pinv @ parallel_transport(path, start, metric, velocity, tolerance, most_steps).end.B


def _distance(p, path, t):
    W = matrix("path(t)", path(t))[0]
    if not isinstance(p, Factors) or W.shape != p.W.shape:
        raise ValueError(f"start must be Factors with a B A of the shape of path(t), {W.shape}")
    return float(np.linalg.norm(p.W - W) / np.linalg.norm(W))


def _combine(step, weights, slopes):
    pairs = list(zip(weights, slopes, strict=True))
    return Tangent(*(step * sum(w * s[i] for w, s in pairs) for i in (0, 1)))


def _difference(path, t, h=2e-3):
    # the derivative at t of the polynomial through 7 values, none of them outside of [0, 1]
    middle, powers = min(max(t, 3 * h), 1 - 3 * h), np.arange(7)
    nodes, at = np.arange(-3.0, 4.0), (t - middle) / h
    slope_of_powers = powers * at ** np.maximum(powers - 1, 0)
    weights = np.linalg.solve(nodes ** powers[:, None], slope_of_powers) / h
    return sum(w * np.asarray(path(middle + node * h)) for w, node in zip(weights, nodes, strict=True))
