"""DoRALinear and PEFT's ``use_dora=True``, given the same A, B and m, are one function (float32: 1e-5 relative)."""

import copy
import math

import pytest
import torch
from torch import nn

from lora_course.adapters.dora import DoRALinear

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")

SHAPES = [(5, 7, 3), (48, 32, 8), (32, 48, 16), (6, 4, 9)]


def pair(d, k, r, alpha=5, bias=True, seed=0, dtype=torch.float32, dropout=0.0, rslora=False):
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(k, d, bias=bias, dtype=dtype)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(k))
    options = {"lora_dropout": dropout, "use_rslora": rslora, "use_dora": True}
    config = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=["layer"], **options)
    theirs = peft.get_peft_model(nn.ModuleDict({"layer": copy.deepcopy(base)}), config).base_model.model["layer"]
    ours = DoRALinear(base, r, alpha, dropout=dropout, rslora=rslora, generator=generator)
    start = ours.lora_magnitude_vector.to(dtype)  # PEFT's is rounded to the dtype of the base
    assert agree(start.float(), theirs.lora_magnitude_vector["default"].weight.float(), torch.finfo(dtype).eps)
    with torch.no_grad():
        ours.lora_B.copy_(torch.randn(d, r, generator=generator) / math.sqrt(r))
        ours.lora_magnitude_vector.mul_(torch.rand(d, generator=generator) + 0.5)
        for mine, other in zip(parameters(ours), parameters(theirs), strict=True):
            other.copy_(mine)
    return ours, theirs


def parameters(layer):
    if isinstance(layer, DoRALinear):
        return [layer.lora_A, layer.lora_B, layer.lora_magnitude_vector]
    return [p["default"].weight for p in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector)]


def agree(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def outcome(layer, x, g):
    x = x.clone().requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        h = layer(x)
    return [h, *torch.autograd.grad(h, [x, *parameters(layer)], g)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("d", "k", "r"), SHAPES)
def test_forward_gradients_and_merged_weight(seed, bias, dropout, d, k, r):
    ours, theirs = pair(d, k, r, bias=bias, seed=seed, dropout=dropout, rslora=seed == 2)
    generator = torch.Generator().manual_seed(100 + seed)
    x, g = torch.randn(3, 11, k, generator=generator), torch.randn(3, 11, d, generator=generator)
    for a, b in zip(outcome(ours, x, g), outcome(theirs, x, g), strict=True):
        assert agree(a, b)
    ours.merge()
    theirs.merge()
    assert agree(ours.base.weight, theirs.base_layer.weight) and agree(ours(x), theirs(x))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_float64_to_1e_12(dropout):
    ours, theirs = pair(5, 7, 3, dtype=torch.float64, dropout=dropout)
    generator = torch.Generator().manual_seed(0)
    x, g = (torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (7, 5))
    for a, b in zip(outcome(ours, x, g), outcome(theirs, x, g), strict=True):
        assert agree(a, b, 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_over_a_half_precision_base(dtype):
    ours, theirs = pair(48, 32, 8, dtype=dtype)
    assert [p.dtype for p in parameters(ours)] == [p.dtype for p in parameters(theirs)] == [torch.float32] * 3
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert agree(ours(x), theirs(x), 2 * torch.finfo(dtype).eps)


def test_trainable_counts_are_equal():
    ours, theirs = pair(48, 32, 8)
    counts = [sum(p.numel() for p in layer.parameters() if p.requires_grad) for layer in (ours, theirs)]
    assert counts == [8 * (48 + 32) + 48] * 2


def test_ten_training_steps_follow_the_same_path():
    ours, theirs = pair(12, 10, 4, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(32, n, generator=generator, dtype=torch.float64) for n in (10, 12))
    losses = []
    for layer in (ours, theirs):
        optimizer = torch.optim.AdamW(parameters(layer), lr=0.02)
        for _ in range(10):
            optimizer.zero_grad()
            loss = (layer(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
