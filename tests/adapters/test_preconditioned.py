"""PreconditionedSGD: its path in ΔW does not depend on the gauge, from B = 0 too; plain SGD's and Adam's does."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lora_course.adapters import (
    DoRALinear,
    LoRAConv2d,
    LoRALinear,
    PreconditionedSGD,
    SVDLinear,
    inject,
    trainable_parameters,
)
from lora_course.theory.geometry import INVARIANT, Factors

STARTS = pytest.mark.parametrize("start", [0.0, 0.4], ids=["B = 0", "B != 0"])
SEEDS = pytest.mark.parametrize("seed", range(3))


def rand(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(r, seed):
    return torch.linalg.qr(rand(r, r, seed=seed))[0]


def gauges(r, seed):
    r"""A scale, a general matrix with condition 30, and a rotation."""
    general = rotation(r, seed) * torch.logspace(-0.8, 0.68, r, dtype=torch.float64) @ rotation(r, seed + 1)
    return {"scale": 30 * torch.eye(r, dtype=torch.float64), "general": general, "rotation": rotation(r, seed + 2)}


def network(seed=0, r=3, alpha=4.5):
    r"""Two adapted layers with tanh between, whose biases are trained, too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 5)).double()
    inject(model, ["0", "2"], r=r, alpha=alpha, generator=seed)
    model[2].base.bias.requires_grad_(True)
    return model


def layers(model):
    return [m for m in model.modules() if isinstance(m, LoRALinear | LoRAConv2d)]


def change_gauge(model, M):
    with torch.no_grad():
        for layer in layers(model):
            layer.lora_B.copy_((layer.lora_B.flatten(1) @ M).reshape(layer.lora_B.shape))
            layer.lora_A.copy_(torch.linalg.solve(M, layer.lora_A.flatten(1)).reshape(layer.lora_A.shape))


def train(make_optimizer, model, M=None, steps=20, start=0.0, seed=0):
    r"""Return the ΔW of all steps of a model whose gauge is changed by M at the start."""
    with torch.no_grad():
        for i, layer in enumerate(layers(model)):
            layer.lora_B.copy_(start * rand(*layer.lora_B.shape, seed=seed + 50 + i))
    if M is not None:
        change_gauge(model, M)
    x, y = rand(40, 9, seed=seed + 70), rand(40, 5, seed=seed + 71)
    optimizer, path = make_optimizer(model), []
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        path.append(torch.cat([layer.delta_weight().detach().flatten() for layer in layers(model)]))
    return torch.stack(path)


def differences(make_optimizer, seed, start):
    r"""{gauge: largest relative distance of its path in ΔW from that of no gauge}; infinite if one diverges."""
    one = train(make_optimizer, network(seed), None, start=start, seed=seed)

    def distance(M):
        other = train(make_optimizer, network(seed), M, start=start, seed=seed)
        gap = ((one - other).norm(dim=1) / one.norm(dim=1)).max()
        return float(gap) if torch.isfinite(gap) else float("inf")

    return {name: distance(M) for name, M in gauges(3, seed).items()}


# --- the gauge


@STARTS
@SEEDS
@pytest.mark.parametrize(
    "options",
    [{}, {"damping": 0.0}, {"damping": 0.1}, {"momentum": 0.7, "damping": 1e-3}],
    ids=["default", "no damping", "large damping", "momentum"],
)
def test_the_path_does_not_depend_on_the_gauge(start, seed, options):
    gaps = differences(lambda model: PreconditionedSGD(model, lr=0.05, **options), seed, start)
    assert max(gaps.values()) < 1e-12


@STARTS
@SEEDS
def test_the_paths_of_plain_sgd_and_adam_do(start, seed):
    others = {
        "sgd": lambda model: torch.optim.SGD(trainable_parameters(model), lr=0.02),
        "adam": lambda model: torch.optim.Adam(trainable_parameters(model), lr=0.01),
    }
    for name, make in others.items():
        for gauge, gap in differences(make, seed, start).items():
            if (name, gauge) == ("sgd", "rotation"):
                assert gap < 1e-12  # the plain gradient's metric is invariant under rotations
            else:
                assert gap > 1e-2, (name, gauge)


class IdentityDamping(torch.optim.Optimizer):
    r"""Zhang and Pilanci's own damping, T + δ I and S + δ I, line by line."""

    def __init__(self, model, lr, damping):
        super().__init__([{"params": [m.lora_B, m.lora_A]} for m in layers(model)], {"lr": lr, "damping": damping})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            B, A = group["params"]
            delta = group["damping"] * torch.eye(len(A), dtype=A.dtype)
            up, along = B.grad @ torch.linalg.inv(A @ A.T + delta), torch.linalg.inv(B.T @ B + delta) @ A.grad
            B -= group["lr"] * up
            A -= group["lr"] * along


