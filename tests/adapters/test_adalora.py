"""SVDLinear acts with W0 + scaling · P Λ Q; the penalty measures how far P and Q are from orthonormal."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import count_parameters, trainable_parameters
from lora_course.adapters.adalora import SVDLinear, orthogonality_penalty


def make(d=5, k=7, r=3, alpha=4.5, seed=0, bias=True, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(seed)
    layer = SVDLinear(nn.Linear(k, d, bias=bias, dtype=dtype), r, alpha, **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return layer


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0,)])
@pytest.mark.parametrize(("d", "k", "r"), [(5, 7, 3), (7, 5, 1), (4, 4, 6)])
def test_output_is_the_plain_formula_and_merging_keeps_it(draw, seed, bias, shape, d, k, r):
    layer, x = make(d, k, r, seed=seed, bias=bias), draw(*shape, k, seed=seed)
    delta = 4.5 / r * layer.lora_B @ torch.diag(layer.lora_E[:, 0]) @ layer.lora_A
    h = layer(x)
    assert close(h, F.linear(x, layer.base.weight + delta, layer.base.bias)) and close(layer.delta_weight(), delta)
    W0 = layer.base.weight.clone()
    layer.merge(keep_base=True)
    assert close(layer(x), h)
    layer.unmerge()
    assert torch.equal(layer.base.weight, W0)


def test_gradcheck(draw):
    layer, x = make(3, 4, 2), draw(2, 4, grad=True)

    def f(x, A, E, B):
        return torch.func.functional_call(layer, {"lora_A": A, "lora_E": E, "lora_B": B}, (x,))

    assert torch.autograd.gradcheck(f, (x, layer.lora_A, layer.lora_E, layer.lora_B))


def test_the_start_leaves_the_output_alone_and_only_lambda_has_a_gradient(draw):
    base, x = nn.Linear(400, 300, dtype=torch.float64), draw(4, 400)
    layer = SVDLinear(base, 16, 4)
    assert torch.equal(layer(x), base(x)) and not layer.lora_E.any()
    assert layer.lora_A.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.lora_B.std().item() == pytest.approx(0.02, rel=0.05)
    layer(x).sum().backward()
    assert layer.lora_E.grad.all() and not layer.lora_A.grad.any() and not layer.lora_B.grad.any()


def test_names_shapes_and_trainable_count():
    layer = make()
    assert {n: tuple(p.shape) for n, p in layer.named_parameters() if p.requires_grad} == {
        "lora_A": (3, 7),
        "lora_E": (3, 1),
        "lora_B": (5, 3),
    }
    assert count_parameters(layer).adapter == 3 * (5 + 7 + 1)


def test_dropout_acts_on_the_branch_only_and_in_training_only(draw):
    layer, x = make(dropout=0.5), draw(6, 7)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        h = layer(x)
        torch.manual_seed(0)
        z = F.dropout(x, 0.5)
    assert close(h, layer.base(x) + z @ layer.delta_weight().T)
    assert close(layer.eval()(x), layer.base(x) + x @ layer.delta_weight().T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_over_a_half_precision_base_the_factors_are_float32(dtype):
    layer = make(dtype=dtype)
    assert layer.lora_A.dtype == layer.lora_E.dtype == layer.lora_B.dtype == torch.float32
    assert layer(torch.ones(2, 7, dtype=dtype)).dtype == dtype


def test_meta_state_dict_deepcopy_and_seeds(draw):
    with torch.device("meta"):
        assert SVDLinear(nn.Linear(7, 5), 3, 4)(torch.empty(2, 7)).shape == (2, 5)
    layer, x = make(), draw(4, 7)
    other = make(seed=5)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x)) and torch.equal(copy.deepcopy(layer)(x), layer(x))
    state = torch.get_rng_state()
    base = nn.Linear(7, 5, device="meta").to_empty(device="cpu")
    assert torch.equal(SVDLinear(base, 3, 4).lora_A, SVDLinear(base, 3, 4, generator=0).lora_A)
    assert not torch.equal(SVDLinear(base, 3, 4).lora_A, SVDLinear(base, 3, 4, generator=1).lora_A)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"r": 0}, ValueError, "r must"),
        ({"r": 2.0}, TypeError, "r must"),
        ({"alpha": -1}, ValueError, "alpha"),
        ({"dropout": 1}, ValueError, "dropout"),
        ({"generator": 0.5}, TypeError, "generator"),
    ],
)
def test_bad_input_is_named_and_leaves_the_base_as_it_was(options, error, named):
    base = nn.Linear(7, 5)
    with pytest.raises(error, match=named):
        SVDLinear(base, **({"r": 3, "alpha": 4} | options))
    assert base.weight.requires_grad
    with pytest.raises(TypeError, match="base cannot be adapted"):
        SVDLinear(nn.Conv1d(1, 1, 1), 2, 3)


def test_reset_is_refused_when_merged():
    layer = make()
    layer.merge()
    with pytest.raises(RuntimeError, match="merged"):
        layer.reset_parameters()


@pytest.mark.parametrize("seed", range(2))
def test_the_penalty_is_what_peft_and_what_the_paper_write(seed):
    model = nn.ModuleList([make(seed=seed), make(d=9, k=4, r=2, seed=seed + 1)])
    squares = []
    for layer in model:
        for gram in (layer.lora_A @ layer.lora_A.T, layer.lora_B.T @ layer.lora_B):
            squares.append(sum((gram[i, j] - float(i == j)) ** 2 for i in range(layer.r) for j in range(layer.r)))
    assert close(orthogonality_penalty(model), sum(s.sqrt() for s in squares) / 4)
    assert close(orthogonality_penalty(model, form="paper"), sum(squares))
    orthogonality_penalty(model).backward()
    assert all(p.grad.any() == ("lora_E" not in n) for n, p in model.named_parameters() if p.grad is not None)


@pytest.mark.parametrize("form", ["mean", "paper"])
def test_the_penalty_of_orthonormal_factors_is_zero_and_has_no_slope(form):
    layer = make(d=6, k=8, r=3)
    with torch.no_grad():
        layer.lora_A.copy_(torch.eye(3, 8))
        layer.lora_B.copy_(torch.eye(6, 3))
    penalty = orthogonality_penalty(layer, form)
    penalty.backward()
    assert penalty == 0 and not layer.lora_A.grad.any() and not layer.lora_B.grad.any()


def test_the_penalty_draws_the_factors_to_orthonormal_ones():
    layer = make(d=6, k=8, r=3)
    optimizer = torch.optim.SGD([layer.lora_A, layer.lora_B], lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        orthogonality_penalty(layer, "paper").backward()
        optimizer.step()
    assert torch.allclose(layer.lora_A @ layer.lora_A.T, torch.eye(3, dtype=torch.float64), atol=1e-3)


def test_the_penalty_rejects_bad_input():
    with pytest.raises(ValueError, match="no SVDLinear"):
        orthogonality_penalty(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="model must"):
        orthogonality_penalty([make()])
    with pytest.raises(ValueError, match="form must be one of 'mean', 'paper'"):
        orthogonality_penalty(make(), "peft")


def test_it_can_be_trained():
    generator = torch.Generator().manual_seed(0)
    layer = SVDLinear(nn.Linear(8, 6, bias=False), 4, 8)
    update = torch.randn(6, 2, generator=generator) @ torch.randn(2, 8, generator=generator) / math.sqrt(8)
    target, x = layer.base.weight + update, torch.randn(64, 8, generator=generator)
    optimizer = torch.optim.Adam(trainable_parameters(layer), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (layer(x) - x @ target.T).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-4 and "r=4" in repr(layer)
