r"""Reference answers of chapter 10: each function returns None for a right answer, else what is probably wrong.

W0 (d, k); B (d, r), A (r, k); V = W0 + s B A; DoRA by rows: W' = m V / ‖V‖, one m and one norm for each row.
"""

import numpy as np

from lora_course.labs.exercises._compare import first_array, first_match, number
from lora_course.theory import adapter_parameters, dora_parameters, full_parameters, magnitude_direction_change

D, K, R = 2048, 1024, 16
ROW, LENGTH, SLOPE = np.array([3.0, 4.0]), 10.0, np.array([1.0, 2.0])  # V_i, m_i and ∂L/∂W'_i of the second exercise
CHANGES_D, CHANGES_M = np.array([0.01, 0.02, 0.04]), np.array([0.1, 0.2, 0.3])


def count(answer) -> str | None:
    r"""What DoRA by rows trains on a 2048 × 1024 layer at r = 16: r (d + k) + d."""
    lora = adapter_parameters(D, K, R)
    mistakes = [
        (lora, "That is LoRA. DoRA trains a magnitude for each row as well."),
        (
            lora + K,
            "That is one magnitude for each column, as the paper's formula has it. Here it is one for each row.",
        ),
        (D, "These are the magnitudes alone. A and B are trained, too."),
        (lora + D + K, "DoRA has magnitudes for rows or for columns, not for both."),
        (R * (D + K + D), "There is one magnitude for each row, whatever the rank."),
        (full_parameters(D, K), "That is the whole layer."),
    ]
    return first_match(answer, dora_parameters(D, K, R), mistakes, "Add r (d + k) for A and B and d magnitudes.")


def gradient(answer) -> str | None:
    r"""∂L/∂V_i of the exact formula for V_i = (3, 4), m_i = 10, ∂L/∂W'_i = (1, 2): (−0.64, 0.48)."""
    got = np.asarray(answer, dtype=float)
    if got.shape != (2,):
        raise TypeError(f"the answer should be two numbers, but it is {answer!r}")
    length = np.linalg.norm(ROW)
    u = ROW / length
    radial = SLOPE @ u
    right = LENGTH / length * (SLOPE - radial * u)
    mistakes = [
        (LENGTH / length * SLOPE, "That is the gradient with a detached norm. Take away its part along V."),
        (SLOPE - radial * u, "Projected rightly; the factor m / ‖V‖ = 2 is missing."),
        (LENGTH * (SLOPE - radial * u), "The factor is m / ‖V‖, not m."),
        (LENGTH / length * radial * u, "That is the part along V. It is taken away, and what is left is asked for."),
        (SLOPE, "That is ∂L/∂W'. Project it, and scale it."),
        (LENGTH / length * (SLOPE - (SLOPE @ ROW) * ROW), "Project onto the unit vector V / ‖V‖, not onto V."),
        (-right, "The sign is turned: asked is the gradient, not the step."),
    ]
    return first_array(got, right, mistakes, "Subtract the part of (1, 2) along (0.6, 0.8), then times m / ‖V‖.", 5e-3)


def weight(answer):
    r"""A function of (W0, A, B, m, s) that returns W' by rows; `...` if it still returns `...`."""
    if not callable(answer):
        return f"weight should be a function of W0, A, B, m and s, but it is {answer!r}."
    rng = np.random.default_rng(0)
    W0, A, B, m, s = rng.normal(size=(6, 6)), rng.normal(size=(2, 6)), rng.normal(size=(6, 2)), rng.random(6) + 1, 0.5
    returned = answer(W0.copy(), A.copy(), B.copy(), m.copy(), s)
    if returned is ...:
        return ...
    V, plain = W0 + s * B @ A, W0 + B @ A
    n = np.linalg.norm(V, axis=1)
    mistakes = [
        (V, "That is LoRA's weight. Divide each row by its norm and multiply by m."),
        (V / n[:, None], "Directions only: each row still needs its magnitude."),
        (m[:, None] * V, "Divide each row by its norm before m comes in."),
        (m * V / np.linalg.norm(V, axis=0), "These are the norms of the columns. Here a magnitude belongs to a row."),
        (m * V / n, "The factors run along the columns: write m[:, None] and n[:, None]."),
        (m[:, None] * V / np.linalg.norm(W0, axis=1)[:, None], "Divide by the norm of V, not of W0."),
        (m[:, None] * V / np.linalg.norm(V), "That is one norm for the whole matrix. Each row has its own: axis=1."),
        (m[:, None] * plain / np.linalg.norm(plain, axis=1)[:, None], "Almost: the factor s before B A is missing."),
    ]
    otherwise = "V = W0 + s B A; then each row of V over its norm, times its entry of m."
    return first_array(returned, m[:, None] * V / n[:, None], mistakes, otherwise)


