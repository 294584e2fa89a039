"""What chapter 13 says of PEFT's own behavior, in the version that the book is built with; another may differ."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_course.adapters import inject, save_adapter
from lora_course.labs import practice
from lora_course.theory import QWEN3_0_6B

peft = pytest.importorskip("peft", reason="PEFT is a test dependency: pip install -r requirements.txt")
pytest.importorskip("transformers", reason="chapter 13 needs it: pip install transformers peft")
if peft.__version__ != "0.21.2":  # the chapter prints what PEFT does, and asserts none of it
    pytest.skip(f"chapter 13 tells of PEFT 0.21.2, here is {peft.__version__}", allow_module_level=True)

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
X = torch.arange(20)[None]


def model():
    return practice.qwen3(practice.SMALL)


@pytest.fixture
def saved(tmp_path):
    """A folder with an adapter of ours that does something, r = 8 and alpha = 16."""
    ours = model()
    inject(ours, ATTENTION, r=8, alpha=16)
    source = torch.Generator().manual_seed(1)
    for name, p in ours.named_parameters():
        if "lora_B" in name:
            p.data.copy_(torch.randn(p.shape, generator=source))
    save_adapter(ours, tmp_path / "ours")
    return tmp_path / "ours"


def logits(module):
    with torch.no_grad():
        return module.eval()(X).logits


def test_of_two_names_a_wrong_one_is_ignored_without_a_word():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        half = peft.get_peft_model(model(), peft.LoraConfig(r=8, target_modules=["q_proj", "v_prj"]))
    assert sum(hasattr(m, "lora_A") for m in half.modules()) == practice.SMALL.layers
    assert not [w for w in caught if "v_prj" in str(w.message) or "target_modules" in str(w.message)]


def test_a_lost_alpha_is_replaced_by_eight(saved):
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config.pop("lora_alpha") == 16
    (saved / "adapter_config.json").write_text(json.dumps(config))
    loaded = peft.PeftModel.from_pretrained(model(), saved)
    assert {m.scaling["default"] for m in loaded.modules() if hasattr(m, "lora_A")} == {8 / 8}


def test_dropout_is_on_after_injecting_into_a_model_in_eval_mode():
    config = peft.LoraConfig(r=8, target_modules=ATTENTION, lora_dropout=0.5, init_lora_weights=False)
    theirs = peft.get_peft_model(model().eval(), config)
    with torch.no_grad():
        assert not torch.equal(theirs(X).logits, theirs(X).logits)
        assert torch.equal(logits(theirs), logits(theirs))


def test_keys_without_the_prefix_load_nothing_with_a_warning(saved):
    bare = {k.removeprefix("base_model.model."): t for k, t in load_file(saved / "adapter_model.safetensors").items()}
    assert not torch.allclose(logits(peft.PeftModel.from_pretrained(model(), saved)), logits(model()), atol=1e-3)
    save_file(bare, saved / "adapter_model.safetensors")
    with pytest.warns(UserWarning, match="missing adapter keys"):
        empty = peft.PeftModel.from_pretrained(model(), saved)
    assert torch.allclose(logits(empty), logits(model()), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Model")
def test_merging_into_a_tied_head_makes_another_model():
    theirs = peft.get_peft_model(model(), peft.LoraConfig(r=4, target_modules=["lm_head"], init_lora_weights=False))
    apart = logits(theirs)
    assert (logits(theirs.merge_and_unload()) - apart).norm() > 0.5 * apart.norm()


def test_the_share_that_is_printed_counts_the_adapter_in_the_denominator(capsys):
    real = practice.qwen3(QWEN3_0_6B, device="meta")
    peft.get_peft_model(real, peft.LoraConfig(r=8, target_modules=ATTENTION)).print_trainable_parameters()
    printed = capsys.readouterr().out
    assert "2,293,760" in printed and "0.3834" in printed
