r"""Counting what an adapter costs: numbers, degrees of freedom, operations, bytes.

W is (d, k) = (out_features, in_features), B is (d, r), A is (r, k), ΔW = scaling · B A; x has k entries.
One FLOP is one addition or one multiplication: a product (m, n) @ (n, p) costs 2 m n p.
"""

from typing import NamedTuple

import numpy as np

from ._validate import matrix, positive_integer, rank_at_most


def _shape(d, k):
    return positive_integer("d", d), positive_integer("k", k)


def full_parameters(d, k):
    r"""Number of entries of W: d k. Raises ValueError or TypeError if d or k is no positive integer."""
    d, k = _shape(d, k)
    return d * k


def adapter_parameters(d, k, r):
    r"""Number of trained entries of the pair (B, A): r (d + k) (Hu et al. 2022).

    It may exceed d k: see :func:`break_even_rank`. Raises ValueError or TypeError on a d, k or r that is no
    positive integer.
    """
    d, k = _shape(d, k)
    return positive_integer("r", r) * (d + k)


def compression_ratio(d, k, r):
    r"""How many times fewer numbers the pair has than W: d k / (r (d + k)); d / (2 r) for a square W."""
    return full_parameters(d, k) / adapter_parameters(d, k, r)


def break_even_rank(d, k):
    r"""The (real) rank at which the pair has as many entries as W: d k / (d + k); d / 2 for a square W."""
    d, k = _shape(d, k)
    return d * k / (d + k)


def degrees_of_freedom(d, k, r):
    r"""Dimension of the set of (d, k) matrices of rank r: r (d + k - r).

    It is r² less than the number of entries of (B, A), because (B M, M⁻¹ A) gives the same product for each
    invertible (r, r) matrix M. It equals the rank of :func:`product_jacobian` wherever B and A have rank r.
    Raises ValueError if r > min(d, k) (there is no such matrix).
    """
    d, k = _shape(d, k)
    r = rank_at_most(r, min(d, k), "min(d, k): no (d, k) matrix has a larger rank")
    return r * (d + k - r)


def product_jacobian(B, A):
    r"""Jacobian of (B, A) -> B A at the given pair, as a matrix (d k, r (d + k)).

    Row i k + j belongs to entry (i, j) of the product; the columns are the entries of B, then those of A,
    each row by row. From d(BA) = dB A + B dA: the blocks are I_d ⊗ Aᵀ and B ⊗ I_k. Raises ValueError if the
    inner sizes of B and A differ.
    """
    (B, _), (A, _) = matrix("B", B), matrix("A", A)
    if B.shape[1] != A.shape[0]:
        raise ValueError(f"B must be (d, r) and A (r, k) with the same r, got {B.shape} and {A.shape}")
    return np.hstack([np.kron(np.eye(B.shape[0]), A.T), np.kron(B, np.eye(A.shape[1]))])


def share_of_branch_dimensions(d, k, r):
    r"""Share of the k input dimensions that pass the branch x -> B A x: min(d, k, r) / k.

    It is also the R² of the best linear recovery of an isotropic x from B A x, for B and A of full rank. It
    says nothing about the layer, whose output is W0 x + ΔW x.
    """
    d, k = _shape(d, k)
    return min(d, k, positive_integer("r", r)) / k


def flops_base(d, k, tokens=1):
    r"""FLOPs of W0 x for ``tokens`` inputs: 2 d k each."""
    return 2 * full_parameters(d, k) * positive_integer("tokens", tokens)


def flops_factored(d, k, r, tokens=1):
    r"""FLOPs of B (A x) for ``tokens`` inputs: 2 r (d + k) each."""
    return 2 * adapter_parameters(d, k, r) * positive_integer("tokens", tokens)


def flops_product_first(d, k, r, tokens=1):
    r"""FLOPs of (B A) x for ``tokens`` inputs: 2 d k r once for B A, then 2 d k each."""
    return 2 * full_parameters(d, k) * (positive_integer("r", r) + positive_integer("tokens", tokens))


def training_flops_full(d, k, tokens=1):
    r"""FLOPs of forward and backward of y = W x, W trained: 6 d k per token.

    2 d k each for y, for the gradient with respect to x, and for the gradient with respect to W.
    """
    return 3 * flops_base(d, k, tokens)


def training_flops_lora(d, k, r, tokens=1):
    r"""FLOPs of forward and backward of y = W0 x + B (A x), W0 frozen: 4 d k + 6 r (d + k) per token.

    The frozen W0 is still needed twice (for y and for the gradient with respect to x), only its own gradient
    is spared: for small r the step costs 2/3 of full training, not r (d + k) / (d k) of it. Additions of the
    two outputs and multiplications by the scaling are not counted.
    """
    return 2 * flops_base(d, k, tokens) + 3 * flops_factored(d, k, r, tokens)


def storage_bytes(parameters, bits=16):
    r"""Bytes (rounded up) that ``parameters`` numbers of ``bits`` bits each take in a file."""
    return -(-positive_integer("parameters", parameters, minimum=0) * positive_integer("bits", bits) // 8)


class TrainingBytes(NamedTuple):
    r"""Bytes that training holds besides activations, by purpose; ``total`` is their sum."""

    frozen: int
    trainable: int
    gradients: int
    optimizer: int

    @property
    def total(self):
        r"""Sum of the four."""
        return sum(self)


def training_bytes(frozen, trainable, frozen_width=2, trainable_width=4, moments=2):
    r"""Bytes held in training by ``frozen`` and ``trainable`` parameters, as :class:`TrainingBytes`.

    Frozen numbers are only stored (``frozen_width`` bytes each: 2 for bfloat16); a trainable one is stored
    (``trainable_width`` bytes), has a gradient, and ``moments`` states of the optimizer (Adam 2, momentum 1,
    plain SGD 0) of the same width. Activations come on top.
    Full training is ``training_bytes(0, n)``. Raises ValueError or TypeError on negative or broken counts.
    """
    frozen = positive_integer("frozen", frozen, minimum=0)
    trainable = positive_integer("trainable", trainable, minimum=0)
    stored = trainable * positive_integer("trainable_width", trainable_width)
    moments = positive_integer("moments", moments, minimum=0)
    return TrainingBytes(frozen * positive_integer("frozen_width", frozen_width), stored, stored, moments * stored)
