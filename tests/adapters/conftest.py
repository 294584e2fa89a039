"""Small layers with every difference that could hide a mistake: d != k, alpha != r, B != 0, float64."""

import pytest
import torch
from torch import nn

from lora_course.adapters import LoRALinear


@pytest.fixture
def make_layer():
    def make(d=5, k=7, r=3, alpha=4.5, seed=0, bias=True, dtype=torch.float64, **options):
        generator = torch.Generator().manual_seed(seed)
        base = nn.Linear(k, d, bias=bias, dtype=dtype)
        layer = LoRALinear(base, r, alpha, generator=generator, **options)
        with torch.no_grad():
            for p in (*base.parameters(), layer.lora_B):
                p.copy_(torch.randn(p.shape, generator=generator))
        return layer

    return make


@pytest.fixture
def draw():
    def tensor(*shape, seed=0, dtype=torch.float64, grad=False):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1000 + seed), dtype=dtype)
        return x.requires_grad_(grad)

    return tensor


class Attention(nn.Module):
    """Names as in a decoder; v_proj has a bias, the others have none."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(6, 8, bias=False), nn.Linear(6, 4, bias=False)
        self.v_proj, self.o_proj = nn.Linear(6, 4), nn.Linear(8, 6, bias=False)

    def forward(self, x):
        return self.o_proj(self.q_proj(x) * (self.k_proj(x) + self.v_proj(x)).repeat_interleave(2, -1))


class TinyLM(nn.Module):
    """An embedding, two blocks, a norm and a head tied to the embedding."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.ModuleDict({"attn": Attention(), "mlp": nn.Linear(6, 6)}) for _ in range(2)])
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block["attn"](x)
            x = x + block["mlp"](x)
        return self.head(self.norm(x))


@pytest.fixture
def tiny_lm():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TinyLM().double()


@pytest.fixture
def tokens():
    return torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def stir():
    """Give every lora_B of a model random entries, as training would."""

    def run(model, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, LoRALinear):
                    module.lora_B.copy_(torch.randn(module.lora_B.shape, generator=generator) / 4)
        return model

    return run
