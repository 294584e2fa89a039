"""VeRALinear and PEFT's VeRA draw the same pair, bit for bit, and are one function (float32: 1e-5 relative)."""

import copy
import math

import pytest
import torch
from torch import nn

from lora_course.adapters import remove
from lora_course.adapters.vera import inject_vera

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")

SHAPES = [((7, 5), (5, 9)), ((32, 48), (48, 32)), ((6, 4), (4, 3))]


def pair(shapes, r, seed=0, bias=True, key=0, dropout=0.0):
    generator = torch.Generator().manual_seed(seed)
    ours = nn.Sequential(*(nn.Linear(k, d, bias=bias) for k, d in shapes))
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(p.shape[-1]))
    config = peft.VeraConfig(r=r, target_modules=["0", "1"], projection_prng_key=key, vera_dropout=dropout)
    theirs = peft.get_peft_model(copy.deepcopy(ours), config)
    report = inject_vera(ours, ["0", "1"], r, dropout=dropout, generator=key)
    assert report.trainable == theirs.get_nb_trainable_parameters()[0]
    with torch.no_grad():
        for mine, other in zip(vectors(ours), vectors(theirs), strict=True):
            assert torch.equal(mine, other)
            mine.add_(torch.randn(mine.shape, generator=generator))
            other.copy_(mine)
    return ours, theirs


def vectors(model):
    named = {n: p for n, p in model.named_parameters() if "vera_lambda" in n}
    return [p for _, p in sorted(named.items())]


def agree(ours, theirs, tolerance=1e-5):
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def outcome(model, x, g):
    x = x.clone().requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(7)
        h = model(x)
    return [h, *torch.autograd.grad(h, [x, *vectors(model)], g)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("shapes", "r"), list(zip(SHAPES, (3, 16, 9), strict=True)))
def test_pair_outputs_gradients_merged_weights_and_counts(seed, bias, dropout, shapes, r):
    ours, theirs = pair(shapes, r, seed, bias, key=3 * seed, dropout=dropout)
    assert torch.equal(ours[0].projection.vera_A, theirs.base_model.vera_A["default"])
    assert torch.equal(ours[1].projection.vera_B, theirs.base_model.vera_B["default"])
    generator = torch.Generator().manual_seed(100 + seed)
    x = torch.randn(3, 11, shapes[0][0], generator=generator)
    g = torch.randn(3, 11, shapes[1][1], generator=generator)
    for a, b in zip(outcome(ours, x, g), outcome(theirs, x, g), strict=True):
        assert agree(a, b)
    plain = theirs.merge_and_unload()
    for layer in ours:
        layer.merge()
    remove(ours, keep_merged=True)
    assert all(agree(a.weight, b.weight) for a, b in zip(ours, plain, strict=True))
