r"""Pairs (B, A) of full rank as points over the matrices of rank r, and the gauge group GL(r) that acts on them.

B: (d, r), A: (r, k), both of rank r; W = B A: (d, k), of rank r; M: (r, r), invertible, acts by (B M, M⁻¹ A);
X: (r, r), any, generates M = exp(t X); B⁺ = (BᵀB)⁻¹Bᵀ, A⁺ = Aᵀ(AAᵀ)⁻¹, so that B⁺B = A A⁺ = I_r.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .._validate import matrix
from ..spectrum import truncated_svd


class Tangent(NamedTuple):
    r"""A velocity of a pair: `dB` (d, r) and `dA` (r, k). Any two arrays of these shapes will do in its place."""

    dB: np.ndarray
    dA: np.ndarray


@dataclass(frozen=True, eq=False)
class Factors:
    r"""A point of the total space P = {(B, A): B is (d, r), A is (r, k), both of rank r}.

    It represents the matrix `W` = B A of rank r, and so does every (B M, M⁻¹ A), M in GL(r), and no other point of P:
    the fiber over W is one orbit of GL(r), a copy of it, of dimension r². P is open in R^{r(d+k)}, and (B, A) -> B A
    makes it a principal GL(r)-bundle over the manifold of matrices of rank r, which has dimension r (d + k - r).
    A tangent vector at (B, A) is a pair (dB, dA) of any two matrices of the same shapes; it moves W by
    dB A + B dA, and it is *vertical* (W stands still) iff it is (B X, -X A). Which vectors are *horizontal* is not
    given by P: it needs a choice, here always that of a metric, see ``InvariantMetric`` and ``EuclideanMetric``.

    LoRA's start, B = 0, is no point of P, but one of the larger bundle of ``RowFactors``. `B_pinv` = B⁺ (r, d) and
    `A_pinv` = A⁺ (k, r) are computed once. The factor `scaling` = alpha / r of an adapter is left out; put it into B
    or A.

    Raises ValueError if B and A do not fit, or one of them has a rank below r (to rounding).
    """

    B: np.ndarray
    A: np.ndarray
    B_pinv: np.ndarray = field(init=False, repr=False)
    A_pinv: np.ndarray = field(init=False, repr=False)

    def __post_init__(self):
        (B, _), (A, _) = matrix("B", self.B), matrix("A", self.A)
        if B.shape[1] != A.shape[0]:
            raise ValueError(f"B must be (d, r) and A (r, k) with the same r, got {B.shape} and {A.shape}")
        vars(self).update(B=B, A=A, B_pinv=_left_inverse("B", B), A_pinv=_left_inverse("A", A.T).T)

    @property
    def shape(self):
        r"""The sizes (d, k, r)."""
        return len(self.B), self.A.shape[1], len(self.A)

    @property
    def W(self):
        r"""The matrix B A, (d, k), that the point represents: the same along a whole fiber."""
        return self.B @ self.A

    def act(self, M):
        r"""The point (B M, M⁻¹ A) of the same fiber. Raises ValueError unless M is (r, r) and invertible."""
        M = square(self, "M", M)
        if np.linalg.matrix_rank(M) < len(M):
            raise ValueError("M must be invertible, its rank is below r")
        return type(self)(self.B @ M, np.linalg.solve(M, self.A))

    def carry(self, vector, M):
        r"""The tangent vector (dB M, M⁻¹ dA) at ``act(M)``, to which the gauge M carries a vector of this point."""
        dB, dA = tangent(self, vector)
        M = square(self, "M", M)
        return Tangent(dB @ M, np.linalg.solve(M, dA))

    def vertical(self, X):
        r"""The tangent vector (B X, -X A) of the curve (B exp(tX), exp(-tX) A), which stays in the fiber."""
        X = square(self, "X", X)
        return Tangent(self.B @ X, -X @ self.A)

    def push(self, vector):
        r"""The velocity dB A + B dA of W, (d, k); zero iff the vector is vertical."""
        dB, dA = tangent(self, vector)
        return dB @ self.A + self.B @ dA

    def tangent_projection(self, Z):
        r"""The velocity of W nearest to Z (Frobenius): P Z + Z Q - P Z Q with P = B B⁺, Q = A⁺ A, (d, k).

        Its image is the tangent space of the matrices of rank r at W, the same at each point of the fiber. For the
        gradient G of a loss it gives the Riemannian gradient of the embedded metric. Source: Vandereycken (2013).
        """
        Z = like("Z", Z, self.W)
        PZ = self.B @ (self.B_pinv @ Z)
        return PZ + (Z - PZ) @ self.A_pinv @ self.A

    def retract(self, vector):
        r"""The point (B + dB, A + dA): a retraction of P that commutes with GL(r), so one of the base, too.

        Along it W moves by t (dB A + B dA) + t² dB dA. Raises ValueError where a factor loses rank.
        """
        dB, dA = tangent(self, vector)
        return type(self)(self.B + dB, self.A + dA)

    def retract_by_svd(self, Z):
        r"""The balanced point over the best approximation of rank r of W + Z: the embedded manifold's retraction.

        For a tangent Z it agrees with :meth:`retract` up to O(‖Z‖²). Raises ValueError if W + Z has a rank below r.
        """
        U, s, Vt = truncated_svd(self.W + like("Z", Z, self.W), len(self.A))
        return Factors(U * np.sqrt(s), np.sqrt(s)[:, None] * Vt)

    def imbalance(self):
        r"""BᵀB - A Aᵀ, (r, r), symmetric: zero at the balanced points, conserved by gradient flow on (B, A)."""
        return self.B.T @ self.B - self.A @ self.A.T

    def energy(self):
        r"""½ (‖B‖² + ‖A‖²), at least the nuclear norm ‖W‖_*, with equality iff the point is balanced."""
        return float((self.B**2).sum() + (self.A**2).sum()) / 2

    def nuclear_norm(self):
        r"""‖W‖_* = Σ σ_i(W): the least energy in the fiber. It does not depend on the gauge."""
        return float(truncated_svd(self.W, len(self.A))[1].sum())

    def balanced(self):
        r"""The point (B M, M⁻¹ A) with BᵀB = A Aᵀ whose M is symmetric and positive definite: there is exactly one.

        The balanced points of a fiber form one orbit of O(r): (U √Σ Q, Qᵀ √Σ Vᵀ) for W = U Σ Vᵀ and Q in O(r).
        A balanced point gives itself.
        """
        one = self.retract_by_svd(np.zeros_like(self.W))
        left, _, right = np.linalg.svd(self.B_pinv @ one.B)  # = M Qᵀ: the polar decomposition gives Q
        Q = (left @ right).T
        return Factors(one.B @ Q, Q.T @ one.A)

    def gauge_to(self, other, rtol=1e-6):
        r"""The only M, (r, r), with ``act(M)`` = other. Raises ValueError unless both have the same W, up to rtol."""
        if other.shape != self.shape or not np.linalg.norm(other.W - self.W) <= rtol * np.linalg.norm(self.W):
            raise ValueError("other must lie in the same fiber: its B A is another matrix")
        return self.B_pinv @ other.B


class RowFactors(Factors):
    r"""A point of P_A = {(B, A): A is (r, k), of rank r, and B is any (d, r)}, to which LoRA's start (0, A) belongs.

    GL(r) acts freely here, too, since A alone determines M. P_A is a principal GL(r)-bundle over the pairs (V, W) of a
    subspace V of R^k, of dimension r, and a (d, k) matrix W with its rows in V: the row space of A, and B A. Over W of
    rank r there is one V, and this is the bundle P; over W = 0 each V is allowed, and the fiber is the orbit of (0, A).
    `B_pinv` is the pseudoinverse of B, which jumps where B loses rank: nothing smooth may use it. What does not:
    ``act``, ``carry``, ``vertical``, ``push``, ``retract``, ``gauge_to``, and ``DampedMetric``.

    Raises ValueError if B and A do not fit, or A has a rank below r.
    """

    def __post_init__(self):
        (B, _), (A, _) = matrix("B", self.B), matrix("A", self.A)
        if B.shape[1] != A.shape[0]:
            raise ValueError(f"B must be (d, r) and A (r, k) with the same r, got {B.shape} and {A.shape}")
        vars(self).update(B=B, A=A, B_pinv=np.linalg.pinv(B), A_pinv=_left_inverse("A", A.T).T)

    def gauge_to(self, other, rtol=1e-6):
        r"""The only M, (r, r), with ``act(M)`` = other: A A'⁺. Raises ValueError unless both lie in one fiber."""
        if other.shape == self.shape:
            M = self.A @ other.A_pinv
            misses = (np.linalg.norm(M @ other.A - self.A), np.linalg.norm(other.B - self.B @ M))
            if misses[0] <= rtol * np.linalg.norm(self.A) and misses[1] <= rtol * (1 + np.linalg.norm(other.B)):
                return M
        raise ValueError("other must lie in the same fiber: its row space or its B A is another")


def tangent(p, vector):
    r"""Return ``vector`` as a Tangent at the point p; ValueError unless it is a pair of p's shapes."""
    try:
        dB, dA = vector
    except (TypeError, ValueError):
        raise ValueError(f"a tangent vector must be a pair (dB, dA), got {type(vector).__name__}") from None
    return Tangent(like("dB", dB, p.B), like("dA", dA, p.A))


def square(p, name, M):
    r"""Return M as a matrix (r, r) at the point p, or raise ValueError."""
    return like(name, M, np.empty((len(p.A), len(p.A))))


def like(name, value, model):
    r"""Return ``value`` as a matrix of the shape of ``model``, or raise ValueError."""
    value = matrix(name, value)[0]
    if value.shape != model.shape:
        raise ValueError(f"{name} must have the shape {model.shape}, got {value.shape}")
    return value


def _left_inverse(name, F):
    U, s, Vt = np.linalg.svd(F, full_matrices=False)
    rank = int((s > max(F.shape) * np.finfo(float).eps * s[0]).sum())
    if rank < F.shape[1]:
        raise ValueError(f"{name} must have rank r = {F.shape[1]}, it has rank {rank}: (B, A) is no point over rank r")
    return (Vt.T / s) @ U.T