@STARTS
@SEEDS
def test_a_damping_by_the_identity_is_invariant_under_rotations_only(start, seed):
    for name, gap in differences(lambda model: IdentityDamping(model, lr=0.05, damping=0.1), seed, start).items():
        assert gap < 1e-12 if name == "rotation" else gap > 1e-2


@SEEDS
def test_the_step_is_a_function_of_BA_and_the_rows_of_A(seed):
    r"""W − η (G Q + F G) + η² G Wᵀ(W Wᵀ + δ)⁻¹ G, with F = W Wᵀ(W Wᵀ + δ)⁻¹: no factor appears."""
    d, k, r, lr, damping = 7, 9, 3, 0.3, 0.02
    model = nn.Sequential(nn.Linear(k, d, bias=False, dtype=torch.float64))
    inject(model, ["0"], r=r, alpha=r, generator=seed)  # scaling 1
    layer = model[0]
    with torch.no_grad():
        layer.lora_B.copy_(rand(d, r, seed=seed))
    W, A, G = layer.delta_weight().detach(), layer.lora_A.detach().clone(), rand(d, k, seed=seed + 9)
    optimizer = PreconditionedSGD(model, lr, damping)
    (layer.delta_weight() * G).sum().backward()
    optimizer.step()
    Q, inverse = torch.linalg.pinv(A) @ A, torch.linalg.inv(W @ W.T + damping * torch.eye(d, dtype=W.dtype))
    expected = W - lr * (G @ Q + W @ W.T @ inverse @ G) + lr**2 * G @ W.T @ inverse @ G
    assert (layer.delta_weight() - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("deficit", [1, 2, 3])
@pytest.mark.parametrize("damping", [0.0, 1e-6])
def test_a_B_of_any_rank_keeps_the_invariance(deficit, damping):
    r"""B loses `deficit` of its 3 columns; the columns that stay are mixed by the gauge."""

    def start(model, M):
        with torch.no_grad():
            for i, layer in enumerate(layers(model)):
                layer.lora_B.copy_(rand(*layer.lora_B.shape, seed=i) * (torch.arange(3) >= deficit))
        if M is not None:
            change_gauge(model, M)
        x, y = rand(40, 9, seed=7), rand(40, 5, seed=8)
        optimizer = PreconditionedSGD(model, lr=0.02, damping=damping)
        for _ in range(10):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
        return torch.cat([layer.delta_weight().detach().flatten() for layer in layers(model)])

    one = start(network(), None)
    for M in gauges(3, 0).values():
        assert (start(network(), M) - one).norm() < 1e-11 * one.norm()


# --- the method


@SEEDS
def test_without_damping_it_is_the_riemannian_gradient_of_the_invariant_metric(seed):
    model, lr = network(seed), 0.1
    for i, layer in enumerate(layers(model)):
        with torch.no_grad():
            layer.lora_B.copy_(rand(*layer.lora_B.shape, seed=i))
    x, y = rand(40, 9, seed=3), rand(40, 5, seed=4)
    optimizer = PreconditionedSGD(model, lr, damping=0.0)
    (model(x) - y).square().mean().backward()
    before = [(layer.lora_B.detach().numpy().copy(), layer.lora_A.detach().numpy().copy()) for layer in layers(model)]
    optimizer.step()
    for (B, A), layer in zip(before, layers(model), strict=True):
        p = Factors(B, A)
        # G from its parts: G Aᵀ and Bᵀ G are all that the gradient needs of it
        plain_B, plain_A = layer.lora_B.grad.numpy(), layer.lora_A.grad.numpy()
        expected = plain_B @ np.linalg.inv(A @ A.T), np.linalg.inv(B.T @ B) @ plain_A
        moved = (B - layer.lora_B.detach().numpy()) / lr, (A - layer.lora_A.detach().numpy()) / lr
        assert np.allclose(moved[0], expected[0], rtol=1e-9) and np.allclose(moved[1], expected[1], rtol=1e-9)
        assert INVARIANT.vertical_share(p, moved) < 1e-20


@SEEDS
def test_at_the_start_of_lora_only_B_moves_by_the_gradient_on_the_rows_of_A(seed):
    model, lr = network(seed), 0.1
    layer = model[0]
    A = layer.lora_A.detach().clone()
    x, y = rand(40, 9, seed=3), rand(40, 5, seed=4)
    optimizer = PreconditionedSGD(model, lr)
    (model(x) - y).square().mean().backward()
    plain = layer.lora_B.grad.clone()
    optimizer.step()
    assert torch.equal(layer.lora_A, A)
    assert torch.allclose(layer.lora_B, -lr * plain @ torch.linalg.inv(A @ A.T), rtol=1e-9)


@SEEDS
def test_the_limit_of_small_damping_is_no_damping(seed):
    ends = [
        train(lambda model, d=damping: PreconditionedSGD(model, 0.05, d), network(seed), seed=seed, start=0.4)[-1]
        for damping in (0.0, 1e-10, 1e-6)
    ]
    assert (ends[0] - ends[1]).norm() < 1e-3 * (ends[0] - ends[2]).norm() + 1e-9
    assert (ends[0] - ends[2]).norm() < 1e-2 * ends[0].norm()


@SEEDS
def test_an_ill_conditioned_target_is_reached_in_as_many_steps_as_a_good_one(seed):
    r"""Exact-rank target, ΔW from a small random pair: the rate does not see the condition number; SGD's does."""
    d, k, r = 12, 10, 3
    U, V = torch.linalg.qr(rand(d, r, seed=seed))[0], torch.linalg.qr(rand(k, r, seed=seed + 1))[0]

    def steps(make, condition):
        target = U * torch.logspace(0, -np.log10(condition), r, dtype=torch.float64) @ V.T
        model = nn.Sequential(nn.Linear(k, d, bias=False, dtype=torch.float64))
        inject(model, ["0"], r=r, alpha=r, generator=seed)
        with torch.no_grad():
            model[0].lora_B.copy_(0.3 * rand(d, r, seed=seed + 2))
        optimizer = make(model)
        for step in range(400):
            optimizer.zero_grad()
            loss = (model[0].delta_weight() - target).square().sum() / 2
            if loss < 1e-6 * target.square().sum() / 2:
                return step
            loss.backward()
            optimizer.step()
        return 400

    good, bad = (steps(lambda m: PreconditionedSGD(m, 0.5, damping=0.0), c) for c in (1, 50))
    assert good < 40 and bad < 40
    plain = [min(steps(lambda m, lr=lr: torch.optim.SGD(trainable_parameters(m), lr), 50) for lr in (0.1, 0.3, 1.0))]
    assert min(plain) > 5 * bad


# --- any injected model


def test_every_trained_parameter_is_in_one_group_and_the_rest_takes_plain_steps(tiny_lm, tokens, stir):
    inject(tiny_lm, ["q_proj", "v_proj"], r=2, alpha=3)
    stir(tiny_lm)
    tiny_lm.norm.weight.requires_grad_(True)
    optimizer = PreconditionedSGD(tiny_lm, lr=0.1)
    names = [group["name"] for group in optimizer.param_groups]
    assert names == [f"blocks.{i}.attn.{p}" for i in (0, 1) for p in ("q_proj", "v_proj")] + ["other"]
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {
        id(p) for p in trainable_parameters(tiny_lm)
    }
    tiny_lm(tokens).square().sum().backward()
    before = tiny_lm.norm.weight.detach().clone()
    optimizer.step()
    assert torch.allclose(tiny_lm.norm.weight, before - 0.1 * tiny_lm.norm.weight.grad)


@pytest.mark.parametrize("set_to_none", [True, False])
def test_momentum_of_the_rest_is_that_of_torch(set_to_none):
    model, x = network(), rand(20, 9, seed=5)
    for layer in layers(model):
        layer.lora_A.requires_grad_(False)
    twin = copy.deepcopy(model)
    ours = PreconditionedSGD(model, lr=0.1, momentum=0.8)
    theirs = PreconditionedSGD(twin, lr=0.1, momentum=0.8)
    rest = torch.optim.SGD(theirs.param_groups.pop()["params"], lr=0.1, momentum=0.8)
    for _ in range(5):
        for adapted, optimizers in ((model, [ours]), (twin, [theirs, rest])):
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=set_to_none)
            adapted(x).square().mean().backward()
            for optimizer in optimizers:
                optimizer.step()
    assert torch.allclose(model[2].base.bias, twin[2].base.bias, rtol=1e-12)
    assert torch.allclose(model[2].lora_B, twin[2].lora_B, rtol=1e-12)


