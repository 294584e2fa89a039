"""LoRAConv2d is one convolution with W0 + ΔW, whatever the kernel, stride, padding and dilation."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.conv import LoRAConv2d

FORMS = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3, "padding": 1},
    "uneven": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2)},
    "same": {"kernel_size": (2, 4), "padding": "same"},
    "dilated": {"kernel_size": 3, "dilation": (2, 1), "padding": 2},
    "reflected": {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    "circular, dilated, strided": {
        "kernel_size": 2,
        "padding": 1,
        "padding_mode": "circular",
        "dilation": 2,
        "stride": 2,
    },
}


def make(form="3x3", r=2, alpha=5.0, bias=True, seed=0, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(seed)
    base = nn.Conv2d(3, 4, bias=bias, dtype=dtype, **FORMS[form])
    layer = LoRAConv2d(base, r, alpha, generator=generator, **options)
    with torch.no_grad():
        for p in (*base.parameters(), layer.lora_B):
            p.copy_(torch.randn(p.shape, generator=generator))
    return layer, torch.randn(2, 3, 7, 9, generator=generator, dtype=dtype)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_forward_is_the_convolution_with_the_merged_weight(form, bias, seed):
    layer, x = make(form, bias=bias, seed=seed)
    h, before = layer(x), layer.base.weight.clone()
    merged = layer.weight.detach()
    A, B = layer.lora_A, layer.lora_B
    assert A.shape == (2, 3, *layer.base.kernel_size) and B.shape == (4, 2, 1, 1)
    assert torch.allclose(merged - before, 2.5 * torch.einsum("dr,rchw->dchw", B[:, :, 0, 0], A), rtol=0, atol=1e-12)
    assert torch.allclose(layer.base._conv_forward(x, merged, layer.bias), h, rtol=0, atol=1e-10)
    report = layer.merge(keep_base=True)
    assert torch.allclose(layer(x), h, rtol=0, atol=1e-10) and report.lost < 1e-12
    layer.unmerge()
    assert torch.equal(layer.base.weight, before) and torch.equal(layer(x), h)


@pytest.mark.parametrize("form", FORMS)
def test_at_the_start_the_output_is_the_base_s_and_only_the_factors_are_trained(form):
    layer, x = make(form)
    nn.init.zeros_(layer.lora_B)
    assert torch.equal(layer(x), layer.base(x))
    assert [n for n, p in layer.named_parameters() if p.requires_grad] == ["lora_A", "lora_B"]


@pytest.mark.parametrize("form", ["uneven", "dilated"])
def test_gradients_are_those_of_the_formula(form):
    layer, x = make(form)
    assert torch.autograd.gradcheck(
        lambda A, B, x: torch.func.functional_call(layer, {"lora_A": A, "lora_B": B}, x),
        (layer.lora_A, layer.lora_B, x.requires_grad_()),
    )


def test_the_product_of_the_factors_has_at_most_rank_r():
    layer, _ = make(r=2)
    assert torch.linalg.matrix_rank(layer.delta_weight().flatten(1)) == 2


@pytest.mark.parametrize(("init", "spread"), [("kaiming", 1 / (3 * 300) ** 0.5), ("gaussian", 1 / 40)])
def test_starts_have_the_fan_in_of_the_kernel(init, spread):
    A = LoRAConv2d(nn.Conv2d(75, 4, 2), 40, 3, init=init, generator=0).lora_A
    assert A.std().item() == pytest.approx(spread, rel=0.05)
    again = LoRAConv2d(nn.Conv2d(75, 4, 2), 40, 3, init=init, generator=0)
    assert torch.equal(A, again.lora_A) and not again.lora_B.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_over_half_precision_the_factors_are_float32(dtype):
    layer, x = make(dtype=dtype)
    assert layer.lora_A.dtype == torch.float32 and layer(x).dtype == dtype
    exact = copy.deepcopy(layer).double()(x.double())
    assert (layer(x).double() - exact).abs().max() < 0.02 * exact.abs().max()


def test_rslora_dropout_state_dict_deepcopy_and_meta():
    layer, x = make(r=4, alpha=6, rslora=True, dropout=0.5)
    assert layer.scaling == 3.0 and not torch.equal(layer(x), layer.eval()(x))
    twin = copy.deepcopy(layer)
    nn.init.ones_(twin.lora_A)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(x), layer(x)) and "r=4" in repr(layer)
    with torch.device("meta"):
        meta = LoRAConv2d(nn.Conv2d(3, 4, 3), 2, 3)
        assert meta(torch.empty(1, 3, 5, 5)).shape == (1, 4, 3, 3)


class Own(nn.Conv2d):
    def forward(self, x):
        return F.relu(super().forward(x))


@pytest.mark.parametrize(
    ("base", "words"),
    [
        (nn.Linear(2, 3), "it is a Linear, not an nn.Conv2d"),
        (nn.Conv1d(2, 3, 1), "it is a Conv1d"),
        (nn.ConvTranspose2d(2, 3, 1), "it is a ConvTranspose2d"),
        (nn.Conv2d(4, 6, 3, groups=2), "groups=2"),
        (Own(2, 3, 1), "a forward of its own"),
        (nn.LazyConv2d(3, 1), "without a shape yet"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 1)), "computed from other tensors"),
        (None, "NoneType"),
    ],
)
def test_what_cannot_carry_it_is_refused_with_the_reason(base, words):
    with pytest.raises(TypeError, match=words):
        LoRAConv2d(base, 2, 3)
