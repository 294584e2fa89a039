r"""What lora_course.adapters costs, as ratios to PEFT: both sides alternate in one run, one BLAS thread.

Each row is (name, ratio, target, what); a ratio is the median of the ratios of neighboring pairs, so that what
slows the machine down slows both sides.
"""

import gc
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import LoRALinear, inject, trainable_parameters

BLOCK_LINEARS = ["q", "k", "v", "o", "up", "down"]


def paired_ratio(ours, theirs, pairs):
    """Return the median over pairs of seconds(ours) / seconds(theirs); the order turns from pair to pair.

    With one thread, CPU seconds are wall seconds without what the machine gave to others.
    """

    def seconds(work):
        start = time.process_time()
        work()
        return time.process_time() - start

    for work in (ours, theirs, ours, theirs):
        work()
    ratios = []
    for i in range(pairs):
        if i % 2:
            own, other = seconds(ours), seconds(theirs)
        else:
            other, own = seconds(theirs), seconds(ours)
        ratios.append(own / other)
    return statistics.median(ratios)


def _peft_model(model, targets, r, alpha, **options):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, target_modules=list(targets), **options))


def layer_ratio(r, pairs=61, train=False, adapter=LoRALinear, dropout=0.0, **peft_options):
    """Forward plus backward (train: and AdamW) of one 1024 x 1024 layer with 512 tokens, ours / PEFT's."""
    torch.manual_seed(0)
    base = nn.Linear(1024, 1024)
    ours = adapter(base, r, 2 * r, dropout=dropout)
    holder = nn.ModuleDict({"layer": nn.Linear(1024, 1024)})
    theirs = _peft_model(holder, ["layer"], r, 2 * r, lora_dropout=dropout, **peft_options).base_model.model["layer"]
    x, g = torch.randn(512, 1024, requires_grad=True), torch.randn(512, 1024)
    optimizers = {la: torch.optim.AdamW(trainable_parameters(la), lr=1e-4) for la in (ours, theirs)}

    def step(layer):
        layer.zero_grad(set_to_none=True)
        x.grad = None
        layer(x).backward(g)
        if train:
            optimizers[layer].step()

    return paired_ratio(lambda: step(ours), lambda: step(theirs), pairs)


class Block(nn.Module):
    """A pre-norm transformer block whose six linears are plain nn.Linear."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        """Return (batch, tokens, width) for the same."""
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).flatten(-2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """A byte-level causal transformer."""

    def __init__(self, width=256, layers=4, heads=4, vocabulary=256):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens):
        """Return logits (batch, tokens, vocabulary)."""
        return self.head(self.blocks(self.embed(tokens)))


def training_step_ratio(r=8, pairs=31, adapter=None, **peft_options):
    """A full training step (forward, loss, backward, AdamW) with adapters on all linears, ours / PEFT's."""
    torch.manual_seed(0)
    ours, theirs = Transformer(), Transformer()
    inject(ours, BLOCK_LINEARS, r, 2 * r, adapter=adapter)
    theirs = _peft_model(theirs, BLOCK_LINEARS, r, 2 * r, **peft_options)
    optimizers = {m: torch.optim.AdamW(trainable_parameters(m), lr=1e-4) for m in (ours, theirs)}
    tokens = torch.randint(256, (8, 65))

    def step(model):
        optimizers[model].zero_grad(set_to_none=True)
        F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizers[model].step()

    return paired_ratio(lambda: step(ours), lambda: step(theirs), pairs)


def _qwen3_skeleton(device, layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, intermediate=3072):
    """Return modules with the names and shapes of Qwen3-0.6B's layers; the memory is reserved, never touched."""

    def layer():
        shapes = {"q_proj": (hidden, heads * head_dim), "k_proj": (hidden, kv_heads * head_dim)}
        shapes |= {"v_proj": shapes["k_proj"], "o_proj": shapes["q_proj"][::-1]}
        attention = nn.ModuleDict({n: nn.Linear(*shape, bias=False) for n, shape in shapes.items()})
        attention.update({"q_norm": nn.RMSNorm(head_dim), "k_norm": nn.RMSNorm(head_dim)})
        mlp = {name: nn.Linear(hidden, intermediate, bias=False) for name in ("gate_proj", "up_proj")}
        mlp["down_proj"] = nn.Linear(intermediate, hidden, bias=False)
        norms = {"input_layernorm": nn.RMSNorm(hidden), "post_attention_layernorm": nn.RMSNorm(hidden)}
        return nn.ModuleDict({"self_attn": attention, "mlp": nn.ModuleDict(mlp), **norms})

    with torch.device("meta"):
        model = nn.ModuleDict({"layers": nn.ModuleList(layer() for _ in range(layers))})
    return model.to_empty(device=device)


def injection_ratio(device, r=8, pairs=9):
    """Injection into the 112 q, k, v, o layers of Qwen3-0.6B's shapes, ours / get_peft_model."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    ratios = []
    for pair in range(pairs + 1):
        seconds = {}
        for side in (inject, _peft_model) if pair % 2 else (_peft_model, inject):
            model = _qwen3_skeleton(device)
            gc.collect()  # the garbage of one side must not be swept in the time of the other
            start = time.process_time()
            side(model, targets, r, 2 * r)
            seconds[side] = time.process_time() - start
            assert sum(p.numel() for p in trainable_parameters(model)) == 2_293_760
        ratios.append(seconds[inject] / seconds[_peft_model])
    return statistics.median(ratios[1:])  # PEFT's first call imports further modules, for seconds


def import_seconds(package="lora_course.adapters", runs=5):
    """Seconds of importing a package after ``import torch``, in fresh interpreters."""
    code = f"import torch, time; t = time.perf_counter(); import {package}; print(time.perf_counter() - t)"
    times = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(runs)
    ]
    return statistics.median(float(done.stdout) for done in times)


def run():
    """Return the rows (name, ratio, target, what)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model, layer = (
            "4-layer transformer, width 256, r = 8 on all linears",
            "1024 x 1024, 512 tokens, forward + backward",
        )
        shapes = "112 layers of Qwen3-0.6B's shapes"
        return [
            ("training step", training_step_ratio(), 0.85, f"{model}, / PEFT"),
            ("layer r=8", layer_ratio(8), 0.92, f"{layer}, / PEFT"),
            ("layer r=64", layer_ratio(64), 1.03, f"{layer}, / PEFT"),
            ("layer, training step r=8", layer_ratio(8, train=True), None, f"{layer}, AdamW, / PEFT"),
            ("layer, training step r=64", layer_ratio(64, train=True), None, f"{layer}, AdamW, / PEFT"),
            (
                "training step r=64",
                training_step_ratio(64, pairs=15),
                None,
                f"{model.replace('r = 8', 'r = 64')}, / PEFT",
            ),
            ("injection", injection_ratio("meta"), 0.10, f"{shapes}, / get_peft_model"),
            ("injection in memory", injection_ratio("cpu"), None, "the same, and both fill 9 MB of new memory"),
            ("import", own := import_seconds(), 0.50, "seconds of import lora_course.adapters after import torch"),
            ("import / PEFT", own / import_seconds("peft", runs=2), None, "the same / import peft"),
        ]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    print(f"{'name':<20} {'ratio':>7} {'target':>7}         what")
    for name, ratio, target, what in run():
        limit, verdict = ("", "") if target is None else (f"{target:.2f}", "ok" if ratio <= target else "MISSED")
        print(f"{name:<20} {ratio:>7.3f} {limit:>7} {verdict:<7} {what}", flush=True)
