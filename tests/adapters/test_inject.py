"""inject puts adapters where it is told, freezes the rest, says what it did, and remove leaves no trace."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from lora_course.adapters import LoRALinear, count_parameters, inject, merge_all, remove, trainable_parameters

ATTENTION = [f"blocks.{i}.attn.{p}" for i in (0, 1) for p in ("q_proj", "k_proj", "v_proj", "o_proj")]


def snapshot(model):
    """Everything that an error must leave alone: modules, tensors, values, flags, mode."""
    modules = {name: (id(m), m.training, sorted(vars(m))) for name, m in model.named_modules(remove_duplicate=False)}
    tensors = {name: (id(p), p._version, p.requires_grad) for name, p in model.named_parameters(remove_duplicate=False)}
    return modules, tensors, {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a[:2] == b[:2] and a[2].keys() == b[2].keys() and all(torch.equal(a[2][k], b[2][k]) for k in a[2])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["q_proj", "v_proj"], [n for n in ATTENTION if n[-6] in "qv"]),
        (["attn.q_proj"], [n for n in ATTENTION if n[-6] == "q"]),
        (["blocks.1.attn.k_proj"], ["blocks.1.attn.k_proj"]),
        (("mlp",), ["blocks.0.mlp", "blocks.1.mlp"]),
        ({"o_proj", "mlp"}, ["blocks.0.attn.o_proj", "blocks.0.mlp", "blocks.1.attn.o_proj", "blocks.1.mlp"]),
        (r"blocks\.0\.attn\.[qk]_proj", ATTENTION[:2]),
        (r".*_proj", ATTENTION),
        (re.compile(r".*\.MLP", re.IGNORECASE), ["blocks.0.mlp", "blocks.1.mlp"]),
        (lambda name, module: isinstance(module, nn.Linear) and module.out_features == 4, None),
    ],
)
def test_suffixes_regular_expressions_and_predicates_select(tiny_lm, target, expected):
    expected = [n for n in ATTENTION if n[-6] in "kv"] if expected is None else expected
    report = inject(tiny_lm, target, r=2, alpha=3)
    assert list(report.adapted) == expected
    assert [n for n, m in tiny_lm.named_modules() if isinstance(m, LoRALinear)] == expected


def test_output_is_unchanged_by_injection_and_only_the_factors_are_trained(tiny_lm, tokens):
    before = tiny_lm(tokens)
    report = inject(tiny_lm, ["q_proj", "v_proj"], r=2, alpha=3, dropout=0.5, generator=0)
    assert torch.equal(tiny_lm(tokens), before)
    assert {n.rpartition(".")[2] for n, p in tiny_lm.named_parameters() if p.requires_grad} == {
        "lora_A",
        "lora_B",
    }
    assert report.trainable == 2 * (2 * (8 + 6) + 2 * (4 + 6)) == sum(p.numel() for p in trainable_parameters(tiny_lm))
    assert report.total == sum(p.numel() for p in tiny_lm.parameters())
    assert report.parameters == count_parameters(tiny_lm)


def test_options_reach_each_layer_and_one_generator_gives_each_layer_its_own_start(tiny_lm):
    inject(tiny_lm, ["mlp"], r=2, alpha=3, dropout=0.25, rslora=True, init="gaussian", generator=4)
    layers = [block["mlp"] for block in tiny_lm.blocks]
    for layer in layers:
        assert (layer.r, layer.alpha, layer.dropout, layer.rslora, layer.init) == (
            2,
            3,
            0.25,
            True,
            "gaussian",
        )
        assert layer.scaling == 3 / 2**0.5
    assert not torch.equal(layers[0].lora_A, layers[1].lora_A)


def test_a_seed_repeats_an_injection(tiny_lm):
    twin = copy.deepcopy(tiny_lm)
    before = torch.get_rng_state()
    inject(tiny_lm, ".*_proj", r=2, alpha=3, generator=torch.Generator().manual_seed(4))
    inject(twin, ".*_proj", r=2, alpha=3, generator=4)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(tiny_lm.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_report_reads_well(tiny_lm):
    text = repr(inject(tiny_lm, ["head", "q_proj"], r=7, alpha=14))
    assert "LoRA in 3 layers, r = 7, alpha = 14, scaling = 2" in text
    assert "trainable: 315 of" in text and "blocks.0.attn.q_proj, blocks.1.attn.q_proj, head" in text
    assert "r above min(d, k), so more parameters than rank: blocks.0.attn.q_proj" in text
    assert "head shares its weight with embed.weight; merge needs untie=True" in text


def test_report_names_layers_where_r_exceeds_min_d_k(tiny_lm):
    report = inject(tiny_lm, ["q_proj", "k_proj"], r=5, alpha=3)
    assert report.above_full_rank == ("blocks.0.attn.k_proj", "blocks.1.attn.k_proj")


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.other = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second = self.first
        block = nn.Sequential(nn.Linear(4, 4))
        self.blocks = nn.ModuleList([block, block])

    def forward(self, x):
        return self.blocks[1](self.blocks[0](self.second(self.other(self.first(x)))))


@pytest.mark.parametrize("target", [["first"], ["second"], ["first", "second"]])
def test_a_layer_that_is_used_twice_is_wrapped_once_under_all_its_names(target):
    model = Shared()
    original = model.first
    report = inject(model, target, r=2, alpha=4)
    assert isinstance(model.first, LoRALinear) and model.first is model.second and model.first.base is original
    assert report.adapted == ("first",) and report.used_twice == {"first": ("second",)}
    assert report.trainable == 2 * (4 + 4) and not report.tied
    merge_all(model)
    assert remove(model, keep_merged=True) == ("first", "second")
    assert model.first is original and model.second is original


def test_a_layer_inside_of_a_block_that_is_used_twice_is_found_by_each_name():
    model = Shared()
    report = inject(model, r"blocks\.1\.0", r=2, alpha=4)
    assert model.blocks[0][0] is model.blocks[1][0] and isinstance(model.blocks[0][0], LoRALinear)
    assert report.used_twice == {"blocks.0.0": ("blocks.1.0",)}


def test_a_model_that_contains_itself_has_finitely_many_names():
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].owner = model
    assert inject(model, ["0"], r=2, alpha=4).adapted == ("0",)


@pytest.mark.parametrize("trained", [True, False])
def test_remove_gives_the_original_objects_and_flags_back(tiny_lm, tokens, stir, trained):
    for name, p in tiny_lm.named_parameters():
        p.requires_grad_(name.endswith("bias") ^ trained)
    before, output = snapshot(tiny_lm), tiny_lm(tokens)
    report = inject(tiny_lm, ".*_proj|head", r=2, alpha=3)
    stir(tiny_lm)
    assert not torch.allclose(tiny_lm(tokens), output)
    assert remove(tiny_lm) == report.adapted
    assert same(snapshot(tiny_lm), before) and torch.equal(tiny_lm(tokens), output)
    inject(tiny_lm, ["mlp"], r=1, alpha=1)  # and the way is free again


def test_remove_works_on_a_deep_copy_and_on_a_part(tiny_lm):
    inject(tiny_lm, ["q_proj", "mlp"], r=2, alpha=3)
    twin = copy.deepcopy(tiny_lm)
    remove(twin)
    assert all(p.requires_grad for p in twin.parameters()) and count_parameters(twin).adapter == 0
    assert remove(tiny_lm.blocks[0]) == ("attn.q_proj", "mlp")
    assert isinstance(tiny_lm.blocks[1]["mlp"], LoRALinear)
    assert remove(tiny_lm) == ("blocks.1.attn.q_proj", "blocks.1.mlp")
    assert all(p.requires_grad for p in tiny_lm.parameters())


def test_layers_wrapped_by_hand_are_merged_counted_and_removed_too():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2] = LoRALinear(model[2], 1, 2)
    assert count_parameters(model) == (1 * (4 + 2) + 16, 6, 26)
    remove(model)
    assert all(p.requires_grad for p in model.parameters()) and type(model[2]) is nn.Linear


def test_remove_refuses_a_merged_model_unless_told_to_keep_the_update(tiny_lm, tokens, stir):
    inject(tiny_lm, ["mlp"], r=2, alpha=3)
    output = stir(tiny_lm)(tokens)
    merge_all(tiny_lm)
    with pytest.raises(RuntimeError, match="blocks.0.mlp, blocks.1.mlp are merged: call unmerge_all.*keep_merged=True"):
        remove(tiny_lm)
    assert isinstance(tiny_lm.blocks[0]["mlp"], LoRALinear)
    remove(tiny_lm, keep_merged=True)
    assert torch.allclose(tiny_lm(tokens), output) and count_parameters(tiny_lm).adapter == 0


def test_remove_without_adapters_or_on_an_adapter_itself_says_so(tiny_lm, make_layer):
    with pytest.raises(ValueError, match="no adapters"):
        remove(tiny_lm)
    with pytest.raises(TypeError, match="model.base"):
        remove(make_layer())


def test_on_the_meta_device():
    model = nn.Sequential(nn.Linear(1024, 2048, device="meta"), nn.Linear(2048, 1024, device="meta"))
    assert inject(model, ["0", "1"], r=8, alpha=16).trainable == 2 * 8 * 3072
    assert model(torch.empty(3, 1024, device="meta")).shape == (3, 1024)


def test_in_torchs_own_encoder_the_fast_path_of_inference_sees_the_adapters(draw, stir):
    """nn.TransformerEncoderLayer reads linear1.weight in inference instead of calling linear1."""
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    x = draw(2, 3, 8)
    with torch.no_grad():
        plain = encoder.eval()(x)
    inject(encoder, ["linear1", "linear2"], r=2, alpha=4)
    stir(encoder)
    with torch.no_grad():
        fast = encoder(x)
    encoder.train()
    assert torch.allclose(fast, encoder(x), rtol=0, atol=1e-10) and not torch.allclose(fast, plain)


# --- what is refused, and that the model is then untouched ------------------------------------------------------


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    """A subclass that keeps nn.Linear's forward."""


