"""NF4: sixteen quantiles of the normal distribution, four bits a weight, and LoRA on top."""

import copy
from statistics import NormalDist

import pytest
import torch
from torch import nn

from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.nf4 import (
    NF4_CODES,
    NF4Linear,
    QLoRALinear,
    dequantize_absmax,
    dequantize_nf4,
    quantize_absmax,
    quantize_nf4,
)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def there_and_back(W, block=64):
    return dequantize_nf4(*quantize_nf4(W, block), W.shape, block)


def test_the_code_book_is_made_of_normal_quantiles():
    offset = (1 / 2) * ((1 - 1 / 32) + (1 - 1 / 30))  # between the two ways to leave out the infinite quantiles
    steps = lambda n: [offset + (0.5 - offset) * i / n for i in range(n)]  # noqa: E731
    quantile = NormalDist().inv_cdf
    codes = sorted([*(-quantile(p) for p in steps(7)), 0.0, *(quantile(p) for p in steps(8))])
    assert [c / codes[-1] for c in codes] == pytest.approx(NF4_CODES, abs=2e-7)
    assert list(NF4_CODES) == sorted(NF4_CODES) and NF4_CODES[7] == 0 and len(set(NF4_CODES)) == 16
    assert torch.tensor(NF4_CODES).double().tolist() == list(NF4_CODES)  # each is a float32 number


def test_the_relative_error_on_gaussian_blocks_is_0_0085():
    W = normal(20_000, 64)
    error = (W - there_and_back(W)).square().sum() / W.square().sum()
    assert error.item() == pytest.approx(0.00846, abs=5e-5)


def test_each_entry_gets_its_nearest_code_and_order_is_kept():
    W = normal(9, 64)
    scale = W.abs().amax(1, keepdim=True)
    nearest = torch.tensor(NF4_CODES)[(W[..., None] / scale[..., None] - torch.tensor(NF4_CODES)).abs().argmin(-1)]
    assert torch.allclose(there_and_back(W), nearest * scale)
    row = normal(1, 64).sort().values
    assert (there_and_back(row).diff() >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (1, 63), (7, 13), (3, 64), (5, 129)])
