r"""Reference answers of chapter 12: each function returns None for a right answer, else what is probably wrong."""

import numpy as np

from lora_course.labs.exercises._compare import first_array, first_match
from lora_course.theory import adapter_parameters, degrees_of_freedom
from lora_course.theory.geometry import EUCLIDEAN, INVARIANT, Factors, Tangent

D, K, R = 4096, 1024, 16


def count(answer) -> str | None:
    r"""(dimension of a fiber, dimension of the set of updates) for d = 4096, k = 1024, r = 16: (256, 81664)."""
    try:
        fiber, updates = answer
    except (TypeError, ValueError):
        raise TypeError(f"the answer should be two numbers, (fiber, updates), but it is {answer!r}") from None
    mistakes = [
        (R, "r is the size of the matrices M. They have r² entries, all of them free."),
        (R * (R - 1) / 2, "That is the dimension of the rotations O(r). A gauge may be any invertible M."),
        (R * (R + 1) / 2, "Symmetric matrices have that many entries. A gauge M need not be symmetric."),
        (2 * R**2, "M⁻¹ is determined by M: it brings no freedom of its own."),
    ]
    wrong = first_match(fiber, R**2, mistakes, "A fiber is a copy of GL(r), the invertible r × r matrices.")
    if wrong:
        return wrong
    mistakes = [
        (adapter_parameters(D, K, R), "That is the number of trained parameters. The fiber's share is too much."),
        (D * K, "That is the dimension of all matrices of this shape, of any rank."),
        (R * (D + K) - R, "You took off r. The fiber has the dimension r²."),
        (R * (D + K + R), "The wrong sign: r² is taken off r (d + k)."),
        (R * D, "That is the number of directions at B = 0, not at an update of rank r."),
    ]
    otherwise = "Updates of rank r: r (d + k) numbers less the r² of the fiber."
    return first_match(updates, degrees_of_freedom(D, K, R), mistakes, otherwise)


def bundle_size(answer) -> str | None:
    r"""Parameters of four nn.Linear of 4096 outputs and 1024 inputs: 4 (d k + d)."""
    mistakes = [
        (4 * D * K, "Almost: nn.Linear has a bias of d numbers, too."),
        (4 * (D * K + K), "The bias has one number per output, d, not per input."),
        (D * K + D, "That is one of the four layers."),
        (5 * (D * K + D), "That counts the base, too. Asked are the added layers."),
        (adapter_parameters(D, K, 4), "That is LoRA of rank 4. The text's layers are dense."),
    ]
    return first_match(answer, 4 * (D * K + D), mistakes, "Four dense layers with d k weights and d biases each.")


def gauge(answer):
    r"""A function of (B, A, B2, A2) that returns M with B2 = B M; `...` if it still returns `...`."""
    if not callable(answer):
        return f"gauge should be a function of B, A, B2 and A2, but it is {answer!r}."
    p, M = _pair(0, 7, 5, 3), np.random.default_rng(1).normal(size=(3, 3))
    q = p.act(M)
    returned = answer(p.B.copy(), p.A.copy(), q.B.copy(), q.A.copy())
    if returned is ...:
        return ...
    mistakes = [
        (np.linalg.inv(M), "That is M⁻¹: it takes the second pair to the first."),
        (M.T, "That is Mᵀ. From B' = B M, multiply by B⁺ on the left."),
        (np.linalg.inv(M).T, "That is M⁻ᵀ. From B' = B M, multiply by B⁺ on the left."),
        (p.B.T @ q.B, "BᵀB' = BᵀB M. Bᵀ is B⁺ only if B's columns are orthonormal."),
        (p.A @ q.A.T, "For the A's: A' = M⁻¹A, so M is A (A')⁺, with the pseudo-inverse, not the transpose."),
    ]
    if np.shape(returned) != (3, 3):
        return f"M should be an r × r matrix, here (3, 3), but it has the shape {np.shape(returned)}."
    return first_array(returned, M, mistakes, "B' = B M: multiply by B⁺ = np.linalg.pinv(B) on the left.")


def plus(answer) -> str | None:
    r"""The gauge s with 1 / s² = 4: s = 1/2."""
    mistakes = [
        (2, "Upside down: s = 2 would let A learn four times as fast as B."),
        (4**-0.25, "That is the gauge for plain SGD, where the ratio is s⁻⁴. Under Adam it is s⁻²."),
        (0.25, "s is one factor in η/s and one in ηs: the ratio is s⁻², not s⁻¹."),
        (4, "That is the ratio itself. Asked is s, with 1/s² = 4."),
        (2**0.5, "That is the gauge for plain SGD upside down. Under Adam the ratio is s⁻²."),
    ]
    return first_match(answer, 0.5, mistakes, "Solve (η/s) / (η s) = 4 for s > 0.")