def refusals():
    yield "unknown suffix", ["q_prj"], ValueError, "'q_prj'; near names that exist: q_proj"
    yield "one of two unknown", ["q_proj", "v_prjo"], ValueError, "'v_prjo'; near names that exist: v_proj"
    yield (
        "nothing near",
        ["xxxx"],
        ValueError,
        "linear layers that exist: q_proj, k_proj, v_proj, o_proj, mlp, head",
    )
    yield (
        "regular expression of a part",
        "q_proj",
        ValueError,
        r"for a suffix give \['q_proj'\].*near names that exist: q_",
    )
    yield (
        "no regular expression",
        "(q_proj",
        ValueError,
        "target_modules='\\(q_proj' is no regular expression",
    )
    yield "bytes pattern", re.compile(b"q"), ValueError, "no regular expression for names"
    yield "empty list", [], ValueError, "target_modules is empty"
    yield "empty name", [""], ValueError, "target_modules"
    yield "not a name", [3], TypeError, "target_modules must hold names"
    yield "not a selection", 3, TypeError, "target_modules must be"
    yield "predicate false", lambda name, module: False, ValueError, "the predicate is true for no module"
    yield "predicate raises", lambda name, module: 1 / 0, ZeroDivisionError, "division"
    yield (
        "embedding",
        ["embed"],
        TypeError,
        "'embed', matched by target_modules, cannot be adapted: it is a Embedding",
    )
    yield "container", ["attn"], TypeError, "'blocks.0.attn'.*it is a Attention, not an nn.Linear"
    yield "norm among linears", ".*norm|.*mlp", TypeError, "'norm'.*LayerNorm"
    yield "everything", lambda name, module: True, TypeError, "cannot be adapted|model itself"


