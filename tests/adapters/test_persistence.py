"""Adapters survive what a torch user does with a module: saving, copying, moving, pickling."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear, inject, merge_all, unmerge_all


@pytest.fixture
def adapted(tiny_lm, stir):
    inject(tiny_lm, ["q_proj", "mlp", "head"], r=2, alpha=3, dropout=0.2, rslora=True)
    return stir(tiny_lm).eval()


def by_deepcopy(model):
    return copy.deepcopy(model)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_torch_save(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("way", [by_deepcopy, by_pickle, by_torch_save])
@pytest.mark.parametrize("merged", [False, True])
def test_copies_compute_the_same_and_share_nothing_with_the_original(adapted, tokens, way, merged):
    output = adapted(tokens)
    if merged:
        merge_all(adapted, keep_base=True, untie=True)
    twin = way(adapted)
    assert torch.allclose(twin(tokens), output, rtol=0, atol=1e-12)
    layer, original = twin.blocks[0]["mlp"], adapted.blocks[0]["mlp"]
    assert (layer.r, layer.scaling, layer.dropout, layer.merged) == (2, 3 / 2**0.5, 0.2, merged)
    assert layer.lora_A.data_ptr() != original.lora_A.data_ptr() and not layer.base.weight.requires_grad
    assert merged or twin.head.base.weight is twin.embed.weight
    if merged:
        unmerge_all(twin)
        assert torch.allclose(twin(tokens), output, rtol=0, atol=1e-12) and original.merged


def test_state_dict_round_trip(adapted, tokens, tiny_lm):
    other = copy.deepcopy(adapted)
    for p in other.parameters():
        nn.init.uniform_(p)
    saved = adapted.state_dict()
    keys = {k for k in saved if k.startswith("blocks.0.mlp")}
    assert keys == {f"blocks.0.mlp.{k}" for k in ("lora_A", "lora_B", "base.weight", "base.bias")}
    assert not other.load_state_dict(saved).missing_keys
    assert torch.equal(other(tokens), adapted(tokens))


def test_a_state_dict_can_be_read_without_pickled_code(adapted, tokens):
    buffer = io.BytesIO()
    torch.save(adapted.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(adapted)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(tokens), adapted(tokens))


@pytest.mark.parametrize("saved_merged", [False, True])
@pytest.mark.parametrize("loaded_merged", [False, True])
def test_a_state_dict_says_whether_the_update_is_in_the_weight(make_layer, draw, saved_merged, loaded_merged):
    layer, other, x = make_layer(), make_layer(seed=8), draw(4, 7)
    output = layer(x)
    if saved_merged:
        layer.merge()
    if loaded_merged:
        other.merge(keep_base=True)
    other.load_state_dict(layer.state_dict())
    assert other.merged == saved_merged and other.kept_weight is None
    assert torch.allclose(other(x), output, rtol=0, atol=1e-12)


def test_loading_the_factors_alone_leaves_the_base_and_its_state(make_layer):
    layer, other = make_layer(), make_layer(seed=8)
    other.merge(keep_base=True)
    factors = {k: v for k, v in layer.state_dict().items() if k.startswith("lora_")}
    result = other.load_state_dict(factors, strict=False)
    assert sorted(result.missing_keys) == ["base.bias", "base.weight"] and other.merged
    other.unmerge()
    assert torch.equal(other.lora_A, layer.lora_A)


def test_a_state_dict_of_another_rank_is_refused_by_torch_naming_the_factor(make_layer):
    with pytest.raises(RuntimeError, match="size mismatch for lora_A"):
        make_layer(r=2).load_state_dict(make_layer(r=3).state_dict())


@pytest.mark.parametrize("move", [lambda m: m.float(), lambda m: m.bfloat16(), lambda m: m.to(torch.float16)])
def test_a_model_that_is_cast_as_a_whole_still_runs(make_layer, draw, move):
    layer, x = make_layer(), draw(4, 7)
    exact = layer(x)
    cast = move(layer)
    h = cast(x.to(cast.base.weight.dtype))
    assert h.dtype == cast.base.weight.dtype and (h.double() - exact).abs().max() < 0.05 * exact.abs().max()


def test_optimizers_keep_their_parameters_over_a_merge_and_an_unmerge(make_layer, draw):
    layer, x = make_layer(), draw(4, 7)
    optimizer = torch.optim.SGD([layer.lora_A, layer.lora_B], lr=0.1)
    A = layer.lora_A.clone()
    layer.merge(keep_base=True)
    layer.unmerge()
    layer(x).sum().backward()
    optimizer.step()
    assert not torch.equal(layer.lora_A, A)


def test_a_layer_loaded_with_strict_keys_refuses_foreign_ones(make_layer):
    saved = make_layer().state_dict() | {"lora_C": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="Unexpected key.*lora_C"):
        make_layer().load_state_dict(saved)


def test_assigning_the_weight_of_an_adapter_is_refused(make_layer):
    with pytest.raises((AttributeError, KeyError)):
        make_layer().weight = nn.Parameter(torch.zeros(5, 7))


def test_isinstance(make_layer):
    assert isinstance(make_layer(), LoRALinear) and not isinstance(make_layer(), nn.Linear)
