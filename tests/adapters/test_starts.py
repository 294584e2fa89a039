"""A start from the weight keeps the output, moves the base by what it says, and finds the way back."""

import copy

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear, inject, remove
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.origin import (
    has_origin,
    plain_factors,
    prepare_start,
    start,
    start_all,
    undo_start,
    weight_gradients,
)
from lora_course.adapters.starts import STARTS, b_random, randomized_svd, start_factors

SHAPES = [(8, 12, 3), (12, 8, 4), (9, 9, 1)]


def options(name, layer, seed=0):
    if name != "lora_ga":
        return {}
    generator = torch.Generator().manual_seed(50 + seed)
    return {"gradient": torch.randn(layer.base.weight.shape, generator=generator, dtype=torch.float64)}


def train_a_little(layer, seed=0):
    """Move both factors away from their start, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in (layer.lora_A, layer.lora_B):
            p.add_(torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p) / 3)


def snapshot(layer):
    return {key: value.clone() for key, value in layer.state_dict().items()}


def unchanged(layer, before):
    after = layer.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize(("d", "k", "r"), SHAPES)
@pytest.mark.parametrize("name", STARTS)
def test_the_output_stays_that_of_the_base_and_a_plain_adapter_on_it_does_the_same(
    make_layer, draw, name, d, k, r, rslora, bias, seed
):
    layer = make_layer(d, k, r, alpha=4.5, seed=seed, bias=bias, rslora=rslora)
    x, original = draw(5, k, seed=seed), copy.deepcopy(layer.base)
    report = start(layer, name, **options(name, layer, seed))
    assert torch.allclose(layer(x), original(x), rtol=0, atol=1e-10)
    moved = torch.linalg.matrix_norm(original.weight - layer.base.weight).item()
    assert report.delta_norm == pytest.approx(moved, abs=1e-10)
    assert (moved > 0.1) == (name != "b_random") == has_origin(layer)

    train_a_little(layer, seed)
    assert not torch.allclose(layer(x), original(x), atol=1e-3)
    A, B, rank, alpha = plain_factors(layer)
    assert A.shape == (rank, k) and B.shape == (d, rank) and rank == (2 * r if has_origin(layer) else r)
    assert alpha / rank == pytest.approx(layer.scaling, rel=1e-15)
    assert torch.allclose(original(x) + alpha / rank * x @ A.T @ B.T, layer(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["pissa", "milora", "olora", "lora_ga"])
def test_undoing_gives_the_original_weight_back_bit_for_bit(make_layer, draw, name, dtype):
    layer = make_layer(8, 12, 3, dtype=dtype)
    W = layer.base.weight.clone()
    start(layer, name, **options(name, layer))
    train_a_little(layer)
    assert not torch.equal(layer.base.weight, W)
    undo_start(layer)
    assert torch.equal(layer.base.weight, W) and layer.base.weight.dtype == dtype and not has_origin(layer)
    x = draw(4, 12).to(dtype)
    assert torch.equal(layer(x), layer.base(x))
    start(layer, name, **options(name, layer))  # and it can be started again


@pytest.mark.parametrize("seed", range(3))
def test_pissa_is_the_best_approximation_of_rank_r_and_milora_the_worst_part(make_layer, seed):
    layer = make_layer(8, 12, 3, seed=seed)
    s = torch.linalg.svdvals(layer.base.weight)
    start(layer, "pissa")
    assert torch.allclose(torch.linalg.svdvals(layer.base.weight)[:5], s[3:])
    assert torch.allclose(torch.linalg.svdvals(layer.delta_weight())[:3], s[:3])
    balanced = torch.diag(s[:3] / layer.scaling)
    assert torch.allclose(layer.lora_A @ layer.lora_A.T, balanced)
    assert torch.allclose(layer.lora_B.T @ layer.lora_B, balanced)
    undo_start(layer)
    start(layer, "milora")
    assert torch.allclose(torch.linalg.svdvals(layer.base.weight)[:5], s[:5])
    assert torch.allclose(torch.linalg.svdvals(layer.delta_weight())[:3], s[5:])


@pytest.mark.parametrize("seed", range(3))
def test_olora_has_orthonormal_columns_in_B_and_the_base_gives_up_scaling_times_the_projection(make_layer, seed):
    layer = make_layer(8, 12, 3, alpha=4.5, seed=seed)
    W = layer.base.weight.clone()
    start(layer, "olora")
    Q = layer.lora_B.detach()
    assert torch.allclose(Q.T @ Q, torch.eye(3, dtype=W.dtype)) and torch.allclose(layer.lora_A, Q.T @ W)
    assert torch.allclose(layer.base.weight, W - 1.5 * Q @ Q.T @ W)


@pytest.mark.parametrize("rslora", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_first_step_of_lora_ga_follows_the_gradients_best_approximation_of_rank_2r(make_layer, draw, seed, rslora):
    layer, gamma, step = make_layer(8, 12, 3, alpha=4.5, seed=seed, rslora=rslora), 4.0, 1e-7
    x, y = draw(20, 12, seed=seed), draw(20, 8, seed=seed + 9)
    G = weight_gradients(layer, lambda m: ((m.base(x) - y) ** 2).sum())[""]
    start(layer, "lora_ga", gradient=G, gamma=gamma)
    before = layer.weight.detach()
    grads = torch.autograd.grad(((layer(x) - y) ** 2).sum(), [layer.lora_A, layer.lora_B])
    with torch.no_grad():
        layer.lora_A -= step * grads[0]
        layer.lora_B -= step * grads[1]
    U, S, Vt = torch.linalg.svd(G, full_matrices=False)
    best = U[:, :6] * S[:6] @ Vt[:6]
    moved = (layer.weight.detach() - before) / (-step * layer.scaling**2 * 8**0.5 / gamma)
    assert torch.allclose(moved, best, atol=1e-4 * best.abs().max())


def test_b_random_leaves_the_base_alone_and_has_variance_one_third_of_1_over_r(make_layer):
    layer = make_layer(400, 12, 9)
    W, storage = layer.base.weight.clone(), layer.base.weight.data_ptr()
    start(layer, "b_random", generator=1)
    assert torch.equal(layer.base.weight, W) and layer.base.weight.data_ptr() == storage
    assert not layer.lora_A.any() and layer.lora_B.abs().max() <= 1 / 3
    assert layer.lora_B.var().item() == pytest.approx(1 / 27, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["pissa", "milora", "olora", "lora_ga"])
def test_over_half_precision_factors_are_float32_and_only_the_rounding_of_the_base_is_lost(make_layer, name, dtype):
    layer = make_layer(8, 12, 3, dtype=dtype)
    W = layer.base.weight.float()
    report = start(layer, name, **options(name, layer))
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32 and layer.base.weight.dtype == dtype
    gap = (layer.base.weight.float() + layer.delta_weight()).detach() - W
    half_unit = layer.base.weight.float().abs() * torch.finfo(dtype).eps / 2
    assert (gap.abs() <= half_unit + 1e-6).all() and gap.abs().max() > 1e-5
    assert report.lost == pytest.approx((gap.norm() / layer.delta_weight().norm()).item(), rel=1e-2)


def test_the_same_seed_gives_the_same_start_and_the_global_generator_is_not_used(make_layer):
    for name, more in [("b_random", {}), ("pissa", {"niter": 0})]:
        layers = [make_layer(30, 40, 3) for _ in range(3)]
        now = torch.random.get_rng_state()
        for layer, generator in zip(layers, (0, torch.Generator().manual_seed(0), 1), strict=True):
            start(layer, name, generator=generator, **more)
        assert torch.equal(layers[0].lora_B, layers[1].lora_B) and not torch.equal(layers[0].lora_B, layers[2].lora_B)
        assert torch.equal(now, torch.random.get_rng_state())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
def test_randomized_svd_finds_the_principal_part_of_a_falling_spectrum(draw, shape, seed):
    W = draw(*shape, seed=seed) @ torch.diag(torch.arange(1, shape[1] + 1, dtype=torch.float64) ** -1.0)
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    errors = []
    for niter in (0, 2, 8):
        u, s, vt = randomized_svd(W, 5, niter, generator=seed)
        assert u.shape == (shape[0], 5) and vt.shape == (5, shape[1])
        assert torch.allclose(u.T @ u, torch.eye(5, dtype=W.dtype)) and (s[:-1] >= s[1:]).all()
        assert (s <= S[:5] + 1e-12).all()  # a part of W has no larger singular values
        errors.append(torch.linalg.matrix_norm(U[:, :5] - u @ (u.T @ U[:, :5]), 2).item())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4
    assert torch.allclose(u * s @ vt, U[:, :5] * S[:5] @ Vt[:5], atol=1e-3)


def test_randomized_svd_is_exact_where_the_sketch_holds_the_whole_range(draw):
    W = draw(20, 4) @ draw(4, 30, seed=1)
    u, s, vt = randomized_svd(W, 4, niter=0)
    assert torch.allclose(u * s @ vt, W) and torch.allclose(s, torch.linalg.svdvals(W)[:4])


@pytest.mark.parametrize("seed", range(2))
def test_the_fast_pissa_keeps_the_output_as_exactly_as_the_slow_one(make_layer, draw, seed):
    layer, x = make_layer(20, 30, 4, seed=seed), draw(5, 30)
    expected = layer.base(x)
    start(layer, "pissa", niter=1, generator=seed)
    assert torch.allclose(layer(x), expected, rtol=0, atol=1e-10)


def test_a_whole_model_starts_keeps_its_output_learns_and_is_given_back(tiny_lm, tokens):
    state, out = copy.deepcopy(tiny_lm.state_dict()), tiny_lm(tokens)
    inject(tiny_lm, ["q_proj", "v_proj", "mlp"], r=2, alpha=3)
    reports = start_all(tiny_lm, "pissa")
    assert len(reports) == 6 and torch.allclose(tiny_lm(tokens), out, rtol=0, atol=1e-10)
    tiny_lm(tokens).square().sum().backward()
    layer = tiny_lm.blocks[0]["attn"].q_proj
    assert layer.lora_A.grad.any() and layer.lora_B.grad.any() and layer.base.weight.grad is None
    for module in tiny_lm.modules():
        if isinstance(module, LoRALinear):
            undo_start(module)
    remove(tiny_lm)
    assert all(torch.equal(state[key], value) for key, value in tiny_lm.state_dict().items())


def test_weight_gradients_are_those_of_full_training_and_leave_no_trace(tiny_lm, tokens):
    def loss(m):
        return m(tokens).square().mean()

    full = copy.deepcopy(tiny_lm)
    loss(full).backward()
    expected = {"blocks.0.attn.q_proj": full.blocks[0]["attn"].q_proj.weight.grad, "blocks.1.mlp": None}
    expected["blocks.1.mlp"] = full.blocks[1]["mlp"].weight.grad
    inject(tiny_lm, list(expected), r=2, alpha=3)
    flags = {name: p.requires_grad for name, p in tiny_lm.named_parameters()}
    with torch.no_grad():
        found = weight_gradients(tiny_lm, loss)
    assert found.keys() == expected.keys() and all(torch.allclose(found[key], expected[key]) for key in found)
    assert flags == {name: p.requires_grad for name, p in tiny_lm.named_parameters()}
    assert all(p.grad is None for p in tiny_lm.parameters())
    out = tiny_lm(tokens)
    assert len(start_all(tiny_lm, "lora_ga", gradients=found)) == 2
    assert torch.allclose(tiny_lm(tokens), out, rtol=0, atol=1e-10)


def test_a_loss_that_is_no_scalar_or_misses_a_layer_is_refused(tiny_lm, tokens):
    inject(tiny_lm, ["mlp"], r=2, alpha=3)
    for loss in (lambda m: m(tokens), lambda m: 1.0, lambda m: torch.ones(())):
        with pytest.raises(ValueError, match="scalar tensor that depends on the model"):
            weight_gradients(tiny_lm, loss)
    with pytest.raises(ValueError, match=r"does not depend on blocks\.1\.mlp"):
        weight_gradients(tiny_lm, lambda m: m.blocks[0]["mlp"](torch.ones(6, dtype=torch.float64)).sum())
    assert not any(p.requires_grad for name, p in tiny_lm.named_parameters() if "lora_" not in name)


def test_all_layers_of_a_model_start_or_none(tiny_lm):
    inject(tiny_lm, ["mlp", "k_proj"], r=5, alpha=3)  # k_proj is 6 -> 4
    before = snapshot(tiny_lm)
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.k_proj: r must be at most min\(d, k\) = 4"):
        start_all(tiny_lm, "pissa")
    assert unchanged(tiny_lm, before)
    with pytest.raises(ValueError, match="no LoRALinear"):
        start_all(nn.Linear(3, 4), "pissa")


def test_lora_ga_needs_the_gradient_of_every_layer(tiny_lm):
    inject(tiny_lm, ["mlp", "k_proj"], r=2, alpha=3)
    before = snapshot(tiny_lm)
    some = {f"blocks.{i}.mlp": torch.ones(6, 6) for i in range(2)}
    for gradients in (some, None, 5):
        with pytest.raises(ValueError, match=r"gradients must be .* blocks\.0\.attn\.k_proj"):
            start_all(tiny_lm, "lora_ga", gradients=gradients)
    wrong = some | {f"blocks.{i}.attn.k_proj": torch.ones(3, 3) for i in range(2)}
    with pytest.raises(ValueError, match=r"k_proj: gradient must be finite, of the weight's shape \(4, 6\)"):
        start_all(tiny_lm, "lora_ga", gradients=wrong)
    assert unchanged(tiny_lm, before)


def test_a_tied_weight_is_refused_until_it_is_untied(tiny_lm, tokens):
    inject(tiny_lm, ["head"], r=2, alpha=3)
    out, before = tiny_lm(tokens), snapshot(tiny_lm)
    for attempt in (lambda: start_all(tiny_lm, "pissa"), lambda: start(tiny_lm.head, "pissa")):
        with pytest.raises(RuntimeError, match=r"tied to embed\.weight"):
            attempt()
    assert unchanged(tiny_lm, before)
    tiny_lm.head.base.weight = nn.Parameter(tiny_lm.head.base.weight.detach().clone(), requires_grad=False)
    start_all(tiny_lm, "pissa")
    assert torch.allclose(tiny_lm(tokens), out, rtol=0, atol=1e-10)
    assert torch.equal(tiny_lm.embed.weight, before["embed.weight"])


@pytest.mark.parametrize(
    ("name", "change", "error", "says"),
    [
        ("PiSSA", {}, ValueError, "'pissa'"),
        (3, {}, ValueError, "name must be one of"),
        ("pissa", {"niter": -1}, ValueError, "niter must be an integer of at least 0"),
        ("pissa", {"niter": 2.0}, TypeError, "niter must be an integer"),
        ("pissa", {"generator": "0"}, TypeError, "generator"),
        ("pissa", {"keep_base": 1}, TypeError, "keep_base must be True or False"),
        ("olora", {"niter": 2}, TypeError, "niter"),
        ("lora_ga", {}, TypeError, "gradient"),
        ("lora_ga", {"gradient": [[1.0]]}, TypeError, "gradient must be a tensor"),
        ("lora_ga", {"gradient": torch.ones(12, 8)}, ValueError, r"of the weight's shape \(8, 12\)"),
        ("lora_ga", {"gradient": torch.full((8, 12), float("nan"))}, ValueError, "gradient must be finite"),
        ("lora_ga", {"gradient": torch.ones(8, 12), "gamma": 0}, ValueError, "gamma must be a positive"),
    ],
)
def test_a_bad_argument_is_named_and_changes_nothing(make_layer, name, change, error, says):
    layer = make_layer(8, 12, 3)
    before = snapshot(layer)
    with pytest.raises(error, match=says):
        start(layer, name, **change)
    assert unchanged(layer, before) and not has_origin(layer)


def test_a_layer_that_cannot_be_started_says_why(make_layer):
    with pytest.raises(TypeError, match="layer must be a LoRALinear .*, got Linear"):
        start(nn.Linear(3, 4), "pissa")
    with pytest.raises(TypeError, match="layer must be a LoRALinear .*, got Linear"):
        plain_factors(nn.Linear(3, 4))
    with pytest.raises(TypeError, match=r"ΔW = scaling · B A, got DoRALinear"):
        start(DoRALinear(nn.Linear(3, 4), 2, 3), "pissa")
    with pytest.raises(ValueError, match=r"2 r <= min\(d, k\) = 8, got r = 5"):
        start(make_layer(8, 12, 5), "lora_ga", gradient=torch.ones(8, 12))
    layer = make_layer(8, 12, 3)
    layer.merge(keep_base=True)
    with pytest.raises(RuntimeError, match="merged: unmerge it first"):
        start(layer, "pissa")
    layer.unmerge()
    with pytest.raises(RuntimeError, match="nothing to undo"):
        undo_start(layer)
    start(layer, "pissa", keep_base=False)
    with pytest.raises(RuntimeError, match="started: undo_start it first"):
        start(layer, "olora")
    with pytest.raises(RuntimeError, match="keep_base=False"):
        undo_start(layer)
    for value, says in ((float("nan"), "not finite"), (0.0, "both gradients are 0")):
        layer = make_layer(8, 12, 3)
        layer.base.weight.data.fill_(value)
        with pytest.raises(ValueError, match=says):
            start(layer, "pissa")
    with pytest.raises(ValueError, match="one real device, got meta"):
        start(LoRALinear(nn.Linear(4, 5, device="meta"), 2, 3), "pissa")


def test_a_started_layer_moves_copies_saves_merges_and_trains_as_any_other(make_layer, draw):
    layer, x = make_layer(8, 12, 3), draw(5, 12)
    start(layer, "pissa")
    train_a_little(layer)
    twin, other = copy.deepcopy(layer), make_layer(8, 12, 3, seed=7)
    assert torch.equal(twin(x), layer(x)) and torch.equal(twin.origin.W0, layer.origin.W0)
    with pytest.raises(RuntimeError, match="origin"):  # a layer that was not started has no place for A0
        other.load_state_dict(layer.state_dict())
    other = make_layer(8, 12, 3, seed=7)
    start(other, "pissa")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x)) and torch.equal(plain_factors(other).A, plain_factors(layer).A)
    expected = layer(x)
    layer.merge(keep_base=True)
    assert torch.allclose(layer(x), expected)
    with pytest.raises(RuntimeError, match="merged"):
        undo_start(layer)
    layer.unmerge()
    layer.float()
    assert layer.origin.A0.dtype == layer.origin.W0.dtype == torch.float32
    undo_start(layer)
    assert [name for name, _ in layer.named_parameters()] == [name for name, _ in make_layer().named_parameters()]


def test_prepare_start_changes_nothing_until_it_is_called(make_layer):
    layer = make_layer(8, 12, 3)
    before = snapshot(layer)
    step = prepare_start(layer, "olora", torch.Generator())
    assert unchanged(layer, before)
    step()
    assert has_origin(layer)


def test_start_factors_are_plain_functions_of_the_weight(draw):
    W = draw(8, 12)
    A, B = start_factors("pissa", W, 3, 2.0, None)
    U, S, Vt = torch.linalg.svd(W, full_matrices=False)
    assert torch.allclose(2.0 * B @ A, U[:, :3] * S[:3] @ Vt[:3])
    assert b_random(W, 3, 2.0, torch.Generator().manual_seed(0))[1].shape == (8, 3)


def test_a_start_of_ones_own_keeps_the_output_and_a_wrong_shape_changes_nothing(make_layer, draw):
    A0, B0, x = draw(3, 12), draw(8, 3), draw(5, 12)
    layer = make_layer(8, 12, 3)
    before, expected = snapshot(layer), layer.base(x)
    with pytest.raises(ValueError, match=r"must return A0 \(r, k\) and B0 \(d, r\)"):
        start(layer, lambda W, r, s, generator: (A0.T, B0))
    assert unchanged(layer, before)
    start(layer, lambda W, r, s, generator: (A0, B0))
    assert torch.equal(layer.lora_A, A0) and torch.equal(layer.lora_B, B0)
    assert torch.allclose(layer(x), expected) and not torch.allclose(layer.base(x), expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["kaiming", *STARTS])
def test_the_first_step_of_gradient_descent_from_any_start_is_what_chapter_8_says(make_layer, draw, name, seed):
    layer, rate, x, y = make_layer(8, 12, 3), 0.05, draw(20, 12), draw(20, 8)
    W0 = layer.base.weight.detach().clone()
    W = W0.clone().requires_grad_()
    ((x @ W.T - y).square().mean()).backward()
    G = W.grad
    if name == "kaiming":
        layer.reset_parameters(seed)
    else:
        start(layer, name, generator=seed, **({"gradient": G} if name == "lora_ga" else {}))
    A0, B0, s = layer.lora_A.detach().clone(), layer.lora_B.detach().clone(), layer.scaling
    with torch.no_grad():
        bias = 0 if layer.base.bias is None else layer.base.bias
    ((layer(x) - bias - y).square().mean()).backward()
    with torch.no_grad():
        for factor in (layer.lora_A, layer.lora_B):
            factor -= rate * factor.grad
        W1 = layer.base.weight + layer.delta_weight()
    first, second = B0 @ B0.T @ G + G @ A0.T @ A0, G @ A0.T @ B0.T @ G
    assert torch.allclose(W1, W0 - rate * s**2 * first + rate**2 * s**3 * second)
    assert not torch.allclose(W1, W0)