def horizontal(answer):
    r"""A function of (B, A, dB, dA) for (dB - B X, dA + X A), X = ½ (B⁺dB - dA A⁺); `...` if it returns `...`."""
    if not callable(answer):
        return f"horizontal should be a function of B, A, dB and dA, but it is {answer!r}."
    p, v = _pair(2, 7, 5, 3), _pair(3, 7, 5, 3)
    returned = answer(p.B.copy(), p.A.copy(), v.B.copy(), v.A.copy())
    if returned is ...:
        return ...
    try:
        B, A = returned
    except (TypeError, ValueError):
        return f"horizontal should return a pair of velocities, but it returns {type(returned).__name__}."
    if np.shape(B) != p.B.shape or np.shape(A) != p.A.shape:
        return f"The velocities should have the shapes {p.B.shape} and {p.A.shape}, got {np.shape(B)}, {np.shape(A)}."
    velocity = Tangent(v.B, v.A)
    X = INVARIANT.vertical_generator(p, velocity)
    up, along = p.vertical(X)
    mistakes = [
        ((up, along), "That is the vertical part. It is what has to be taken away."),
        ((v.B + up, v.A + along), "You added the vertical part. Take it away."),
        ((v.B - up, v.A + along), "BA moves differently now. The vertical velocity is (BX, -XA): mind the minus."),
        ((v.B - up, v.A), "BA moves differently now: A's half of (BX, -XA) is still in."),
        ((v.B - 2 * up, v.A - 2 * along), "You took away twice the vertical part: the factor ½ of (12.5) is missing."),
        (EUCLIDEAN.horizontal(p, velocity), "That is horizontal in the Euclidean metric. Asked is the invariant one."),
        ((v.B, v.A), "That is the proposal itself, with its vertical part."),
    ]
    mistakes = [(_flat(*pair), message) for pair, message in mistakes]
    wanted = _flat(*INVARIANT.horizontal(p, velocity))
    otherwise = "Take (BX, -XA) away, with X = ½ (B⁺ dB - dA A⁺)."
    return first_array(_flat(B, A), wanted, mistakes, otherwise)


def step(answer):
    r"""A function of (B, A, G, lr) that takes one preconditioned step of both factors; `...` if it returns `...`."""
    if not callable(answer):
        return f"step should be a function of B, A, G and lr, but it is {answer!r}."
    p, G, lr = _pair(4, 7, 5, 3), _pair(5, 7, 5, 3).W, 0.1
    returned = answer(p.B.copy(), p.A.copy(), G.copy(), lr)
    if returned is ...:
        return ...
    try:
        B, A = returned
    except (TypeError, ValueError):
        return f"step should return a pair (B, A), but it returns {type(returned).__name__}."
    if np.shape(B) != p.B.shape or np.shape(A) != p.A.shape:
        return f"The new B and A should have the shapes {p.B.shape} and {p.A.shape}, got {np.shape(B)}, {np.shape(A)}."
    dB, dA = INVARIANT.gradient(p, G)
    new = p.B - lr * dB
    mistakes = [
        ((p.B - lr * G @ p.A.T, p.A - lr * p.B.T @ G), "That is the plain step. Divide by A Aᵀ and BᵀB."),
        ((p.B + lr * dB, p.A + lr * dA), "You go up the gradient. Subtract."),
        ((p.B - dB, p.A - dA), "The learning rate is missing."),
        ((new, p.A - lr * np.linalg.pinv(new) @ G), "You used the new B for A's step. Both move at the same time."),
        (
            (p.B - lr * G @ p.A.T @ np.linalg.inv(p.B.T @ p.B), p.A - lr * np.linalg.inv(p.A @ p.A.T) @ p.B.T @ G),
            "The two preconditioners are exchanged: B's gradient is divided by A Aᵀ, A's by BᵀB.",
        ),
    ]
    wanted, got = _flat(p.B - lr * dB, p.A - lr * dA), _flat(B, A)
    mistakes = [(_flat(*pair), message) for pair, message in mistakes]
    return first_array(got, wanted, mistakes, "B - lr G Aᵀ(A Aᵀ)⁻¹ and A - lr (BᵀB)⁻¹BᵀG, equation (12.7).")


def _pair(seed, d, k, r):
    rng = np.random.default_rng(seed)
    return Factors(rng.normal(size=(d, r)), rng.normal(size=(r, k)))


def _flat(B, A):
    return np.concatenate([np.ravel(B), np.ravel(A)])
