r"""A weight as magnitudes times directions: how far training moves each, and what DoRA can reach.

W0, W (d, k); by="row": one magnitude per output, n_i = ‖W_i‖ (d,); by="column": one per input, n_j (k,).
DoRA reaches W' = c (W0 + L), rank L <= r, with one factor c_i per row (c_j per column).
"""

from typing import NamedTuple

import numpy as np

from ._validate import matrix, positive_integer, rank_at_most
from .spectrum import best_approximation

AXES = {"row": 1, "column": 0}


class DoRAFit(NamedTuple):
    r"""What `dora_fit` found: `scale` c (d,) or (k,), `fitted` c (W0 + L) (d, k), and `error` ‖target - fitted‖_F²."""

    scale: np.ndarray
    fitted: np.ndarray
    error: float


def magnitude_direction_change(W0, W, by="row"):
    r"""(ΔM, ΔD): the mean over rows (columns) of |‖w‖ - ‖w₀‖| and of 1 - cos(w, w₀).

    ΔM is in the unit of the weights, ΔD has none and lies in [0, 2]. Raises ValueError if the shapes differ, `by` is
    neither "row" nor "column", or a row (column) is zero, which has no direction; TypeError for what is no matrix.
    Source: Liu et al. (2024), Eqs. (3) and (4), by columns.
    """
    (W0, _), (W, _), axis = matrix("W0", W0), matrix("W", W), _axis(by)
    if W0.shape != W.shape:
        raise ValueError(f"W must have the shape of W0, {W0.shape}, got {W.shape}")
    before, after = (np.linalg.norm(M, axis=axis) for M in (W0, W))
    for name, norms in (("W0", before), ("W", after)):
        if (norms == 0).any():
            raise ValueError(f"{name} must have a direction in each {by}, but {by} {int(norms.argmin())} is zero")
    cosine = (W0 * W).sum(axis) / (before * after)
    return float(abs(after - before).mean()), float((1 - cosine).mean())


def dora_parameters(d, k, r, by="row"):
    r"""Number of trained entries of DoRA: r (d + k), and d magnitudes (by rows) or k (by columns).

    r = 0 is magnitudes alone. Raises ValueError or TypeError if d or k is no positive integer or r is negative.
    Source: Liu et al. (2024), Section 5.1 (by columns).
    """
    d, k, r = positive_integer("d", d), positive_integer("k", k), positive_integer("r", r, minimum=0)
    return r * (d + k) + (d, k)[1 - _axis(by)]


def dora_fit(W0, target, r, by="row", rounds=60):
    r"""A good c (W0 + L) with rank L <= r for a given target (d, k): alternating least squares.

    For a fixed c the best c L is the truncated SVD of target - c W0; for a fixed L each c_i is a projection. No round
    makes the error larger. Of two starts, c = 1 (LoRA's best) and the best c for L = 0, the better end is returned. It
    is an upper bound of the least error, and never above LoRA's or that of magnitudes alone.
    Raises ValueError if shapes differ, r is above min(d, k) or `by` unknown; TypeError for what is no number.
    """
    (W0, _), (target, _), axis = matrix("W0", W0), matrix("target", target), _axis(by)
    if W0.shape != target.shape:
        raise ValueError(f"target must have the shape of W0, {W0.shape}, got {target.shape}")
    r, rounds = rank_at_most(r, min(W0.shape), "min(d, k)"), positive_integer("rounds", rounds)
    if axis == 0:  # columns of W are rows of its transpose
        found = dora_fit(W0.T, target.T, r, rounds=rounds)
        return found._replace(fitted=found.fitted.T)
    starts = np.ones(len(W0)), _projection(target, W0, np.ones(len(W0)))
    return min((_alternate(W0, target, r, c, rounds) for c in starts), key=lambda found: found.error)


def _alternate(W0, target, r, c, rounds):
    for _ in range(rounds):
        low_rank = best_approximation(target - c[:, None] * W0, r)
        fitted = c[:, None] * W0 + low_rank
        found = DoRAFit(c, fitted, float(((target - fitted) ** 2).sum()))
        V = W0 + low_rank / np.where(c == 0, np.inf, c)[:, None]
        c = _projection(target, V, c)
    return found


def _projection(target, V, otherwise):
    squares = (V**2).sum(1)
    return np.where(squares > 0, (target * V).sum(1) / np.where(squares > 0, squares, 1), otherwise)


def _axis(by):
    if not isinstance(by, str) or by not in AXES:
        raise ValueError(f"by={by!r} must be 'row' or 'column'")
    return AXES[by]
