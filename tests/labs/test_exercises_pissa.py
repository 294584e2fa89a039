"""Right answers and typical mistakes of chapter 8, which test_exercises.py tries."""

import numpy as np
import torch
from torch import nn

from lora_course.adapters import LoRALinear
from lora_course.adapters.origin import start
from lora_course.book import checker
from lora_course.labs.exercises import pissa


def by_steps(G, A0, B0, s, eta):
    A1, B1 = A0 - eta * s * B0.T @ G, B0 - eta * s * G @ A0.T
    return s * (B1 @ A1 - B0 @ A0)


def by_formula(G, A0, B0, s, eta, first=-1, second=1, power=2, cube=3, left=1, right=1):
    straight = left * B0 @ B0.T @ G + right * G @ A0.T @ A0
    return first * eta * s**power * straight + second * eta**2 * s**cube * G @ A0.T @ B0.T @ G


def by_autograd(G, A0, B0, s, eta):
    A, B = (torch.tensor(M, requires_grad=True) for M in (A0, B0))
    (s * (B @ A) * torch.tensor(G)).sum().backward()
    with torch.no_grad():
        return (s * ((B - eta * B.grad) @ (A - eta * A.grad) - B @ A)).numpy()


def by_package(W0, A0, B0, alpha):
    base = nn.Linear(A0.shape[1], B0.shape[0], bias=False, dtype=torch.float64, device="meta").to_empty(device="cpu")
    base.weight.data.copy_(torch.tensor(W0))
    layer = LoRALinear(base, len(A0), alpha)
    start(layer, lambda W, r, s, generator: (torch.tensor(A0), torch.tensor(B0)))
    return base.weight.detach().numpy()


RIGHT = {
    "residual": [
        lambda W0, A0, B0, alpha: W0 - alpha / len(A0) * B0 @ A0,
        lambda W0, A0, B0, alpha: W0 - np.einsum("dr,rk->dk", B0, A0) * alpha / B0.shape[1],
        by_package,
    ],
    "first_step": [by_steps, by_formula, by_autograd],
    "same_rate": [1e-4, 4e-4 / 4, 0.0001, np.float32(1e-4)],
    "lever": [256, 4096 / 16, 256.0],
    "fair_best": [lambda hits: hits.mean(1).max(), lambda hits: max(sum(row) / len(row) for row in hits)],
    "saved": [1 - (28 / 64) ** 0.5, 0.339, 0.3386, 1 - np.sqrt(28) / 8],
}
WRONG = {
    "residual": [
        lambda W0, A0, B0, alpha: W0 - B0 @ A0,
        lambda W0, A0, B0, alpha: W0 - alpha * B0 @ A0,
        lambda W0, A0, B0, alpha: W0 + alpha / len(A0) * B0 @ A0,
        lambda W0, A0, B0, alpha: alpha / len(A0) * B0 @ A0,
        lambda W0, A0, B0, alpha: W0 - alpha / A0.shape[1] * B0 @ A0,
        lambda W0, A0, B0, alpha: W0 - alpha / len(A0) ** 0.5 * B0 @ A0,
        lambda W0, A0, B0, alpha: W0,
        lambda W0, A0, B0, alpha: 2 * W0,
        lambda W0, A0, B0, alpha: 1.0,
        "W0",
    ],
    "first_step": [
        lambda *a: by_formula(*a, second=0),
        lambda *a: by_formula(*a, second=-1),
        lambda *a: by_formula(*a, power=1),
        lambda *a: by_formula(*a, second=0, right=0),
        lambda *a: by_formula(*a, second=0, left=0),
        lambda *a: by_formula(*a, first=1),
        lambda G, A0, B0, s, eta: -eta * G,
        lambda *a: by_formula(*a, cube=2),
        lambda G, A0, B0, s, eta: G,
        lambda *a: 0.0,
    ],
    "same_rate": [4e-4 / 16, 4e-4 * 4, 4e-4 * 16, 4e-4, 4, 16, 7],
    "lever": [16, 1 / 256, 4096, 256**2, 4096 / 3, 7],
    "fair_best": [
        lambda hits: hits.max(),
        lambda hits: hits.mean(),
        lambda hits: hits.max(0).mean(),
        lambda hits: hits.mean(0).max(),
        lambda hits: hits.mean(1).argmax(),
        lambda hits: hits.max(1).mean(),
        lambda hits: np.median(hits, 1).max(),
        lambda hits: 7,
    ],
    "saved": [36 / 64, (28 / 64) ** 0.5, 28 / 64, 6 / 20, (36 / 64) ** 0.5, 14 / 20, 7],
}


def test_the_package_starts_as_the_exercise_wants():
    assert checker(pissa.residual)(by_package).must_pass().ok
