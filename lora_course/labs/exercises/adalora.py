r"""Reference answers of chapter 9: each function returns None for a right answer, else what is probably wrong."""

import numpy as np

from lora_course.labs.exercises._compare import first_array, first_match

SIZES = np.array([64 + 128 + 1, 128 + 128 + 1, 128 + 10 + 1])  # parameters of a triplet in each of the three layers
LEFT, START = np.array([4, 2, 0]), 8


def counts(answer) -> str | None:
    r"""(stored, trained) with ranks (4, 2, 0) left of 8 in each layer: (1286, 4712)."""
    try:
        stored, trained = answer
    except (TypeError, ValueError):
        raise TypeError(f"the answer should be two numbers, (stored, trained), but it is {answer!r}") from None
    right, full = LEFT @ SIZES, START * SIZES.sum()
    mistakes = [
        (LEFT @ (SIZES - 1), "You left the λ out: one more number for each triplet."),
        (full, "That is what training holds. The file only needs the triplets that are left."),
        (2 * SIZES.sum(), "That is r = 2 in each layer. Here the ranks are (4, 2, 0)."),
        (LEFT @ [64 * 128, 128 * 128, 1280], "A triplet has k + d + 1 numbers, not k · d."),
    ]
    wrong = first_match(stored, right, mistakes, "Stored: 4 · (64 + 128 + 1) + 2 · (128 + 128 + 1).")
    if wrong:
        return wrong
    mistakes = [
        (right, "Masked triplets are not gone: only λ is set to zero. The optimizer holds all 8 in each layer."),
        (START * (SIZES - 1).sum(), "You left out the 24 λ, which are trained, too."),
        (START * SIZES[:2].sum(), "The last layer's triplets were trained, too, although none was left."),
        (3 * full, "Adam's moments come on top; asked are the trained numbers themselves."),
    ]
    return first_match(trained, full, mistakes, "Trained: 8 triplets in each of the three layers.")


def drop_cost(answer) -> str | None:
    r"""First-order change of the loss if the triplet goes: -s λ pᵀGq = +0.3."""
    mistakes = [
        (-0.3, "That is a = λ ∂L/∂λ. Dropping moves λ the other way, from 0.5 to 0, so the change is -a."),
        (0.15, "You left out the scaling s = 2."),
        (-0.15, "You left out the scaling s = 2, and the sign: dropping changes the loss by -a."),
        (0.6, "You left out λ = 0.5. Dropping moves λ by 0.5, not by 1."),
        (-0.6, "You left out λ = 0.5, and the sign: dropping changes the loss by -a."),
        (0.075, "λ enters once, and so does s: a = s λ pᵀGq."),
    ]
    return first_match(answer, 0.3, mistakes, "a = s λ pᵀGq, and dropping the triplet changes the loss by -a.")


def schedule(answer):
    r"""A function of (t, b0, b_T, t_i, t_f, T) that returns b(t); `...` if it still returns `...`."""
    if not callable(answer):
        return f"schedule should be a function of t, b0, b_T, t_i, t_f and T, but it is {answer!r}."
    times, setting = range(0, 121), (30, 7, 10, 25, 100)
    returned = [answer(t, *setting) for t in times]
    if any(value is ... for value in returned):
        return ...
    mistakes = [
        (_curve(times, *setting, power=1), "The budget falls along a cubic; yours falls along a line."),
        (_curve(times, *setting, power=2), "The exponent is 3, not 2."),
        (_curve(times, *setting, rounded=np.ceil), "Round down, as int(...) does."),
        (_curve(times, *setting, rounded=lambda b: b), "The budget is a whole number: round it down."),
        (_curve(times, *setting, final=0), "The budget is reached at T - t_f, not only at T."),
        (_curve(times, *setting, start=0), "Up to t_i nothing falls: count the time from t_i."),
        (_curve(times, *setting, clip=False), "Before t_i it is b0 and from T - t_f on b_T: clip t to that interval."),
    ]
    otherwise = "b(t) = int(b_T + (b0 - b_T) · left³) with left = 1 - (t - t_i) / (T - t_f - t_i), t clipped."
    return first_array(np.array(returned, dtype=float), _curve(times, *setting), mistakes, otherwise)


