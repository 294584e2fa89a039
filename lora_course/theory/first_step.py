r"""The first training step of LoRA from B = 0, and how its effect depends on the rank.

G (d, k) the gradient of the loss with respect to W;  A (r, k) with independent entries of variance sigma²;  B = 0;
s = alpha / r^power the scaling.  ∂L/∂B = s G Aᵀ and ∂L/∂A = s Bᵀ G = 0, so only B moves.
"""

import math

import numpy as np

from ._validate import matrix, positive_integer, positive_number

STEPS = ("sgd", "sign")


def scaling(alpha, r, power=1.0):
    r"""The factor in front of B A: alpha / r^power; power 1 is LoRA's, 1/2 that of rsLoRA (Kalajdzievski 2023)."""
    return positive_number("alpha", alpha) / positive_integer("r", r) ** positive_number("power", power)


def first_step_drop(G, A, s, lr, step="sgd"):
    r"""By how much the loss falls in the first step, to first order in lr, for a given A (r, k).

    "sgd": B = -lr s G Aᵀ, a drop of lr s² ‖G Aᵀ‖²_F. "sign": B = -lr sign(s G Aᵀ), a drop of lr s Σ_ij |G Aᵀ|_ij;
    that is Adam's first step, if its epsilon is small against the gradients. Raises ValueError for another ``step``,
    for G and A that do not fit, and for s or lr that is not positive.
    """
    (G, _), (A, _) = matrix("G", G), matrix("A", A)
    if G.shape[1] != A.shape[1]:
        raise ValueError(f"G (d, k) and A (r, k) must have the same k, got {G.shape} and {A.shape}")
    s, lr = positive_number("s", s), positive_number("lr", lr)
    product = G @ A.T
    return float(lr * (s**2 * (product**2).sum() if _checked(step) == "sgd" else s * abs(product).sum()))


def expected_first_step_drop(G, r, s, lr, sigma, step="sgd"):
    r"""The mean of :func:`first_step_drop` over A: proportional to s² r ("sgd") and to s r ("sign").

    "sgd": lr s² r sigma² ‖G‖²_F, for any distribution with mean 0 and variance sigma². "sign": lr s r sigma √(2/π)
    Σ_i ‖g_i‖ with the rows g_i of G, for normal entries. Raises as :func:`first_step_drop`.
    """
    G, _ = matrix("G", G)
    r, s, lr = positive_integer("r", r), positive_number("s", s), positive_number("lr", lr)
    sigma = positive_number("sigma", sigma)
    if _checked(step) == "sgd":
        return float(lr * s**2 * r * sigma**2 * (G**2).sum())
    return float(lr * s * r * sigma * math.sqrt(2 / math.pi) * np.linalg.norm(G, axis=1).sum())


def expected_first_update_norm(G, r, s, lr, sigma):
    r"""√E‖ΔW‖²_F after the first step of SGD, A normal: lr s² sigma² √(r (r + k + 1)) ‖G‖_F.

    ΔW = -lr s² G Aᵀ A, and E (Aᵀ A)² = sigma⁴ r (r + k + 1) I. As a power of r it is no single one: √r for r << k,
    r for r >> k. So a slope read off norms says something else than one read off losses. Raises as above.
    """
    G, _ = matrix("G", G)
    r, s, lr = positive_integer("r", r), positive_number("s", s), positive_number("lr", lr)
    size = positive_number("sigma", sigma) ** 2 * math.sqrt(r * (r + G.shape[1] + 1))
    return float(lr * s**2 * size * np.linalg.norm(G))


def _checked(step):
    if step not in STEPS:
        raise ValueError(f'step must be "sgd" or "sign", got {step!r}')
    return step
