r"""Starts made from the weight or its gradient: functions (W, r, s, generator, ...) -> (A0, B0).

Symbols: W (d, k) the base weight, s the scaling, A0 (r, k), B0 (d, r) the factors at the start, all in W's dtype.
Where B0 A0 ≠ 0 the base has to give up s B0 A0, so that the output stays the same: see ``origin.start``.
"""

import math

import torch

from lora_course.adapters.checks import check_choice


def b_random(W, r, s, generator):
    r"""Return A0 = 0 and B0 with entries from U(-1/√r, 1/√r): "kaiming" with the roles of A and B exchanged.

    Source: Hayou et al. (2024), The Impact of Initialization on LoRA Finetuning Dynamics, "Init[B]".
    """
    B = torch.empty(W.shape[0], r, dtype=W.dtype, device=generator.device)
    return W.new_zeros(r, W.shape[1]), B.uniform_(-1, 1, generator=generator).to(W.device) / math.sqrt(r)


def pissa(W, r, s, generator, niter=None):
    r"""Return the principal part of W: s B0 A0 = U_r S_r V_rᵀ, the best approximation of rank r.

    niter=None: by the exact SVD; an int: by ``randomized_svd`` with so many power iterations, far faster.
    Source: Meng et al. (2024), PiSSA, Eqs. (2) to (4), where s = 1; that S is divided by s is PEFT's.
    """
    U, S, Vt = exact_svd(W) if niter is None else randomized_svd(W, r, niter, generator=generator)
    return _roots(U[:, :r], S[:r], Vt[:r], s)


def milora(W, r, s, generator):
    r"""Return the minor part of W: s B0 A0 is made of its r smallest singular values, the rest stays frozen.

    Where W has not full rank, A0 and B0 are both (almost) 0 in that component, and so are their gradients.
    Source: Wang, Li et al. (2025), MiLoRA, Section 3, Eqs. (3) to (5), where s = 1.
    """
    U, S, Vt = exact_svd(W)
    return _roots(U[:, -r:], S[-r:], Vt[-r:], s)


def olora(W, r, s, generator):
    r"""Return A0 = R_r and B0 = Q_r, the first r rows of R and orthonormal columns of Q, where W = Q R.

    As in PEFT nothing is divided by s, so the base gives up s Q_r R_r: for s > 1 more than it has there.
    Source: Büyükakyüz (2024), OLoRA, as its author put it into PEFT.
    """
    Q, R = torch.linalg.qr(W)
    return R[:r], Q[:, :r]


def lora_ga(W, r, s, generator, gradient, gamma=16.0):
    r"""Return A0 = c V_1ᵀ and B0 = c U_2, with c = d^¼ / √gamma, from the gradient G = U S Vᵀ (d, k) of W.

    V_1 (k, r) are the first r right singular vectors, U_2 (d, r) the left ones r + 1 to 2r: the first step of
    gradient descent then moves W, to first order, along the best approximation of G of rank 2r, by the factor
    s² c². It needs 2r <= min(d, k). ``origin.weight_gradients`` computes G from a batch.
    Source: Wang, Yu and Li (2024), LoRA-GA, Algorithm 1, with its scaling α/√r replaced by the layer's own s;
    gamma = 16 is the default of their code. PEFT takes the same vectors, but multiplies
    B0 by their singular values too and leaves c out of A0, so that its first step is another one.
    """
    if isinstance(gamma, bool) or not isinstance(gamma, (int, float)) or not 0 < gamma < math.inf:
        raise ValueError(f"gamma must be a positive, finite number, got {gamma!r}")
    if not isinstance(gradient, torch.Tensor):
        raise TypeError(f"gradient must be a tensor of shape {tuple(W.shape)}, got {type(gradient).__name__}")
    if gradient.shape != W.shape or not torch.isfinite(gradient).all():
        shape = tuple(gradient.shape)
        raise ValueError(f"gradient must be finite, of the weight's shape {tuple(W.shape)}; its shape is {shape}")
    if 2 * r > min(W.shape):
        raise ValueError(f"lora_ga needs 2 r <= min(d, k) = {min(W.shape)}, got r = {r}")
    U, _, Vt = exact_svd(gradient.to(W))
    c = W.shape[0] ** 0.25 / math.sqrt(gamma)
    return c * Vt[:r], c * U[:, r : 2 * r]


STARTS = {"b_random": b_random, "pissa": pissa, "milora": milora, "olora": olora, "lora_ga": lora_ga}


def start_factors(name, W, r, s, generator, **options):
    r"""Return (A0, B0) of the start ``name``, or of a function that makes them as those of STARTS do.

    Raises ValueError for another name, r > min(d, k), W that is not finite, factors of another shape.
    """
    make = name if callable(name) else STARTS[check_choice("name", name, STARTS)]
    if r > min(W.shape):
        raise ValueError(f"r must be at most min(d, k) = {min(W.shape)} for the start {name!r}, got {r}")
    if not torch.isfinite(W).all():
        raise ValueError(f"the base weight has entries that are not finite: no start {name!r} from it")
    A, B = make(W, r, s, generator, **options)
    if (A.shape, B.shape) != ((r, W.shape[1]), (W.shape[0], r)):
        raise ValueError(f"{name!r} must return A0 (r, k) and B0 (d, r), got {tuple(A.shape)} and {tuple(B.shape)}")
    if not (A.any() or B.any()):
        raise ValueError(f"{name!r} would start at A = 0 and B = 0, where both gradients are 0 for good: is W = 0?")
    return A, B


def exact_svd(W):
    r"""Return the thin (U, S, Vt) of W = U diag(S) Vt, S falling."""
    return torch.linalg.svd(W, full_matrices=False)


def randomized_svd(W, r, niter=4, generator=0):
    r"""Return approximate first r singular triplets (U (d, r), S (r,), Vt (r, k)) of W, in O(d k r) time.

    A Gaussian sketch of q = r + max(r, 8) columns is multiplied niter times by W Wᵀ, with a QR after each product,
    and the SVD taken of W within its range. What is missed falls like (σ_{q+1} / σ_r)^(2 niter + 1): where the σ_i
    hardly fall, the subspace is another one, but the error of the approximation still near the least.
    PEFT's "pissa_niter_[n]" sketches with q = r columns only. Raises TypeError or ValueError for a bad niter.
    Source: Halko, Martinsson and Tropp (2011), Algorithms 4.4 and 5.1.
    """
    if isinstance(niter, bool) or not isinstance(niter, int):
        raise TypeError(f"niter must be an integer of at least 0, got {niter!r}")
    if niter < 0:
        raise ValueError(f"niter must be an integer of at least 0, got {niter}")
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    columns = min(r + max(r, 8), *W.shape)
    sketch = torch.randn(W.shape[1], columns, generator=generator, dtype=W.dtype, device=generator.device).to(W.device)
    Q = torch.linalg.qr(W @ sketch).Q
    for _ in range(niter):
        Q = torch.linalg.qr(W @ torch.linalg.qr(W.T @ Q).Q).Q
    U, S, Vt = exact_svd(Q.T @ W)
    return Q @ U[:, :r], S[:r], Vt[:r]


def _roots(U, S, Vt, s):
    """Return A = √(S/s) Vt and B = U √(S/s), so that s B A = U S Vt."""
    root = (S / s).sqrt()
    return root[:, None] * Vt, U * root
