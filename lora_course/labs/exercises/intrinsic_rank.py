r"""Reference answers of chapter 3: each function returns None for a right answer, else what is probably wrong."""

import numpy as np

from lora_course.labs.exercises._compare import first_match, rounded_match
from lora_course.theory import subspace_overlap

DIMS, HITS, FULL = (10, 20, 40, 80, 160), (0.35, 0.62, 0.80, 0.87, 0.93), 0.96
SIGMA = np.array([3.0, 2.0, 1.0, 1.0, 1.0])


def smallest(answer) -> str | None:
    r"""d90 of the curve DIMS -> HITS with FULL for all parameters: the first with 0.9 · 0.96 = 0.864, which is 80."""
    mistakes = [
        (160, "That is where the accuracy itself passes 0.9. The threshold is 90% of the full accuracy, 0.864."),
        (40, "0.80 is below the threshold 0.9 · 0.96 = 0.864."),
        (0.864, "That is the threshold. Asked is the smallest d that reaches it."),
        (0.87, "That is the accuracy there. Asked is the d."),
        (75.0, "d90 is read off the grid: take the first d that was tried and reaches the threshold."),
    ]
    return first_match(answer, 80, mistakes, "Compare the accuracies with 0.9 times the full accuracy, from the left.")


def two_ranks(answer) -> str | None:
    r"""(stable rank, 90% energy rank) of a matrix with singular values 3, 2, 1, 1, 1: (16/9, 4)."""
    try:
        stable, energy = answer
    except (TypeError, ValueError):
        raise TypeError(f"the answer should be two numbers, (stable rank, energy rank), but it is {answer!r}") from None
    mistakes = [
        (8 / 3, "The stable rank uses squares: ‖ΔW‖²/σ₁², not Σσ/σ₁."),
        (16 / 3, "Divide by σ₁², not by σ₁."),
        (4 / 3, "That is ‖ΔW‖/σ₁. The stable rank is its square."),
        (5, "Five is the rank itself. The stable rank weighs each σ² by the largest one."),
        (9 / 16, "Upside down: ‖ΔW‖² stands on top."),
    ]
    wrong = rounded_match(stable, 16 / 9, mistakes, "The stable rank is the sum of all σ² over the largest one.")
    if wrong:
        return wrong
    mistakes = [
        (3, "Three hold 14/16 = 87.5% of the squares: just too little."),
        (5, "Four hold 15/16 = 93.75% already."),
        (2, "Two hold 13/16 = 81% of the squares."),
        (0.9375, "That is the share that four of them hold. Asked is how many are needed."),
    ]
    return first_match(energy, 4, mistakes, "Add the squares from the largest on, until they hold 90% of 16.")


def baseline(answer) -> str | None:
    r"""What a random pair of 16-dimensional subspaces sees of W_q (12288 × 12288, norm 61.95): r ‖W‖ / d."""
    d, norm, r = 12288, 61.95, 16
    mistakes = [
        (norm * (r / d) ** 0.5, "That is one-sided, ‖UᵀW‖. V projects as well: the factor √(r/d) comes twice."),
        ((r * norm / d) ** 2, "That is the mean of the square. Take the root."),
        (r**0.5 * norm / d, "You took √r. Both sides give √(r/d), so together r/d."),
        (r**2 * norm / d**2, "You took (r/d)². That is the factor for the square of the norm."),
        (r * norm / d**0.5, "You divided by √d. For a square W the product of both sides is d."),
        (norm / d, "That is r = 1. Multiply by r."),
    ]
    # the paper's column has two decimals, so 0.08 is right, too
    return first_match(answer, r * norm / d, mistakes, "Use r ‖W‖ / √(mk) with m = k = 12288.", rtol=1e-2)


def overlap(answer):
    r"""A function of (A1, A2, i, j) that returns Hu's φ; `...` if it still returns `...`."""
    if not callable(answer):
        return f"overlap should be a function of A1, A2, i and j, but it is {answer!r}."
    rng = np.random.default_rng(0)
    A1, A2, i, j = rng.normal(size=(6, 9)), rng.normal(size=(6, 9)), 2, 4
    returned = answer(A1.copy(), A2.copy(), i, j)
    if returned is ...:
        return ...
    (U1, _, V1), (U2, _, V2) = np.linalg.svd(A1), np.linalg.svd(A2)
    inner = V1[:i] @ V2[:j].T
    left = U1[:, :i].T @ U2[:, :j]
    mistakes = [
        ((inner**2).sum(), "Almost: divide by min(i, j), so that 1 means that one subspace contains the other."),
        ((inner**2).sum() / max(i, j), "You divide by max(i, j). It is min(i, j)."),
        ((inner**2).sum() / (i * j), "You take the mean over all i·j entries. Divide the sum by min(i, j)."),
        (np.sqrt((inner**2).sum()) / min(i, j), "Square the Frobenius norm."),
        (np.linalg.norm(inner, 2), "np.linalg.norm(M, 2) is the spectral norm. Take the Frobenius norm, squared."),
        ((left**2).sum() / min(i, j), "These are left singular vectors. The rows of Vt are the right ones."),
        (
            ((V1[:, :i].T @ V2[:, :j]) ** 2).sum() / min(i, j),
            "svd returns Vt: the singular vectors are its rows, Vt[:i].",
        ),
        (((A1[:i] @ A2[:j].T) ** 2).sum() / min(i, j), "These are rows of A. Take its singular vectors."),
        (abs(inner).sum() / min(i, j), "Add squares, not absolute values."),
    ]
    otherwise = "φ = ‖V_i(A1)ᵀ V_j(A2)‖² / min(i, j), right singular vectors."
    wrong = first_match(returned, subspace_overlap(A1, A2, i, j), mistakes, otherwise)
    if wrong:
        return wrong
    # the other way round, where min(i, j) is j, and with different numbers of rows
    again = answer(A1.copy(), A2[:5].copy(), 4, 2)
    otherwise = "Right for i = 2, j = 4, but not for i = 4, j = 2. Divide by min(i, j), whichever it is."
    return first_match(again, subspace_overlap(A1, A2[:5], 4, 2), [], otherwise)


def depth(answer) -> str | None:
    r"""Smallest rank per layer with which 6 layers make up for an E of rank 50: the first r with 6 r >= 50, so 9."""
    mistakes = [
        (50 / 6, "Right idea; a rank is a whole number, and 6 · 8 = 48 is not enough."),
        (8, "6 · 8 = 48 is less than 50: two directions would be missing."),
        (50, "That is for a single layer. The updates of all six add their ranks."),
        (11, "You shared out all 64 dimensions; E has rank 50 only."),
        (64 / 6, "You shared out all 64 dimensions; E has rank 50 only."),
        (10, "It works, but 9 is enough."),
        (300, "Ranks are shared out over the layers, not multiplied by them."),
        (25, "That is a bound of another setting (half the width). Here r L must reach the rank of E."),
    ]
    return first_match(answer, 9, mistakes, "The error is zero exactly if r L is at least the rank of E.")