@pytest.mark.parametrize("block", [1, 2, 7, 64, 4096])
def test_what_was_quantized_is_a_fixed_point(shape, dtype, block):
    W = normal(*shape, dtype=dtype)
    codes, absmax = quantize_nf4(W, block)
    assert codes.dtype == torch.uint8 and codes.shape == (-(-W.numel() // 2),)
    assert absmax.dtype == torch.float32 and absmax.shape == (-(-W.numel() // block),)
    back = dequantize_nf4(codes, absmax, shape, block)
    again = quantize_nf4(back, block)
    assert back.shape == shape and torch.equal(again[0], codes) and torch.equal(again[1], absmax)


@pytest.mark.parametrize("value", [0.0, -0.0, 3e38, -3e38, 1e-45, 5.0])
def test_extreme_and_constant_blocks_stay_what_they_are(value):
    W = torch.full((2, 65), value)
    assert torch.equal(there_and_back(W), W)
    W[0, 3] = 0
    assert there_and_back(W)[0, 3] == 0


@pytest.mark.parametrize(
    ("W", "block", "error"),
    [
        (torch.tensor([1.0, float("nan")]), 64, "W must hold finite"),
        (torch.tensor([float("inf")]), 64, "W must hold finite"),
        (torch.tensor([1e300], dtype=torch.float64), 64, "W must hold finite"),
        (torch.empty(0, 3), 64, "W must hold finite"),
        (torch.ones(3, dtype=torch.int32), 64, "W must be a floating-point tensor"),
        ([1.0], 64, "W must be a floating-point tensor"),
        (torch.ones(3), 0, "block must be"),
        (torch.ones(3), 1.5, "block must be"),
        (torch.ones(3), True, "block must be"),
    ],
)
def test_bad_input_is_named(W, block, error):
    with pytest.raises((TypeError, ValueError), match=error):
        quantize_nf4(W, block)


@pytest.mark.parametrize("n", [1, 255, 256, 1000])
def test_double_quantization_keeps_each_scale_within_half_a_step(n):
    absmax = normal(n, 64).abs().amax(1)
    q, scale, mean = quantize_absmax(absmax)
    assert q.dtype == torch.int8 and scale.shape == (-(-n // 256),)
    steps = scale.repeat_interleave(256)[:n] / 127
    assert ((dequantize_absmax(q, scale, mean) - absmax).abs() <= 0.5 * steps + 1e-6).all()


def test_bits_per_parameter_are_4_5_and_doubly_quantized_4_127():
    linear = nn.Linear(1024, 512, bias=False)
    single, double = (8 * NF4Linear(linear, double=d).weight_bytes() / (1024 * 512) for d in (False, True))
    assert single == 4.5
    assert double == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-4)  # and 4 bytes for the mean


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_the_layer_acts_with_its_dequantized_weight(dtype, bias, double):
    linear = nn.Linear(30, 7, bias=bias).to(dtype)
    layer, x = NF4Linear(linear, double=double), normal(5, 3, 30).to(dtype).requires_grad_()
    W = layer.weight
    assert W.shape == (7, 30) and W.dtype == dtype and not any(p.requires_grad for p in layer.parameters())
    assert layer.bias is linear.bias and (layer.in_features, layer.out_features) == (30, 7)
    assert (W - linear.weight).abs().max() < 0.2 * linear.weight.abs().max()
    h = layer(x)
    rounding = torch.finfo(dtype).eps  # the bias is added after the product was rounded
    assert h.dtype == dtype
    assert torch.allclose(h, nn.functional.linear(x, W, linear.bias), rtol=2 * rounding, atol=2 * rounding)
    g = torch.ones_like(h)
    assert torch.allclose(*torch.autograd.grad(h, x, g), g @ W)


def test_the_backward_keeps_no_full_weight():
    layer, kept = NF4Linear(nn.Linear(64, 64)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(normal(2, 64).requires_grad_())
    assert sum(kept) < 64 * 64


@pytest.mark.parametrize("double", [False, True])
def test_state_dict_deepcopy_casts_and_meta(double):
    layer, other, x = (
        NF4Linear(nn.Linear(30, 7), double=double),
        NF4Linear(nn.Linear(30, 7), double=double),
        normal(4, 30),
    )
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x)) and torch.equal(copy.deepcopy(layer)(x), layer(x))
    half = copy.deepcopy(layer).half()
    assert half.absmax.dtype == layer.absmax.dtype and half.bias.dtype == torch.float16
    assert torch.equal(half.dequantize(torch.float32), layer.dequantize(torch.float32))
    with torch.device("meta"):
        meta = NF4Linear(nn.Linear(30, 7), double=double)
        assert meta(torch.empty(2, 30)).shape == (2, 7)
    meta.to_empty(device="cpu").load_state_dict(layer.state_dict())
    assert torch.equal(meta(x), layer(x)) and "bits per parameter" in repr(meta)


@pytest.mark.parametrize("bad", [None, nn.Conv2d(1, 1, 1), nn.Embedding(2, 2)])
def test_what_is_no_linear_layer_is_refused(bad):
    with pytest.raises(TypeError, match="linear cannot be adapted"):
        NF4Linear(bad)


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_over_nf4_is_lora_over_the_dequantized_layer(rslora):
    base = NF4Linear(nn.Linear(30, 7, dtype=torch.float64))
    layer = QLoRALinear(base, 4, 6, rslora=rslora, generator=0)
    full = nn.Linear(30, 7, dtype=torch.float64)
    full.weight, full.bias = nn.Parameter(base.weight), nn.Parameter(base.bias.clone())
    plain = LoRALinear(full, 4, 6, rslora=rslora, generator=0)
    with torch.no_grad():
        plain.lora_B.copy_(layer.lora_B.normal_())
    x = normal(5, 30, dtype=torch.float64)
    assert torch.allclose(layer(x), plain(x), rtol=0, atol=1e-12) and torch.allclose(layer.weight, plain.weight)
    mine, other = (torch.autograd.grad(m(x).square().sum(), [m.lora_A, m.lora_B]) for m in (layer, plain))
    assert all(torch.allclose(a, b) for a, b in zip(mine, other, strict=True))
    assert [n for n, p in layer.named_parameters() if p.requires_grad] == ["lora_A", "lora_B"]
    before = base.codes.clone()
    with pytest.raises(RuntimeError, match="kept in NF4.*not merged"):
        layer.merge()
    assert torch.equal(base.codes, before) and not layer.merged
    with pytest.raises(TypeError, match="base must be an NF4Linear, got a Linear"):
        QLoRALinear(full, 2, 3)


def test_training_the_branch_undoes_part_of_the_rounding():
    linear = nn.Linear(48, 32, bias=False)
    layer = QLoRALinear(NF4Linear(linear), 8, 8, generator=0)
    x = normal(200, 48)
    loss = lambda: (layer(x) - linear(x)).square().mean()  # noqa: E731
    start, optimizer = loss().item(), torch.optim.Adam([layer.lora_A, layer.lora_B], 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.75 * start


def test_a_bias_that_is_trained_gets_its_gradient_and_torch_func_passes_through():
    linear = nn.Linear(64, 8)
    layer, x = NF4Linear(linear), normal(3, 64)
    layer.bias.requires_grad_(True)
    layer(x).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((8,), 3.0))
    slope = torch.func.grad(lambda row: layer(row).sum())(x[0])
    assert torch.allclose(slope, layer.weight.sum(0), atol=1e-6)
    assert torch.allclose(torch.func.vmap(layer)(x), layer(x), atol=1e-6)
