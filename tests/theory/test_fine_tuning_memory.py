"""The memory account, against tensors that are really made and modules that really quantize."""

from dataclasses import replace

import pytest
import torch

from lora_course.adapters import NF4Linear, count_parameters, inject
from lora_course.theory import (
    QWEN3_0_6B,
    QWEN3_8B,
    QWEN3_32B,
    activation_bytes,
    fine_tuning_memory,
    linear_parameters,
    scale_bits,
    training_bytes,
)
from lora_course.theory.fine_tuning_memory import LOSS_BYTES

SMALL = replace(QWEN3_0_6B, hidden=64, layers=3, heads=4, kv_heads=2, head_dim=32, intermediate=160, vocabulary=500)


def qwen(shapes, device="meta"):
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        hidden_size=shapes.hidden,
        num_hidden_layers=shapes.layers,
        num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.kv_heads,
        head_dim=shapes.head_dim,
        intermediate_size=shapes.intermediate,
        vocab_size=shapes.vocabulary,
        tie_word_embeddings=shapes.tied_embeddings,
        attn_implementation="sdpa",
    )
    state = torch.get_rng_state()
    with torch.device(device):
        model = transformers.Qwen3ForCausalLM(config)
    torch.set_rng_state(state)
    return model


@pytest.mark.parametrize("shapes,published", [(QWEN3_8B, 8.2e9), (QWEN3_32B, 32.8e9)])
def test_larger_models_have_the_parameters_that_transformers_builds(shapes, published):
    model = qwen(shapes)
    assert shapes.base_parameters() == sum(p.numel() for p in model.parameters())
    assert shapes.base_parameters() == pytest.approx(published, rel=5e-3)  # as their model cards round them
    linear = [m.weight.numel() for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "layers" in n]
    assert linear_parameters(shapes) == sum(linear)


def test_full_fine_tuning_holds_16_bytes_a_parameter():
    account = fine_tuning_memory(QWEN3_8B)
    n = QWEN3_8B.base_parameters()
    assert account.total == 16 * n == training_bytes(0, n).total
    assert (account.weights, account.master, account.gradients, account.optimizer) == (2 * n, 4 * n, 2 * n, 8 * n)