@pytest.mark.parametrize("case", [*refusals()], ids=lambda case: case[0])
def test_targets_that_are_refused(tiny_lm, case):
    _, target, error, message = case
    before = snapshot(tiny_lm)
    with pytest.raises(error, match=message):
        inject(tiny_lm, target, r=2, alpha=3)
    assert same(snapshot(tiny_lm), before)


def unusual_layers():
    parametrized = parametrizations.weight_norm(nn.Linear(4, 4))
    yield nn.MultiheadAttention(4, 2).out_proj, "nn.MultiheadAttention's out_proj"
    yield Doubled(4, 4), "its class Doubled has a forward of its own"
    yield nn.LazyLinear(4), "send one batch"
    yield parametrized, "computed from other tensors"
    yield parametrize.register_parametrization(nn.Linear(4, 4), "bias", nn.Softplus()), "computed from other tensors"
    yield nn.Bilinear(4, 4, 4), "it is a Bilinear"
    yield nn.Linear(4, 4, dtype=torch.complex64), "complex64"
    yield LoRALinear(nn.Linear(4, 4), 1, 1), "adapters already|LoRALinear"


@pytest.mark.parametrize(("layer", "message"), [*unusual_layers()], ids=lambda v: v if isinstance(v, str) else "layer")
def test_layers_that_cannot_be_adapted_are_named_with_the_reason(layer, message):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer))
    ids = [id(m) for m in model.modules()]
    with pytest.raises((TypeError, ValueError), match=message):
        inject(model, ["0", "1.0"], r=2, alpha=3)
    assert [id(m) for m in model.modules()] == ids and model[0].weight.requires_grad
    with pytest.raises(TypeError, match="base cannot be adapted"):
        LoRALinear(layer, 2, 3)


