"""DoRALinear acts with W' = c V, V = W0 + s B A, c = m / ‖V‖, by rows or by columns."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import count_parameters, remove, trainable_parameters
from lora_course.adapters.dora import DoRALinear, row_norms

BOTH = pytest.mark.parametrize("magnitude", ["row", "column"])
SHAPES = [(), (4,), (2, 3), (0,), (2, 0)]


def make(d=5, k=7, r=3, alpha=4.5, seed=0, bias=True, dtype=torch.float64, **options):
    """Return a layer with B != 0 and magnitudes that are not the norms."""
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(k, d, bias=bias, dtype=dtype)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        layer = DoRALinear(base, r, alpha, generator=generator, **options)
        layer.lora_B.copy_(torch.randn(layer.lora_B.shape, generator=generator))
        layer.lora_magnitude_vector.mul_(torch.rand(layer.lora_magnitude_vector.shape, generator=generator) + 0.5)
    return layer


def direct(layer, norm_has_gradient=False):
    """Return W' as the paper writes it."""
    s, m = layer.alpha / layer.r, layer.lora_magnitude_vector
    V = layer.base.weight + s * layer.lora_B @ layer.lora_A
    n = torch.linalg.norm(V, dim=1, keepdim=True) if layer.magnitude == "row" else torch.linalg.norm(V, dim=0)
    return (m[:, None] if layer.magnitude == "row" else m) * V / (n if norm_has_gradient else n.detach())


def parameters(layer):
    return [layer.lora_A, layer.lora_B, layer.lora_magnitude_vector]


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-12)


@BOTH
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("detach_norm", [True, False])
@pytest.mark.parametrize(("d", "k", "r"), [(5, 7, 3), (7, 5, 1), (4, 4, 6), (1, 9, 2), (9, 1, 2)])
def test_output_and_gradients_are_those_of_the_formula(draw, magnitude, seed, bias, detach_norm, d, k, r):
    layer = make(d, k, r, seed=seed, bias=bias, magnitude=magnitude, detach_norm=detach_norm)
    x, g = draw(2, 6, k, seed=seed, grad=True), draw(2, 6, d, seed=seed + 9)
    h, expected = layer(x), F.linear(x, direct(layer, not detach_norm), layer.base.bias)
    assert close(h, expected)
    inputs = [x, *parameters(layer)]
    grads = torch.autograd.grad(h, inputs, g), torch.autograd.grad(expected, inputs, g)
    assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-11) for a, b in zip(*grads, strict=True))
    assert close(layer.weight, direct(layer)) and layer.base.weight.grad is None


@pytest.mark.parametrize("seed", range(3))
def test_gradients_with_a_detached_norm_are_the_closed_forms(draw, seed):
    layer, x, g = make(seed=seed), draw(6, 7, seed=seed, grad=True), draw(6, 5, seed=seed + 9)
    layer(x).backward(g)
    s, A, B, m = 1.5, layer.lora_A, layer.lora_B, layer.lora_magnitude_vector
    V = layer.base.weight + s * B @ A
    n = V.norm(dim=1)
    cg = g * m / n
    assert close(B.grad, s * cg.T @ (x @ A.T)) and close(A.grad, s * (cg @ B).T @ x)
    assert close(m.grad, (g * (x @ V.T)).sum(0) / n) and close(x.grad, cg @ V)


@BOTH
@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck_with_the_gradient_through_the_norm(draw, magnitude, bias):
    layer, x = make(3, 4, 2, bias=bias, magnitude=magnitude, detach_norm=False), draw(2, 4, grad=True)

    def f(x, A, B, m):
        given = {"lora_A": A, "lora_B": B, "lora_magnitude_vector": m}
        return torch.func.functional_call(layer, given, (x,))

    assert torch.autograd.gradcheck(f, (x, *parameters(layer)))
    assert torch.autograd.gradgradcheck(f, (x, *parameters(layer)))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_start_output_and_weight_are_the_base_s_bit_for_bit(draw, magnitude, dtype):
    base = nn.Linear(7, 5, dtype=dtype)
    layer, x = DoRALinear(base, 3, 4, magnitude=magnitude), draw(4, 7, dtype=dtype)
    assert torch.equal(layer.ratio(), torch.ones_like(layer.ratio()))
    assert torch.equal(layer(x), base(x)) and torch.equal(layer.weight, base.weight)


