"""Right answers and typical mistakes of chapter 12, which test_exercises.py tries."""

from fractions import Fraction

import numpy as np
import torch

from lora_course.labs.exercises import fiber_bundles
from lora_course.theory.geometry import EUCLIDEAN, INVARIANT, Factors

inv, pinv = np.linalg.inv, np.linalg.pinv
D, K, R = fiber_bundles.D, fiber_bundles.K, fiber_bundles.R


def by_lstsq(B, A, B2, A2):
    return np.linalg.lstsq(B, B2, rcond=None)[0]


def through_torch(B, A, B2, A2):
    return torch.linalg.pinv(torch.tensor(B)) @ torch.tensor(B2)


def omega(B, A, dB, dA):
    return (pinv(B) @ dB - dA @ pinv(A)) / 2


def less(B, A, dB, dA, X, Y):
    return dB - B @ X, dA + Y @ A


def horizontal(*a):
    return less(*a, omega(*a), omega(*a))


def lifted(B, A, dB, dA):
    # the formula of the lift, from the velocity of BA alone
    dW, P, Q = dB @ A + B @ dA, B @ pinv(B), pinv(A) @ A
    up = (dW - P @ dW / 2) @ pinv(A)
    return [up, pinv(B) @ (dW - dW @ Q / 2)]


def step(B, A, G, lr):
    return B - lr * G @ A.T @ inv(A @ A.T), A - lr * inv(B.T @ B) @ B.T @ G


def step_of_the_package(B, A, G, lr):
    p = Factors(B, A)
    dB, dA = INVARIANT.gradient(p, G)
    new = p.retract((-lr * dB, -lr * dA))
    return [new.B, new.A]


def one_after_the_other(B, A, G, lr):
    B = B - lr * G @ pinv(A)
    return B, A - lr * pinv(B) @ G


RIGHT = {
    "count": [(256, 81664), [R**2, R * (D + K - R)], np.array([256.0, 81664.0])],
    "bundle_size": [4 * (D * K + D), 16793600, 16793600.0],
    "gauge": [lambda B, A, B2, A2: pinv(B) @ B2, by_lstsq, through_torch, lambda B, A, B2, A2: A @ pinv(A2)],
    "plus": [0.5, Fraction(1, 2), np.float32(4**-0.5)],
    "horizontal": [horizontal, lifted, lambda B, A, *v: INVARIANT.horizontal(Factors(B, A), v)],
    "step": [step, step_of_the_package],
}
WRONG = {
    "count": [
        *((fiber, 81664) for fiber in (R, R * (R - 1) / 2, R * (R + 1) / 2, 2 * R**2, 7)),
        *((256, u) for u in (R * (D + K), D * K, R * (D + K) - R, R * (D + K + R), R * D, 7)),
    ],
    "bundle_size": [4 * D * K, 4 * (D * K + K), D * K + D, 5 * (D * K + D), 4 * (D + K), 7],
    "gauge": [
        lambda B, A, B2, A2: pinv(B2) @ B,
        lambda B, A, B2, A2: (pinv(B) @ B2).T,
        lambda B, A, B2, A2: (pinv(B2) @ B).T,
        lambda B, A, B2, A2: B.T @ B2,
        lambda B, A, B2, A2: A @ A2.T,
        lambda B, A, B2, A2: np.eye(3),
        lambda B, A, B2, A2: B2,
        "M",
    ],
    "plus": [2, 4**-0.25, 0.25, 4, 2**0.5, 7],
    "horizontal": [
        lambda B, A, dB, dA: (B @ omega(B, A, dB, dA), -omega(B, A, dB, dA) @ A),
        lambda *a: less(*a, -omega(*a), -omega(*a)),
        lambda *a: less(*a, omega(*a), -omega(*a)),
        lambda *a: less(*a, omega(*a), 0 * omega(*a)),
        lambda *a: less(*a, 2 * omega(*a), 2 * omega(*a)),
        lambda B, A, *v: EUCLIDEAN.horizontal(Factors(B, A), v),
        lambda B, A, dB, dA: (dB, dA),
        lambda *a: less(*a, np.eye(3), np.eye(3)),
        lambda B, A, dB, dA: (dA, dB),
        omega,
        lambda B, A, dB, dA: 3.0,
        "horizontal",
    ],
    "step": [
        lambda B, A, G, lr: (B - lr * G @ A.T, A - lr * B.T @ G),
        lambda B, A, G, lr: step(B, A, G, -lr),
        lambda B, A, G, lr: step(B, A, G, 1),
        one_after_the_other,
        lambda B, A, G, lr: (B - lr * G @ A.T @ inv(B.T @ B), A - lr * inv(A @ A.T) @ B.T @ G),
        lambda B, A, G, lr: (B, A),
        lambda B, A, G, lr: B,
        lambda B, A, G, lr: (A, B),
        "step",
    ],
}
