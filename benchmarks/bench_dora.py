r"""What DoRALinear costs, as ratios to PEFT: both sides alternate in one run, one BLAS thread.

Each row is (name, ratio, target, what), as in ``bench_adapters``.
"""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.bench_adapters import BLOCK_LINEARS, Transformer, paired_ratio
from lora_course.adapters import trainable_parameters
from lora_course.adapters.dora import DoRALinear


def _peft_model(model, targets, r, alpha, dropout=0.0):
    from peft import LoraConfig, get_peft_model

    options = {"target_modules": list(targets), "lora_dropout": dropout, "use_dora": True}
    return get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, **options))


def layer_ratio(r=8, dropout=0.0, pairs=61):
    """Forward plus backward of one 1024 x 1024 layer with 512 tokens, ours / PEFT's."""
    torch.manual_seed(0)
    ours = DoRALinear(nn.Linear(1024, 1024), r, 2 * r, dropout=dropout)
    holder = nn.ModuleDict({"layer": nn.Linear(1024, 1024)})
    theirs = _peft_model(holder, ["layer"], r, 2 * r, dropout).base_model.model["layer"]
    x, g = torch.randn(512, 1024, requires_grad=True), torch.randn(512, 1024)

    def step(layer):
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x).backward(g)

    return paired_ratio(lambda: step(ours), lambda: step(theirs), pairs)


def training_step_ratio(r=8, targets=BLOCK_LINEARS, pairs=31):
    """A full training step (forward, loss, backward, AdamW) with DoRA on the named linears, ours / PEFT's."""
    torch.manual_seed(0)
    ours, theirs = Transformer().requires_grad_(False), _peft_model(Transformer(), targets, r, 2 * r)
    for block in ours.blocks:
        for name in targets:
            block.add_module(name, DoRALinear(block.get_submodule(name), r, 2 * r))
    counts = [sum(p.numel() for p in trainable_parameters(model)) for model in (ours, theirs)]
    assert counts[0] == counts[1]
    optimizers = {m: torch.optim.AdamW(trainable_parameters(m), lr=1e-4) for m in (ours, theirs)}
    tokens = torch.randint(256, (8, 65))

    def step(model):
        optimizers[model].zero_grad(set_to_none=True)
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizers[model].step()

    return paired_ratio(lambda: step(ours), lambda: step(theirs), pairs)


def run():
    """Return the rows (name, ratio, target, what)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    layer, model = "DoRA, 1024 x 1024, 512 tokens, forward + backward", "4-layer transformer, width 256, DoRA r = 8"
    try:
        return [
            ("DoRA layer r=8", layer_ratio(), 0.75, f"{layer}, / PEFT"),
            ("DoRA layer r=64", layer_ratio(64, pairs=31), None, f"{layer}, / PEFT"),
            ("DoRA layer, dropout", layer_ratio(dropout=0.1, pairs=31), None, f"{layer}, dropout 0.1, / PEFT"),
            ("DoRA training step", training_step_ratio(), None, f"{model} on all linears, / PEFT"),
        ]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for name, ratio, target, what in run():
        limit = "" if target is None else f"{target:.2f} {'ok' if ratio <= target else 'MISSED'}"
        print(f"{name:<20} {ratio:>7.3f} {limit:<12} {what}", flush=True)
