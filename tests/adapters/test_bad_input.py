"""Every bad argument is refused by name, with its value, and neither layer nor model has changed."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lora_course.adapters import (
    DoRALinear,
    LoRALinear,
    SVDLinear,
    count_parameters,
    inject,
    inject_vera,
    merge_all,
    remove,
    trainable_parameters,
    unmerge_all,
)

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.binary(max_size=2),
    st.complex_numbers(),
    st.lists(st.integers()),
)
BAD_R = st.one_of(ANYTHING, st.integers(max_value=0), st.floats(), st.just(torch.tensor(2)), st.just(np.float32(2)))
BAD_ALPHA = st.one_of(
    ANYTHING, st.integers(max_value=0), st.floats(max_value=0), st.sampled_from([math.inf, math.nan, 10**400])
)
BAD_DROPOUT = st.one_of(
    ANYTHING,
    st.floats(min_value=1),
    st.floats(max_value=-1e-300),
    st.integers(min_value=1),
    st.just(math.nan),
)
BAD_FLAG = st.one_of(st.none(), st.integers(), st.text(), st.floats())
BAD_INIT = st.one_of(ANYTHING, st.integers()).filter(lambda value: value is not None)
BAD_GENERATOR = st.one_of(st.booleans(), st.text(), st.floats(), st.lists(st.integers()))
BAD = {
    "r": BAD_R,
    "alpha": BAD_ALPHA,
    "dropout": BAD_DROPOUT,
    "rslora": BAD_FLAG,
    "init": BAD_INIT,
    "generator": BAD_GENERATOR,
}


@pytest.mark.parametrize("name", BAD)
@given(data=st.data())
def test_bad_arguments_are_named_and_change_nothing(name, data):
    value = data.draw(BAD[name])
    good = {"r": 2, "alpha": 4} | {name: value}
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    layers = list(model)
    calls = [
        lambda: LoRALinear(model[0], **good),
        lambda: DoRALinear(model[0], **good),
        lambda: inject(model, ["0", "1"], **good),
        lambda: inject(model, ["0", "1"], adapter=DoRALinear, **good),
    ]
    if name not in ("rslora", "init"):
        calls.append(lambda: SVDLinear(model[0], **good))
        calls.append(lambda: inject(model, ["0", "1"], adapter=SVDLinear, **good))
    if name == "r":
        calls.append(lambda: inject_vera(model, ["0", "1"], value))
    for call in calls:
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        assert str(error.value).startswith(f"{name} must be") and repr(value) in str(error.value)
        assert list(model) == layers and all(p.requires_grad for p in model.parameters())


@given(
    r=st.one_of(st.integers(1, 40), st.integers(1, 40).map(np.int64)),
    alpha=st.one_of(
        st.integers(1, 10**6), st.floats(1e-6, 1e6), st.fractions(min_value=Fraction(1, 100), max_value=100)
    ),
    dropout=st.one_of(st.just(0), st.floats(0, 1, exclude_max=True)),
    rslora=st.booleans(),
    init=st.sampled_from(["kaiming", "gaussian"]),
    generator=st.integers(0, 2**40),
)
def test_good_arguments_are_taken(r, alpha, dropout, rslora, init, generator):
    layer = LoRALinear(nn.Linear(3, 4), r, alpha, dropout, rslora, init, generator)
    assert layer.scaling == pytest.approx(float(alpha) / (math.sqrt(r) if rslora else r))
    assert layer(torch.ones(2, 3)).shape == (2, 4) and layer.delta_weight().shape == (4, 3)


def selects_nothing(value):
    """Texts that are a regular expression for the name "0" do select the layer."""
    try:
        return not (isinstance(value, str) and re.fullmatch(value, "0"))
    except re.error:
        return True


@given(
    value=st.one_of(ANYTHING, st.floats(), st.integers(), st.dictionaries(st.text(), st.text())).filter(selects_nothing)
)
def test_no_selection_of_modules_crashes_or_changes_the_model(value):
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises((TypeError, ValueError), match="target_modules"):
        inject(model, value, 2, 4)
    assert type(model[0]) is nn.Linear and model[0].weight.requires_grad


@pytest.mark.parametrize("call", [count_parameters, trainable_parameters, merge_all, unmerge_all, remove])
@pytest.mark.parametrize("model", [None, 3, "model", nn.Linear, torch.ones(2)])
def test_what_is_no_module_is_refused(call, model):
    with pytest.raises(TypeError, match="model must be an nn.Module"):
        call(model)


@pytest.mark.parametrize("base", [None, nn.Conv2d(1, 1, 1), nn.Embedding(2, 2), nn.Linear, torch.ones(2, 2)])
def test_a_base_that_is_no_linear_layer_is_refused_by_its_type(base):
    with pytest.raises(TypeError, match=f"base cannot be adapted: it is a {type(base).__name__}, not an nn.Linear"):
        LoRALinear(base, 2, 4)


def test_an_empty_layer_is_refused():
    base = nn.Linear(3, 4)
    base.weight = nn.Parameter(torch.empty(0, 3))
    with pytest.raises(TypeError, match="empty"):
        LoRALinear(base, 2, 4)