def changes(answer):
    r"""A function of (W0, W) that returns (ΔM, ΔD) by rows; `...` if it still returns `...`."""
    if not callable(answer):
        return f"changes should be a function of W0 and W, but it is {answer!r}."
    rng = np.random.default_rng(1)
    W0 = rng.normal(size=(5, 8))
    W = np.linspace(0.4, 1.5, 5)[:, None] * W0 + 0.4 * rng.normal(size=(5, 8))  # some rows shrink
    returned = answer(W0.copy(), W.copy())
    if returned is ...:
        return ...
    before, after = np.linalg.norm(W0, axis=1), np.linalg.norm(W, axis=1)
    cosine = (W0 * W).sum(1) / before / after
    M, turned = magnitude_direction_change(W0, W)
    mistakes = [
        (magnitude_direction_change(W0, W, "column"), "These are the columns. Take the norms and cosines of the rows."),
        (((after - before).mean(), turned), "ΔM takes absolute values: growing and shrinking must not cancel."),
        ((M, cosine.mean()), "ΔD is the mean of 1 − cos."),
        ((5 * M, 5 * turned), "Take the mean over the rows, not the sum."),
        ((np.linalg.norm(W - W0, axis=1).mean(), turned), "ΔM is the change of the norm, not the norm of the change."),
        ((turned, M), "The two are exchanged: first ΔM, then ΔD."),
    ]
    return first_array(returned, (M, turned), mistakes, "ΔM = mean |‖w‖ − ‖w₀‖|, ΔD = mean (1 − cos), over rows.")


def factors(answer) -> str | None:
    r"""Three positive factors on the layers that make the correlation of ΔD and c ΔM at most −0.95."""
    c = np.asarray(answer, dtype=float)
    if c.shape != (3,):
        raise TypeError(f"the answer should be three numbers, but it is {answer!r}")
    if not (np.isfinite(c) & (c > 0)).all():
        return "A factor must be above 0 and finite: with a negative one the layers would no longer undo each other."
    found = np.corrcoef(CHANGES_D, c * CHANGES_M)[0, 1] if np.ptp(c * CHANGES_M) > 1e-12 else 0.0
    if found <= -0.95:
        return None
    if np.allclose(c, c[0]):
        return (
            f"One factor for all layers leaves the correlation as it is, {found:+.2f}. The layers need different ones."
        )
    return f"With these factors the correlation is {found:+.2f}. Choose c so that c ΔM falls while ΔD rises."


def ranks(answer) -> str | None:
    r"""(rank for LoRA, rank for DoRA) that C (W0 + E) needs, C a generic diagonal, rank E = 5, 64 × 64: (64, 5)."""
    try:
        lora, dora = map(number, answer)
    except ValueError:
        raise TypeError(f"the answer should be two numbers, (LoRA, DoRA), but it is {answer!r}") from None
    mistakes = [
        (5, "C W0 − W0 is not zero: LoRA must also make the rescaling, and that has full rank."),
        (59, "The update C (W0 + E) − W0 has full rank in general: nothing is saved."),
        (69, "A 64 × 64 matrix has no larger rank than 64."),
    ]
    wrong = first_match(lora, 64, mistakes, "LoRA needs the rank of the update, C (W0 + E) − W0.")
    if wrong:
        return wrong
    mistakes = [
        (64, "The magnitudes make the rescaling C; B A is left with E."),
        (0, "Magnitudes alone make C W0. E is still missing."),
        (6, "The rescaling costs no rank: the magnitudes make it."),
    ]
    return first_match(dora, 5, mistakes, "DoRA needs the rank of what is not a rescaling of rows.")
