"""inject puts the right adapter on each kind of layer, starts included, and remove gives the model back bit for bit."""

import copy

import pytest
import torch
from torch import nn

from lora_course.adapters import (
    DoRALinear,
    LoRAConv2d,
    LoRALinear,
    NF4Linear,
    QLoRALinear,
    SVDLinear,
    inject,
    merge_all,
    plain_factors,
    remove,
    trainable_parameters,
)


class Mixed(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(2, 5, 3, padding=1)
        self.hidden = nn.Linear(5 * 16, 7)
        self.small = NF4Linear(nn.Linear(7, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x)).flatten(1)
        return self.head(torch.relu(self.small(torch.relu(self.hidden(x)))))


@pytest.fixture
def mixed():
    with torch.random.fork_rng():
        return Mixed()


@pytest.fixture
def x():
    return torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(1))


def test_each_kind_of_layer_gets_its_adapter_and_the_output_stays(mixed, x):
    before, originals = mixed(x), [mixed.conv, mixed.hidden, mixed.small, mixed.head]
    report = inject(mixed, ["conv", "hidden", "small", "head"], r=2, alpha=3, generator=1)
    kinds = [type(layer) for layer in (mixed.conv, mixed.hidden, mixed.small, mixed.head)]
    assert kinds == [LoRAConv2d, LoRALinear, QLoRALinear, LoRALinear]
    assert torch.allclose(mixed(x), before, rtol=1e-6, atol=1e-7)
    assert report.trainable == 2 * (5 + 2 * 9) + 2 * (7 + 80) + 2 * (6 + 7) + 2 * (3 + 6)
    mixed(x).square().sum().backward()
    assert all(p.grad is not None for p in trainable_parameters(mixed))
    remove(mixed)
    assert [mixed.conv, mixed.hidden, mixed.small, mixed.head] == originals
    assert torch.equal(mixed(x), before)


def test_of_all_or_nothing_a_merge_that_one_layer_refuses_changes_none(mixed, x):
    inject(mixed, ["hidden", "small"], r=2, alpha=3)
    with torch.no_grad():
        mixed.hidden.lora_B.add_(0.1)
    W = mixed.hidden.base.weight.clone()
    with pytest.raises(RuntimeError, match="small"):
        merge_all(mixed)
    assert torch.equal(mixed.hidden.base.weight, W) and not mixed.hidden.merged


@pytest.mark.parametrize("adapter", [DoRALinear, SVDLinear])
def test_another_adapter_goes_where_it_is_told_to_and_nowhere_else(mixed, x, adapter):
    before = mixed(x)
    inject(mixed, ["hidden", "head"], r=2, alpha=3, adapter=adapter)
    assert type(mixed.hidden) is type(mixed.head) is adapter and type(mixed.conv) is nn.Conv2d
    assert torch.allclose(mixed(x), before, rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="adapters already"):
        inject(mixed, ["conv"], r=2, alpha=3)


@pytest.mark.parametrize("layer", ["conv", "small"])
def test_an_adapter_of_linear_layers_refuses_other_layers_by_name(mixed, layer):
    state = copy.deepcopy(mixed.state_dict())
    with pytest.raises(TypeError, match=layer):
        inject(mixed, ["hidden", layer], r=2, alpha=3, adapter=DoRALinear)
    assert type(mixed.hidden) is nn.Linear and all(torch.equal(v, state[k]) for k, v in mixed.state_dict().items())


@pytest.mark.parametrize("init", ["b_random", "pissa", "milora", "olora"])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_start_keeps_the_output_and_remove_gives_the_weights_back(init, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(9, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(seed)).double()
    before, weights = model(x), [p.clone() for p in model.parameters()]
    inject(model, ["0", "2"], r=2, alpha=3, init=init, generator=seed)
    assert (model(x) - before).abs().max() < 1e-10
    factors = plain_factors(model[0])
    delta = factors.alpha / factors.r * factors.B @ factors.A
    assert torch.allclose(delta, torch.zeros_like(delta), atol=1e-12)  # on the original base nothing has moved yet
    with torch.no_grad():
        for p in trainable_parameters(model):
            p.add_(0.3)
    assert (model(x) - before).abs().max() > 1e-3
    remove(model)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_a_start_that_cannot_be_names_the_layer_and_changes_nothing():
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(9, 6), nn.Linear(6, 2))
    weights = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="1.*at most min"):
        inject(model, ["0", "1"], r=3, alpha=3, init="pissa")
    assert type(model[0]) is nn.Linear and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    with pytest.raises(ValueError, match="init must be one of"):
        inject(model, ["0"], r=1, alpha=3, init="lora_ga")


@pytest.mark.parametrize("wrong", [lambda base, r, alpha, generator: nn.Identity(), 5, "LoRALinear"])
def test_what_is_no_adapter_is_refused_before_anything_changes(mixed, wrong):
    with pytest.raises(TypeError, match="adapter must"):
        inject(mixed, ["hidden"], r=2, alpha=3, adapter=wrong)
    assert type(mixed.hidden) is nn.Linear and all(p.requires_grad for p in mixed.hidden.parameters())


@pytest.mark.parametrize("adapter", [LoRALinear, DoRALinear, SVDLinear, LoRAConv2d])
def test_a_layer_that_left_the_meta_device_can_be_started_anew(adapter):
    base = nn.Conv2d(2, 5, 3) if adapter is LoRAConv2d else nn.Linear(7, 5)
    layer = adapter(copy.deepcopy(base).to("meta"), 2, 3).to_empty(device="cpu")
    layer.base.load_state_dict(base.state_dict())
    layer.reset_parameters()
    x = torch.ones(1, 2, 4, 4) if adapter is LoRAConv2d else torch.ones(1, 7)
    assert torch.allclose(layer(x), base(x), atol=1e-6)
    assert all(p.isfinite().all() for p in layer.parameters())


def test_dora_compiles_whole_and_maps_over_its_factors():
    layer = DoRALinear(nn.Linear(7, 5), 2, 3)
    with torch.no_grad():
        layer.lora_B.add_(0.3)
    x = torch.ones(3, 7)
    assert torch.allclose(torch.compile(layer, backend="aot_eager", fullgraph=True)(x), layer(x), atol=1e-6)


def test_a_convolution_on_two_devices_is_refused(mixed):
    mixed.conv.bias = nn.Parameter(mixed.conv.bias.to("meta"))
    with pytest.raises(ValueError, match="conv.*mixed devices"):
        inject(mixed, ["conv"], r=2, alpha=3)
    assert type(mixed.conv) is nn.Conv2d
