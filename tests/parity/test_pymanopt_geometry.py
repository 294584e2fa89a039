"""The geometry of (B, A) here and pymanopt's manifolds agree where both define the same thing.

pymanopt has no quotient by GL(r). It has the same base with the embedded metric (FixedRankEmbedded: tangent space,
retraction by SVD, gradient), the quotient by O(r) for A = Bᵀ (PSDFixedRank: our Euclidean metric), and the
subspaces (Grassmann), whose connection both of our metrics induce on projections.
"""

import numpy as np
import pytest

from lora_course.theory import degrees_of_freedom
from lora_course.theory.geometry import EUCLIDEAN, INVARIANT, Factors, dimension_counts, parallel_transport

pymanopt = pytest.importorskip("pymanopt", reason="pymanopt is a test dependency: pip install -r requirements.txt")
from pymanopt.manifolds import FixedRankEmbedded, Grassmann, PSDFixedRank  # noqa: E402

SHAPES = [(6, 5, 1), (8, 7, 2), (7, 10, 3)]
each_shape = pytest.mark.parametrize("d,k,r", SHAPES)
each_seed = pytest.mark.parametrize("seed", range(3))


class Both:
    r"""A random point as Factors and as pymanopt's (U, s, Vᵀ), and ambient matrices of its shape."""

    def __init__(self, d, k, r, seed):
        self.rng = np.random.default_rng((d, k, r, seed))
        self.p = Factors(self.rng.normal(size=(d, r)), self.rng.normal(size=(r, k)))
        self.manifold, self.point = FixedRankEmbedded(d, k, r), self.theirs(self.p)

    def theirs(self, p):
        U, s, Vt = np.linalg.svd(p.W, full_matrices=False)
        r = len(p.A)
        return U[:, :r], s[:r], Vt[:r]

    def ambient(self):
        return self.rng.normal(size=self.p.W.shape)

    def matrix(self, vector, point=None):
        r"""Their tangent vector as a (d, k) matrix."""
        U, S, V = self.manifold.embedding(point or self.point, vector)
        return U @ S @ V.T


@each_shape
def test_dimension(d, k, r):
    both = Both(d, k, r, 0)
    assert both.manifold.dim == degrees_of_freedom(d, k, r) == dimension_counts(both.p.B, both.p.A).rank


@each_shape
@each_seed
def test_tangent_projection(d, k, r, seed):
    both = Both(d, k, r, seed)
    Z = both.ambient()
    theirs = both.matrix(both.manifold.projection(both.point, Z))
    assert abs(both.p.tangent_projection(Z) - theirs).max() < 1e-12


@each_shape
@each_seed
def test_riemannian_gradient_of_the_embedded_metric(d, k, r, seed):
    both = Both(d, k, r, seed)
    G, (U, s, Vt) = both.ambient(), both.point
    in_their_parts = G @ Vt.T * s, np.diag(U.T @ G @ Vt.T), s[:, None] * (U.T @ G)  # by U, by s, by Vᵀ
    theirs = both.matrix(both.manifold.euclidean_to_riemannian_gradient(both.point, in_their_parts))
    assert abs(both.p.tangent_projection(G) - theirs).max() < 1e-9


@each_shape
@each_seed
def test_retraction_by_svd(d, k, r, seed):
    both = Both(d, k, r, seed)
    Z = both.p.tangent_projection(both.ambient()) / 3
    U, s, Vt = both.manifold.retraction(both.point, both.manifold.projection(both.point, Z))
    assert abs(both.p.retract_by_svd(Z).W - U * s @ Vt).max() < 1e-12


@each_shape
@each_seed
def test_vector_transport_by_projection(d, k, r, seed):
    r"""Their `transport` goes along no path: it projects to the tangent space of the other point."""
    both = Both(d, k, r, seed)
    Z = both.p.tangent_projection(both.ambient())
    other = both.p.retract_by_svd(Z / 3)
    there = both.theirs(other)
    theirs = both.manifold.transport(both.point, there, both.manifold.projection(both.point, Z))
    assert abs(other.tangent_projection(Z) - both.matrix(theirs, there)).max() < 1e-12


@each_shape
@each_seed
def test_the_two_metrics_of_the_base_differ_by_half_of_one_block(d, k, r, seed):
    both = Both(d, k, r, seed)
    Z = both.p.tangent_projection(both.ambient())
    embedded = both.manifold.norm(both.point, both.manifold.projection(both.point, Z)) ** 2
    U, _, Vt = both.point
    quotient = INVARIANT.norm(both.p, INVARIANT.horizontal_lift(both.p, Z)) ** 2
    assert embedded - quotient == pytest.approx(((U.T @ Z @ Vt.T) ** 2).sum() / 2)


@each_shape
@each_seed
def test_the_euclidean_metric_on_symmetric_pairs_is_their_quotient_by_rotations(d, k, r, seed):
    rng = np.random.default_rng((d, k, r, seed))
    manifold = PSDFixedRank(d, r)
    Y, Z = rng.normal(size=(2, d, r))
    theirs = manifold.projection(Y, Z)
    ours = EUCLIDEAN.horizontal(Factors(Y, Y.T), (Z, Z.T))
    assert abs(ours.dB - theirs).max() < 1e-10 and abs(ours.dA - theirs.T).max() < 1e-10
    assert abs(Factors(Y, Y.T).retract((theirs, theirs.T)).B - manifold.retraction(Y, theirs)).max() < 1e-12


@pytest.mark.parametrize("metric", [INVARIANT, EUCLIDEAN], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("d,r", [(5, 1), (6, 2), (7, 3)])
def test_on_projections_both_connections_are_that_of_the_subspaces(metric, d, r):
    rng = np.random.default_rng((d, r))
    manifold = Grassmann(d, r)
    Y = np.linalg.qr(rng.normal(size=(d, r)))[0]
    p, X = Factors(Y, Y.T), rng.normal(size=(d, d))
    turn = (X - X.T) @ Y  # moves Y along orthonormal frames
    horizontal = manifold.projection(Y, turn)
    assert abs(metric.horizontal(p, (turn, turn.T)).dB - horizontal).max() < 1e-12

    def path(t):
        Q = manifold.exp(Y, t * horizontal)
        return Q @ Q.T

    U, s, Vt = np.linalg.svd(horizontal, full_matrices=False)
    end = (Y @ Vt.T * np.cos(s) + U * np.sin(s)) @ Vt  # the horizontal geodesic, in closed form
    carried = parallel_transport(path, p, metric, tolerance=1e-6).end
    assert abs(carried.B - end).max() < 1e-5 and abs(carried.A - end.T).max() < 1e-5
