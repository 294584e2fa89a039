"""LoRAConv2d and PEFT's lora.Conv2d, given the same A and B, are one function (float32: 1e-5 relative)."""

import copy

import pytest
import torch
from torch import nn

from lora_course.adapters.conv import LoRAConv2d

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")

FORMS = {
    "1x1": {"kernel_size": 1},
    "3x3": {"kernel_size": 3, "padding": 1, "stride": 2},
    "uneven": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 2)},
    "same": {"kernel_size": (2, 4), "padding": "same"},
}


def agree(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def pair(form, bias=True, rslora=False, seed=0, r=3):
    generator = torch.Generator().manual_seed(seed)
    base = nn.Conv2d(5, 6, bias=bias, **form)
    config = peft.LoraConfig(r=r, lora_alpha=7, target_modules=["layer"], use_rslora=rslora)
    model = peft.get_peft_model(nn.ModuleDict({"layer": copy.deepcopy(base)}), config)
    theirs = model.base_model.model["layer"]
    ours = LoRAConv2d(base, r, 7, rslora=rslora, generator=generator)
    with torch.no_grad():
        ours.lora_B.copy_(torch.randn(ours.lora_B.shape, generator=generator))
        theirs.lora_A["default"].weight.copy_(ours.lora_A)
        theirs.lora_B["default"].weight.copy_(ours.lora_B)
    return ours, theirs, torch.randn(2, 5, 8, 9, generator=generator)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_forward_gradients_and_merged_weight(form, bias, rslora, seed):
    ours, theirs, x = pair(FORMS[form], bias, rslora, seed)
    assert agree(ours(x), theirs(x))
    g = torch.randn_like(ours(x))
    mine = torch.autograd.grad(ours(x), [ours.lora_A, ours.lora_B], g)
    other = torch.autograd.grad(theirs(x), [theirs.lora_A["default"].weight, theirs.lora_B["default"].weight], g)
    assert all(agree(a, b) for a, b in zip(mine, other, strict=True))
    assert agree(ours.delta_weight(), theirs.get_delta_weight("default"))
    assert sum(p.numel() for p in ours.parameters() if p.requires_grad) == sum(
        p.numel() for p in theirs.parameters() if p.requires_grad
    )
    ours.merge()
    theirs.merge()
    assert agree(ours.base.weight, theirs.base_layer.weight) and agree(ours(x), theirs(x))


@pytest.mark.parametrize(
    "form",
    [{"kernel_size": 3, "padding": 2, "padding_mode": "reflect"}, {"kernel_size": 3, "padding": "same", "dilation": 2}],
)
def test_where_peft_leaves_padding_mode_and_dilation_out_its_branch_is_not_its_merged_weight(form):
    ours, theirs, x = pair(form)
    h, other = ours(x), theirs(x)
    ours.merge()
    theirs.merge()
    assert agree(ours(x), h) and agree(theirs(x), h)
    assert not agree(other, h, 0.01)  # PEFT's output changes with the merge
