r"""Reference answers of chapter 8: each function returns None for a right answer, else what is probably wrong."""

import numpy as np

from lora_course.labs.exercises._compare import first_array, first_match, rounded_match


def residual(answer) -> str | None:
    r"""residual(W0, A0, B0, alpha): the weight to freeze, W0 - alpha / r B0 A0, with r the number of rows of A0."""
    rng = np.random.default_rng(0)
    (d, k, r), alpha = (7, 5, 2), 6.0
    W0, A0, B0 = rng.normal(size=(d, k)), rng.normal(size=(r, k)), rng.normal(size=(d, r))
    s, product = alpha / r, B0 @ A0
    returned = answer(W0.copy(), A0.copy(), B0.copy(), alpha)
    if returned is ...:
        return ...
    got = _array(returned, (d, k))
    mistakes = [
        (W0 - product, "The scaling is missing: the layer adds alpha / r times B A."),
        (W0 - alpha * product, "The layer adds alpha / r times B A, not alpha times."),
        (W0 + s * product, "The sign: the frozen weight gives up what the adapter brings, W0 minus it."),
        (s * product, "That is the adapter's part. Asked is what stays frozen."),
        (W0 - alpha / k * product, "r is the number of rows of A0, not of its columns."),
        (W0 - alpha / r**0.5 * product, "The scaling here is alpha / r; alpha / √r is rsLoRA's."),
        (W0, "With W0 itself frozen, the layer would start at W0 + s B0 A0."),
    ]
    return first_array(got, W0 - s * product, mistakes, "W' = W0 - alpha / r · B0 A0.")


def first_step(answer) -> str | None:
    r"""first_step(G, A0, B0, s, eta): the exact change of W in one step of gradient descent, equation (8.2)."""
    rng = np.random.default_rng(1)
    (d, k, r), s, eta = (6, 4, 2), 1.5, 0.2
    G, A0, B0 = rng.normal(size=(d, k)), rng.normal(size=(r, k)), rng.normal(size=(d, r))
    left, right, both = B0 @ B0.T @ G, G @ A0.T @ A0, G @ A0.T @ B0.T @ G
    returned = answer(G.copy(), A0.copy(), B0.copy(), s, eta)
    if returned is ...:
        return ...
    got = _array(returned, (d, k))
    straight, curved = eta * s**2 * (left + right), eta**2 * s**3 * both
    mistakes = [
        (-straight, "Right to first order. The product of the two changes is missing: + eta² s³ G A0ᵀ B0ᵀ G."),
        (-straight - curved, "The second-order term has a plus: minus times minus."),
        (-eta * s * (left + right) + curved, "s comes twice in the first-order terms: in the gradient and in s B A."),
        (-eta * s**2 * left, "Only A was moved. The step of B adds G A0ᵀ A0."),
        (-eta * s**2 * right, "Only B was moved. The step of A adds B0 B0ᵀ G."),
        (straight + curved, "Descent goes against the gradient: the first-order terms have a minus."),
        (-eta * G, "That is a step of full fine-tuning, without the filters B0 B0ᵀ and A0ᵀ A0."),
        (-straight + eta**2 * s**2 * both, "The second-order term has s³: once in each gradient, and once in s B A."),
    ]
    otherwise = "A1 = A0 - eta s B0ᵀ G and B1 = B0 - eta s G A0ᵀ; return s (B1 A1 - B0 A0)."
    return first_array(got, curved - straight, mistakes, otherwise)


def same_rate(answer) -> str | None:
    r"""PiSSA, r = 8, Adam: rate 4e-4 is best at alpha = 8; with alpha = 128 the same training needs 1e-4."""
    mistakes = [
        (4e-4 / 16, "That is right for gradient descent. For Adam it is √s · η that counts, not s · η."),
        (4e-4 * 4, "The other way round: a larger alpha makes larger steps already."),
        (4e-4 * 16, "The other way round, and for Adam it is √s · η that counts."),
        (4e-4, "s has become 16 times as large, so the rate has to change."),
        (4, "That is the factor by which the rate shrinks. Asked is the rate."),
        (16, "That is the factor by which s grows. Asked is the rate."),
    ]
    return rounded_match(answer, 1e-4, mistakes, "√s · η has to stay the same, and s grows from 1 to 16.")


def lever(answer) -> str | None:
    r"""Mean first step of Init[B] over that of LoRA, PEFT's random sizes, k = 4096, r = 16: k / r = 256."""
    mistakes = [
        (16, "That is r. Compare s²/3 with s² r / (3k)."),
        (1 / 256, "Upside down: Init[B]'s step is the longer one."),
        (4096, "LoRA has r rows in A0ᵀ A0: its mean is r / (3k), not 1 / (3k)."),
        (256**2, "Not squared: (8.2) holds the squares of the factors already."),
        (4096 / 3, "The 3 stands in both means and cancels; the r does not."),
    ]
    return first_match(answer, 256, mistakes, "Divide the two means in the table: s²/3 by s² r / (3k).")


def fair_best(answer) -> str | None:
    r"""fair_best(hits): of accuracies (rates, seeds), the largest mean over seeds."""
    rng = np.random.default_rng(2)
    hits = 0.6 + 0.2 * rng.random((5, 3))
    hits[3, 1] = 0.99  # one lucky run at a rate that is not the best on average
    hits[3, [0, 2]] = 0.5
    returned = answer(hits.copy())
    if returned is ...:
        return ...
    mistakes = [
        (hits.max(), "That is the luckiest single run. Take the mean over the seeds first."),
        (hits.mean(), "That is the mean over everything. Pick a rate: the one with the best mean."),
        (hits.max(0).mean(), "You pick another rate for each seed. One rate for all seeds, please."),
        (
            hits.mean(0).max(),
            "That is the best seed. Seeds are along the second axis: mean over it, then the best rate.",
        ),
        (hits.mean(1).argmax(), "That is the number of the rate. Asked is its mean accuracy."),
        (hits.max(1).mean(), "Best seed at each rate, then the mean over rates: it should be the other way round."),
        (np.median(hits, 1).max(), "That is the best median. Here the mean over the seeds is asked."),
    ]
    return first_match(returned, hits.mean(1).max(), mistakes, "Mean over seeds, then the largest.")


def saved(answer) -> str | None:
    r"""Share of the error that r = 1 saves for σ = (6, 2, 2, 2, 2, 2, 2, 2): 1 - √(28/64)."""
    mistakes = [
        (36 / 64, "That is the share of the squares. The error is a norm: take the root of what is left."),
        ((28 / 64) ** 0.5, "That is the share of the error that is left."),
        (28 / 64, "That is the share of the squares that is left: take its root, and then the share saved."),
        (6 / 20, "That is the share of σ₁ in the sum (a nuclear norm). The Frobenius norm adds squares."),
        ((36 / 64) ** 0.5, "Take the root of the share that is left, 28/64, not of the share that is gone."),
        (14 / 20, "That is the share of the other σ in the sum. The Frobenius norm adds squares."),
    ]
    return rounded_match(answer, 1 - (28 / 64) ** 0.5, mistakes, "1 - ‖W_res‖/‖W‖ with the norms from the σ.")


def _array(value, shape):
    try:
        got = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        got = None
    if got is None or got.shape != shape:
        raise TypeError(f"the function should return an array of shape {shape}, but it returned {value!r}"[:300])
    return got
