"""Any argument whatever: convolution, NF4, file and installer take it or refuse it by name, and nothing has changed."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lora_course.adapters import inject
from lora_course.adapters.conv import LoRAConv2d
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.files import load_adapter, save_adapter
from lora_course.adapters.install import install
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.nf4 import NF4Linear, QLoRALinear, dequantize_nf4, quantize_nf4
from lora_course.adapters.pair import AdapterFileError
from lora_course.adapters.peft_format import ConfigError, Plan, read_plan

ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=5,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)
NAMES = ["r", "alpha", "dropout", "rslora", "init", "generator"]
GOOD = {"r": 2, "alpha": 3, "dropout": 0.0, "rslora": False, "init": "kaiming", "generator": 0}
MAKE = {
    LoRALinear: lambda: nn.Linear(3, 4),
    DoRALinear: lambda: nn.Linear(3, 4),
    QLoRALinear: lambda: NF4Linear(nn.Linear(3, 4)),
    LoRAConv2d: lambda: nn.Conv2d(3, 4, 2),
}


@pytest.mark.parametrize("kind", MAKE, ids=lambda kind: kind.__name__)
@settings(max_examples=60)
@given(name=st.sampled_from(NAMES), value=ANYTHING)
def test_a_constructor_takes_an_argument_or_names_it_and_leaves_the_base(kind, name, value):
    if name == "r" and type(value) is int and value > 1000:
        value = 1000
    base = MAKE[kind]()
    flags = [p.requires_grad for p in base.parameters()]
    try:
        layer = kind(base, **GOOD | {name: value})
    except (TypeError, ValueError) as error:
        assert name in str(error) and flags == [p.requires_grad for p in base.parameters()]
    else:
        assert layer.base is base and not any(p.requires_grad for p in base.parameters())


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    block=st.integers(1, 70),
    scale=st.floats(1e-30, 1e30),
    seed=st.integers(0, 2**32),
)
def test_any_tensor_is_quantized_within_half_the_widest_gap_and_stays_so(shape, block, scale, seed):
    W = scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    codes, absmax = quantize_nf4(W, block)
    back = dequantize_nf4(codes, absmax, W.shape, block)
    spread = absmax.repeat_interleave(block)[: W.numel()].view(W.shape)
    assert ((back - W).abs() <= 0.1520 * spread * (1 + 1e-5)).all()  # (1 - 0.6962) / 2
    again = quantize_nf4(back, block)
    assert torch.equal(again[0], codes) and torch.equal(again[1], absmax)


@settings(max_examples=150)
@given(
    config=st.dictionaries(
        st.one_of(
            st.sampled_from(
                "peft_type r init_r lora_alpha lora_dropout vera_dropout use_rslora use_dora bias "
                "rank_pattern alpha_pattern target_modules init_lora_weights "
                "modules_to_save save_projection projection_prng_key".split()
            ),
            st.text(max_size=5),
        ),
        st.one_of(JSON, st.sampled_from(["LORA", "VERA", "ADALORA", "none", "pissa", ["q"], 4])),
        max_size=6,
    ),
    valid=st.booleans(),
)
def test_any_json_is_a_plan_or_an_error_that_names_the_field(config, valid):
    config = ({"peft_type": "LORA", "target_modules": ["q"]} if valid else {}) | config
    try:
        plan = read_plan(config)
    except ConfigError as error:
        assert any(repr(name)[1:-1][:60] in str(error) for name in [*config, "peft_type", "target_modules"])
    else:
        assert isinstance(plan, Plan) and all(number > 0 for number in plan.of("a.q"))


@settings(max_examples=40)
@given(folder=st.one_of(ANYTHING, st.text(alphabet="ab./\0~ü", max_size=12).map("no-such-folder/".__add__)))
def test_no_folder_crashes_the_reader_or_touches_the_model(folder):
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises((TypeError, AdapterFileError), match="folder must be a path|adapter_"):
        load_adapter(model, folder)
    assert type(model[0]) is nn.Linear and model[0].weight.requires_grad


@pytest.mark.parametrize("model", [None, 3, "model", nn.Linear, torch.ones(2)])
def test_what_is_no_module_is_refused(model, tmp_path):
    for call in (save_adapter, load_adapter):
        with pytest.raises(TypeError, match="model must be an nn.Module"):
            call(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_install_is_all_or_nothing():
    model = nn.Sequential(nn.Linear(2, 3), nn.Conv2d(2, 4, 1, groups=2), nn.Linear(3, 2))
    model[0].weight.requires_grad_(False)
    flags, layers = [p.requires_grad for p in model.parameters()], list(model)

    def lora(layer):
        return LoRALinear(layer, 2, 3)

    cases = [
        ({"0": lora, "1": lambda layer: LoRAConv2d(layer, 2, 3)}, "groups=2"),
        ({"0": lora, "9": lora}, "no place for an adapter at '9'"),
        ({"": lora}, "no place for an adapter at ''"),
    ]
    for makers, words in cases:
        with pytest.raises(TypeError, match=words):
            install(model, makers)
        assert list(model) == layers and flags == [p.requires_grad for p in model.parameters()]
    found = install(model, {"2": lora})
    assert list(found) == ["2"] and [n for n, p in model.named_parameters() if p.requires_grad] == [
        "2.lora_A",
        "2.lora_B",
    ]
    with pytest.raises(ValueError, match="has adapters already, at 2"):
        install(model, {"0": lora})
    with pytest.raises(ValueError, match="has adapters already"):
        inject(model, ["0"], 2, 3)


def test_the_new_layers_leave_the_global_generator_alone():
    linear, conv = nn.Linear(3, 4), nn.Conv2d(3, 4, 1)
    before = torch.get_rng_state()
    QLoRALinear(NF4Linear(copy.deepcopy(linear)), 2, 3, generator=0)
    LoRAConv2d(conv, 2, 3, generator=0)
    assert torch.equal(before, torch.get_rng_state())