@BOTH
def test_the_magnitudes_are_the_norms_of_the_weight(magnitude):
    layer = make(magnitude=magnitude)
    norms = layer.weight.norm(dim=1 if magnitude == "row" else 0)
    assert close(norms, layer.lora_magnitude_vector.abs())


@BOTH
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_of_any_number_of_dimensions_and_of_no_rows(draw, magnitude, dropout, shape):
    layer, x = make(magnitude=magnitude, dropout=dropout), draw(*shape, 7, grad=True)
    assert layer(x).shape == (*shape, 5)
    layer(x).sum().backward()
    assert x.grad.shape == x.shape and layer.lora_magnitude_vector.grad.shape == (5 if magnitude == "row" else 7,)
    assert close(layer.eval()(x), F.linear(x, direct(layer), layer.base.bias))


@BOTH
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout_on", ["correction", "branch"])
def test_what_dropout_reaches(draw, magnitude, bias, dropout_on):
    layer = make(magnitude=magnitude, bias=bias, dropout=0.4, dropout_on=dropout_on)
    x, W0, b = draw(6, 7), layer.base.weight, layer.base.bias if bias else 0
    with torch.random.fork_rng():
        torch.manual_seed(1)
        h = layer(x)
        torch.manual_seed(1)
        z = F.dropout(x, 0.4)
    c = layer.ratio()
    if dropout_on == "correction":
        expected = x @ W0.T + z @ (direct(layer) - W0).T + b
    elif magnitude == "row":
        expected = c * (x @ W0.T + 1.5 * z @ layer.lora_A.T @ layer.lora_B.T) + b
    else:
        expected = (x * c) @ W0.T + 1.5 * (z * c) @ layer.lora_A.T @ layer.lora_B.T + b
    assert close(h, expected) and not close(h, layer.eval()(x))


@BOTH
def test_merge_equals_forward_and_unmerge_restores_bit_for_bit(draw, magnitude):
    layer, x = make(magnitude=magnitude), draw(4, 7)
    W0, h = layer.base.weight.clone(), layer(x)
    layer.merge(keep_base=True)
    assert close(layer(x), h) and close(layer.base.weight, direct_of(layer, W0))
    layer.unmerge()
    assert torch.equal(layer.base.weight, W0) and torch.equal(layer(x), h)


def direct_of(layer, W0):
    V = W0 + 1.5 * layer.lora_B @ layer.lora_A
    n = V.norm(dim=1, keepdim=True) if layer.magnitude == "row" else V.norm(dim=0)
    m = layer.lora_magnitude_vector
    return (m[:, None] if layer.magnitude == "row" else m) * V / n


def test_the_update_has_full_rank_where_lora_s_has_rank_r():
    layer = make(d=6, k=8, r=2)
    assert torch.linalg.matrix_rank(layer.delta_weight()) == 6
    assert torch.linalg.matrix_rank(super(DoRALinear, layer).delta_weight()) == 2


@pytest.mark.parametrize(("magnitude", "own"), [("row", 5), ("column", 7)])
def test_trainable_count_is_lora_s_and_the_magnitudes(magnitude, own):
    layer = make(magnitude=magnitude)
    assert sum(p.numel() for p in trainable_parameters(layer)) == 3 * (5 + 7) + own
    assert count_parameters(layer).adapter == 3 * (5 + 7) + own


# --- the norm


def worst(n, W, A, B, s):
    exact = torch.linalg.norm(W.double() + s * B.double() @ A.double(), dim=1)
    return ((n.double() - exact).abs() / exact).max().item()


