"""The gradient of W' = m V / ‖V‖ as theorems: orthogonal to V if exact, with a radial part if the norm is detached."""

import pytest
import torch
from torch.nn import functional as F

from lora_course.adapters import DoRALinear

SEEDS = pytest.mark.parametrize("seed", range(4))


def parts(seed, d=6, k=9):
    source = torch.Generator().manual_seed(seed)
    V, G = (torch.randn(d, k, generator=source, dtype=torch.float64) for _ in range(2))
    m = torch.rand(d, generator=source, dtype=torch.float64) + 0.5
    return m.requires_grad_(), V.requires_grad_(), G


def gradients(m, V, G, detach):
    n = V.norm(dim=1)
    W = (m / (n.detach() if detach else n))[:, None] * V
    return torch.autograd.grad((W * G).sum(), (m, V))  # dL/dW' = G


@SEEDS
def test_the_exact_gradient_is_projected_and_scaled(seed):
    m, V, G = parts(seed)
    to_m, to_V = gradients(m, V, G, detach=False)
    n = V.norm(dim=1)
    u = V / n[:, None]
    radial = (G * u).sum(1)
    assert torch.allclose(to_m, radial)
    assert torch.allclose(to_V, (m / n)[:, None] * (G - radial[:, None] * u))
    assert (to_V * V).sum(1).abs().max() < 1e-12


@SEEDS
def test_detached_it_keeps_a_radial_part_that_is_the_magnitude_s_own_gradient(seed):
    m, V, G = parts(seed)
    to_m, to_V = gradients(m, V, G, detach=True)
    _, exact = gradients(m, V, G, detach=False)
    n = V.norm(dim=1)
    assert torch.allclose(to_V, (m / n)[:, None] * G)
    assert torch.allclose(to_V - exact, (m / n * to_m / n)[:, None] * V)
    # so both agree where the magnitudes are at their optimum
    tangential = (G - (to_m / n)[:, None] * V).detach()
    assert all(
        torch.allclose(a, b)
        for a, b in zip(gradients(m, V, tangential, True), gradients(m, V, tangential, False), strict=True)
    )


def descend(seed, detach, free, steps=2000, rate=1e-3):
    """Gradient descent on ‖x W'ᵀ - y‖², small steps; V free, or V = W0 + B A. Returns the norms before and after."""
    source = torch.Generator().manual_seed(seed)
    W0, x = (torch.randn(n, 9, generator=source, dtype=torch.float64) for n in (6, 40))
    y = x @ torch.randn(9, 6, generator=source, dtype=torch.float64)
    A = torch.randn(2, 9, generator=source, dtype=torch.float64) / 3
    leaves = [W0.clone()] if free else [A, torch.zeros(6, 2, dtype=torch.float64)]
    leaves = [p.requires_grad_() for p in [W0.norm(dim=1), *leaves]]

    def direction():
        return leaves[1] if free else W0 + leaves[2] @ leaves[1]

    for _ in range(steps):
        V = direction()
        n = V.norm(dim=1)
        W = (leaves[0] / (n.detach() if detach else n))[:, None] * V
        loss = (x @ W.T - y).square().mean()
        for p, g in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            p.data -= rate * g
    return W0.norm(dim=1), direction().detach().norm(dim=1)


@SEEDS
def test_with_v_free_the_exact_flow_keeps_its_norms_and_descent_lets_them_grow_a_little(seed):
    before, after = descend(seed, detach=False, free=True)
    assert (after >= before).all() and ((after - before) / before).max() < 2e-3
    before, after = descend(seed, detach=True, free=True)
    assert ((after - before) / before).abs().max() > 0.02


@SEEDS
def test_with_v_from_factors_the_norms_are_not_kept_by_either(seed):
    for detach in (False, True):
        before, after = descend(seed, detach, free=False)
        assert ((after - before) / before).abs().max() > 5e-3


@SEEDS
def test_at_the_start_the_detached_gradient_of_b_is_lora_s_and_the_exact_one_is_not(seed):
    source = torch.Generator().manual_seed(seed)
    base = torch.nn.Linear(9, 6, dtype=torch.float64)
    x, g = (torch.randn(7, n, generator=source, dtype=torch.float64) for n in (9, 6))
    grads = {}
    for detach in (True, False):
        layer = DoRALinear(base, 2, 3, detach_norm=detach, generator=seed)
        grads[detach] = torch.autograd.grad(layer(x), layer.lora_B, g)[0]
    A, W, B = layer.lora_A.detach(), base.weight.detach(), torch.zeros(6, 2, dtype=torch.float64, requires_grad=True)
    lora = torch.autograd.grad(F.linear(x, W + 1.5 * B @ A, base.bias.detach()), B, g)[0]
    assert torch.allclose(grads[True], lora) and not torch.allclose(grads[False], lora, rtol=1e-3)
