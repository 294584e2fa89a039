"""Adapter files go both ways between us and PEFT, with equal outputs (float32: 1e-5 relative)."""

import copy
import json
import warnings

import pytest
import torch
from torch import nn

from lora_course.adapters import inject
from lora_course.adapters.adalora import SVDLinear
from lora_course.adapters.adapter import Adapter
from lora_course.adapters.conv import LoRAConv2d
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.files import load_adapter, save_adapter
from lora_course.adapters.install import install
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.origin import start_all
from lora_course.adapters.vera import VeRALinear, VeRAProjection

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"q": nn.Linear(6, 6), "up": nn.Linear(6, 10, bias=False)}) for _ in "ab"
        )
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        h = self.conv(x).mean((2, 3))
        a, b = self.blocks
        return self.head(b["up"](b["q"](a["q"](h).tanh()).tanh()) + a["up"](h))


def agree(ours, theirs, tolerance=1e-5):
    return (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def stir(model, seed=0):
    """Random numbers in every trainable parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) / 2)
    return model.eval()


def image():
    return torch.randn(5, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def from_peft(base, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT only warns of keys that it did not find
        return peft.PeftModel.from_pretrained(base, folder).eval()


def lora(**options):
    return lambda layer: LoRALinear(layer, 3, 5, generator=0, **options)


PAIR = VeRAProjection(12, 11, 4)
MAKERS = {
    "lora": {"blocks.0.q": lora(), "blocks.1.up": lora(dropout=0.1), "head": lora()},
    "rslora": {"blocks.0.q": lora(rslora=True), "head": lora(rslora=True)},
    "mixed ranks": {
        "blocks.0.q": lora(),
        "blocks.1.q": lambda la: LoRALinear(la, 2, 7.5),
        "blocks.0.up": lora(rslora=True),
    },
    "conv": {"conv": lambda layer: LoRAConv2d(layer, 2, 3), "head": lora()},
    "dora": {
        "blocks.0.q": lambda la: DoRALinear(la, 2, 3),
        "blocks.1.up": lambda la: DoRALinear(la, 3, 3, rslora=False),
    },
    "adalora": {name: lambda la: SVDLinear(la, 4, 6) for name in ("blocks.0.q", "blocks.1.up")},
    "vera": {name: lambda la: VeRALinear(la, PAIR) for name in ("blocks.0.q", "blocks.1.up")},
}


@pytest.mark.parametrize("kind", MAKERS)
def test_peft_reads_ours_and_we_read_what_it_then_saves(kind, tmp_path):
    base, x = Net(), image()
    ours = copy.deepcopy(base)
    install(ours, MAKERS[kind])
    stir(ours)
    output = ours(x)
    names = save_adapter(ours, tmp_path / "ours")
    assert set(names) == MAKERS[kind].keys() and not agree(base(x), output, 1e-2)
    theirs = from_peft(copy.deepcopy(base), tmp_path / "ours")
    assert agree(theirs(x), output)
    theirs.save_pretrained(tmp_path / "theirs")
    again = copy.deepcopy(base)
    assert set(load_adapter(again, tmp_path / "theirs")) == set(names)
    assert agree(again.eval()(x), output)
    assert load_adapter(stir(again, seed=7), tmp_path / "theirs") and agree(again(x), output)  # fills what is there


CONFIGS = {
    "lora": peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q", "head"], lora_dropout=0.2),
    "expression": peft.LoraConfig(r=3, lora_alpha=5, target_modules=r".*\.(q|up)", use_rslora=True),
    "excluded": peft.LoraConfig(r=3, target_modules=["q", "up"], exclude_modules=["blocks.0.q"]),
    "patterns": peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["q", "up", "head"],
        rank_pattern={"head": 2, "^blocks.0.q": 5},
        alpha_pattern={"blocks.1.up": 9, "q": 2},
    ),
    "conv": peft.LoraConfig(r=2, lora_alpha=3, target_modules=["conv", "head"]),
    "dora": peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q"], use_dora=True),
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, target_modules=["q"], total_step=10),
    "vera": peft.VeraConfig(r=4, target_modules=["q", "up"]),
    "vera without its pair": peft.VeraConfig(r=4, target_modules=["q"], save_projection=False, projection_prng_key=3),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_we_read_what_peft_saves(kind, tmp_path):
    base, x = Net(), image()
    theirs = stir(peft.get_peft_model(copy.deepcopy(base), copy.deepcopy(CONFIGS[kind])))
    theirs.save_pretrained(tmp_path)
    names = load_adapter(base.eval(), tmp_path)
    adapted = {
        n for n, m in theirs.base_model.model.named_modules() if isinstance(m, peft.tuners.tuners_utils.BaseTunerLayer)
    }
    assert set(names) == adapted
    assert agree(base(x), theirs(x))
    trainable = sum(p.numel() for m in base.modules() if isinstance(m, Adapter) for p in m.parameters(recurse=False))
    assert kind == "adalora" or trainable == theirs.get_nb_trainable_parameters()[0]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_adalora_that_peft_has_pruned_gets_its_switched_off_triplets_back_as_zeros(tmp_path):
    base, x = Net(), image()
    config = peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, target_modules=["q"], total_step=6, tfinal=2)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    optimizer = torch.optim.Adam([p for p in theirs.parameters() if p.requires_grad], 0.1)
    for step in range(6):
        theirs(x).square().sum().backward()
        optimizer.step()
        theirs.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    theirs.eval().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    load_adapter(base.eval(), tmp_path)
    assert base.blocks[0]["q"].lora_E.shape == (4, 1) and agree(base(x), theirs(x))


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_started_adapter_goes_to_peft_as_a_plain_one_of_twice_the_rank(start, tmp_path):
    base, x = Net(), image()
    ours = copy.deepcopy(base)
    inject(ours, ["q", "head"], r=2, alpha=3)
    start_all(ours, start)
    with torch.no_grad():
        ours.head.lora_B.add_(0.3)
    save_adapter(ours, tmp_path)
    theirs = from_peft(base, tmp_path)
    assert theirs.peft_config["default"].r == 4 and agree(theirs(x), ours(x))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_pissa_file_of_peft_is_refused_since_its_base_is_another_one(tmp_path):
    base = Net()
    config = peft.LoraConfig(r=2, target_modules=["q"], init_lora_weights="pissa")
    peft.get_peft_model(copy.deepcopy(base), config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="adapter_config.json: init_lora_weights is 'pissa'"):
        load_adapter(base, tmp_path)


@pytest.mark.parametrize("family", ["Qwen3", "Llama"])
def test_a_transformers_model(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        tie_word_embeddings=True,
    )
    base = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    tokens = torch.arange(12).view(2, 6)
    ours = copy.deepcopy(base)
    inject(ours, ["q_proj", "v_proj", "layers.1.mlp.down_proj"], r=3, alpha=5)
    stir(ours)
    save_adapter(ours, tmp_path / "ours")
    theirs = from_peft(copy.deepcopy(base), tmp_path / "ours")
    assert agree(theirs(tokens).logits, ours(tokens).logits)
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(base, tmp_path / "theirs")
    assert agree(base(tokens).logits, ours(tokens).logits)