@pytest.mark.parametrize("r,targets", [(3, None), (8, ["q_proj", "v_proj"])])
def test_adapters_hold_what_injected_adapters_hold(r, targets):
    model = qwen(SMALL)
    inject(model, targets or list(SMALL.linears()), r=r, alpha=2 * r)
    trained = count_parameters(model).trainable
    account = fine_tuning_memory(SMALL, r, targets)
    assert (account.master, account.gradients, account.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    assert account.weights == 2 * SMALL.base_parameters() and account.scales == account.unpacked == 0


def test_four_bits_are_what_the_quantized_layer_takes():
    # big enough for the scales' own scales not to be rounded up to a whole block
    linear = torch.nn.Linear(1024, 512, bias=False)
    by_layer = 8 * NF4Linear(linear).weight_bytes() / linear.weight.numel()
    assert 4 + scale_bits() == pytest.approx(by_layer, rel=1e-4) and scale_bits() == pytest.approx(0.127, abs=1e-4)
    account, wide = (fine_tuning_memory(QWEN3_8B, 4, bits=bits) for bits in (4, 16))
    n = linear_parameters(QWEN3_8B)
    assert wide.weights - account.weights == n * 12 // 8
    assert account.scales == round(n * scale_bits() / 8)
    assert account.unpacked == 2 * 12288 * 4096  # one gate_proj
    assert fine_tuning_memory(QWEN3_8B, 4, bits=8).weights - account.weights == n // 2


def saved_bytes(model, tokens):
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held, sizes = [], {}

    def save(tensor):
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        model(input_ids=tokens, labels=tokens)
    return sum(sizes.values())


def test_activations_are_of_the_size_that_autograd_keeps():
    # per token and layer, by the difference of two depths, so that head and embedding drop out; in float32, 4 bytes
    tokens = torch.randint(0, SMALL.vocabulary, (2, 64), generator=torch.Generator().manual_seed(0))
    kept = [saved_bytes(qwen(replace(SMALL, layers=n), "cpu"), tokens) for n in (2, 4)]
    estimated = [2 * activation_bytes(replace(SMALL, layers=n), 128, checkpointing=False) for n in (2, 4)]
    ratio = (kept[1] - kept[0]) / (estimated[1] - estimated[0])
    assert 1.1 < ratio < 1.35  # about 1.2, as chapter 11 says: norms and rotations of the library are not fused


def test_checkpointing_and_tokens():
    for shapes in (QWEN3_0_6B, QWEN3_8B):
        plain, less = (activation_bytes(shapes, 1000, c, fused_loss=True) for c in (False, True))
        assert less < plain / 2
        assert activation_bytes(shapes, 2000) == 2 * activation_bytes(shapes, 1000) and activation_bytes(shapes, 0) == 0
    assert fine_tuning_memory(QWEN3_8B, 8, tokens=10).activations == activation_bytes(QWEN3_8B, 10)


def peak_bytes(act):
    """The most bytes of tensors that live at once while act runs, on top of what there was before."""
    profiler = torch.profiler
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU], profile_memory=True) as run:
        act()
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_the_loss_of_transformers_peaks_at_the_bytes_that_are_counted():
    loss_utils = pytest.importorskip("transformers.loss.loss_utils")
    n, vocabulary = 64, 20_000
    head = torch.ones(vocabulary, 8, dtype=torch.bfloat16)
    x = torch.ones(1, n, 8, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(1, n, dtype=torch.int64)

    def loss():
        logits = x @ head.T
        return logits, loss_utils.ForCausalLMLoss(logits, labels, vocabulary)

    def forward():
        loss()

    def backward():
        logits, value = loss()
        value.backward()

    forward()  # what is made once at the first call is not counted
    backward()
    per_entry = [peak_bytes(act) / (n * vocabulary) for act in (forward, backward)]
    assert per_entry == pytest.approx([10, LOSS_BYTES], rel=0.01)
    whole, fused = (activation_bytes(QWEN3_8B, 1, fused_loss=f) for f in (False, True))
    s = QWEN3_8B
    layer = 2 * (4 * s.hidden + 3 * (s.heads + s.kv_heads) * s.head_dim + 4 * s.intermediate)
    assert whole - fused == LOSS_BYTES * s.vocabulary - layer > 0  # the two peaks come one after the other


def test_what_is_not_quantized_is_cast_by_peft():
    peft = pytest.importorskip("peft")
    model = qwen(SMALL).to(torch.bfloat16)
    peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    assert {p.dtype for p in model.parameters()} == {torch.float32}  # all that is no 4-bit parameter
    plain, cast = (fine_tuning_memory(QWEN3_8B, 16, bits=4, rest_bytes=b) for b in (2, 4))
    rest = QWEN3_8B.base_parameters() - linear_parameters(QWEN3_8B)
    assert cast.weights - plain.weights == 2 * rest and round(2 * rest / 1e9, 2) == 2.49
    assert cast[1:] == plain[1:]


@pytest.mark.parametrize(
    "options,error,what",
    [
        ({"bits": 4}, ValueError, "full fine-tuning"),
        ({"targets": ["q_proj"]}, ValueError, "full fine-tuning"),
        ({"r": 4, "bits": 3}, ValueError, "bits must"),
        ({"r": 4, "tokens": -1}, ValueError, "tokens"),
        ({"r": 4, "targets": ["query"]}, ValueError, "targets"),
        ({"r": 0}, ValueError, "r must"),
        ({"r": 4, "checkpointing": 1}, TypeError, "checkpointing"),
        ({"r": 4, "fused_loss": 1}, TypeError, "fused_loss"),
        ({"r": 4, "rest_bytes": 4}, ValueError, "rest_bytes"),
        ({"r": 4, "bits": 4, "rest_bytes": 3}, ValueError, "rest_bytes"),
    ],
)
def test_bad_input_is_named(options, error, what):
    with pytest.raises(error, match=what):
        fine_tuning_memory(QWEN3_8B, **options)
    with pytest.raises(TypeError, match="shapes"):
        fine_tuning_memory("8B")
