r"""Dimensions counted by the rank of a Jacobian, at any pair (B, A): also where it is no point over rank r.

B: (d, r), A: (r, k), of any ranks b and a; J: (d k, r (d + k)), the Jacobian of (B, A) -> B A.
"""

from typing import NamedTuple

from ..counting import product_jacobian
from ..spectrum import numerical_rank


class DimensionCounts(NamedTuple):
    r"""`parameters` = r (d + k) numbers; they move W in `rank` directions, and leave it fixed in `kernel` ones."""

    parameters: int
    rank: int
    kernel: int


def dimension_counts(B, A):
    r"""Count by the singular values of J: ``parameters = rank + kernel``.

    The rank is d a + k b - a b for rank(A) = a and rank(B) = b. Where both are r: r (d + k - r), and the kernel is
    r², the dimension of the fiber. At LoRA's start, B = 0 and a = r: d r and k r. Raises ValueError if B and A do not
    fit; J needs d k · r (d + k) numbers.
    """
    J = product_jacobian(B, A)
    rank = numerical_rank(J)
    return DimensionCounts(J.shape[1], rank, J.shape[1] - rank)