def test_convolutions_and_dora_keep_the_invariance(draw):
    def path(M):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 5)).double()
        conv = LoRAConv2d(model[0], r=3, alpha=2, generator=0)
        dora = DoRALinear(model[2], r=3, alpha=4, generator=1)
        model = nn.Sequential(conv, nn.Tanh(), nn.Flatten(), dora)
        if M is not None:
            change_gauge(model, M)
        optimizer, x, ends = PreconditionedSGD(model, 0.02), draw(6, 2, 5, 5), []
        assert [group["name"] for group in optimizer.param_groups] == ["0", "3", "other"]
        for _ in range(8):
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
            ends.append(model(x).detach())
        assert (ends[-1] - 1).square().mean() < (ends[0] - 1).square().mean()
        return ends[-1]

    one = path(None)
    for M in gauges(3, 0).values():
        assert (path(M) - one).norm() < 1e-11 * one.norm()


@pytest.mark.parametrize("trained", ["lora_A", "lora_B"])
def test_one_factor_alone_is_trained_with_its_own_preconditioner(trained):
    model = network()
    frozen = {"lora_A": "lora_B", "lora_B": "lora_A"}[trained]
    for layer in layers(model):
        getattr(layer, frozen).requires_grad_(False)
        with torch.no_grad():
            layer.lora_B.copy_(rand(*layer.lora_B.shape, seed=1))
    optimizer = PreconditionedSGD(model, lr=0.1)
    model(rand(4, 9, seed=2)).square().sum().backward()
    before = {key: getattr(model[0], key).detach().clone() for key in ("lora_A", "lora_B")}
    optimizer.step()
    assert torch.equal(getattr(model[0], frozen), before[frozen])
    assert not torch.allclose(getattr(model[0], trained), before[trained])


