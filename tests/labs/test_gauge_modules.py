"""The two modules of source text 004 run, and are what chapter 12 says that they are."""

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear
from lora_course.labs import LoRAFiberBundle, LoRAGaugeField, mlp

d, k, r = 7, 5, 3


def base(seed=0, bias=True):
    layer = mlp([k, d], seed, dtype=torch.float64)[0]
    if not bias:
        layer.bias = None
    return layer


def rows(n=11):
    return torch.randn(n, k, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gauge_field_is_lora_in_other_letters_with_alpha_equal_to_r(seed):
    layer, x = base(), rows()
    field = LoRAGaugeField(layer, rank=r, seed=seed)
    lora = LoRALinear(base(), r=r, alpha=r)
    with torch.no_grad():
        lora.lora_B.copy_(field.A.T)
        lora.lora_A.copy_(field.phi.T)
    assert torch.allclose(field(x), lora(x), rtol=0, atol=1e-13)
    assert torch.allclose(field.delta_weight(), lora.delta_weight(), rtol=0, atol=1e-13)
    assert torch.linalg.matrix_rank(field.delta_weight()) == r


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gauge_field_starts_away_from_the_base_and_trains_it_too(seed):
    layer, x = base(), rows()
    field = LoRAGaugeField(layer, rank=r, seed=seed)
    assert (field(x) - layer(x)).norm() > layer(x).norm()
    assert layer.weight.requires_grad and sum(p.numel() for p in field.parameters()) == r * (d + k) + d * k + d


def test_its_parallel_transport_is_an_assignment():
    field, target = LoRAGaugeField(base(), rank=r), rows(d)
    assert torch.equal(field.parallel_transport(target), target)
    path = field.compute_parallel_path(field.base_model.weight, target)
    assert torch.equal(path(0), field.base_model.weight)
    assert torch.allclose(path(0.5), (field.base_model.weight + target) / 2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fiber_bundle_is_one_dense_layer(seed, bias):
    x = rows()
    bundle = LoRAFiberBundle(base(bias=bias), fiber_dim=r, seed=seed)
    assert torch.allclose(bundle(x), bundle.as_one_layer()(x), rtol=0, atol=1e-13)
    assert sum(p.numel() for p in bundle.fibers.parameters()) == r * (d * k + d)


def test_fiber_bundle_changes_the_output_and_is_of_full_rank():
    bundle, x = LoRAFiberBundle(base(), fiber_dim=1), rows()
    assert torch.linalg.matrix_rank(bundle.fibers[0].weight) == min(d, k)
    assert not torch.allclose(bundle(x), bundle.base_model(x))


def test_fibers_of_a_base_on_the_meta_device_stay_there():
    bundle = LoRAFiberBundle(nn.Linear(64, 32, device="meta"), fiber_dim=4)
    assert all(p.is_meta for p in bundle.parameters())


@pytest.mark.parametrize("make,size", [(LoRAGaugeField, "rank"), (LoRAFiberBundle, "fiber_dim")])
def test_bad_input_is_named_and_no_global_generator_is_moved(make, size):
    state = torch.get_rng_state()
    with pytest.raises(TypeError, match="base_model must be an nn.Linear, got Sequential"):
        make(nn.Sequential())
    for wrong, error in [(0, ValueError), (2.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match=size):
            make(base(), **{size: wrong})
    first, again, other = (make(base(), seed=seed)(rows()) for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