def _curve(times, b0, b_T, t_i, t_f, T, power=3, rounded=np.floor, final=None, start=None, clip=True):
    t, last = np.array(times, dtype=float), T - (t_f if final is None else final)
    begin = t_i if start is None else start
    left = 1 - ((np.clip(t, begin, last) if clip else t) - begin) / (last - begin)
    return rounded(b_T + (b0 - b_T) * left**power)


def triplet_score(answer):
    r"""A function of (s_E (r,), s_P (d, r), s_Q (r, k)) that returns S (r,); `...` if it still returns `...`."""
    if not callable(answer):
        return f"triplet_score should be a function of s_E, s_P and s_Q, but it is {answer!r}."
    rng = np.random.default_rng(0)
    E, P, Q = rng.random(6), rng.random((6, 6)), rng.random((6, 6))  # square, so that a wrong axis has a shape, too
    returned = answer(E.copy(), P.copy(), Q.copy())
    if returned is ...:
        return ...
    got = np.asarray(returned, dtype=float)
    if got.shape != (6,):
        return f"S should have one entry for each triplet, shape (6,) here, but its shape is {got.shape}."
    mistakes = [
        (E + P.sum(0) + Q.sum(1), "Take means over the entries of p and of q, or long vectors would win."),
        (E + P.mean(1) + Q.mean(1), "A triplet has a column of P: mean over the rows, axis 0."),
        (E + P.mean(0) + Q.mean(0), "A triplet has a row of Q: mean over the columns, axis 1."),
        (E + P.mean(1) + Q.mean(0), "Both axes are the wrong way round: a column of P, a row of Q."),
        (E, "That is the score of λ alone. Add the means over P and Q."),
        (P.mean(0) + Q.mean(1), "The score of λ itself is missing."),
        ((E + P.mean(0) + Q.mean(1)) / 3, "The three parts are added, not averaged."),
    ]
    return first_array(got, E + P.mean(0) + Q.mean(1), mistakes, "S_i = s(λ_i) + mean_j s(P_ji) + mean_j s(Q_ij).")


def normalize(answer):
    r"""A function of (P, lam, Q) that returns the same update with unit p and q and λ >= 0; `...` if untried."""
    if not callable(answer):
        return f"normalize should be a function of P, lam and Q, but it is {answer!r}."
    rng = np.random.default_rng(0)
    P, lam, Q = rng.normal(size=(7, 3)), np.array([2.0, -1.5, 0.5]), rng.normal(size=(3, 5))
    returned = answer(P.copy(), lam.copy(), Q.copy())
    if returned is ...:
        return ...
    try:
        P1, lam1, Q1 = (np.asarray(part, dtype=float) for part in returned)
    except (TypeError, ValueError):
        raise TypeError(f"normalize should return three arrays (P, lam, Q), but it returned {returned!r}") from None
    if (P1.shape, lam1.shape, Q1.shape) != (P.shape, lam.shape, Q.shape):
        return "P, lam and Q should keep their shapes (d, r), (r,) and (r, k)."
    if np.allclose(np.linalg.norm(P1, axis=1), 1):
        return "These are rows of P. A triplet has a column of P."
    if not np.allclose(np.linalg.norm(P1, axis=0), 1):
        return "The columns of P do not all have length 1."
    if not np.allclose(np.linalg.norm(Q1, axis=1), 1):
        return "The rows of Q do not all have length 1."
    if (lam1 < 0).any():
        return "A λ is negative. Put its sign into the column of P, or the row of Q."
    if not np.allclose((P1 * lam1) @ Q1, (P * lam) @ Q):
        if np.allclose(lam1, abs(lam)):
            return "The update changed: what you divide P and Q by must go into λ."
        if np.allclose((P1 * np.sign(lam) * lam1) @ Q1, (P * lam) @ Q):
            return "The update changed: the sign of a negative λ is lost. Put it into P or Q."
        return "The update changed: (P · λ) Q must be the same before and after."
    return None
