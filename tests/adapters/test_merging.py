"""merge writes W0 + ΔW, unmerge gives W0 back bit for bit or says that it cannot."""

import copy
import math

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear, inject, merge_all, unmerge_all

HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
def test_the_merged_weight_is_W0_plus_delta_and_the_output_stays(make_layer, draw, seed, bias):
    layer, x = make_layer(seed=seed, bias=bias), draw(4, 7, seed=seed)
    W0, W, delta, output = layer.base.weight.clone(), layer.base.weight, layer.delta_weight(), layer(x)
    report = layer.merge()
    assert layer.merged and layer.base.weight is W and torch.equal(W, W0 + delta)
    assert torch.allclose(layer(x), output, rtol=0, atol=1e-12)
    assert math.isclose(report.delta_norm, torch.linalg.matrix_norm(delta).item()) and report.lost < 1e-15


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
@pytest.mark.parametrize("seed", range(3))
def test_with_a_copy_unmerge_is_exact_to_the_bit(make_layer, dtype, seed):
    layer = make_layer(d=30, k=40, seed=seed, dtype=dtype)
    W, before = layer.base.weight, layer.base.weight.clone()
    for _ in range(3):
        layer.merge(keep_base=True)
        assert not torch.equal(W, before)
        layer.unmerge()
        assert layer.base.weight is W and torch.equal(W, before) and not layer.merged and layer.kept_weight is None


def test_subtracting_the_update_again_would_not_be_exact(make_layer):
    layer = make_layer(d=30, k=40, dtype=torch.float32)
    before, delta = layer.base.weight.clone(), layer.delta_weight()
    layer.merge()
    assert not torch.equal(layer.base.weight - delta, before)


def test_without_a_copy_unmerge_says_that_it_cannot_and_how_it_could(make_layer):
    layer = make_layer()
    with pytest.raises(RuntimeError, match="not merged"):
        layer.unmerge()
    layer.merge()
    after = layer.base.weight.clone()
    with pytest.raises(RuntimeError, match="cannot unmerge.*keep_base=True"):
        layer.unmerge()
    assert layer.merged and torch.equal(layer.base.weight, after)


def test_merging_twice_is_refused(make_layer):
    layer = make_layer()
    layer.merge(keep_base=True)
    after = layer.base.weight.clone()
    with pytest.raises(RuntimeError, match="merged already"):
        layer.merge()
    assert torch.equal(layer.base.weight, after)


def test_the_copy_stays_out_of_the_state_dict_and_moves_with_the_module(make_layer):
    layer = make_layer()
    layer.merge(keep_base=True)
    assert "kept_weight" not in layer.state_dict()
    assert layer.float().kept_weight.dtype == torch.float32
    assert copy.deepcopy(layer).kept_weight is not layer.kept_weight


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("seed", range(3))
def test_a_half_precision_merge_is_one_rounding_of_the_float32_sum(make_layer, dtype, seed):
    layer = make_layer(d=30, k=40, seed=seed, dtype=dtype)
    W0, delta = layer.base.weight.clone(), layer.delta_weight()
    exact = W0.float() + delta
    report = layer.merge()
    assert delta.dtype == torch.float32 and torch.equal(layer.base.weight, exact.to(dtype))
    lost = torch.linalg.matrix_norm(layer.base.weight.double() - W0.double() - delta.double())
    assert math.isclose(report.lost, (lost / torch.linalg.matrix_norm(delta.double())).item(), rel_tol=1e-3)
    assert report.dtype == dtype and 0 < report.lost < torch.finfo(dtype).eps * 10


