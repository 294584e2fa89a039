"""LoRALinear computes h = W0 x + b + scaling · B A x, and trains A and B only."""

import math

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear

SHAPES = [(), (4,), (2, 3), (2, 1, 3), (0,), (2, 0)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("d", "k", "r"), [(5, 7, 3), (7, 5, 1), (4, 4, 6), (1, 9, 2)])
def test_forward_is_the_plain_formula_entry_by_entry(make_layer, draw, seed, bias, d, k, r):
    layer, x = make_layer(d, k, r, seed=seed, bias=bias), draw(6, k, seed=seed)
    W0, A, B = layer.base.weight, layer.lora_A, layer.lora_B
    b = layer.base.bias if bias else torch.zeros(d)
    for h, row in zip(layer(x), x, strict=True):
        assert torch.allclose(h, W0 @ row + b + (4.5 / r) * (B @ (A @ row)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_of_any_number_of_dimensions_and_of_no_rows(make_layer, draw, shape):
    layer, x = make_layer(), draw(*shape, 7, grad=True)
    h = layer(x)
    expected = x @ (layer.base.weight + layer.delta_weight()).T + layer.base.bias
    assert h.shape == (*shape, 5)
    assert torch.allclose(h, expected, rtol=0, atol=1e-12)
    h.sum().backward()
    assert x.grad.shape == x.shape and layer.lora_A.grad.shape == (3, 7) and layer.lora_B.grad.shape == (5, 3)


def test_inputs_that_are_not_contiguous(make_layer, draw):
    layer, x = make_layer(), draw(7, 4, 2).permute(2, 1, 0)
    assert torch.allclose(layer(x), layer(x.contiguous()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_the_closed_forms(make_layer, draw, seed):
    layer, x, g = make_layer(seed=seed), draw(6, 7, seed=seed, grad=True), draw(6, 5, seed=seed + 50)
    layer(x).backward(g)
    s, A, B = 4.5 / 3, layer.lora_A, layer.lora_B
    for name, grad, expected in [
        ("B", B.grad, s * g.T @ x @ A.T),
        ("A", A.grad, s * B.T @ g.T @ x),
        ("x", x.grad, g @ (layer.base.weight + s * B @ A)),
    ]:
        assert torch.allclose(grad, expected, rtol=0, atol=1e-12), name
    assert layer.base.weight.grad is None and layer.base.bias.grad is None


@pytest.mark.parametrize("r", [1, 2, 5, 16])
def test_scaling_is_alpha_over_r_and_with_rslora_alpha_over_root_r(make_layer, r):
    assert make_layer(r=r, alpha=3).scaling == 3 / r
    assert make_layer(r=r, alpha=3, rslora=True).scaling == 3 / math.sqrt(r)


def test_scaling_follows_alpha_and_the_forward_follows_scaling(make_layer, draw):
    layer, x = make_layer(alpha=2), draw(4, 7)
    branch = layer(x) - layer.base(x)
    layer.alpha = 6
    assert torch.allclose(layer(x) - layer.base(x), 3 * branch, rtol=0, atol=1e-12)


def test_delta_weight_is_scaling_times_B_A_of_shape_d_k_and_differentiable(make_layer):
    layer = make_layer()
    delta = layer.delta_weight()
    assert delta.shape == (5, 7)
    assert torch.allclose(delta, 1.5 * torch.einsum("dr,rk->dk", layer.lora_B, layer.lora_A), rtol=0, atol=1e-12)
    delta.sum().backward()
    assert torch.allclose(layer.lora_A.grad, 1.5 * layer.lora_B.sum(0)[:, None].expand(3, 7))


def test_weight_is_what_the_layer_acts_with_unmerged_and_merged(make_layer, draw):
    layer, x = make_layer(), draw(4, 7)
    unmerged = torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.allclose(layer(x), unmerged, rtol=0, atol=1e-12)
    layer.merge()
    assert layer.weight is layer.base.weight
    assert torch.allclose(layer(x), unmerged, rtol=0, atol=1e-12)


@pytest.mark.parametrize("r", [1, 3, 20])
def test_rank_of_the_update_is_at_most_r_and_at_most_min_d_k(make_layer, r):
    assert torch.linalg.matrix_rank(make_layer(d=5, k=7, r=r).delta_weight()) == min(r, 5)


def test_the_base_is_shared_not_copied_and_frozen():
    base = nn.Linear(7, 5)
    weight, bias = base.weight, base.bias
    layer = LoRALinear(base, 2, 4)
    assert layer.base is base and layer.base.weight is weight and layer.base.bias is bias
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    assert (layer.in_features, layer.out_features) == (7, 5)


def test_at_the_start_the_layer_computes_what_its_base_computes(draw):
    base = nn.Linear(7, 5, dtype=torch.float64)
    for init in ("kaiming", "gaussian"):
        layer = LoRALinear(base, 3, 4, init=init)
        assert torch.equal(layer(draw(4, 7)), base(draw(4, 7)))
        assert layer.lora_A.abs().min() > 0 and not layer.lora_B.any()


def test_dropout_acts_on_the_branch_only_and_in_training_only(make_layer, draw):
    layer, x = make_layer(dropout=0.5), draw(2000, 7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        branch = layer(x) - layer.base(x)
    clean = x @ layer.delta_weight().T
    spread = (branch - clean).abs().mean()
    assert spread > 0.1 * clean.abs().mean()
    assert (branch.mean(0) - clean.mean(0)).abs().max() < 0.5  # dropout is right on average
    layer.eval()
    assert torch.allclose(layer(x) - layer.base(x), clean, rtol=0, atol=1e-12)


def test_with_nearly_everything_dropped_the_base_output_stands():
    layer = LoRALinear(nn.Linear(7, 5), 3, 4, dropout=1 - 1e-12)
    nn.init.ones_(layer.lora_B)
    x = torch.ones(20, 7)
    assert torch.equal(layer(x), layer.base(x))


def test_train_and_eval_reach_the_base_and_the_mode_of_the_base_is_taken_over():
    layer = LoRALinear(nn.Linear(7, 5).eval(), 3, 4, dropout=0.5)
    assert not layer.training
    layer.train()
    assert layer.training and layer.base.training
    layer.eval()
    assert not layer.training and not layer.base.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_over_a_half_precision_base_the_factors_are_float32_and_the_output_is_half(dtype):
    layer = LoRALinear(nn.Linear(16, 12, dtype=dtype), 4, 8, generator=0)
    nn.init.normal_(layer.lora_B, generator=torch.Generator().manual_seed(1))
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32 and layer.delta_weight().dtype == torch.float32
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    h = layer(x)
    assert h.dtype == dtype and layer.weight.dtype == dtype
    exact = x.double() @ (layer.base.weight.double() + layer.delta_weight().double()).T + layer.base.bias.double()
    assert (h.double() - exact).abs().max() < 4 * torch.finfo(dtype).eps * exact.abs().max()
    h.sum().backward()
    assert layer.lora_A.grad.dtype == torch.float32 and layer.lora_A.grad.any()


def test_the_factors_can_be_trained():
    generator = torch.Generator().manual_seed(0)
    layer = LoRALinear(nn.Linear(8, 6, bias=False), 2, 4, generator=generator)
    W0 = layer.base.weight.clone()
    target = W0 + torch.randn(6, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    x = torch.randn(64, 8, generator=generator)
    optimizer = torch.optim.Adam([layer.lora_A, layer.lora_B], lr=0.05)
    for _ in range(600):
        optimizer.zero_grad()
        loss = (layer(x) - x @ target.T).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-4 and torch.equal(layer.base.weight, W0)


def test_repr_names_what_was_chosen(make_layer):
    assert "r=3, alpha=4.5, scaling=1.5, dropout=0.1" in repr(make_layer(dropout=0.1))
