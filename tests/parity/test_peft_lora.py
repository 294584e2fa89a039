"""LoRALinear and PEFT's lora.Linear, given the same A and B, are one function (float32: 1e-6 relative)."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import LoRALinear, count_parameters, inject, merge_all, trainable_parameters

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")

SHAPES = [(5, 7, 3), (48, 32, 8), (32, 48, 16), (6, 4, 9)]


def pair(d, k, r, alpha, bias=True, seed=0, dtype=torch.float32, dropout=0.0, rslora=False):
    """Return our layer and PEFT's over equal bases, with the same A and B != 0."""
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(k, d, bias=bias, dtype=dtype)
    with torch.no_grad():
        for p in base.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(k))
    config = peft.LoraConfig(r=r, lora_alpha=alpha, target_modules=["layer"], lora_dropout=dropout, use_rslora=rslora)
    model = peft.get_peft_model(nn.ModuleDict({"layer": copy.deepcopy(base)}), config)
    theirs = model.base_model.model["layer"]
    ours = LoRALinear(base, r, alpha, dropout=dropout, rslora=rslora, generator=generator)
    with torch.no_grad():
        ours.lora_B.copy_(torch.randn(d, r, generator=generator) / math.sqrt(r))
        theirs.lora_A["default"].weight.copy_(ours.lora_A)
        theirs.lora_B["default"].weight.copy_(ours.lora_B)
    return ours, theirs


def agree(ours, theirs, tolerance=1e-6):
    """Largest difference relative to the largest entry."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def gradients(layer, A, B, x, g):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(layer(x), [x, A, B], g)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("d", "k", "r"), SHAPES)
def test_forward_gradients_and_merged_weight(seed, bias, rslora, d, k, r):
    ours, theirs = pair(d, k, r, alpha=5, bias=bias, seed=seed, rslora=rslora)
    generator = torch.Generator().manual_seed(100 + seed)
    x, g = torch.randn(3, 11, k, generator=generator), torch.randn(3, 11, d, generator=generator)
    assert ours.scaling == pytest.approx(theirs.scaling["default"], rel=1e-15)
    assert agree(ours(x), theirs(x))
    A, B = theirs.lora_A["default"].weight, theirs.lora_B["default"].weight
    mine, other = gradients(ours, ours.lora_A, ours.lora_B, x, g), gradients(theirs, A, B, x, g)
    assert all(agree(a, b) for a, b in zip(mine, other, strict=True))
    assert agree(ours.delta_weight(), theirs.get_delta_weight("default"))
    ours.merge()
    theirs.merge()
    assert agree(ours.base.weight, theirs.base_layer.weight) and agree(ours(x), theirs(x))


@pytest.mark.parametrize("seed", range(2))
def test_float64_to_1e_12(seed):
    ours, theirs = pair(5, 7, 3, alpha=5, seed=seed, dtype=torch.float64)
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert ours.lora_A.dtype == theirs.lora_A["default"].weight.dtype == torch.float64
    assert agree(ours(x), theirs(x), 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_over_a_half_precision_base_factors_are_float32_and_outputs_equal(dtype):
    ours, theirs = pair(48, 32, 8, alpha=5, dtype=dtype)
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert ours.lora_A.dtype == theirs.lora_A["default"].weight.dtype == torch.float32
    assert agree(ours(x), theirs(x), torch.finfo(dtype).eps)
    ours.merge()
    theirs.merge()
    assert agree(ours.base.weight, theirs.base_layer.weight, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_off_in_eval_and_draws_the_same_mask_in_training(dropout):
    ours, theirs = pair(48, 32, 8, alpha=5, dropout=dropout)
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        results = []
        for layer in (ours.train(), theirs.train()):
            torch.manual_seed(1)
            results.append(layer(x))
    assert agree(*results)
    assert agree(ours.eval()(x), theirs.eval()(x))
    assert (not torch.allclose(results[0], ours(x))) == (dropout > 0)


@pytest.mark.parametrize(("init", "theirs"), [("kaiming", True), ("gaussian", "gaussian")])
def test_starts_have_the_same_distribution(init, theirs):
    r, k = 40, 500
    config = peft.LoraConfig(r=r, lora_alpha=3, target_modules=["layer"], init_lora_weights=theirs)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(nn.ModuleDict({"layer": nn.Linear(k, 30)}), config)
    other = model.base_model.model["layer"].lora_A["default"].weight.flatten().sort().values
    mine = LoRALinear(nn.Linear(k, 30), r, 3, init=init, generator=1).lora_A.flatten().sort().values
    inner = slice(200, -200)  # the outermost of 20,000 order statistics of a Gaussian scatter more
    assert (mine[inner] - other[inner]).abs().max() < 0.06 * other.abs().max()
    assert not model.base_model.model["layer"].lora_B["default"].weight.any()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"q_proj": nn.Linear(12, 20), "v_proj": nn.Linear(12, 8, bias=False), "o": nn.Linear(28, 12)})
            for _ in range(3)
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        for block in self.blocks:
            x = x + block["o"](torch.cat([block["q_proj"](x), block["v_proj"](x)], -1)).tanh()
        return self.head(x)


@pytest.mark.parametrize("target", [["q_proj", "v_proj"], ["blocks.1.o", "q_proj"], r"blocks\.[02]\..*|head", ["head"]])
def test_the_same_selection_adapts_the_same_layers_with_the_same_counts(target):
    ours, theirs = Net(), Net()
    report = inject(ours, target, r=4, alpha=6)
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, target_modules=target))
    adapted = {n for n, m in theirs.base_model.model.named_modules() if isinstance(m, peft.tuners.lora.Linear)}
    assert set(report.adapted) == adapted
    assert (report.trainable, report.total) == theirs.get_nb_trainable_parameters()
    assert count_parameters(ours) == report.parameters


def test_qwen3_0_6b_has_the_same_trainable_count_with_rank_8():
    shapes = {"q_proj": (1024, 2048), "k_proj": (1024, 1024), "v_proj": (1024, 1024), "o_proj": (2048, 1024)}

    def make():
        with torch.device("meta"):
            return nn.ModuleList(
                nn.ModuleDict({n: nn.Linear(*s, bias=False) for n, s in shapes.items()}) for _ in range(28)
            )

    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=list(shapes))
    counts = inject(make(), list(shapes), r=8, alpha=16), peft.get_peft_model(make(), config)
    assert counts[0].trainable == counts[1].get_nb_trainable_parameters()[0] == 2_293_760


def test_ten_training_steps_follow_the_same_path():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = Net().double()
        x, y = torch.randn(16, 12, dtype=torch.float64), torch.randint(5, (16,))
    theirs = copy.deepcopy(ours)
    inject(ours, ["q_proj", "o"], r=4, alpha=6, generator=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "o"]))
    named = dict(theirs.base_model.model.named_parameters())
    with torch.no_grad():
        for name, p in ours.named_parameters():
            if "lora_" in name:
                named[f"{name}.default.weight"].copy_(p)
    losses = []
    for model in (ours, theirs):
        optimizer = torch.optim.AdamW(trainable_parameters(model), lr=0.02)
        for _ in range(10):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9) and losses[0] < 1.5
    merge_all(ours)
    assert torch.allclose(ours(x), theirs.merge_and_unload()(x), rtol=1e-9, atol=1e-9)