def test_a_subclass_that_keeps_the_forward_of_nn_linear_is_adapted():
    model = nn.Sequential(Renamed(4, 4))
    inject(model, ["0"], r=2, alpha=3)
    assert type(model[0].base) is Renamed


def test_double_injection_is_refused_and_says_where_adapters_are(tiny_lm):
    inject(tiny_lm, ["q_proj"], r=2, alpha=3)
    before = snapshot(tiny_lm)
    for target in (["q_proj"], ["v_proj"], [".base"], r".*\.base"):
        with pytest.raises(ValueError, match="adapters already, at blocks.0.attn.q_proj.*remove"):
            inject(tiny_lm, target, r=2, alpha=3)
    assert same(snapshot(tiny_lm), before)


def test_the_model_itself_cannot_be_replaced():
    with pytest.raises(TypeError, match="the model itself"):
        inject(nn.Linear(3, 4), lambda name, module: True, r=2, alpha=3)
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        inject([nn.Linear(3, 4)], ["0"], r=2, alpha=3)


def test_mixed_devices_are_refused():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4, device="meta"))
    with pytest.raises(ValueError, match="mixed devices.*1 on the meta device.*as 0, on cpu"):
        inject(model, ["0", "1"], r=2, alpha=3)
    model[1].to_empty(device="cpu").weight = nn.Parameter(torch.empty(4, 4, device="meta"))
    with pytest.raises(ValueError, match="'1'.*mixed devices, its weight is on meta and its bias on cpu"):
        inject(model, ["0", "1"], r=2, alpha=3)
    assert type(model[0]) is nn.Linear and all(p.requires_grad for p in model.parameters())


def test_a_failure_half_way_leaves_the_model_as_it_was(tiny_lm, monkeypatch):
    before, calls = snapshot(tiny_lm), []
    freeze = LoRALinear.freeze_base

    def fails_at_the_third(self):
        calls.append(self)
        freeze(self)
        if len(calls) == 3:
            raise MemoryError("out of memory")

    monkeypatch.setattr(LoRALinear, "freeze_base", fails_at_the_third)
    with pytest.raises(MemoryError):
        inject(tiny_lm, ".*_proj", r=2, alpha=3)
    assert same(snapshot(tiny_lm), before)
