"""VeRALinear acts with W0 + diag(λ_b) B diag(λ_d) A; A and B are one pair for all layers, frozen."""

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import count_parameters, merge_all, remove, trainable_parameters, unmerge_all
from lora_course.adapters.vera import VeRALinear, VeRAProjection, inject_vera


def make(d=5, k=7, r=3, seed=0, bias=True, dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(k, d, bias=bias, dtype=dtype)
    layer = VeRALinear(base, VeRAProjection(k + 2, d + 3, r, generator=generator), **options)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return layer


def close(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (0,)])
@pytest.mark.parametrize(("d", "k", "r"), [(5, 7, 3), (7, 5, 1), (4, 4, 9)])
def test_output_is_the_plain_formula_and_merging_keeps_it(draw, seed, bias, shape, d, k, r):
    layer, x = make(d, k, r, seed=seed, bias=bias), draw(*shape, k, seed=seed)
    A, B = layer.projection.vera_A.double()[:, :k], layer.projection.vera_B.double()[:d]
    delta = torch.diag(layer.vera_lambda_b) @ B @ torch.diag(layer.vera_lambda_d) @ A
    h = layer(x)
    assert close(h, F.linear(x, layer.base.weight + delta, layer.base.bias)) and close(layer.delta_weight(), delta)
    W0 = layer.base.weight.clone()
    layer.merge(keep_base=True)
    assert close(layer(x), h)
    layer.unmerge()
    assert torch.equal(layer.base.weight, W0)


def test_gradcheck(draw):
    layer, x = make(3, 4, 2), draw(2, 4, grad=True)

    def f(x, b, d):
        return torch.func.functional_call(layer, {"vera_lambda_b": b, "vera_lambda_d": d}, (x,))

    assert torch.autograd.gradcheck(f, (x, layer.vera_lambda_b, layer.vera_lambda_d))


def test_the_start_leaves_the_output_alone_and_only_the_vectors_are_trained(draw):
    base, x = nn.Linear(7, 5, dtype=torch.float64), draw(4, 7)
    layer = VeRALinear(base, VeRAProjection(7, 5, 3))
    assert torch.equal(layer(x), base(x)) and (layer.vera_lambda_d == 0.1).all() and not layer.vera_lambda_b.any()
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == {"vera_lambda_d", "vera_lambda_b"}
    assert count_parameters(layer).adapter == 3 + 5


def test_the_pair_is_uniform_with_variance_2_over_fan_in():
    pair = VeRAProjection(400, 300, 50)
    for p, fan_in in ((pair.vera_A, 400), (pair.vera_B, 50)):
        assert p.var().item() == pytest.approx(2 / fan_in, rel=0.03)
        assert 0.99 < p.abs().max() / math.sqrt(6 / fan_in) <= 1


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
def test_over_a_half_precision_base_the_vectors_are_float32(dtype):
    layer = make(dtype=dtype)
    assert layer.vera_lambda_d.dtype == layer.vera_lambda_b.dtype == layer.delta_weight().dtype == torch.float32
    assert layer(torch.ones(2, 7, dtype=dtype)).dtype == dtype
    assert layer.to(dtype)(torch.ones(2, 7, dtype=dtype)).dtype == dtype


# --- a model


def adapted(tiny_lm, seed=0, r=3, **options):
    report = inject_vera(tiny_lm, ["q_proj", "v_proj", "mlp"], r, generator=seed, **options)
    with torch.no_grad():
        for p in trainable_parameters(tiny_lm):
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(8)))
    return report


def pairs(model):
    return {id(m.projection): m.projection for m in model.modules() if isinstance(m, VeRALinear)}


def test_one_pair_as_large_as_needed_serves_all_layers_and_removal_restores_the_model(tiny_lm, tokens):
    names, h = [n for n, _ in tiny_lm.named_modules()], tiny_lm(tokens)
    flags = {n: p.requires_grad for n, p in tiny_lm.named_parameters()}
    report = adapted(tiny_lm)
    (pair,) = pairs(tiny_lm).values()
    assert pair.vera_A.shape == (3, 6) and pair.vera_B.shape == (8, 3) and pair.vera_A.dtype == torch.float64
    assert report.trainable == 2 * (3 * 3 + 8 + 4 + 6) == count_parameters(tiny_lm).adapter
    assert (report.r, report.alpha, report.scaling) == (3, 3, 1.0) and len(report.adapted) == 6
    assert not torch.allclose(tiny_lm(tokens), h)
    assert len(remove(tiny_lm)) == 6 and torch.equal(tiny_lm(tokens), h)
    assert [n for n, _ in tiny_lm.named_modules()] == names
    assert {n: p.requires_grad for n, p in tiny_lm.named_parameters()} == flags


def test_the_output_stays_the_same_at_the_injection(tiny_lm, tokens):
    h = tiny_lm(tokens)
    inject_vera(tiny_lm, ["q_proj", "mlp"], r=4)
    assert torch.equal(tiny_lm(tokens), h)


def test_merging_and_unmerging_a_whole_model(tiny_lm, tokens):
    adapted(tiny_lm)
    h = tiny_lm(tokens)
    merge_all(tiny_lm, keep_base=True)
    assert torch.allclose(tiny_lm(tokens), h, rtol=0, atol=1e-12)
    unmerge_all(tiny_lm)
    assert torch.equal(tiny_lm(tokens), h)


