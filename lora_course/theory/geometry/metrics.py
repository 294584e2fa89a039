r"""Three metrics on the pairs (B, A), and what each calls horizontal: the orthogonal complement of the fiber.

B: (d, r), A: (r, k), v = (dB, dA) a tangent vector; vertical: (B X, -X A), X (r, r); S = BᵀB, T = A Aᵀ;
G: (d, k) the gradient of a loss with respect to W = B A; the gradients of B and A are G Aᵀ and Bᵀ G.
"""

from dataclasses import dataclass

import numpy as np

from .._validate import positive_number
from .factors import Tangent, like, tangent


class Metric:
    r"""What the metrics share: given ``inner`` and ``vertical_generator``, the rest is orthogonal projection."""

    def norm(self, p, v):
        r"""√ inner(p, v, v)."""
        return float(np.sqrt(self.inner(p, v, v)))

    def vertical(self, p, v):
        r"""The vertical part (B X, -X A) of v, with X = ``vertical_generator(p, v)``: the nearest vertical vector."""
        return p.vertical(self.vertical_generator(p, v))

    def horizontal(self, p, v):
        r"""The horizontal part of v: v less its vertical part, the nearest horizontal vector. W moves as with v."""
        dB, dA = tangent(p, v)
        up, along = self.vertical(p, (dB, dA))
        return Tangent(dB - up, dA - along)

    def vertical_share(self, p, v):
        r"""‖vertical part‖² / ‖v‖² in this metric, from 0 (horizontal) to 1; ValueError for v = 0."""
        whole = self.inner(p, v, v)
        if whole == 0:
            raise ValueError("v must not be zero: a zero vector has no share")
        return self.inner(p, self.vertical(p, v), self.vertical(p, v)) / whole

    def horizontal_lift(self, p, dW):
        r"""The only horizontal vector at p that moves W by dW, (d, k).

        For the invariant metric ((I - B B⁺) dW A⁺ + B K, B⁺dW (I - A⁺A) + K A), K = ½ B⁺dW A⁺; for the Euclidean
        one the horizontal part of that, which is the pseudoinverse of the Jacobian applied to dW. A dW that is no
        velocity of a matrix of rank r is replaced by its ``tangent_projection``.
        """
        dW = like("dW", dW, p.W)
        left, right = p.B_pinv @ dW, dW @ p.A_pinv
        K = p.B_pinv @ right / 2
        # this one is horizontal for the invariant metric; any other metric's lift differs from it by a vertical vector
        return self._from_invariant(p, Tangent(right - p.B @ K, left - K @ p.A))

    def _from_invariant(self, p, v):
        return self.horizontal(p, v)


class InvariantMetric(Metric):
    r"""g(v, v) = tr(dBᵀdB · A Aᵀ) + tr(BᵀB · dA dAᵀ) = ‖dB A‖² + ‖B dA‖²: invariant under all of GL(r).

    v is horizontal iff BᵀdB · A Aᵀ = BᵀB · dA Aᵀ, that is, iff B⁺dB = dA A⁺. Since g is invariant, the horizontal
    spaces are carried to each other by GL(r): they are a *connection* of the principal bundle, with the connection
    form ω(v) = ½ (B⁺dB - dA A⁺) (:meth:`vertical_generator`), for which ω(B X, -X A) = X and ω at (B M, M⁻¹ A) is
    M⁻¹ ω M. The metric that it gives the base is ‖P⊥ dW Q‖² + ‖P dW Q⊥‖² + ½ ‖P dW Q‖², P = B B⁺, Q = A⁺A: not the
    embedded one, which has 1 in place of ½. Since tr ω = ¼ d log(det S / det T), a horizontal curve keeps
    det S / det T, and the holonomy of a loop has determinant ±1. There are other invariant metrics, as
    tr(S⁻¹ dBᵀdB) + tr(T⁻¹ dA dAᵀ), with other connections; this one measures the two parts of dW apart, and its
    gradient is the preconditioned one.

    Source: Mishra, Adithya Apuroop and Sepulchre (2012); for LoRA Zhang and Pilanci (2024), Equation (2).
    """

    def inner(self, p, u, v):
        r"""g(u, v) = ⟨dB_u A, dB_v A⟩ + ⟨B dA_u, B dA_v⟩, a float."""
        u, v = tangent(p, u), tangent(p, v)
        return float(((u.dB @ p.A) * (v.dB @ p.A)).sum() + ((p.B @ u.dA) * (p.B @ v.dA)).sum())

    def vertical_generator(self, p, v):
        r"""The connection form ω(v) = ½ (B⁺dB - dA A⁺), (r, r): the X of the vertical part (B X, -X A) of v."""
        dB, dA = tangent(p, v)
        return (p.B_pinv @ dB - dA @ p.A_pinv) / 2

    def curvature(self, p, u, v):
        r"""The curvature form Ω(u, v), (r, r), of the connection ω, on the horizontal parts of u and v.

        -[S_u, S_v] + ½ S⁻¹(dB_uᵀ P⊥ dB_v - dB_vᵀ P⊥ dB_u) + ½ (dA_u Q⊥ dA_vᵀ - dA_v Q⊥ dA_uᵀ) T⁻¹ with S_u = B⁺dB_u,
        P⊥ = I - B B⁺ and Q⊥ = I - A⁺A: the exterior derivative of ω there. A small loop that encloses the parallelogram
        of u and v has the holonomy I - Ω(u, v), to second order. 0 for r = 1; (B Y, Y A) and (B Z, Z A) give -[Y, Z].
        """
        (B_u, A_u), (B_v, A_v) = self.horizontal(p, u), self.horizontal(p, v)
        S_u, S_v = p.B_pinv @ B_u, p.B_pinv @ B_v
        left = B_u.T @ (B_v - p.B @ S_v)
        right = (A_u - S_u @ p.A) @ A_v.T
        half = p.B_pinv @ p.B_pinv.T @ (left - left.T) + (right - right.T) @ p.A_pinv.T @ p.A_pinv
        return half / 2 - (S_u @ S_v - S_v @ S_u)

    def gradient(self, p, G):
        r"""The Riemannian gradient (G A⁺, B⁺G) = (G_B (A Aᵀ)⁻¹, (BᵀB)⁻¹ G_A): the preconditioned gradient.

        It is horizontal here, and (B M, M⁻¹ A) gives (dB M, M⁻¹ dA). W moves by G Q + P G.
        Source: Zhang and Pilanci (2024), Equation (1).
        """
        G = like("G", G, p.W)
        return Tangent(G @ p.A_pinv, p.B_pinv @ G)

    def _from_invariant(self, p, v):
        return v


