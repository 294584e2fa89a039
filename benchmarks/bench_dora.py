r"""The cost of DoRALinear as ratios to PEFT's DoRA, measured as in bench_adapters: alternating, one BLAS thread."""

import torch

from benchmarks.bench_adapters import layer_ratio, training_step_ratio
from lora_course.adapters import DoRALinear

DORA = {"adapter": DoRALinear, "use_dora": True}


def run():
    """Return the rows (name, ratio, target, what)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    layer, model = "DoRA, 1024 x 1024, 512 tokens, forward + backward", "4-layer transformer, width 256, DoRA r = 8"
    try:
        return [
            ("DoRA layer r=8", layer_ratio(8, **DORA), 0.75, f"{layer}, / PEFT"),
            ("DoRA layer r=64", layer_ratio(64, pairs=31, **DORA), None, f"{layer}, / PEFT"),
            (
                "DoRA layer, dropout",
                layer_ratio(8, pairs=31, dropout=0.1, **DORA),
                None,
                f"{layer}, dropout 0.1, / PEFT",
            ),
            (
                "DoRA layer, training step",
                layer_ratio(8, pairs=31, train=True, **DORA),
                None,
                f"{layer}, AdamW, / PEFT",
            ),
            ("DoRA training step", training_step_ratio(**DORA), None, f"{model} on all linears, / PEFT"),
        ]
    finally:
        torch.set_num_threads(threads)
