r"""Singular values, the best approximation of rank r, and the several numbers that are called "rank".

W is any real (d, k) matrix; σ_1 ≥ σ_2 ≥ … its singular values; ‖W‖_F² = Σ σ_i². All is computed in float64.
"""

import numpy as np

from ._validate import matrix, rank_at_most, share_between_0_and_1


def singular_values(W):
    r"""The min(d, k) singular values of W, largest first. Raises on anything but a finite real matrix."""
    return np.linalg.svd(matrix("W", W)[0], compute_uv=False)


def truncated_svd(W, r):
    r"""The first r singular triplets ``(U_r, s_r, Vt_r)`` of W, of shapes (d, r), (r,), (r, k).

    ``U_r * s_r @ Vt_r`` is the best approximation of rank r. Raises ValueError if r > min(d, k).
    """
    W, _ = matrix("W", W)
    r = rank_at_most(r, min(W.shape), "min(d, k)")
    U, s, Vt = np.linalg.svd(W, full_matrices=False)
    return U[:, :r], s[:r], Vt[:r]


def best_approximation(W, r):
    r"""The matrix of rank at most r that is nearest to W in the Frobenius norm (Eckart and Young 1936).

    Its squared distance is :func:`tail_energy`. It is unique if σ_r > σ_{r+1}. Raises ValueError if
    r > min(d, k).
    """
    U, s, Vt = truncated_svd(W, r)
    return U * s @ Vt


def tail_energy(W, r):
    r"""Σ_{i>r} σ_i²: the squared Frobenius norm that every approximation of rank r must leave, at least."""
    s = singular_values(W)
    r = rank_at_most(r, len(s), "min(d, k)")
    return float((s[r:] ** 2).sum())


def energy_rank(W, share=0.9):
    r"""The smallest r whose first r singular values hold at least ``share`` of ‖W‖_F²; 0 for W = 0.

    Never below share · :func:`stable_rank`. ``share`` is above 0 and at most 1. With share = 1 rounding
    counts: use :func:`numerical_rank`.
    """
    share = share_between_0_and_1("share", share)
    energy = np.cumsum(singular_values(W) ** 2)
    if energy[-1] == 0.0:
        return 0
    return int(np.searchsorted(energy, share * energy[-1]) + 1)


def stable_rank(W):
    r"""‖W‖_F² / σ_1², between 1 and the rank, insensitive to small singular values; 0 for W = 0.

    Never above :func:`effective_rank`.
    """
    s = singular_values(W)
    return float(((s / s[0]) ** 2).sum()) if s[0] > 0 else 0.0


def effective_rank(W):
    r"""exp of the entropy of p_i = σ_i / Σ σ_j, between 1 and the rank; 0 for W = 0.

    Source: Roy and Vetterli (2007). Like the other ranks it does not change when W is scaled.
    """
    s = singular_values(W)
    if s[0] == 0:
        return 0.0
    p = s / s.sum()
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def numerical_rank(W, rtol=None):
    r"""Number of singular values above rtol · σ_1.

    The default rtol is max(d, k) times the machine epsilon of the type in which W comes (as in numpy and
    Matlab): a product of rank r computed in float32 has rank r here too, though we count in float64.
    Raises ValueError if rtol is not in [0, 1).
    """
    W, eps = matrix("W", W)
    rtol = max(W.shape) * eps if rtol is None else float(rtol)
    if not 0.0 <= rtol < 1.0:
        raise ValueError(f"rtol must be at least 0 and below 1, got {rtol}")
    s = np.linalg.svd(W, compute_uv=False)
    return int((s > rtol * s[0]).sum())


def recovery_r2(x, h, share=0.75):
    r"""R² of the best linear recovery of x from h, measured on rows that the fit has not seen.

    x is (n, k), h is (n, d), rows are samples in random order. An affine map h -> x is fitted by least
    squares on the first ``share`` of the rows; on the rest, R² = 1 - Σ ‖x - x̂‖² / Σ ‖x - x̄‖², summed over all
    k entries, with x̄ the mean of the fitted rows. 1: h determines x linearly; 0: no better than the mean
    (slightly below 0 by chance). For isotropic x and h = M x with M of rank r it tends to r / k. Raises
    ValueError if the numbers of rows differ, if x does not vary, or if the fit has no more rows than unknowns
    per entry of x (it would recover anything).
    """
    (x, _), (h, eps) = matrix("x", x), matrix("h", h)
    share = share_between_0_and_1("share", share)
    if len(x) != len(h):
        raise ValueError(f"x and h must have the same number of rows, got {len(x)} and {len(h)}")
    n = int(share * len(x))
    if not 2 <= n < len(x):
        raise ValueError(f"share must leave rows both to fit (2 or more) and to measure, got {share} of {len(x)}")
    x_mean, h_mean = x[:n].mean(axis=0), h[:n].mean(axis=0)
    centered = h[:n] - h_mean
    # directions of h below its own rounding noise carry nothing: they are cut as in numerical_rank
    M, _, rank, _ = np.linalg.lstsq(centered, x[:n] - x_mean, rcond=max(centered.shape) * eps)
    if rank >= n - 1:
        raise ValueError(f"x and h must have more rows: h has rank {rank} on the {n} rows of the fit")
    total = ((x[n:] - x_mean) ** 2).sum()
    if total == 0.0:
        raise ValueError("x must vary over the rows that measure R²")
    return float(1.0 - ((x[n:] - x_mean - (h[n:] - h_mean) @ M) ** 2).sum() / total)
