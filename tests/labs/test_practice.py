"""The models of chapter 13: Transformers' shapes are the theory's, measures do not depend on the tokenizer."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from lora_course.adapters import count_parameters, inject, merge_all, trainable_parameters, unmerge_all
from lora_course.labs import practice, tinylm
from lora_course.theory import QWEN3_0_6B, lora_parameters

TEXT = "Return the first element.\0LATIN SMALL LETTER É\0" * 12


@pytest.fixture(scope="module")
def tiny():
    return practice.choose(None)[1]


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="chapter 13 needs it: pip install transformers peft")


class Constant(nn.Module):
    """All tokens are equally likely; the parameter only says where it lies."""

    def __init__(self, vocabulary):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens):
        return self.weight.expand(*tokens.shape, -1)


@pytest.mark.parametrize("shapes", [practice.SMALL, QWEN3_0_6B])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["k_proj", "o_proj", "gate_proj", "down_proj"]])
def test_transformers_own_architecture_has_the_sizes_of_the_theory(transformers, shapes, targets):
    model = practice.qwen3(shapes, device="meta")
    assert count_parameters(model).base == shapes.base_parameters()
    assert {n: tuple(m.weight.shape) for n, m in model.model.layers[0].named_modules() if n.endswith("_proj")} == {
        f"{'self_attn' if name[0] in 'qkvo' else 'mlp'}.{name}": shape for name, shape in shapes.linears().items()
    }
    assert inject(model, targets, r=3, alpha=5).trainable == lora_parameters(shapes, targets, 3)


def test_small_has_the_proportions_of_the_real_one():
    for name, (d, k) in practice.SMALL.linears().items():
        assert QWEN3_0_6B.linears()[name] == (16 * d, 16 * k)


def test_a_random_model_is_drawn_from_its_seed_and_from_nothing_else(transformers):
    before = torch.get_rng_state()
    a, b, other = (practice.qwen3(practice.SMALL, seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.lm_head.weight, other.lm_head.weight)
    assert a.lm_head.weight is a.model.embed_tokens.weight and not a.training


@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 256, 300, len(TEXT)])
def test_bits_per_byte_are_those_of_tinylm_after_the_byte_that_opens_a_document(tiny, length):
    text = TEXT[:length]
    whole = torch.tensor([0, *text.encode()], dtype=torch.uint8)
    assert practice.bits_per_byte(tiny, text, batch=2) == pytest.approx(tinylm.bits_per_byte(tiny.module, whole))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 30])
def test_bits_per_byte_count_bytes_and_not_tokens(length):
    bytewise = practice.LanguageModel("1", Constant(256), lambda t: list(t.encode()), bytes, 0, 8)
    in_pairs = replace(bytewise, module=Constant(2**16), encode=lambda t: [0] * (len(t.encode()) // 2))
    assert practice.bits_per_byte(bytewise, "x" * length) == pytest.approx(8)
    assert practice.bits_per_byte(bytewise, "é" * length) == pytest.approx(8)
    assert practice.bits_per_byte(in_pairs, "x" * 2 * length) == pytest.approx(8)


@pytest.mark.parametrize("prompt", ["", "Return "])
def test_a_sample_is_that_of_tinylm(tiny, prompt):
    ours = practice.sample(tiny, prompt, length=150, temperature=0.9, seed=4)
    assert ours == tinylm.sample(tiny.module, prompt, length=150, temperature=0.9, seed=4)


def test_a_sharing_copy_has_its_own_adapters_on_the_same_parameters(tiny):
    one, two = tiny.copy(share=True), tiny.copy(share=True)
    assert one.module is not tiny.module
    assert all(p is q for p, q in zip(one.module.parameters(), tiny.module.parameters(), strict=True))
    for seed, model in enumerate((one, two)):
        inject(model.module, ["q_proj"], r=2, alpha=3, generator=seed)
        with torch.no_grad():
            for p in trainable_parameters(model.module):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)))
    base = tiny.copy()
    tokens = tiny.tokens(TEXT[:50])[None]
    with torch.no_grad():
        first, second, third = (m.logits(tokens) for m in (one, two, tiny))
        assert torch.equal(third, base.logits(tokens))
        assert not torch.allclose(first, second) and not torch.allclose(first, third)
        merge_all(one.module, keep_base=True)
        assert not torch.allclose(tiny.logits(tokens), third)  # as documented: it is one weight
        unmerge_all(one.module)
        assert torch.equal(tiny.logits(tokens), third) and torch.equal(two.logits(tokens), second)


def test_a_plain_copy_shares_nothing(tiny):
    copied = tiny.copy()
    with torch.no_grad():
        copied.module.norm.weight.zero_()
    assert tiny.module.norm.weight.any()


def saved_with_a_tokenizer(transformers, folder):
    """A random model and a byte-level tokenizer of Transformers' own, saved as the hub has them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|end|>", clean_up_tokenization_spaces=False
    )
    module = practice.qwen3(replace(practice.SMALL, vocabulary=len(tokenizer)), seed=2)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return module


def test_a_downloaded_model_has_the_same_face(transformers, tmp_path):
    module = saved_with_a_tokenizer(transformers, tmp_path)
    before = torch.get_rng_state()
    model, same = practice.choose(str(tmp_path))
    assert model is same and model.name == str(tmp_path) and not model.module.training
    assert torch.equal(before, torch.get_rng_state())
    assert model.decode(model.encode(TEXT)) == TEXT and model.encode("\0") == [model.start]
    assert len(model.encode(TEXT)) == len(TEXT.encode())
    tokens = model.tokens(TEXT[:90])[None]
    with torch.no_grad():
        assert torch.allclose(model.logits(tokens).cpu(), module(tokens).logits, atol=1e-5)
    # a random model is no better than chance, and hardly worse
    assert abs(practice.bits_per_byte(model, TEXT) - math.log2(257)) < 0.3
    assert practice.sample(model, "LATIN", length=5).startswith("LATIN")


def test_what_is_missing_is_said_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="transformers, which is not installed; run: pip install"):
        practice.qwen3(practice.SMALL)
    with pytest.raises(ImportError, match="pip install"):
        practice.choose("nobody/nothing")


def test_transformers_without_qwen3_is_said_to_be_too_old(monkeypatch):
    old = type(sys)("transformers")
    old.__version__ = "4.30.0"
    monkeypatch.setitem(sys.modules, "transformers", old)
    with pytest.raises(ImportError, match="transformers 4.30.0 has no Qwen3Config; run: pip install"):
        practice.qwen3(practice.SMALL)


@pytest.mark.parametrize(
    "call,error,what",
    [
        (lambda m: practice.bits_per_byte(m, ""), ValueError, "text is empty"),
        (lambda m: practice.sample(m, length=0), ValueError, "length=0 must be positive"),
        (lambda m: practice.sample(m, length=2.5), TypeError, "length=2.5 must be an int"),
        (lambda m: practice.sample(m, temperature=0), ValueError, "temperature=0 must be positive"),
        (lambda m: practice.sample(m, seed=-1), ValueError, "seed=-1 must be at least 0"),
        (lambda m: practice.qwen3(practice.SMALL, seed=-1), ValueError, "seed=-1 must be at least 0"),
    ],
)
def test_bad_input_is_named(tiny, call, error, what):
    if "qwen3" in call.__code__.co_names:
        pytest.importorskip("transformers")
    with pytest.raises(error, match=what):
        call(tiny)
