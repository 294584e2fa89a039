"""Stacked training of full, LoRA, DoRA and magnitudes is the training of each by itself."""

import copy
from functools import partial

import pytest
import torch

from lora_course.adapters import DoRALinear, LoRALinear, inject
from lora_course.labs import accuracy, digits, fit, magnitude_sweep, mlp

NAMES = ["0", "2"]
ADAPTERS = {"lora": LoRALinear, "dora": DoRALinear, "dora-exact": partial(DoRALinear, detach_norm=False)}


@pytest.fixture(scope="module")
def setting():
    data = digits(seed=0, dtype=torch.float64)
    model = mlp([64, 24, 10], seed=1, dtype=torch.float64)
    fit(model, data.x_train, data.y_train, steps=60, lr=1e-2)
    return model, data.rotated()


def point(method, r=2, lr=0.02, seed=0, alpha=3):
    alone = method in ("full", "magnitude")
    return {"method": method, "r": None if alone else r, "alpha": None if alone else alpha, "lr": lr, "seed": seed}


@pytest.mark.parametrize("method", ADAPTERS)
def test_points_of_other_ranks_rates_and_seeds_are_trained_as_alone(setting, method):
    model, data = setting
    points = [point(method, 1, 0.01, 0), point(method, 3, 0.03, 1), point(method, 2, 0.02, 0, alpha=5)]
    for run in magnitude_sweep(model, data, points, steps=25, batch=32):
        p = run.point
        alone = copy.deepcopy(model)
        inject(alone, NAMES, p["r"], p["alpha"], adapter=ADAPTERS[method], generator=p["seed"])
        fit(alone, data.x_train, data.y_train, steps=25, lr=p["lr"], batch=32, seed=p["seed"])
        for name in NAMES:
            expected = alone.get_submodule(name)
            W = expected.base.weight + expected.delta_weight()
            assert torch.allclose(run.path[25][name], W, atol=1e-7)
        assert run.accuracy == pytest.approx(accuracy(alone, data.x_test, data.y_test))


def test_full_fine_tuning_is_that_of_the_weights(setting):
    model, data = setting
    [run] = magnitude_sweep(model, data, [point("full", lr=0.01)], steps=20, batch=32)
    alone = copy.deepcopy(model)
    for name in NAMES:
        alone.get_submodule(name).bias.requires_grad_(False)
    fit(alone, data.x_train, data.y_train, steps=20, lr=0.01, batch=32)
    assert all(torch.allclose(run.path[20][name], alone.get_submodule(name).weight, atol=1e-7) for name in NAMES)


def test_magnitudes_alone_keep_every_direction_and_marks_say_when(setting):
    model, data = setting
    before = copy.deepcopy(model.state_dict())
    [run] = magnitude_sweep(model, data, [point("magnitude", lr=0.05)], steps=12, marks=[1, 5])
    assert list(run.path) == [1, 5, 12]
    for name in NAMES:
        W0, W = model.get_submodule(name).weight, run.path[12][name]
        assert torch.allclose(torch.cosine_similarity(W0, W), torch.ones(len(W0), dtype=W0.dtype))
        assert (W.norm(dim=1) - W0.norm(dim=1)).abs().max() > 0.01
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_the_seed_decides_and_the_global_generator_is_left_alone(setting):
    model, data = setting
    state = torch.get_rng_state()
    first, again, other = (
        magnitude_sweep(model, data, [point("dora", seed=s)], steps=3)[0].path[3]["0"] for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        ({"method": "qlora"}, ValueError, "method"),
        ({"r": None}, ValueError, "r=None"),
        ({"r": 0}, ValueError, "r="),
        ({"alpha": -1}, ValueError, "alpha"),
        ({"lr": 0}, ValueError, "lr"),
        ({"seed": "0"}, TypeError, "seed"),
        ({"method": "full"}, ValueError, "give both"),
        ({"beta": 1}, ValueError, "keys"),
    ],
)
def test_a_bad_point_is_named(setting, change, error, named):
    with pytest.raises(error, match=named):
        magnitude_sweep(*setting, [point("dora") | change], steps=3)


def test_other_bad_input_is_named(setting):
    model, data = setting
    with pytest.raises(ValueError, match="marks"):
        magnitude_sweep(model, data, [point("dora")], steps=3, marks=[4])
    with pytest.raises(ValueError, match="steps"):
        magnitude_sweep(model, data, [point("dora")], steps=0)
    with pytest.raises(ValueError, match="Sequential"):
        magnitude_sweep(torch.nn.ModuleList([]), data, [point("dora")], steps=3)
