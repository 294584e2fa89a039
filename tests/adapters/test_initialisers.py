"""The start: A random with a known distribution, B = 0, and no other random number touched."""

import math

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear

K, R = 400, 50


def started(init, generator=0, dtype=torch.float32):
    return LoRALinear(nn.Linear(K, 30, dtype=dtype), R, 8, init=init, generator=generator)


@pytest.mark.parametrize("seed", range(3))
def test_kaiming_is_uniform_between_plus_and_minus_one_over_root_k(seed):
    A = started("kaiming", seed).lora_A.double() * math.sqrt(K)
    assert A.abs().max() <= 1 and A.abs().max() > 0.999
    assert abs(A.mean()) < 5 / math.sqrt(3 * A.numel())
    assert abs(A.var() - 1 / 3) < 0.01
    share = (A.flatten().sort().values - torch.linspace(-1, 1, A.numel())).abs().max()
    assert share < 4 / math.sqrt(A.numel())  # Kolmogorov distance to the uniform distribution


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_has_standard_deviation_one_over_r_whatever_k(seed):
    A = started("gaussian", seed).lora_A.double() * R
    assert abs(A.mean()) < 5 / math.sqrt(A.numel())
    assert abs(A.std() - 1) < 0.03
    assert abs((A**4).mean() - 3) < 0.4  # the fourth moment of a Gaussian; a uniform one has 1.8
    assert abs(((A > 1).double().mean()) - 0.1587) < 0.015


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_B_starts_at_zero_and_shapes_and_dtypes_are_as_promised(init, dtype):
    layer = started(init, dtype=dtype)
    assert layer.lora_A.shape == (R, K) and layer.lora_B.shape == (30, R)
    assert not layer.lora_B.any() and not layer.delta_weight().any()
    assert layer.lora_A.dtype == layer.lora_B.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)


@pytest.mark.parametrize("init", ["kaiming", "gaussian"])
def test_a_seed_and_its_generator_give_the_same_start_and_leave_the_global_one_alone(init):
    before = torch.get_rng_state()
    base = nn.Linear(3, 2, device="meta").to_empty(device="cpu")
    first, second, other = (LoRALinear(base, 2, 1, init=init, generator=seed).lora_A for seed in (4, 4, 5))
    third = LoRALinear(base, 2, 1, init=init, generator=torch.Generator().manual_seed(4)).lora_A
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, second) and torch.equal(first, third) and not torch.equal(first, other)


def test_without_a_generator_the_start_is_that_of_seed_0_and_the_global_one_stays_alone():
    base = nn.Linear(3, 2, device="meta").to_empty(device="cpu")
    before = torch.get_rng_state()
    assert torch.equal(LoRALinear(base, 2, 1).lora_A, LoRALinear(base, 2, 1, generator=0).lora_A)
    with pytest.raises(TypeError, match="generator"):
        LoRALinear(base, 2, 1, generator=None)
    assert torch.equal(torch.get_rng_state(), before)


def test_reset_parameters_draws_anew_in_place(make_layer):
    layer = make_layer()
    A, B = layer.lora_A, layer.lora_B
    layer.reset_parameters(generator=9)
    assert layer.lora_A is A and layer.lora_B is B and not B.any()
    assert torch.equal(A, LoRALinear(layer.base, 3, 1, generator=9).lora_A)
    layer.merge()
    with pytest.raises(RuntimeError, match="merged"):
        layer.reset_parameters()


def test_on_the_meta_device_nothing_is_drawn():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    layer = LoRALinear(nn.Linear(3, 2, device="meta"), 2, 1, generator=generator)
    assert layer.lora_A.is_meta and layer.lora_B.is_meta and torch.equal(generator.get_state(), before)
