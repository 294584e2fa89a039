"""The first step of LoRA, against automatic differentiation and against draws of A."""

import numpy as np
import pytest
import torch

from lora_course.adapters import LoRALinear, trainable_parameters
from lora_course.theory import (
    expected_first_step_drop,
    expected_first_update_norm,
    first_step_drop,
    scaling,
)

D, K = 11, 7


def gradient(seed):
    return np.random.default_rng(seed).normal(size=(D, K))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "step,make",
    [("sgd", lambda p, lr: torch.optim.SGD(p, lr=lr)), ("sign", lambda p, lr: torch.optim.Adam(p, lr=lr, eps=1e-30))],
)
def test_drop_is_that_of_torchs_optimizer_on_a_linear_loss(seed, step, make):
    # the loss <G, W> is linear, so that its first-order change is all there is; alpha != r, d != k
    G, r, alpha, lr = gradient(seed), 3, 5.0, 0.01
    layer = LoRALinear(torch.nn.Linear(K, D, bias=False, dtype=torch.float64), r, alpha, generator=seed)
    A = layer.lora_A.detach().numpy().copy()
    x = torch.eye(K, dtype=torch.float64)

    def loss():
        return (torch.tensor(G).T * layer(x)).sum()

    optimizer, before = make(trainable_parameters(layer), lr), loss()
    before.backward()
    optimizer.step()
    assert np.array_equal(layer.lora_A.detach().numpy(), A)  # B = 0: A does not move
    assert (before - loss()).item() == pytest.approx(first_step_drop(G, A, alpha / r, lr, step), rel=1e-9)


@pytest.mark.parametrize("step", ["sgd", "sign"])
@pytest.mark.parametrize("r", [1, 4])
def test_mean_over_normal_a_is_the_expectation(step, r):
    G, s, lr, sigma, rng = gradient(0), 1.7, 0.3, 0.6, np.random.default_rng(1)
    found = [first_step_drop(G, sigma * rng.normal(size=(r, K)), s, lr, step) for _ in range(4_000)]
    error = 4 * np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - expected_first_step_drop(G, r, s, lr, sigma, step)) < error


@pytest.mark.parametrize("step,power,exponent", [("sgd", 1, -1), ("sgd", 0.5, 0), ("sign", 1, 0), ("sign", 0.5, 0.5)])
def test_exponents_of_the_theorem(step, power, exponent):
    G, ranks = gradient(2), np.array([1.0, 2, 8, 64])
    drops = [expected_first_step_drop(G, int(r), scaling(16, int(r), power), 1e-3, 0.5, step) for r in ranks]
    assert np.allclose(drops, drops[0] * ranks**exponent, rtol=1e-12)


def test_sgd_needs_the_variance_only():
    G, r, rng = gradient(3), 2, np.random.default_rng(0)
    uniform = [first_step_drop(G, rng.uniform(-1, 1, size=(r, K)), 1, 1) for _ in range(4_000)]
    error = 4 * np.std(uniform) / len(uniform) ** 0.5
    assert abs(np.mean(uniform) - expected_first_step_drop(G, r, 1, 1, 3**-0.5)) < error


@pytest.mark.parametrize("r", [1, 5, 20])
def test_length_of_the_first_update(r):
    G, s, lr, sigma, rng = gradient(4), 0.7, 0.2, 0.9, np.random.default_rng(2)
    squares = []
    for _ in range(4_000):
        A = sigma * rng.normal(size=(r, K))
        squares.append(np.linalg.norm(s * (-lr * s * G @ A.T) @ A) ** 2)
    error = 4 * np.std(squares) / len(squares) ** 0.5
    assert abs(np.mean(squares) - expected_first_update_norm(G, r, s, lr, sigma) ** 2) < error


def test_length_is_no_power_of_the_rank():
    G = gradient(5)
    slopes = [
        np.log2(expected_first_update_norm(G, 2 * r, 1, 1, 1) / expected_first_update_norm(G, r, 1, 1, 1))
        for r in (1, 1_000)
    ]
    assert slopes[0] < 0.65 and slopes[1] > 0.99


@pytest.mark.parametrize(
    "call,what",
    [
        (lambda: scaling(0, 4), "alpha"),
        (lambda: scaling(1, 0), "r must"),
        (lambda: first_step_drop(np.ones((2, 3)), np.ones((2, 4)), 1, 1), "same k"),
        (lambda: first_step_drop(np.ones((2, 3)), np.ones((2, 3)), 1, 1, "adam"), "step must"),
        (lambda: first_step_drop(np.ones((2, 3)), np.ones((2, 3)), -1, 1), "s must"),
        (lambda: expected_first_step_drop(np.ones((2, 3)), 2, 1, 1, 0), "sigma"),
        (lambda: expected_first_update_norm(np.ones((2, 3)), 2, 1, 0, 1), "lr"),
    ],
)
def test_bad_input_is_named(call, what):
    with pytest.raises(ValueError, match=what):
        call()