def test_schedulers_closures_and_saved_states_work():
    x = rand(20, 9, seed=5)

    def run(model, optimizer, steps):
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

        def closure():
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        losses = []
        for _ in range(steps):
            losses.append(optimizer.step(closure).item())
            scheduler.step()
        return losses

    model = network()
    optimizer = PreconditionedSGD(model, lr=0.1, momentum=0.5)
    losses = run(model, optimizer, 6)
    assert losses[-1] < losses[0] and optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**6)
    twin = copy.deepcopy(model)
    resumed = PreconditionedSGD(twin, lr=1.0)
    resumed.load_state_dict(optimizer.state_dict())
    assert run(model, optimizer, 3) == run(twin, resumed, 3)


def test_half_precision_factors_are_preconditioned_in_float32():
    model = network().to(torch.bfloat16)
    optimizer = PreconditionedSGD(model, lr=0.1)
    model(rand(4, 9, seed=0).to(torch.bfloat16)).square().sum().backward()
    optimizer.step()
    assert model[0].lora_B.dtype is torch.bfloat16 and model[0].lora_B.abs().sum() > 0


def test_more_rows_than_outputs_are_allowed():
    model = nn.Sequential(nn.Linear(9, 2)).double()
    inject(model, ["0"], r=4, alpha=3)
    optimizer, x = PreconditionedSGD(model, lr=0.05), rand(20, 9, seed=0)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (model(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# --- bad input


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"lr": 0}, ValueError, "lr must be positive and finite, got 0"),
        ({"lr": float("inf")}, ValueError, "lr must be positive and finite"),
        ({"lr": "1"}, TypeError, "lr must be a real number"),
        ({"damping": -1e-9}, ValueError, "damping must be at least 0"),
        ({"damping": True}, TypeError, "damping must be a real number"),
        ({"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_a_bad_value_is_named(change, error, says):
    with pytest.raises(error, match=says):
        PreconditionedSGD(network(), **{"lr": 0.1, **change})


def test_what_has_no_such_gauge_is_refused():
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        PreconditionedSGD([], 0.1)
    with pytest.raises(ValueError, match="no trained lora_A and lora_B"):
        PreconditionedSGD(nn.Linear(3, 4), 0.1)
    with pytest.raises(TypeError, match="0 is a SVDLinear"):
        PreconditionedSGD(nn.Sequential(SVDLinear(nn.Linear(5, 4), r=2, alpha=3)), 0.1)
    with pytest.raises(ValueError, match="r = 6 rows in lora_A of 5 entries"):
        PreconditionedSGD(nn.Sequential(LoRALinear(nn.Linear(5, 4), r=6, alpha=3)), 0.1)


def test_a_lora_A_that_has_lost_a_row_is_refused_before_anything_moves():
    model = network()
    with torch.no_grad():
        model[2].lora_A[1] = 2 * model[2].lora_A[0]
    optimizer = PreconditionedSGD(model, 0.1)
    model(rand(4, 9, seed=0)).square().sum().backward()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="lora_A of 2 must have r linearly independent rows"):
        optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
