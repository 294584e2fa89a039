"""PiSSA and OLoRA start where PEFT starts, and a started layer is, for PEFT, a plain adapter on the original base."""

import copy
import math

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear, count_parameters
from lora_course.adapters.origin import plain_factors, start, undo_start
from lora_course.adapters.starts import STARTS

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")

SHAPES = [(40, 24, 4), (24, 40, 8), (32, 32, 1)]


def make_base(d, k, bias=True, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(k, d, bias=bias)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(k))
    return base.to(dtype)


def peft_layer(base, r, alpha, init=True, rslora=False):
    config = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=["layer"], init_lora_weights=init, use_rslora=rslora)
    model = peft.get_peft_model(nn.ModuleDict({"layer": copy.deepcopy(base)}), config)
    layer = model.base_model.model["layer"]
    return layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight


def agree(ours, theirs, tolerance=1e-5):
    """Largest difference relative to the largest entry."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize(("d", "k", "r"), SHAPES)
@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_factors_base_outputs_gradients_and_merged_weight(name, d, k, r, rslora, bias, seed):
    base = make_base(d, k, bias, seed)
    theirs, A, B = peft_layer(base, r, 6, name, rslora)
    ours = LoRALinear(base, r, 6, rslora=rslora)
    start(ours, name)
    assert agree(ours.base.weight, theirs.base_layer.weight)
    assert agree(ours.lora_A, A) and agree(ours.lora_B, B)  # the same LAPACK: the signs too
    generator = torch.Generator().manual_seed(100 + seed)
    x, g = torch.randn(7, k, generator=generator), torch.randn(7, d, generator=generator)
    mine = torch.autograd.grad(ours(x), [ours.lora_A, ours.lora_B], g)
    assert all(agree(a, b) for a, b in zip(mine, torch.autograd.grad(theirs(x), [A, B], g), strict=True))
    assert agree(ours(x), theirs(x))
    assert count_parameters(ours).trainable == sum(p.numel() for p in theirs.parameters() if p.requires_grad)
    ours.merge()
    theirs.merge()
    assert agree(ours.base.weight, theirs.base_layer.weight)


@pytest.mark.parametrize("name", ["pissa", "olora"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_over_a_half_precision_base(name, dtype):
    base = make_base(40, 24, dtype=dtype)
    theirs, A, B = peft_layer(base, 4, 6, name)
    ours = LoRALinear(base, 4, 6)
    start(ours, name)
    assert agree(ours.base.weight, theirs.base_layer.weight, torch.finfo(dtype).eps)
    # PEFT's factors reach float32, too; ours are not rounded to half precision on the way
    assert agree(ours.scaling * ours.lora_B @ ours.lora_A, theirs.scaling["default"] * B @ A, torch.finfo(dtype).eps)


@pytest.mark.parametrize("seed", range(3))
def test_fast_pissa_comes_nearer_to_the_exact_one_than_pefts_as_its_sketch_has_more_columns(seed):
    base = make_base(64, 96, seed=seed)
    with torch.no_grad():
        base.weight.mul_(torch.arange(1, 97) ** -0.8)
    exact, fast = LoRALinear(copy.deepcopy(base), 6, 9), LoRALinear(copy.deepcopy(base), 6, 9)
    theirs, A, B = peft_layer(base, 6, 9, "pissa_niter_4")
    start(exact, "pissa")
    start(fast, "pissa", niter=4)
    target = exact.delta_weight()
    ours = (fast.delta_weight() - target).norm() / target.norm()
    other = (theirs.scaling["default"] * B @ A - target).norm() / target.norm()
    assert ours < 2e-3 and ours < other / 5


def test_float64_works_here_and_is_refused_by_peft():
    base = make_base(24, 40, dtype=torch.float64)
    with pytest.raises(TypeError, match="float32, float16, or bfloat16"):
        peft_layer(base, 4, 6, "pissa")
    ours, W = LoRALinear(base, 4, 6), base.weight.clone()
    start(ours, "pissa")
    assert torch.allclose(ours.weight, W, rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", STARTS)
def test_a_trained_layer_is_a_plain_adapter_for_peft_on_the_original_base(name, bias, rslora, seed):
    d, k, r = 40, 24, 4
    original = make_base(d, k, bias, seed)
    ours = LoRALinear(copy.deepcopy(original), r, 6, rslora=rslora)
    generator = torch.Generator().manual_seed(seed)
    start(ours, name, **({"gradient": torch.randn(d, k, generator=generator)} if name == "lora_ga" else {}))
    optimizer = torch.optim.AdamW([ours.lora_A, ours.lora_B], lr=0.01)
    x, y = torch.randn(50, k, generator=generator), torch.randn(50, d, generator=generator)
    for _ in range(5):
        optimizer.zero_grad()
        ((ours(x) - y) ** 2).mean().backward()
        optimizer.step()
    plain = plain_factors(ours)
    theirs, A, B = peft_layer(original, plain.r, plain.alpha)
    with torch.no_grad():
        A.copy_(plain.A)
        B.copy_(plain.B)
    assert agree(ours(x), theirs(x)) and not agree(ours(x), original(x), 1e-3)
    assert theirs.scaling["default"] == pytest.approx(ours.scaling, rel=1e-12)
    expected = ours.weight
    theirs.merge()
    assert agree(expected, theirs.base_layer.weight)
    if name != "b_random":
        undo_start(ours)
    assert torch.equal(ours.base.weight, original.weight)
