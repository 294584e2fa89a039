"""Parameters are counted once each, and as the formula r (d + k) says."""

import torch
from torch import nn

from lora_course.adapters import count_parameters, inject, trainable_parameters


def test_each_adapted_layer_trains_r_times_d_plus_k(tiny_lm):
    before = count_parameters(tiny_lm)
    assert before.adapter == 0 and before.trainable == before.base == before.total
    assert before.base == sum(p.numel() for p in tiny_lm.parameters())
    inject(tiny_lm, ["attn.q_proj", "mlp"], r=3, alpha=7)
    after = count_parameters(tiny_lm)
    assert after.trainable == after.adapter == 2 * 3 * ((8 + 6) + (6 + 6))
    assert after.base == before.base and after.total == after.base + after.adapter
    assert after.share == after.trainable / after.total and after.share_of_base == after.trainable / after.base


def test_tied_and_shared_parameters_count_once():
    layer = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(layer, layer, nn.Linear(4, 4, bias=False))
    model[2].weight = layer.weight
    assert count_parameters(model).total == 16 and len(trainable_parameters(model)) == 1


def test_qwen3_0_6b_with_rank_8_on_q_k_v_o_trains_2_293_760():
    shapes = {"q_proj": (1024, 2048), "k_proj": (1024, 1024), "v_proj": (1024, 1024), "o_proj": (2048, 1024)}
    with torch.device("meta"):
        model = nn.ModuleList(
            nn.ModuleDict({name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()}) for _ in range(28)
        )
    report = inject(model, list(shapes), r=8, alpha=16)
    assert len(report.adapted) == 112 and report.trainable == 2_293_760


def test_trainable_parameters_is_a_list_for_an_optimizer(tiny_lm):
    inject(tiny_lm, ["mlp"], r=3, alpha=7)
    parameters = trainable_parameters(tiny_lm)
    assert [tuple(p.shape) for p in parameters] == [(3, 6), (6, 3)] * 2
    assert len(torch.optim.AdamW(parameters).param_groups[0]["params"]) == 4


def test_a_part_that_is_trained_beside_the_adapters_counts_as_trainable_base(tiny_lm):
    inject(tiny_lm, ["mlp"], r=3, alpha=7)
    tiny_lm.norm.requires_grad_(True)
    count = count_parameters(tiny_lm)
    assert count.trainable == count.adapter + 12


def test_degenerate_models():
    assert count_parameters(nn.ReLU()).share == count_parameters(nn.ReLU()).share_of_base == 0
    assert count_parameters(nn.LazyLinear(3)).total == 0
