import pytest
import torch

from lora_course.theory import QWEN3_0_6B, DecoderShapes, adapter_parameters, lora_parameters

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(scope="module")
def qwen():
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        vocab_size=151936,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        return transformers.Qwen3ForCausalLM(config)


def test_linears_are_the_shapes_that_transformers_builds(qwen):
    for layer in qwen.model.layers:
        built = {
            name.rpartition(".")[2]: tuple(module.weight.shape)
            for name, module in layer.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        assert built == QWEN3_0_6B.linears()


def test_base_parameters_are_those_of_the_model_that_transformers_builds(qwen):
    assert QWEN3_0_6B.base_parameters() == sum(p.numel() for p in qwen.parameters()) == 596_049_920


@pytest.mark.parametrize("targets,count", [(ATTENTION, 2_293_760), (["q_proj", "v_proj"], 1_146_880)])
def test_lora_of_rank_8_on_attention(targets, count):
    assert lora_parameters(QWEN3_0_6B, targets, 8) == count


def test_lora_of_rank_8_on_all_linears():
    assert lora_parameters(QWEN3_0_6B, QWEN3_0_6B.linears(), r=8) == 5_046_272


def test_lora_parameters_are_a_sum_over_layers_and_targets(qwen):
    for r in (1, 3):
        pairs = [
            r * sum(module.weight.shape)
            for name, module in qwen.named_modules()
            if name.endswith(("q_proj", "down_proj"))
        ]
        assert lora_parameters(QWEN3_0_6B, {"q_proj", "down_proj"}, r) == sum(pairs)


def test_a_width_of_4096_would_explain_another_number():
    assert 28 * 4 * adapter_parameters(4096, 4096, 8) == 7_340_032


def test_untied_output_doubles_the_embedding():
    sizes = dict(hidden=6, layers=2, heads=4, kv_heads=2, head_dim=3, intermediate=10, vocabulary=7)
    tied, untied = DecoderShapes(**sizes), DecoderShapes(**sizes, tied_embeddings=False)
    assert untied.base_parameters() - tied.base_parameters() == 6 * 7
    plain = DecoderShapes(**sizes, qk_norms=False)
    assert tied.base_parameters() - plain.base_parameters() == 2 * 2 * 3


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="heads must be a multiple of kv_heads=4, got 6"):
        DecoderShapes(8, 1, 6, 4, 2, 8, 8)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        DecoderShapes(8, 0, 4, 4, 2, 8, 8)
    with pytest.raises(TypeError, match="tied_embeddings must be True or False, got 1"):
        DecoderShapes(8, 1, 4, 4, 2, 8, 8, tied_embeddings=1)
    with pytest.raises(TypeError, match="collection of names"):
        lora_parameters(QWEN3_0_6B, "q_proj", 8)
    with pytest.raises(ValueError, match=r"among \['q_proj'.*got \['query'\]"):
        lora_parameters(QWEN3_0_6B, ["query"], 8)
    with pytest.raises(ValueError, match="different names"):
        lora_parameters(QWEN3_0_6B, ["q_proj", "q_proj"], 8)
    with pytest.raises(TypeError, match="shapes must be a DecoderShapes, got dict"):
        lora_parameters({}, ["q_proj"], 8)
