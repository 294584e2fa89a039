"""SVDLinear, the penalty and RankAllocator do what PEFT's AdaLoRA does over a short training.

PEFT divides the scale by r + 0.00001 where ours divides by r: 1e-5 / r relative. With our alpha corrected for that,
the two agree in float64 to 1e-10, masks and budgets exactly.
"""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lora_course.adapters.adalora import SVDLinear, orthogonality_penalty, svd_layers
from lora_course.adapters.rank_allocation import RankAllocator

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")

NAMES = ["first", "second", "last"]


class Net(nn.Module):
    """Its output has a .loss, without which PEFT adds no penalty (nor does a PeftModel without a task type)."""

    def __init__(self, dtype):
        super().__init__()
        self.first = nn.Linear(6, 9, dtype=dtype)
        self.second = nn.Linear(9, 9, bias=False, dtype=dtype)
        self.last = nn.Linear(9, 5, dtype=dtype)

    def forward(self, x, y):
        h = self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return SimpleNamespace(h=h, loss=(h - y).square().mean())


def pair(r=4, alpha=6, dtype=torch.float64, seed=0, exact=True, **schedule):
    """Return our model and PEFT's, with equal bases and factors, λ != 0."""
    generator = torch.Generator().manual_seed(seed)
    base = Net(dtype)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1]))
    schedule = {"target_r": 2, "tinit": 3, "tfinal": 5, "deltaT": 3, "total_step": 20} | schedule
    config = peft.AdaLoraConfig(init_r=r, lora_alpha=alpha, target_modules=NAMES, orth_reg_weight=0.5, **schedule)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    for name in NAMES:
        layer = SVDLinear(base.get_submodule(name), r, alpha * r / (r + 1e-5) if exact else alpha, generator=generator)
        with torch.no_grad():
            layer.lora_E.copy_(torch.randn(r, 1, generator=generator))
        base.add_module(name, layer)
    with torch.no_grad():
        for name, p in factors(base).items():
            factors(theirs)[name].copy_(p)
    return base, theirs


def factors(model):
    named = {n.removeprefix("base_model.model."): p for n, p in model.named_parameters() if "lora_" in n}
    return {n.removesuffix(".default"): p for n, p in named.items()}


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(30, n, generator=generator).to(dtype) for n in (6, 5)]


def agree(ours, theirs, tolerance):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("r", [2, 4, 12])
@pytest.mark.parametrize(("dtype", "exact", "tolerance"), [(torch.float64, True, 1e-12), (torch.float32, False, 1e-5)])
def test_outputs_penalty_gradients_merged_weights_and_counts(seed, r, dtype, exact, tolerance):
    ours, theirs = pair(r=r, dtype=dtype, seed=seed, exact=exact, target_r=1)
    x, y = data(dtype)
    mine, other = ours(x, y), theirs.base_model(x, y)
    loss = mine.loss + 0.5 * orthogonality_penalty(ours)  # PEFT has added its own
    assert agree(mine.h, other.h, tolerance) and agree(loss, other.loss, tolerance)
    loss.backward()
    other.loss.backward()
    for name, p in factors(ours).items():
        assert agree(p.grad, factors(theirs)[name].grad, 10 * tolerance), name
    # over a float64 base PEFT's ranknum, a number per layer that it never trains elsewhere, has requires_grad too
    named = [{n: p for n, p in m.named_parameters() if p.requires_grad and "ranknum" not in n} for m in (ours, theirs)]
    counts = [sum(p.numel() for p in trained.values()) for trained in named]
    assert counts[0] == counts[1] == r * (6 + 9 + 9 + 9 + 9 + 5 + 3)
    for name in NAMES:
        layer, twin = ours.get_submodule(name), theirs.base_model.model.get_submodule(name)
        layer.merge()
        twin.merge()
        assert agree(layer.base.weight, twin.base_layer.weight, tolerance)


def test_the_start_has_the_same_distribution():
    theirs = peft.get_peft_model(
        nn.ModuleDict({"layer": nn.Linear(300, 200)}),
        peft.AdaLoraConfig(init_r=20, target_r=2, target_modules=["layer"], total_step=10),
    ).base_model.model["layer"]
    layer = SVDLinear(nn.Linear(300, 200), 20, 8)
    for mine, other in ((layer.lora_A, theirs.lora_A), (layer.lora_B, theirs.lora_B)):
        assert mine.std().item() == pytest.approx(other["default"].std().item(), rel=0.05)
    assert not layer.lora_E.any() and not theirs.lora_E["default"].any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("every", "target"), [(3, 2), (1, 1), (2, 3)])
def test_importance_masks_and_budgets_over_a_training(seed, every, target):
    ours, theirs = pair(seed=seed, deltaT=every, target_r=target)
    tuner = theirs.base_model
    allocator = RankAllocator(ours, 3 * target, t_start=3, t_final=5, total=20, every=every)
    optimizers = [torch.optim.Adam(list(factors(m).values()), lr=0.05) for m in (ours, theirs)]
    x, y = data()
    for t in range(22):
        (ours(x, y).loss + 0.5 * orthogonality_penalty(ours)).backward()
        theirs.base_model(x, y).loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        budget = allocator.step(t)
        tuner.update_and_allocate(t)
        assert budget == tuner.rankallocator.budget_schedule(t)[0]
        if t < 15:  # PEFT forgets its importance at total - t_final
            ranker = tuner.rankallocator
            for name, p in factors(ours).items():
                other = ranker.exp_avg_ipt[f"{name}.default"], ranker.exp_avg_unc[f"{name}.default"]
                assert all(agree(a, b, 1e-8) for a, b in zip(allocator._smoothed[p], other, strict=True)), name
        for name in NAMES:
            mine, other = (factors(m)[f"{name}.lora_E"] for m in (ours, theirs))
            assert torch.equal(mine == 0, other == 0) and torch.allclose(mine, other, rtol=1e-8, atol=1e-10), (t, name)
        pattern = theirs.peft_config["default"].rank_pattern
        if pattern:
            kept = {name.split(".")[-3]: sum(flags) for name, flags in pattern.items()}
            assert kept == allocator.ranks()
        for optimizer in optimizers:
            optimizer.zero_grad()
    assert sum(allocator.ranks().values()) == 3 * target
    assert len(svd_layers(ours)) == 3


def test_peft_stops_at_a_budget_of_all_triplets_and_ours_does_not():
    ours, theirs = pair(r=2, target_r=2)
    x, y = data()
    ours(x, y).loss.backward()
    theirs.base_model(x, y).loss.backward()
    with pytest.raises(Exception, match="kthvalue"):
        theirs.base_model.update_and_allocate(6)
    allocator = RankAllocator(ours, 6, t_start=3, t_final=5, total=20, every=3)
    assert allocator.step(6) == 6 and allocator.ranks() == dict.fromkeys(NAMES, 2)