@pytest.mark.parametrize("size", [1e-8, 1e-5, 1e-2, 1.0, 100.0])
@pytest.mark.parametrize("transposed", [False, True])
def test_in_float32_the_norm_is_as_exact_as_the_direct_one_for_small_and_large_updates(draw, size, transposed):
    W, A, B = draw(96, 160, dtype=torch.float32), draw(8, 160, seed=1, dtype=torch.float32), draw(96, 8, seed=2).float()
    B, s = size * B, 1.7
    if transposed:
        W, A, B = W.T, B.T, A.T
    plain = torch.linalg.norm(W + s * B @ A, dim=1)
    eps = torch.finfo(torch.float32).eps
    assert worst(row_norms(W, A, B, s), W, A, B, s) <= max(4 * eps, 2 * worst(plain, W, A, B, s))


def test_where_the_update_cancels_the_weight_the_norm_keeps_its_digits(draw):
    """W0 + s B A is left at 1e-3 of W0 in one row, and is zero in another."""
    A, B, s = draw(4, 60, dtype=torch.float32), draw(9, 4, seed=1, dtype=torch.float32), 0.5
    W = draw(9, 60, seed=2, dtype=torch.float32)
    W[3] = -s * B[3] @ A + 1e-3 * W[3]
    exact = torch.linalg.norm(W.double() + s * B.double() @ A.double(), dim=1)
    assert ((row_norms(W, A, B, s) - exact).abs() / exact)[3] < 1e-4
    gram = W[3] @ W[3] + 2 * s * B[3] @ (A @ W[3]) + s**2 * B[3] @ (A @ A.T) @ B[3]
    assert abs(gram.clamp_min(0).sqrt() / exact[3] - 1) > 1e-4  # the bare formula would have lost them


@BOTH
@pytest.mark.parametrize("detach_norm", [True, False])
def test_a_zero_row_or_column_stays_zero_and_gives_no_nan(draw, magnitude, detach_norm):
    base = nn.Linear(7, 5, dtype=torch.float64)
    with torch.no_grad():
        base.weight[2], base.weight[:, 3] = 0, 0
    layer, x = DoRALinear(base, 3, 4, magnitude=magnitude, detach_norm=detach_norm), draw(4, 7, grad=True)
    h = layer(x)
    h.sum().backward()
    assert close(h, base(x))
    assert all(p.grad.isfinite().all() for p in (x, *parameters(layer)))


def test_the_norm_is_of_the_weight_as_it_now_stands(draw):
    """Nothing is remembered of a base weight, however it is written."""
    layer, x = make(), draw(4, 7)
    layer(x)
    layer.base.weight.data.mul_(3)  # does not raise the version counter
    assert close(layer(x), F.linear(x, direct(layer), layer.base.bias))


# --- dtypes, devices, copies, files


@BOTH
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_over_a_half_precision_base_the_parameters_are_float32_and_the_output_is_half(magnitude, dropout, dtype):
    layer = make(12, 16, 4, dtype=dtype, magnitude=magnitude, dropout=dropout)
    assert {p.dtype for p in parameters(layer)} == {torch.float32} and layer.delta_weight().dtype == torch.float32
    x = torch.randn(9, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    assert layer(x).dtype == dtype
    layer.eval()
    exact = x.double() @ direct(copy.deepcopy(layer).double()).T + layer.base.bias.double()
    assert (layer(x).double() - exact).abs().max() < 6 * torch.finfo(dtype).eps * exact.abs().max()
    layer(x).sum().backward()
    assert layer.lora_magnitude_vector.grad.any()


@BOTH
def test_under_autocast_the_norm_is_still_taken_in_float32(magnitude):
    layer = make(12, 16, 4, dtype=torch.float32, magnitude=magnitude)
    n = layer.norms()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.norms(), n)
        assert torch.isfinite(layer(torch.ones(3, 16))).all()


