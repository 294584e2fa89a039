"""LoRA+ gives B the larger rate, everything trainable is in exactly one group, and bad values are refused."""

import pytest
import torch
from torch import nn

from lora_course.adapters import inject, trainable_parameters
from lora_course.adapters.optim import loraplus_groups


@pytest.fixture
def adapted(tiny_lm):
    inject(tiny_lm, ["q_proj", "v_proj"], r=2, alpha=3)
    tiny_lm.norm.weight.requires_grad_(True)
    tiny_lm.head.weight.requires_grad_(True)
    return tiny_lm


def test_every_trainable_parameter_is_in_exactly_one_group(adapted):
    groups = loraplus_groups(adapted, lr=1e-3, ratio=8, weight_decay=0.1)
    assert [g["name"] for g in groups] == ["lora_A", "lora_B", "other", "vectors"]
    assert [g["lr"] for g in groups] == [1e-3, 8e-3, 1e-3, 1e-3]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.1, 0.1, 0.0]
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in trainable_parameters(adapted)}
    layer = adapted.blocks[1]["attn"].q_proj
    assert any(p is layer.lora_A for p in groups[0]["params"]) and any(p is layer.lora_B for p in groups[1]["params"])
    assert groups[2]["params"] == [adapted.embed.weight] and groups[3]["params"] == [adapted.norm.weight]


def test_the_step_of_B_is_ratio_times_as_large(adapted):
    lr, ratio = 1e-3, 5.0
    groups = loraplus_groups(adapted, lr, ratio)
    optimizer = torch.optim.SGD(groups, lr=1.0)
    layer = adapted.blocks[0]["attn"].v_proj
    before = layer.lora_A.detach().clone(), layer.lora_B.detach().clone()
    for p in trainable_parameters(adapted):
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.allclose(before[0] - layer.lora_A, torch.full_like(layer.lora_A, lr))
    assert torch.allclose(before[1] - layer.lora_B, torch.full_like(layer.lora_B, lr * ratio))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad])
def test_any_optimizer_takes_the_groups(adapted, optimizer):
    rates = [g["lr"] for g in optimizer(loraplus_groups(adapted, 1e-3), lr=1.0).param_groups]
    assert rates == [1e-3, 1.6e-2, 1e-3, 1e-3]


def test_groups_without_parameters_are_left_out(tiny_lm):
    inject(tiny_lm, ["q_proj"], r=2, alpha=3)
    assert [g["name"] for g in loraplus_groups(tiny_lm, 1e-3)] == ["lora_A", "lora_B"]
    for name, p in tiny_lm.named_parameters():
        p.requires_grad_(name.endswith("lora_B"))
    assert [g["name"] for g in loraplus_groups(tiny_lm, 1e-3)] == ["lora_B"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"lr": 0}, ValueError, "lr must be positive and finite, got 0"),
        ({"lr": float("nan")}, ValueError, "lr must be positive and finite"),
        ({"lr": True}, TypeError, "lr must be a real number"),
        ({"ratio": -1}, ValueError, "ratio must be positive and finite, got -1"),
        ({"ratio": "16"}, TypeError, "ratio must be a real number"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0 and finite"),
        ({"weight_decay": float("inf")}, ValueError, "weight_decay must be at least 0 and finite"),
    ],
)
def test_a_bad_value_is_named(adapted, change, error, says):
    with pytest.raises(error, match=says):
        loraplus_groups(adapted, **{"lr": 1e-3, **change})


def test_a_model_without_adapters_is_refused():
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        loraplus_groups([], 1e-3)
    with pytest.raises(ValueError, match="no trained lora_A or lora_B"):
        loraplus_groups(nn.Linear(3, 4), 1e-3)