@dataclass(frozen=True)
class DampedMetric(Metric):
    r"""g_δ(v, v) = ‖dB A‖² + tr(dAᵀ(S + δ T⁻¹) dA), δ = `damping` > 0: invariant under GL(r), also where B = 0.

    A metric on all pairs with A of rank r (``RowFactors``), and another one than the invariant metric, which it becomes
    for δ -> 0 where B has full rank. v is horizontal iff BᵀdB = (S + δ T⁻¹) dA A⁺. Its gradient is the direction of
    ``lora_course.adapters.PreconditionedSGD`` with this damping, which is therefore horizontal here, exactly, from
    LoRA's start on; in the invariant metric it is not.

    Raises ValueError unless damping is a positive number.
    """

    damping: float

    def __post_init__(self):
        positive_number("damping", self.damping)

    def _right(self, p):
        return p.B.T @ p.B + self.damping * p.A_pinv.T @ p.A_pinv

    def inner(self, p, u, v):
        r"""⟨dB_u A, dB_v A⟩ + tr(dA_uᵀ (S + δ T⁻¹) dA_v), a float."""
        u, v = tangent(p, u), tangent(p, v)
        return float(((u.dB @ p.A) * (v.dB @ p.A)).sum() + (u.dA * (self._right(p) @ v.dA)).sum())

    def vertical_generator(self, p, v):
        r"""The connection form (2 S + δ T⁻¹)⁻¹ (BᵀdB - (S + δ T⁻¹) dA A⁺), (r, r)."""
        dB, dA = tangent(p, v)
        right = self._right(p)
        return np.linalg.solve(p.B.T @ p.B + right, p.B.T @ dB - right @ dA @ p.A_pinv)

    def gradient(self, p, G):
        r"""(G A⁺, (S + δ T⁻¹)⁻¹ BᵀG): what PreconditionedSGD subtracts, for ``scaling`` = 1 and without momentum."""
        G = like("G", G, p.W)
        return Tangent(G @ p.A_pinv, np.linalg.solve(self._right(p), p.B.T @ G))


class EuclideanMetric(Metric):
    r"""⟨v, v⟩ = ‖dB‖² + ‖dA‖²: invariant under O(r) only, not under GL(r).

    v is horizontal iff BᵀdB = dA Aᵀ. These spaces are orthogonal to the orbits of the whole of GL(r), but a gauge M
    that is not orthogonal does not carry them to each other: they are *no* connection of the GL(r)-bundle. On the
    balanced points, an O(r)-bundle over the same base, they are one. A horizontal curve keeps BᵀB - A Aᵀ.
    """

    def inner(self, p, u, v):
        r"""⟨dB_u, dB_v⟩ + ⟨dA_u, dA_v⟩, a float."""
        u, v = tangent(p, u), tangent(p, v)
        return float((u.dB * v.dB).sum() + (u.dA * v.dA).sum())

    def vertical_generator(self, p, v):
        r"""The X, (r, r), of the vertical part (B X, -X A) of v: it solves S X + X T = BᵀdB - dA Aᵀ.

        S and T are positive definite, so this Sylvester equation has exactly one solution.
        """
        dB, dA = tangent(p, v)
        s, P = np.linalg.eigh(p.B.T @ p.B)
        t, Q = np.linalg.eigh(p.A @ p.A.T)
        return P @ (P.T @ (p.B.T @ dB - dA @ p.A.T) @ Q / (s[:, None] + t)) @ Q.T

    def gradient(self, p, G):
        r"""The plain gradient (G Aᵀ, BᵀG), as autograd gives it: horizontal here, for every loss of W."""
        G = like("G", G, p.W)
        return Tangent(G @ p.A.T, p.B.T @ G)


INVARIANT, EUCLIDEAN = InvariantMetric(), EuclideanMetric()