@pytest.mark.parametrize(("size", "low", "high"), [(1.0, 0.0, 0.02), (1e-2, 0.1, 0.9), (1e-6, 0.99, 1.01)])
def test_the_smaller_the_update_the_more_of_it_bfloat16_loses(make_layer, size, low, high):
    layer = make_layer(d=64, k=64, r=4, alpha=4, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.lora_B *= size
    report = layer.merge()
    assert low <= report.lost <= high
    assert (report.unchanged > 0.95) == (size == 1e-6) and (report.unchanged < 0.05) == (size == 1.0)
    assert f"lost={report.lost:.3g}" in repr(report)


def test_autocast_does_not_touch_the_precision_of_a_merge(make_layer):
    layer = make_layer(d=30, k=40, dtype=torch.float32)
    expected = layer.base.weight + layer.delta_weight()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layer.merge()
    assert torch.equal(layer.base.weight, expected)


def test_half_precision_factors_are_still_multiplied_in_float32(make_layer):
    layer = make_layer(d=30, k=40, dtype=torch.float32).bfloat16()
    exact = layer.base.weight.double() + 1.5 * layer.lora_B.double() @ layer.lora_A.double()
    layer.merge()
    assert torch.equal(layer.base.weight, exact.float().bfloat16())


def test_a_sum_that_is_not_finite_is_refused_before_anything_is_written(make_layer):
    layer = make_layer(dtype=torch.float16)
    before = layer.base.weight.clone()
    for value, largest in ((1e6, "e"), (float("nan"), "nan")):
        nn.init.constant_(layer.lora_B, value)
        nn.init.constant_(layer.lora_A, 1.0)
        with pytest.raises(ValueError, match=f"not finite in torch.float16.*{largest}"):
            layer.merge(keep_base=True)
        assert torch.equal(layer.base.weight, before) and not layer.merged and layer.kept_weight is None


def test_a_zero_update_loses_nothing():
    layer = LoRALinear(nn.Linear(3, 4, dtype=torch.bfloat16), 2, 4)
    before = layer.base.weight.clone()
    report = layer.merge()
    assert (report.delta_norm, report.lost, report.unchanged) == (0, 0, 0) and torch.equal(layer.base.weight, before)


def test_on_the_meta_device_a_merge_is_a_change_of_state():
    layer = LoRALinear(nn.Linear(3, 4, device="meta"), 2, 4)
    assert math.isnan(layer.merge(keep_base=True).lost) and layer.merged
    layer.unmerge()
    assert not layer.merged


def test_adapter_and_base_on_different_devices_are_refused(make_layer):
    layer = make_layer()
    layer.lora_A = nn.Parameter(layer.lora_A.to("meta"))
    with pytest.raises(ValueError, match="mixed devices.*lora_A on meta"):
        layer.merge()


@pytest.mark.parametrize("name", ["keep_base", "untie"])
def test_flags_must_be_flags(make_layer, tiny_lm, name):
    inject(tiny_lm, ["mlp"], r=1, alpha=1)
    for call in (make_layer().merge, lambda **kw: merge_all(tiny_lm, **kw)):
        with pytest.raises(TypeError, match=f"{name} must be True or False, got 1"):
            call(**{name: 1})


# --- whole models -----------------------------------------------------------------------------------------------


def test_merge_all_and_unmerge_all(tiny_lm, tokens, stir):
    inject(tiny_lm, ".*_proj|.*mlp", r=2, alpha=3, generator=0)
    output = stir(tiny_lm)(tokens)
    before = {k: v.clone() for k, v in tiny_lm.state_dict().items()}
    reports = merge_all(tiny_lm, keep_base=True)
    assert list(reports)[:2] == ["blocks.0.attn.q_proj", "blocks.0.attn.k_proj"] and len(reports) == 10
    assert torch.allclose(tiny_lm(tokens), output, rtol=0, atol=1e-12)
    unmerge_all(tiny_lm)
    after = tiny_lm.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)
    assert torch.equal(tiny_lm(tokens), output)


def test_merge_all_is_all_or_nothing(tiny_lm, stir):
    inject(tiny_lm, ["mlp"], r=2, alpha=3)
    stir(tiny_lm)
    first, second = (block["mlp"] for block in tiny_lm.blocks)
    before = first.base.weight.clone()
    nn.init.constant_(second.lora_B, float("inf"))
    with pytest.raises(ValueError, match="blocks.1.mlp: W \\+ ΔW is not finite"):
        merge_all(tiny_lm)
    assert torch.equal(first.base.weight, before) and not first.merged and not second.merged


def test_unmerge_all_is_all_or_nothing(tiny_lm, stir):
    inject(tiny_lm, ["mlp"], r=2, alpha=3)
    stir(tiny_lm)
    first, second = (block["mlp"] for block in tiny_lm.blocks)
    first.merge(keep_base=True)
    with pytest.raises(RuntimeError, match="blocks.0.mlp: this layer is merged already"):
        merge_all(tiny_lm)
    with pytest.raises(RuntimeError, match="blocks.1.mlp: this layer is not merged"):
        unmerge_all(tiny_lm)
    second.merge()
    with pytest.raises(RuntimeError, match="blocks.1.mlp: cannot unmerge"):
        unmerge_all(tiny_lm)
    assert first.merged and second.merged


