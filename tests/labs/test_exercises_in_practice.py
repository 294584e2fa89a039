"""Right answers and typical mistakes of chapter 13, which test_exercises.py tries."""

import copy
import math
import re

import pytest
import torch
from torch import nn

from lora_course.adapters import inject
from lora_course.book import checker
from lora_course.labs.exercises import in_practice
from lora_course.labs.practice import SMALL, qwen3
from lora_course.theory import QWEN3_0_6B, lora_parameters

PARTS = ("gate_proj", "up_proj", "down_proj")


def combine(A1, B1, s1, A2, B2, s2):
    return torch.cat([A1, A2]), torch.cat([s1 * B1, s2 * B2], dim=1)


def combine_in_A(A1, B1, s1, A2, B2, s2):
    return torch.cat([s2 * A2, s1 * A1]), torch.cat([B2, B1], dim=1)


def by_svd(A1, B1, s1, A2, B2, s2):
    U, S, V = torch.linalg.svd(s1 * B1 @ A1 + s2 * B2 @ A2, full_matrices=False)
    return S[:, None] * V, U


def in_place(B, alpha, r):
    B /= r
    return B


RIGHT = {
    "count": [2_293_760, 28 * 16 * (3072 + 2048), float(lora_parameters(QWEN3_0_6B, ["q_proj", "v_proj"], 16))],
    "targets": [
        r".*layers\.[23]\.mlp\..*_proj",
        re.compile(r"model\.layers\.(2|3)\.mlp\.(gate|up|down)_proj"),
        [f"layers.{i}.mlp.{part}" for i in (2, 3) for part in PARTS],
        lambda name, module: re.search(r"[23]\.mlp\.", name) and isinstance(module, nn.Linear),
    ],
    "reader": [1 / math.sqrt(32), 0.177, 2**-2.5],
    "rewrite": [lambda B, alpha, r: B / r, lambda B, alpha, r: B.double() * (alpha / r) / alpha],
    "combine": [combine, combine_in_A, by_svd],
    "serve": [(20, 4971), [20.0, 4971.0]],
}
WRONG = {
    "count": [81_920, 1_146_880, 4_587_520, 28 * 16 * 4096, 28 * 16 * 6144, 28 * 3 * 2**20, 28 * 16 * 3072, 7],
    "targets": [
        r".*layers\.3\.mlp\..*_proj",
        r".*layers\.[23]\..*_proj",
        list(PARTS),
        r".*layers\.[23]\.mlp\.(gate|up)_proj",
        r".*\.mlp",
        r"model\.layers\.[23]\.mlp\..*",
        lambda name, module: "layers.2" in name or "layers.3" in name,
        lambda name, module: True,
        lambda name, module: False,
    ],
    "reader": [math.sqrt(32), 0.5, 16 / math.sqrt(32), 1 / 32, 1, math.sqrt(2) / 16, 7],
    "rewrite": [
        lambda B, alpha, r: B,
        lambda B, alpha, r: B * r,
        lambda B, alpha, r: B / alpha,
        lambda B, alpha, r: B * alpha / r,
        lambda B, alpha, r: B / math.sqrt(r),
        lambda B, alpha, r: B.T / r,
        lambda B, alpha, r: B + 1,
        in_place,
        "B / r",
    ],
    "combine": [
        lambda A1, B1, s1, A2, B2, s2: combine(A1, B1, 1, A2, B2, 1),
        lambda A1, B1, s1, A2, B2, s2: combine(A1, B1, s1**2, A2, B2, s2**2),
        lambda A1, B1, s1, A2, B2, s2: combine(A1, B1, s1 / 2, A2, B2, s2 / 2),
        lambda A1, B1, s1, A2, B2, s2: combine(A1, B1, s2, A2, B2, s1),
        lambda A1, B1, s1, A2, B2, s2: (A1, s1 * B1),
        lambda A1, B1, s1, A2, B2, s2: (torch.cat([A1, A2]), torch.cat([s1 * B1.T, s2 * B2.T])),
        lambda A1, B1, s1, A2, B2, s2: 1,
        "cat",
    ],
    "serve": [
        *((merged, 4971) for merged in (24e9 / (2 * 596_049_920), 21, 10, 40, 7)),
        *((20, shared) for shared in (5231, (24e9 - 2 * 596_049_920) / 4_587_520, 4972, 2485, 7)),
    ],
}


def test_half_an_answer_is_not_tried_yet():
    assert checker(in_practice.serve)((..., 4971)).ok is None
    assert checker(in_practice.combine)(lambda *given: (..., ...)).ok is None
    assert checker(in_practice.combine)(lambda *given: ...).ok is None


def test_targets_that_are_right_are_those_with_which_inject_adapts_six_layers():
    pytest.importorskip("transformers", reason="the model of chapter 13")
    model = qwen3(SMALL)
    for answer in RIGHT["targets"]:
        assert set(inject(copy.deepcopy(model), answer, r=2, alpha=4).adapted) == in_practice.WANTED
    assert {name for name, part in model.named_modules() if isinstance(part, nn.Linear)} >= set(in_practice.NAMES)
    assert {name for name, _ in model.named_modules()} >= set(in_practice.OTHERS)
    with pytest.raises(TypeError, match="act_fn"):
        inject(model, r"model\.layers\.[23]\.mlp\..*", r=2, alpha=4)
