"""Stacked trainings with shared-out rank equal those with SVDLinear and RankAllocator, one by one."""

import copy

import pytest
import torch
from torch import nn

from lora_course.adapters import RankAllocator, SVDLinear
from lora_course.labs import AllocationExperiment, digits, fit, mlp, sweep


@pytest.fixture(scope="module")
def pretrained():
    data = digits(0, torch.float64)
    model = mlp([64, 24, 18, 10], 0, torch.float64)
    fit(model, data.x_train, data.y_train, steps=60, lr=3e-3)
    return model, data.rotated()


def make(pretrained, **options):
    return AllocationExperiment(*pretrained, **({"r": 5, "alpha": 12, "steps": 50, "every": 7, "batch": 32} | options))


POINTS = [
    {"ranks": ranks, "lr": lr, "seed": seed}
    for ranks in (4, 9, 15, (2, 2, 2), (0, 4, 1), (0, 0, 5))
    for lr, seed in ((1e-2, 0), (3e-2, 1))
]


@pytest.mark.parametrize("options", [{}, {"gamma": 0.0, "warmup": 0, "final": 10, "every": 3}, {"alpha": 3}])
def test_stacked_is_the_same_as_one_by_one(pretrained, options):
    experiment = make(pretrained, **options)
    together = sweep(experiment, POINTS)
    for point, run in zip(POINTS, together, strict=True):
        alone = experiment(point)
        assert run.point == alone.point == point
        assert (run.ranks, run.history) == (alone.ranks, alone.history)
        assert (run.stored, run.trained) == (alone.stored, alone.trained)
        assert run.accuracy == pytest.approx(alone.accuracy, abs=1e-6)
        assert run.train_loss == pytest.approx(alone.train_loss, abs=1e-9)


def test_one_by_one_uses_the_packages_adapters(pretrained):
    experiment = make(pretrained)
    model = experiment._adapted((0, 4, 1), 0)
    assert isinstance(model[0], nn.Linear) and isinstance(model[2], SVDLinear) and isinstance(model[4], SVDLinear)
    assert (model[2].r, model[4].r) == (4, 1) and model[2].scaling == model[4].scaling == 12 / 5
    assert isinstance(experiment.allocator(experiment._adapted((5, 5, 5), 0), 4), RankAllocator)


def test_the_history_ends_with_the_budget_and_counts_are_those_of_the_triplets(pretrained):
    run, fixed = sweep(make(pretrained), [{"ranks": r, "lr": 0.01, "seed": 0} for r in (6, (1, 2, 3))])
    sizes = [64 + 24 + 1, 24 + 18 + 1, 18 + 10 + 1]
    budgets = [b for _, b, _ in run.history]
    assert budgets == sorted(budgets, reverse=True) and budgets[-1] == 6 == sum(run.ranks)
    assert all(sum(ranks) == b for _, b, ranks in run.history)
    assert run.stored == sum(r * n for r, n in zip(run.ranks, sizes, strict=True)) and run.trained == 5 * sum(sizes)
    assert fixed.stored == fixed.trained == sizes[0] + 2 * sizes[1] + 3 * sizes[2] and fixed.history == []


def test_the_model_stays_as_it_is(pretrained):
    model, _ = pretrained
    before = copy.deepcopy(model.state_dict())
    make(pretrained).batch(POINTS[:1])
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize(
    ("point", "named"),
    [
        ({"ranks": 4, "lr": 0.1}, "keys ranks, lr and seed"),
        (4, "keys ranks, lr and seed"),
        ({"ranks": 0, "lr": 0.1, "seed": 0}, "ranks=0"),
        ({"ranks": 16, "lr": 0.1, "seed": 0}, "at most 15"),
        ({"ranks": (1, 2), "lr": 0.1, "seed": 0}, "3 ranks from 0 to 5"),
        ({"ranks": (1, 2, 6), "lr": 0.1, "seed": 0}, "3 ranks from 0 to 5"),
        ({"ranks": (0, 0, 0), "lr": 0.1, "seed": 0}, "not all 0"),
        ({"ranks": (1, -1, 0), "lr": 0.1, "seed": 0}, r"ranks\[1\]=-1"),
        ({"ranks": 4, "lr": 0, "seed": 0}, "lr=0"),
        ({"ranks": 4, "lr": 0.1, "seed": -1}, "seed=-1"),
    ],
)
def test_a_bad_point_is_named_before_training(pretrained, point, named):
    with pytest.raises(ValueError, match=named):
        make(pretrained).batch([POINTS[0], point])


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"r": 0}, ValueError, "r=0"),
        ({"alpha": -1}, ValueError, "alpha"),
        ({"gamma": -0.1}, ValueError, "gamma=-0.1"),
        ({"steps": 0}, ValueError, "steps=0"),
        ({"warmup": 40, "final": 20}, ValueError, "total"),
        ({"every": 0}, ValueError, "every"),
        ({"batch": 1.5}, TypeError, "batch=1.5"),
    ],
)
def test_bad_arguments_are_named(pretrained, options, error, named):
    with pytest.raises(error, match=named):
        make(pretrained, **options)


def test_a_model_that_cannot_be_stacked_is_refused(pretrained):
    with pytest.raises(ValueError, match="nn.Sequential"):
        AllocationExperiment(nn.Linear(64, 10), pretrained[1])
