"""Right answers and typical mistakes of chapter 10, which test_exercises.py tries."""

import numpy as np
import torch

from lora_course.book import checker
from lora_course.labs.exercises import dora
from lora_course.theory import dora_parameters, magnitude_direction_change


def weight(W0, A, B, m, s):
    V = W0 + s * B @ A
    return m[:, None] * V / np.linalg.norm(V, axis=1, keepdims=True)


def by_torch(W0, A, B, m, s):
    W0, A, B, m = map(torch.tensor, (W0, A, B, m))
    return torch._weight_norm(W0 + s * B @ A, m[:, None], 0).numpy()


def lengths(W0, W, axis=1):
    return np.linalg.norm(W0, axis=axis), np.linalg.norm(W, axis=axis)


def changes(W0, W):
    a, b = lengths(W0, W)
    return abs(b - a).mean(), 1 - ((W0 / a[:, None]) * (W / b[:, None])).sum() / len(W)


RIGHT = {
    "count": [51200, 51200.0, 16 * 3072 + 2048],
    "gradient": [(-0.64, 0.48), np.array([-0.64, 0.48]), [-0.64, 0.48]],
    "weight": [weight, by_torch],
    "changes": [changes, magnitude_direction_change],
    "factors": [(1, 0.25, 0.01), (3, 1, 0.1), [0.06 / 0.1, 0.05 / 0.2, 0.03 / 0.3]],
    "ranks": [(64, 5), [64.0, 5]],
}
WRONG = {
    "count": [49152, 50176, 2048, 49152 + 3072, 16 * (2 * 2048 + 1024), 2048 * 1024, 7],
    "gradient": [(2, 4), (-0.32, 0.24), (-3.2, 2.4), (2.64, 3.52), (1, 2), (-64, -84), (0.64, -0.48), (7, 7)],
    "weight": [
        lambda W0, A, B, m, s: W0 + s * B @ A,
        lambda W0, A, B, m, s: weight(W0, A, B, np.ones(6), s),
        lambda W0, A, B, m, s: m[:, None] * (W0 + s * B @ A),
        lambda W0, A, B, m, s: weight(W0.T, B.T, A.T, m, s).T,
        lambda W0, A, B, m, s: m * (W0 + s * B @ A) / lengths(W0, W0 + s * B @ A)[1],
        lambda W0, A, B, m, s: (m / np.linalg.norm(W0, axis=1))[:, None] * (W0 + s * B @ A),
        lambda W0, A, B, m, s: m[:, None] * (W0 + s * B @ A) / np.linalg.norm(W0 + s * B @ A),
        lambda W0, A, B, m, s: weight(W0, A, B, m, 1),
        lambda W0, A, B, m, s: W0,
        "W",
    ],
    "changes": [
        lambda W0, W: magnitude_direction_change(W0, W, "column"),
        lambda W0, W: (np.subtract(*lengths(W, W0)).mean(), changes(W0, W)[1]),
        lambda W0, W: (changes(W0, W)[0], 1 - changes(W0, W)[1]),
        lambda W0, W: tuple(len(W) * np.array(changes(W0, W))),
        lambda W0, W: (np.linalg.norm(W - W0, axis=1).mean(), changes(W0, W)[1]),
        lambda W0, W: changes(W0, W)[::-1],
        lambda W0, W: (0.0, 0.0),
        "both",
    ],
    "factors": [(1, 1, 1), (1, -1, 1), (1, 2, 3), (3, 2, 1)],
    "ranks": [(5, 5), (59, 5), (69, 5), (7, 5), (64, 64), (64, 0), (64, 6), (64, 7)],
}


def test_the_package_gives_the_answers_that_are_accepted():
    assert checker(dora.count)(dora_parameters(2048, 1024, 16)).must_pass().ok
    m, V = torch.tensor(10.0), torch.tensor([3.0, 4.0], requires_grad=True)
    (m * V / V.norm() * torch.tensor([1.0, 2.0])).sum().backward()
    assert checker(dora.gradient)(V.grad.numpy()).must_pass().ok


def test_half_an_answer_is_not_tried_yet():
    assert checker(dora.ranks)((..., 5)).ok is None