def test_copies_and_conversions_keep_one_pair(tiny_lm, tokens):
    adapted(tiny_lm)
    twin = copy.deepcopy(tiny_lm)
    assert torch.equal(twin(tokens), tiny_lm(tokens))
    assert len(pairs(twin)) == 1 and pairs(twin).keys() != pairs(tiny_lm).keys()
    file = io.BytesIO()
    torch.save(tiny_lm, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert len(pairs(loaded)) == 1 and torch.equal(loaded(tokens), tiny_lm(tokens))
    twin.float()
    assert len(pairs(twin)) == 1 and next(iter(pairs(twin).values())).vera_A.dtype == torch.float32
    assert torch.allclose(twin(tokens).double(), tiny_lm(tokens), atol=1e-4)


def test_the_state_dict_holds_the_vectors_and_not_the_pair(tiny_lm, tokens):
    fresh = copy.deepcopy(tiny_lm)
    adapted(tiny_lm)
    state = tiny_lm.state_dict()
    assert not any("vera_A" in key or "vera_B" in key for key in state)
    inject_vera(fresh, ["q_proj", "v_proj", "mlp"], 3, generator=0)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(tokens), tiny_lm(tokens))
    fresh.bfloat16().load_state_dict(state)  # the same pair, rounded


@pytest.mark.parametrize(
    ("targets", "seed"), [(["q_proj", "v_proj", "mlp"], 1), (["q_proj", "v_proj", "o_proj", "mlp"], 0)]
)
def test_vectors_of_another_pair_are_refused(tiny_lm, targets, seed):
    """Another seed; or a layer with more inputs, which changes what is drawn."""
    fresh = copy.deepcopy(tiny_lm)
    adapted(tiny_lm)
    inject_vera(fresh, targets, 3, generator=seed)
    with pytest.raises(ValueError, match="another VeRAProjection"):
        fresh.load_state_dict(tiny_lm.state_dict(), strict=False)


def test_on_the_meta_device_and_off_again():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 9))
    assert inject_vera(model, ["0", "1"], 4).trainable == 4 + 5 + 4 + 9
    model.to_empty(device="cpu")
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    (pair,) = pairs(model).values()
    assert torch.equal(pair.vera_A, VeRAProjection(7, 9, 4).vera_A)
    x = torch.ones(2, 7)
    assert torch.equal(model(x), model[1].base(model[0].base(x)))


def test_the_pair_depends_on_the_generator_and_not_on_the_global_one():
    state = torch.get_rng_state()
    first, again, other = (VeRAProjection(7, 5, 3, seed) for seed in (0, 0, 1))
    assert torch.equal(first.vera_A, again.vera_A) and torch.equal(first.vera_B, again.vera_B)
    assert not torch.equal(first.vera_A, other.vera_A) and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("sizes", "error", "named"),
    [
        ((0, 5, 3), ValueError, "max_in"),
        ((7, 5.0, 3), TypeError, "max_out"),
        ((7, True, 3), TypeError, "max_out"),
        ((7, 5, 0), ValueError, "r must"),
        ((7, 5, 3, "0"), TypeError, "generator"),
    ],
)
def test_a_bad_projection_is_named(sizes, error, named):
    with pytest.raises(error, match=named):
        VeRAProjection(*sizes)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"projection": None}, TypeError, "projection must be"),
        ({"projection": VeRAProjection(6, 5, 3)}, ValueError, "projection of max_in=6"),
        ({"projection": VeRAProjection(7, 4, 3)}, ValueError, "max_out=4 is too small"),
        ({"d_initial": 0}, ValueError, "d_initial"),
        ({"d_initial": math.inf}, ValueError, "d_initial"),
        ({"d_initial": "0.1"}, ValueError, "d_initial"),
        ({"dropout": -0.1}, ValueError, "dropout"),
    ],
)
def test_bad_input_is_named_and_leaves_the_base_as_it_was(options, error, named):
    base = nn.Linear(7, 5)
    with pytest.raises(error, match=named):
        VeRALinear(base, **({"projection": VeRAProjection(7, 5, 3)} | options))
    assert base.weight.requires_grad


@pytest.mark.parametrize(
    ("targets", "options", "error", "named"),
    [
        (["q_proj"], {"r": 0}, ValueError, "r must"),
        (["q_proj"], {"d_initial": 0}, ValueError, "d_initial"),
        (["q_proj"], {"dropout": 2}, ValueError, "dropout"),
        (["q_proj"], {"generator": 1.5}, TypeError, "generator"),
        (["nothing"], {}, ValueError, "nothing"),
        (["embed"], {}, TypeError, "embed"),
    ],
)
def test_a_failed_injection_leaves_the_model_as_it_was(tiny_lm, targets, options, error, named):
    flags = [(n, p.requires_grad) for n, p in tiny_lm.named_parameters()]
    with pytest.raises(error, match=named):
        inject_vera(tiny_lm, targets, **({"r": 3} | options))
    assert [(n, p.requires_grad) for n, p in tiny_lm.named_parameters()] == flags