def test_models_without_adapters_say_so(tiny_lm):
    for call in (merge_all, unmerge_all):
        with pytest.raises(ValueError, match="no adapters"):
            call(tiny_lm)
        with pytest.raises(TypeError, match="model must be an nn.Module"):
            call(None)


# --- tied weights -----------------------------------------------------------------------------------------------


def test_a_tied_weight_may_be_adapted_but_its_merge_is_refused_naming_the_twin(tiny_lm, tokens, stir):
    report = inject(tiny_lm, ["head", "q_proj"], r=2, alpha=3)
    stir(tiny_lm)
    assert report.tied == {"head": ("embed.weight",)} and tiny_lm.head.tied_to == ("embed.weight",)
    before = {k: v.clone() for k, v in tiny_lm.state_dict().items()}
    with pytest.raises(RuntimeError, match="weight of this layer is tied to embed.weight.*untie=True"):
        tiny_lm.head.merge()
    with pytest.raises(RuntimeError, match="weight of head is tied to embed.weight.*untie=True"):
        merge_all(tiny_lm)
    assert all(torch.equal(v, before[k]) for k, v in tiny_lm.state_dict().items())


@pytest.mark.parametrize("whole", [True, False])
def test_untied_the_layer_gets_a_weight_of_its_own_and_the_twin_stays(tiny_lm, tokens, stir, whole):
    inject(tiny_lm, ["head"], r=2, alpha=3)
    output, embedding = stir(tiny_lm)(tokens), tiny_lm.embed.weight.clone()
    if whole:
        merge_all(tiny_lm, keep_base=True, untie=True)
    else:
        tiny_lm.head.merge(keep_base=True, untie=True)
    assert tiny_lm.head.base.weight is not tiny_lm.embed.weight and tiny_lm.head.tied_to == ()
    assert torch.equal(tiny_lm.embed.weight, embedding)
    assert torch.allclose(tiny_lm(tokens), output, rtol=0, atol=1e-12)
    unmerge_all(tiny_lm)
    assert torch.equal(tiny_lm.head.base.weight, embedding)
    merge_all(tiny_lm)  # nothing is tied any more


def test_untie_leaves_layers_that_are_not_tied_in_place(tiny_lm, stir):
    inject(tiny_lm, ["head", "mlp"], r=2, alpha=3)
    W = tiny_lm.blocks[0]["mlp"].base.weight
    merge_all(stir(tiny_lm), untie=True)
    assert tiny_lm.blocks[0]["mlp"].base.weight is W


def test_merge_all_looks_for_ties_afresh(tiny_lm):
    inject(tiny_lm, ["head", "mlp"], r=2, alpha=3)
    tiny_lm.blocks[0]["mlp"].base.weight = tiny_lm.blocks[1]["mlp"].base.weight
    tiny_lm.head.base.weight = nn.Parameter(tiny_lm.head.base.weight.clone())
    with pytest.raises(
        RuntimeError, match="blocks.0.mlp is tied to blocks.1.mlp.base.weight; .*blocks.1.mlp is tied"
    ) as e:
        merge_all(tiny_lm)
    assert "head" not in str(e.value)
    merge_all(tiny_lm, untie=True)


@pytest.mark.parametrize("view", [lambda W: W, lambda W: W.T, lambda W: W[:2], lambda W: W[-1:, 1:]])
def test_views_of_a_weight_are_twins_too(view):
    model = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU())
    model[1].decoder = nn.Parameter(view(model[0].weight.data))
    assert inject(model, ["0"], r=2, alpha=3).tied == {"0": ("1.decoder",)}


def test_separate_slices_of_one_buffer_are_no_twins():
    model, together = (
        nn.Sequential(nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)),
        torch.randn(12, 4),
    )
    model[0].weight, model[1].weight = nn.Parameter(together[:6]), nn.Parameter(together[6:])
    assert not inject(model, ["0", "1"], r=2, alpha=3).tied


def test_ties_are_seen_on_the_meta_device():
    model = nn.ModuleDict({"embed": nn.Embedding(9, 4, device="meta"), "head": nn.Linear(4, 9, device="meta")})
    model["head"].weight = model["embed"].weight
    assert inject(model, ["head"], r=2, alpha=3).tied == {"head": ("embed.weight",)}
