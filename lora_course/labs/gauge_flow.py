r"""Training with infinitely small steps: the curve of (B, A) that a way to descend gives, and its path of W = B A.

p = (B, A), Factors: B (d, r), A (r, k);  G = ∂L/∂W (d, k);  p'(t) = - direction(p, G), 0 <= t <= 1, times a duration.
"""

from collections.abc import Callable

import numpy as np

from lora_course.labs._checks import at_least, positive
from lora_course.theory.geometry import Factors


class Flow:
    r"""A curve of pairs, stored at equal times: `points` (steps + 1 Factors); `path(t)` and `velocity(t)` of W = B A.

    Between stored times W is the cubic with the right values and slopes at both ends, good to O(1 / steps⁴).
    """

    def __init__(self, points, slopes):
        self.points = tuple(points)
        self._W = [p.W for p in points]
        self._slopes = [p.push(v) / (len(points) - 1) for p, v in zip(points, slopes, strict=True)]

    @property
    def end(self) -> Factors:
        r"""The last point."""
        return self.points[-1]

    def path(self, t: float) -> np.ndarray:
        r"""Return W(t), (d, k), for 0 <= t <= 1."""
        i, u = self._place(t)
        weights = (1 + 2 * u) * (1 - u) ** 2, u * (1 - u) ** 2, u**2 * (3 - 2 * u), u**2 * (u - 1)
        return self._mix(i, weights)

    def velocity(self, t: float) -> np.ndarray:
        r"""Return W'(t), (d, k), of the same cubics."""
        i, u = self._place(t)
        weights = 6 * u * (u - 1), (1 - u) * (1 - 3 * u), 6 * u * (1 - u), u * (3 * u - 2)
        return self._mix(i, weights) * (len(self.points) - 1)

    def _place(self, t):
        at = t * (len(self.points) - 1)
        i = min(int(at), len(self.points) - 2)
        return i, at - i

    def _mix(self, i, weights):
        parts = self._W[i], self._slopes[i], self._W[i + 1], self._slopes[i + 1]
        return sum(w * part for w, part in zip(weights, parts, strict=True))


def gradient_flow(
    start: Factors, gradient: Callable, direction: Callable, *, duration: float = 1.0, steps: int = 100
) -> Flow:
    r"""Follow p' = - duration · direction(p, G(p)) from `start`, for 0 <= t <= 1, by Runge and Kutta's fourth order.

    `gradient(W)` is G; `direction(p, G)` a tangent vector, for instance the `gradient` of one of the two metrics.
    Raises `TypeError` or `ValueError` for a bad `duration` or `steps`, and where a factor loses a rank.
    """
    duration, h = positive("duration", duration), 1 / at_least("steps", steps, 1)

    def slope(p):
        return tuple(-duration * part for part in direction(p, gradient(p.W)))

    def moved(p, slopes, weights):
        return p.retract([sum(w * s[j] for w, s in zip(weights, slopes, strict=True)) for j in (0, 1)])

    points, slopes = [start], [slope(start)]
    for _ in range(steps):
        p, k1 = points[-1], slopes[-1]
        k2 = slope(moved(p, [k1], [h / 2]))
        k3 = slope(moved(p, [k2], [h / 2]))
        k4 = slope(moved(p, [k3], [h]))
        points.append(moved(p, [k1, k2, k3, k4], [h / 6, h / 3, h / 3, h / 6]))
        slopes.append(slope(points[-1]))
    return Flow(points, slopes)


def _skew(n, source):
    S = source.normal(size=(n, n))
    return (S - S.T) / np.linalg.norm(S - S.T, 2)


def _turn(S):
    """A rotation, near to I + S for small S (Cayley)."""
    return np.linalg.solve(np.eye(len(S)) - S / 2, np.eye(len(S)) + S / 2)


class Loop:
    r"""A small circle of W, turned by rotations from both sides: W(t) = L(t) B A R(t), 0 <= t <= 1, with W(1) = W(0).

    L = turn(size (x X + y Y)) with x = cos 2πt - 1, y = sin 2πt, and R likewise; so the loop encloses the area π size²
    in the plane of the velocities (X B, A X') and (Y B, A Y') at `start`, a balanced pair with singular values from 1
    to 1/2. `axes` is ((X, Y), (X', Y')), random skew matrices with the largest singular value 1.
    """

    def __init__(self, r: int, size: float, seed: int = 1, d: int = 8, k: int = 7):
        source = np.random.default_rng(seed)
        left = np.linalg.qr(source.normal(size=(d, r)))[0]
        right = np.linalg.qr(source.normal(size=(k, r)))[0].T
        root = np.sqrt(np.geomspace(1, 0.5, r))
        self.start = Factors(left * root, root[:, None] * right)
        self.axes = [[_skew(n, source) for _ in "xy"] for n in (d, k)]
        self.size = positive("size", size)

    def turned(self, t: float) -> Factors:
        r"""The start, turned along with W: a closed curve of pairs."""
        x, y = np.cos(2 * np.pi * t) - 1, np.sin(2 * np.pi * t)
        L, R = (_turn(self.size * (x * X + y * Y)) for X, Y in self.axes)
        return Factors(L @ self.start.B, self.start.A @ R)

    def W(self, t: float) -> np.ndarray:
        r"""Return W(t), (d, k)."""
        return self.turned(t).W

    def velocity(self, t: float, h: float = 1e-5) -> np.ndarray:
        r"""Return W'(t), by a central difference."""
        return (self.W(t + h) - self.W(t - h)) / (2 * h)
