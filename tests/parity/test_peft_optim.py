"""LoRA+ here and PEFT's optimizer take the same steps; where PEFT rates 1-D parameters otherwise is shown."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import inject
from lora_course.adapters.optim import loraplus_groups

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")
from peft.optimizers import create_loraplus_optimizer  # noqa: E402


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.norm, self.down, self.head = nn.Linear(6, 20), nn.LayerNorm(20), nn.Linear(20, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.down(self.norm(self.up(x).relu())).relu())


def pair():
    """The same MLP with the same factors in ours and in PEFT's adapters, float64."""
    ours = MLP().double()
    theirs = copy.deepcopy(ours)
    inject(ours, ["up", "down"], r=3, alpha=5, generator=0)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=3, lora_alpha=5, target_modules=["up", "down"]))
    named = dict(theirs.base_model.model.named_parameters())
    with torch.no_grad():
        for name, p in ours.named_parameters():
            if "lora_" in name:
                named[f"{name}.default.weight"].copy_(p)
    return ours, theirs


def rates(optimizer, model):
    """{name: (lr, weight_decay)} of every trained parameter."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("ratio", [1.0, 16.0])
@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_ten_steps_follow_the_same_path(optimizer, ratio, decay):
    ours, theirs = pair()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 6, generator=generator, dtype=torch.float64), torch.randint(3, (30,), generator=generator)
    mine = optimizer(loraplus_groups(ours, 3e-3, ratio, decay), lr=1.0)
    other = create_loraplus_optimizer(theirs, optimizer, lr=3e-3, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay)
    for model, steps in ((ours, mine), (theirs, other)):
        for _ in range(10):
            steps.zero_grad()
            F.cross_entropy(model(x), y).backward()
            steps.step()
    theirs_named = dict(theirs.base_model.model.named_parameters())
    for name, p in ours.named_parameters():
        if "lora_" in name:
            assert torch.allclose(p, theirs_named[f"{name}.default.weight"], rtol=1e-10, atol=1e-12)
    assert torch.allclose(ours(x), theirs(x), rtol=1e-10)


def test_only_one_dimensional_parameters_get_another_rate_from_peft():
    ours, theirs = pair()
    for model in (ours, theirs.base_model.model):
        for p in (*model.norm.parameters(), *model.head.parameters()):
            p.requires_grad_(True)
    mine = rates(torch.optim.SGD(loraplus_groups(ours, 1e-3, 16, 0.1), lr=1.0), ours)
    other = create_loraplus_optimizer(theirs, torch.optim.SGD, lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.1)
    other = {n.replace(".default.weight", ""): v for n, v in rates(other, theirs.base_model.model).items()}
    assert mine.keys() == other.keys() and len(mine) == 8
    different = {name: (mine[name], other[name]) for name in mine if mine[name] != other[name]}
    assert different == dict.fromkeys(["norm.weight", "norm.bias", "head.bias"], ((1e-3, 0.0), (1.6e-2, 0.0)))
