"""Races in many gauges follow PyTorch's optimizers, and what a gauge does to training is what chapter 12 proves."""

import numpy as np
import pytest
import torch

from lora_course.adapters import loraplus_groups
from lora_course.labs import GaugeExperiment, digits, gauge_race, low_rank_target, mlp
from lora_course.labs.gauge_training import steps_of
from lora_course.theory.geometry import INVARIANT, Factors

d, k, r = 7, 5, 2
METHODS = ["gd", "adam", "preconditioned"]


def problem(seed):
    rng = np.random.default_rng(seed)
    return low_rank_target(d, k, r, 4.0, seed), 0.5 * rng.normal(size=(d, r)), 0.5 * rng.normal(size=(r, k))


def by_torch(target, B, A, make, steps):
    B, A = (torch.tensor(M, requires_grad=True) for M in (B, A))
    optimizer = make([B, A])
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (B @ A - torch.tensor(target)).square().sum()).backward()
        optimizer.step()
    return (B @ A).detach().numpy()


def by_geometry(target, B, A, lr, steps):
    p = Factors(B, A)
    for _ in range(steps):
        dB, dA = INVARIANT.gradient(p, p.W - target)
        p = p.retract((-lr * dB, -lr * dA))
    return p.W


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("s", [0.5, 1, 3])
def test_a_race_is_the_optimizers_of_torch_and_the_gradient_of_the_invariant_metric(seed, s):
    target, B, A = problem(seed)
    lr, steps = 0.02, 12
    start = target, s * B, A / s
    expected = {
        "gd": by_torch(*start, lambda p: torch.optim.SGD(p, lr=lr), steps),
        "adam": by_torch(*start, lambda p: torch.optim.Adam(p, lr=lr), steps),
        "preconditioned": by_geometry(*start, lr, steps),
    }
    for method, W in expected.items():
        race = gauge_race(target, B, A, method, scales=[0.7, s], rates=[0.3, lr], steps=steps)
        assert np.allclose(race.products[1, 1], W, rtol=0, atol=1e-12)
        loss = ((W - target) ** 2).sum() / ((B @ A - target) ** 2).sum()
        assert np.isclose(race.losses[-1, 1, 1], loss, rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_only_the_preconditioned_race_is_the_same_in_each_gauge(seed):
    target, B, A = problem(seed)
    for method in METHODS:
        race = gauge_race(target, B, A, method, scales=[1, 5], rates=[0.01], steps=20)
        apart = np.abs(race.products[0, 0] - race.products[1, 0]).max()
        assert (apart < 1e-13) if method == "preconditioned" else (apart > 1e-3)


def test_steps_are_counted_to_the_first_loss_below_and_divergence_is_never():
    target, B, A = problem(0)
    race = gauge_race(target, B, A, "gd", scales=[1, 30], rates=[0.1, 1.0], steps=400)
    found = race.steps_to(1e-2)
    n = int(found[0, 0])
    assert race.losses[n, 0, 0] < 1e-2 <= race.losses[n - 1, 0, 0]
    assert np.isinf(found[1, 1]) and np.isinf(race.losses[-1, 1, 1]) and np.isfinite(race.products).all()
    assert race.best(1e-2)[0] == n and np.isinf(race.best(1e-2)[1])


def test_low_rank_target_has_the_rank_and_the_condition_asked_for():
    s = np.linalg.svd(low_rank_target(9, 7, 3, 20.0, 1), compute_uv=False)
    assert np.allclose(s[:3], [1, 20**-0.5, 1 / 20]) and s[3] < 1e-12


@pytest.mark.parametrize(
    "change,what",
    [
        ({"method": "sgd"}, "method='sgd' must be one of"),
        ({"scales": [1, 0]}, "scales=0 must be positive"),
        ({"rates": [-1.0]}, "rates=-1.0 must be positive"),
        ({"steps": 0}, "steps=0 must be positive"),
        ({"B": np.ones((d, 3))}, "must fit target"),
        ({"target": np.ones((k, d))}, "must fit target"),
    ],
)
def test_bad_input_of_a_race_is_named(change, what):
    target, B, A = problem(0)
    given = {"target": target, "B": B, "A": A, "method": "gd", "scales": [1], "rates": [0.1], "steps": 2} | change
    with pytest.raises(ValueError, match=what):
        gauge_race(given.pop("target"), given.pop("B"), given.pop("A"), given.pop("method"), **given)


# --- on a network


def sgd(model, lr, ratio=1.0):
    return torch.optim.SGD(loraplus_groups(model, lr, ratio))


def adam(model, lr, ratio=1.0):
    return torch.optim.Adam(loraplus_groups(model, lr, ratio), eps=1e-16)


@pytest.fixture(scope="module")
def experiment():
    optimizers = {"sgd": sgd, "adam": adam}
    optimizers |= {"sgd 16": lambda m, lr: sgd(m, lr, 16.0), "adam 16": lambda m, lr: adam(m, lr, 16.0)}
    data = digits(dtype=torch.float64)
    return GaugeExperiment(mlp([64, 16, 10], 0, torch.float64), ["0", "2"], data, optimizers, r=3, alpha=6, steps=6)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name,s,back", [("sgd", 0.5, 4), ("adam", 0.25, 4)])
def test_a_gauge_is_loraplus_with_ratio_one_over_s_to_the_fourth_for_sgd_and_squared_for_adam(
    experiment, name, s, back, seed
):
    lr = 0.01
    # sgd: rates lr / s² and lr s²; adam: lr / s and lr s; in both cases here the ratio is 16 and A's rate is lr / 4
    gauged = experiment({"optimizer": name, "gauge": s, "lr": lr, "seed": seed})
    rated = experiment({"optimizer": f"{name} 16", "gauge": 1, "lr": lr / back, "seed": seed})
    plain = experiment({"optimizer": name, "gauge": 1, "lr": lr, "seed": seed})
    for layer, delta in gauged.deltas.items():
        scale = delta.abs().max()
        assert torch.allclose(delta, rated.deltas[layer], rtol=0, atol=1e-9 * scale)
        assert (delta - plain.deltas[layer]).abs().max() > 0.05 * scale


def test_the_start_is_lora_in_each_gauge_and_a_matrix_is_a_gauge(experiment):
    M = 2 * torch.eye(3)
    by_number = experiment({"optimizer": "sgd", "gauge": 2, "lr": 0.01, "seed": 1})
    by_matrix = experiment({"optimizer": "sgd", "gauge": M, "lr": 0.01, "seed": 1})
    assert all(torch.equal(by_number.deltas[name], by_matrix.deltas[name]) for name in ("0", "2"))
    assert 0 < by_number.accuracy < 1 and by_number.loss > 0


def test_divergence_is_reported_as_an_infinite_loss(experiment):
    run = experiment({"optimizer": "sgd", "gauge": 0.01, "lr": 1e6, "seed": 0})
    assert run.loss == float("inf")


class Failing(torch.optim.SGD):
    def step(self, closure=None):
        raise RuntimeError(self.defaults["foreach"])


def failing(message):
    return lambda model, lr: Failing([p for p in model.parameters() if p.requires_grad], lr=lr, foreach=message)


def test_a_factor_that_lost_a_rank_is_divergence_and_other_errors_are_raised(experiment):
    def trial(message):
        data, sizes = experiment.data, {"r": 3, "alpha": 6, "steps": 2}
        one = GaugeExperiment(experiment.model, ["0", "2"], data, {"fails": failing(message)}, **sizes)
        return one({"optimizer": "fails", "gauge": 1, "lr": 0.1, "seed": 0})

    assert trial("lora_A of 0 must have r linearly independent rows, it has lost one").loss == float("inf")
    with pytest.raises(RuntimeError, match="out of memory"):
        trial("out of memory")


@pytest.mark.parametrize(
    "change,what",
    [
        ({"optimizer": "lion"}, "optimizer='lion' must be one of"),
        ({"gauge": 0.0}, "gauge=0.0 must be positive"),
        ({"gauge": torch.zeros(3, 3)}, "gauge must be a number or an invertible"),
        ({"gauge": torch.eye(2)}, "gauge must be a number or an invertible"),
        ({"lr": 0}, "lr=0 must be positive"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_point_is_named_and_the_model_stays(experiment, change, what):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=what):
        experiment({"optimizer": "sgd", "gauge": 1, "lr": 0.1, "seed": 0} | change)
    assert all(p.requires_grad for p in experiment.model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", range(3))
def test_the_steps_of_an_optimizer_are_those_of_the_race_and_start_where_they_should(seed):
    T, B, A = problem(seed)
    taken = steps_of(lambda layer: torch.optim.Adam([layer.lora_B, layer.lora_A], 0.01), Factors(B, A), T, 5)
    assert np.allclose(taken[0][0].B, B) and np.allclose(taken[0][0].A, A)
    for (p, step), (after, _) in zip(taken, taken[1:], strict=False):
        assert np.allclose(p.B - step[0], after.B) and np.allclose(p.A - step[1], after.A)
    race = gauge_race(T, B, A, "adam", scales=[1], rates=[0.01], steps=5)
    for i, (p, _) in enumerate(taken):
        assert np.isclose(((p.W - T) ** 2).sum() / ((B @ A - T) ** 2).sum(), race.losses[i, 0, 0])
