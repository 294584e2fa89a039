"""The race against trainings one by one, with torch's own Adam and the real adapters."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lora_course.adapters import DoRALinear, LoRALinear, VeRALinear, loraplus_groups, trainable_parameters
from lora_course.labs import METHODS, adapted, digits, fit, mlp, race, two_rates

RATES, STEPS, BATCH, HELD_OUT, R, ALPHA = (1e-3, 1e-2), 6, 16, 100, 3, 5.0


@pytest.fixture(scope="module")
def tasks():
    nets, data = [], []
    for seed in range(2):
        upright = digits(seed=seed)
        net = mlp([64, 12, 14, 10], seed)
        fit(net, upright.x_train, upright.y_train, steps=30, lr=1e-2)
        nets.append(net)
        data.append(upright.rotated())
    return nets, data


@pytest.fixture(scope="module")
def result(tasks):
    options = {"rates": RATES, "checkpoints": [2, STEPS], "r": R, "alpha": ALPHA, "batch": BATCH, "vera_rank": 9}
    return race(*tasks, held_out=HELD_OUT, **options)


def alone(method, net, data, seed, lr, steps):
    """The same training by itself: (accuracy on held-out rows, on test rows)."""
    keep = len(data.x_train) - HELD_OUT
    model = adapted(method, net, R, ALPHA, seed, data.x_train[:keep], data.y_train[:keep], 9)
    groups = loraplus_groups(model, lr) if method == "LoRA+" else trainable_parameters(model)
    optimizer, source = torch.optim.Adam(groups, lr=lr), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(keep, (BATCH,), generator=source)
        loss = F.cross_entropy(model(data.x_train[rows]), data.y_train[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sets = [(data.x_train[keep:], data.y_train[keep:]), (data.x_test, data.y_test)]
    with torch.no_grad():
        return [(model(x).argmax(-1) == y).float().mean().item() for x, y in sets]


@pytest.mark.parametrize("method", METHODS)
def test_stacked_race_is_the_training_one_by_one(method, tasks, result):
    i = METHODS.index(method)
    for seed, (net, data) in enumerate(zip(*tasks, strict=True)):
        for j, lr in enumerate(RATES):
            for c, steps in enumerate((2, STEPS)):
                valid, test = alone(method, net, data, seed, lr, steps)
                # a sample or two may change sides by rounding
                assert result.valid[i, c, seed, j] == pytest.approx(valid, abs=2.1 / HELD_OUT)
                assert result.test[i, c, seed, j] == pytest.approx(test, abs=3.1 / len(data.x_test))


def test_methods_are_what_their_names_say(tasks):
    nets, data = tasks
    x, y = data[0].x_train, data[0].y_train
    before = copy.deepcopy(nets[0].state_dict())
    for method in METHODS:
        model = adapted(method, nets[0], R, ALPHA, 0, x, y, 9)
        assert torch.allclose(model(x), nets[0](x), atol=1e-4)  # the output is the same at the start
        layer = model[0]
        if method == "full":
            assert [n for n, p in model.named_parameters() if p.requires_grad] == ["0.weight", "2.weight", "4.weight"]
            continue
        kind = {"DoRA": DoRALinear, "VeRA": VeRALinear}.get(method, LoRALinear)
        assert type(layer) is kind
        if kind is LoRALinear:
            assert layer.scaling == pytest.approx(ALPHA / (R**0.5 if method == "rsLoRA" else R))
            assert bool(layer.lora_A.any()) == (method != "Init[B]")
            assert bool(layer.lora_B.any()) == (method in ("Init[B]", "PiSSA", "MiLoRA", "LoRA-GA"))
    assert all(torch.equal(before[name], value) for name, value in nets[0].state_dict().items())


def test_counts_and_shapes(result):
    assert result.valid.shape == result.test.shape == (len(METHODS), 2, 2, len(RATES))
    sizes = [(12, 64), (14, 12), (10, 14)]
    lora = R * sum(d + k for d, k in sizes)
    expected = dict.fromkeys(METHODS, lora) | {"DoRA": lora + 36, "VeRA": 36 + 27, "full": sum(d * k for d, k in sizes)}
    assert result.parameters == expected


def test_the_test_rows_have_no_say_in_the_choice(result):
    chosen = result.chosen()
    assert np.array_equal(chosen, result.valid.mean(2).argmax(-1))
    other = copy.copy(result)
    object.__setattr__(other, "test", 1 - result.test)
    assert np.array_equal(other.chosen(), chosen)
    for i in range(len(METHODS)):
        assert np.array_equal(result.best()[i, 1], result.test[i, 1, :, chosen[i, 1]])


def test_race_repeats_and_moves_no_global_generator(tasks):
    state = torch.get_rng_state()
    options = {"rates": [1e-2], "checkpoints": [3], "methods": ["PiSSA", "VeRA"], "vera_rank": 5, "r": 2}
    one, two = (race(*tasks, **options) for _ in range(2))
    assert np.array_equal(one.test, two.test) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "change,what",
    [
        ({"rates": [0.0]}, "rates"),
        ({"checkpoints": [0]}, "steps"),
        ({"methods": ["LoRa"]}, "methods"),
        ({"methods": []}, "none empty"),
        ({"held_out": 5000}, "left for training"),
    ],
)
def test_bad_input_of_race_is_named(tasks, change, what):
    with pytest.raises(ValueError, match=what):
        race(*tasks, **({"rates": [1e-2], "checkpoints": [1]} | change))


# --- two rates


@pytest.mark.parametrize("seed", range(2))
def test_two_rates_is_loraplus_one_by_one(tasks, seed):
    (net, *_), (data, *_) = tasks
    ratios, means, steps, batch, last = [1, 4.0], [1e-3, 1e-2, 3e-2], 5, 8, 2
    options = {"r": R, "alpha": ALPHA, "steps": steps, "batch": batch, "last": last, "seed": seed}
    found = two_rates(net, data, ratios=ratios, means=means, **options)
    assert found.shape == (2, 3)
    for i, ratio in enumerate(ratios):
        for j, mean in enumerate(means):
            model = copy.deepcopy(net)
            layer = LoRALinear(model[2], R, ALPHA, generator=torch.Generator().manual_seed(seed))
            model[2] = layer
            rates = [(layer.lora_A, mean / ratio**0.5), (layer.lora_B, mean * ratio**0.5)]
            optimizer = torch.optim.Adam([{"params": [p], "lr": rate} for p, rate in rates])
            source, losses = torch.Generator().manual_seed(seed), []
            torch.rand(R, 12, generator=source)  # what A has drawn
            for _ in range(steps):
                rows = torch.randint(len(data.x_train), (batch,), generator=source)
                loss = F.cross_entropy(model(data.x_train[rows]), data.y_train[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            assert found[i, j] == pytest.approx(np.mean(losses[-last:]), rel=1e-3)


def test_bad_input_of_two_rates_is_named(tasks):
    (net, *_), (data, *_) = tasks
    with pytest.raises(TypeError, match="network"):
        two_rates(mlp([64, 10]), data, ratios=[1], means=[1e-2])
    for change, what in [({"ratios": [-1]}, "ratios"), ({"means": [0]}, "means"), ({"steps": 0}, "steps")]:
        with pytest.raises(ValueError, match=what):
            two_rates(net, data, **({"ratios": [1], "means": [1e-2]} | change))