@BOTH
def test_on_the_meta_device_and_off_again(magnitude):
    with torch.device("meta"):
        layer = DoRALinear(nn.Linear(7, 5), 3, 4, magnitude=magnitude)
        assert layer(torch.empty(2, 7)).shape == (2, 5)
    layer.to_empty(device="cpu")
    nn.init.normal_(layer.base.weight, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(layer.base.bias)
    layer.reset_parameters(0)
    x = torch.ones(2, 7)
    assert torch.equal(layer(x), layer.base(x))


@BOTH
def test_state_dict_deepcopy_and_pickle_keep_the_function(draw, magnitude):
    layer, x = make(magnitude=magnitude), draw(4, 7)
    assert list(layer.state_dict()) == ["lora_A", "lora_B", "lora_magnitude_vector", "base.weight", "base.bias"]
    other = make(seed=4, magnitude=magnitude)
    other.load_state_dict(layer.state_dict())
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for twin in (other, copy.deepcopy(layer), torch.load(file, weights_only=False)):
        assert torch.equal(twin(x), layer(x))


def test_hooks_of_the_base_are_run(draw):
    layer, x = make(), draw(4, 7)
    layer.base.register_forward_hook(lambda module, args, h: h + 0)
    assert close(layer(x), F.linear(x, direct(layer), layer.base.bias))


def test_the_start_depends_on_the_generator_and_not_on_the_global_one():
    base, state = nn.Linear(7, 5), torch.get_rng_state()
    first, again, other = (DoRALinear(base, 3, 4, generator=seed).lora_A for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"magnitude": "rows"}, ValueError, "magnitude"),
        ({"magnitude": 0}, ValueError, "magnitude"),
        ({"detach_norm": 1}, TypeError, "detach_norm"),
        ({"dropout_on": "base"}, ValueError, "dropout_on"),
        ({"r": 0}, ValueError, "r must"),
        ({"alpha": math.nan}, ValueError, "alpha"),
        ({"dropout": 1.0}, ValueError, "dropout"),
        ({"init": "zeros"}, ValueError, "init"),
        ({"generator": "0"}, TypeError, "generator"),
    ],
)
def test_bad_input_is_named_and_leaves_the_base_as_it_was(options, error, named):
    base = nn.Linear(7, 5)
    with pytest.raises(error, match=named):
        DoRALinear(base, **({"r": 3, "alpha": 4} | options))
    assert base.weight.requires_grad and base.bias.requires_grad


def test_reset_is_refused_when_merged():
    layer = make()
    layer.merge()
    with pytest.raises(RuntimeError, match="merged"):
        layer.reset_parameters()


def test_inject_puts_it_where_it_is_told_to(tiny_lm, tokens):
    from lora_course.adapters import inject, merge_all

    h = tiny_lm(tokens)
    report = inject(tiny_lm, ["q_proj", "v_proj"], 2, 3, adapter=DoRALinear)
    assert torch.equal(tiny_lm(tokens), h) and report.trainable == 2 * (2 * 14 + 8 + 2 * 10 + 4)
    with torch.no_grad():
        for p in trainable_parameters(tiny_lm):
            p.add_(0.1)
    adapted = tiny_lm(tokens)
    merge_all(tiny_lm, keep_base=True)
    assert torch.allclose(tiny_lm(tokens), adapted, rtol=0, atol=1e-12) and not torch.allclose(adapted, h)
    tiny_lm.get_submodule("blocks.0.attn.q_proj").unmerge()
    assert len(remove(tiny_lm, keep_merged=True)) == 4


def test_it_can_be_trained():
    generator = torch.Generator().manual_seed(0)
    layer = DoRALinear(nn.Linear(8, 6, bias=False), 2, 4)
    W0 = layer.base.weight.clone()
    V = W0 + torch.randn(6, 2, generator=generator) @ torch.randn(2, 8, generator=generator)
    target = V * torch.rand(6, 1, generator=generator)
    x = torch.randn(64, 8, generator=generator)
    optimizer = torch.optim.Adam(trainable_parameters(layer), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        loss = (layer(x) - x @ target.T).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3 and torch.equal(layer.base.weight, W0)
    assert "r=2" in repr(layer) and "magnitude=row" in repr(layer)
