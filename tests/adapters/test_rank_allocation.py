"""RankAllocator keeps the triplets of largest S = s(λ) + mean s(Q) + mean s(P), as many as the budget says."""

import math

import pytest
import torch
from torch import nn

from lora_course.adapters.adalora import SVDLinear
from lora_course.adapters.rank_allocation import RankAllocator


class Net(nn.Module):
    def __init__(self, r=4, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        for name, (k, d) in {"first": (6, 9), "second": (9, 9), "last": (9, 5)}.items():
            base = nn.Linear(k, d, dtype=torch.float64)
            with torch.no_grad():
                for p in base.parameters():
                    p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(k))
            self.add_module(name, SVDLinear(base, r, 2 * r, generator=generator))

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


def train(model, allocator, steps, start=0, lr=0.03):
    """Yield (t, budget, ranks, number of nonzero λ) after each step."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(40, n, generator=generator, dtype=torch.float64) for n in (6, 5))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for t in range(start, start + steps):
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        budget = allocator.step(t)
        optimizer.zero_grad()
        yield t, budget, allocator.ranks(), sum(int((m.lora_E != 0).sum()) for m in allocator.layers.values())


def test_the_budget_falls_as_a_cubic_from_b0_to_the_budget():
    allocator = RankAllocator(Net(), budget=5, t_start=10, t_final=20, total=100, every=5)
    budgets = [allocator.budget_at(t) for t in range(101)]
    assert set(budgets[:11]) == {12} and set(budgets[80:]) == {5}
    assert budgets == sorted(budgets, reverse=True)
    assert all(budgets[t] == int(7 * (1 - (t - 10) / 70) ** 3 + 5) for t in range(10, 81))


@pytest.mark.parametrize("seed", range(2))
def test_masking_happens_when_due_and_leaves_exactly_the_budget(seed):
    model = Net(seed=seed)
    allocator = RankAllocator(model, budget=5, t_start=3, t_final=6, total=24, every=4)
    revived = False
    for t, budget, ranks, nonzero in train(model, allocator, 24):
        if t <= 3:
            assert ranks == {"first": 4, "second": 4, "last": 4} and nonzero == 12
        elif t >= 18 or t % 4 == 0:
            assert sum(ranks.values()) == nonzero == budget
        else:
            revived |= nonzero > sum(ranks.values())
    assert revived  # between two maskings a masked λ gets gradients and is no longer zero
    assert sum(allocator.ranks().values()) == 5 and budget == 5


def test_the_choice_is_final_from_total_minus_t_final_on():
    model = Net()
    allocator = RankAllocator(model, budget=5, t_start=2, t_final=6, total=20, every=3)
    late = [ranks for t, _, ranks, _ in train(model, allocator, 24) if t >= 14]
    assert all(ranks == late[0] for ranks in late)


def test_a_final_step_that_was_left_out_is_made_up_for():
    model = Net()
    allocator = RankAllocator(model, budget=5, t_start=2, t_final=6, total=20, every=50)
    list(train(model, allocator, 5))
    *_, (_, budget, ranks, nonzero) = train(model, allocator, 1, start=17)
    assert budget == sum(ranks.values()) == nonzero == 5


def test_importance_is_smoothed_sensitivity_times_uncertainty():
    model = Net()
    allocator = RankAllocator(model, budget=5, t_start=90, t_final=5, total=100, every=1, beta1=0.7, beta2=0.6)
    generator = torch.Generator().manual_seed(2)
    layer = model.second
    smooth = {p: [torch.zeros_like(p), torch.zeros_like(p)] for p in (layer.lora_A, layer.lora_E, layer.lora_B)}
    for t in range(4):
        for p in model.parameters():
            with torch.no_grad():
                p.copy_(torch.randn(p.shape, generator=generator))
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        allocator.step(t)
        for p, (mean, spread) in smooth.items():
            now = (p * p.grad).abs().detach()
            mean.mul_(0.7).add_(0.3 * now)
            spread.mul_(0.6).add_(0.4 * (now - mean).abs())
    s = {p: mean * spread for p, (mean, spread) in smooth.items()}
    expected = s[layer.lora_E][:, 0] + s[layer.lora_A].mean(dim=1) + s[layer.lora_B].mean(dim=0)
    assert torch.allclose(allocator.importance()["second"], expected, rtol=1e-12, atol=0)


def test_what_matters_is_kept():
    """Gradients that are large for chosen triplets only: those are left, wherever they lie."""
    model = Net()
    chosen = {"first": [1], "second": [0, 2, 3], "last": []}
    allocator = RankAllocator(model, budget=4, t_start=0, t_final=2, total=6, every=1)
    for t in range(5):
        for name, layer in allocator.layers.items():
            for p in (layer.lora_A, layer.lora_E, layer.lora_B):
                p.grad = torch.full_like(p, 1e-3)
            with torch.no_grad():
                layer.lora_E.fill_(0.5)
            layer.lora_E.grad[chosen[name]] = 10
        allocator.step(t)
    assert {name: kept.nonzero()[:, 0].tolist() for name, kept in allocator.kept.items()} == chosen
    assert allocator.ranks() == {"first": 1, "second": 3, "last": 0}


def test_a_budget_of_all_triplets_masks_nothing():
    model = Net()
    allocator = RankAllocator(model, budget=12, t_start=1, t_final=3, total=9, every=1)
    for _, budget, ranks, nonzero in train(model, allocator, 9):
        assert budget == 12 == sum(ranks.values()) == nonzero


def test_among_equal_importances_exactly_the_budget_is_kept():
    model = Net()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    allocator = RankAllocator(model, budget=5, t_start=0, t_final=1, total=4, every=1)
    allocator.step(3)
    assert sum(allocator.ranks().values()) == 5


def test_a_layer_without_a_gradient_counts_as_unimportant():
    model = Net()
    for p in (model.first.lora_A, model.first.lora_E, model.first.lora_B):
        p.grad = torch.ones_like(p)
    with torch.no_grad():
        model.first.lora_E.fill_(1)
    allocator = RankAllocator(model, budget=4, t_start=0, t_final=1, total=4, every=1)
    allocator.step(1)
    allocator.step(3)
    assert allocator.ranks() == {"first": 4, "second": 0, "last": 0}


def test_pruning_keeps_the_scale():
    model = Net()
    allocator = RankAllocator(model, budget=4, t_start=0, t_final=1, total=4, every=1)
    list(train(model, allocator, 4))
    assert model.first.scaling == 2


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"budget": 0}, ValueError, "budget must be an integer from 1 to 12, got 0"),
        ({"budget": 13}, ValueError, "budget"),
        ({"budget": 4.0}, TypeError, "budget"),
        ({"t_start": -1}, ValueError, "t_start"),
        ({"t_final": True}, TypeError, "t_final"),
        ({"total": 12}, ValueError, "total"),
        ({"every": 0}, ValueError, "every"),
        ({"beta1": 1.0}, ValueError, "beta1"),
        ({"beta2": 0}, ValueError, "beta2"),
        ({"beta2": math.nan}, ValueError, "beta2"),
        ({"beta1": "0.8"}, TypeError, "beta1"),
        ({"model": nn.Linear(2, 2)}, ValueError, "no SVDLinear"),
        ({"model": None}, TypeError, "model"),
    ],
)
def test_bad_input_is_named(options, error, named):
    good = {"model": Net(), "budget": 5, "t_start": 10, "t_final": 2, "total": 40, "every": 5}
    with pytest.raises(error, match=named):
        RankAllocator(**(good | options))


def test_a_bad_step_changes_nothing():
    model = Net()
    allocator = RankAllocator(model, budget=5, t_start=0, t_final=2, total=10, every=1)
    with pytest.raises(RuntimeError, match="no SVDLinear has a gradient"):
        allocator.step(1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model.last.lora_B.grad[0, 0] = math.inf
    with pytest.raises(ValueError, match="gradient of last.lora_B is not finite"):
        allocator.step(1)
    for t, error in [(-1, ValueError), (1.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="t must be an integer of at least 0"):
            allocator.step(t)
    assert not any(S.any() for S in allocator.importance().values()) and sum(allocator.ranks().values()) == 12
