r"""What fine-tuning a decoder holds in memory, in bytes, by purpose: full, LoRA, and LoRA on a quantized base.

Widths: bfloat16 2 bytes, float32 4. Full: bfloat16 weights and gradients, float32 master weights and two states of
Adam, 16 bytes a parameter. Adapters: float32 throughout, 16 bytes a parameter as well. Frozen: 2 bytes, or ``bits``.
"""

from typing import NamedTuple

from ._validate import positive_integer
from .shapes import DecoderShapes, lora_parameters

BLOCK, SCALE_BLOCK = 64, 256  # weights per scale; scales per scale of scales: double quantization
LOSS_BYTES = 14  # per token and vocabulary entry: bfloat16 logits, log-probabilities and two gradients in float32


class MemoryAccount(NamedTuple):
    r"""Bytes by purpose; ``total`` is their sum.

    weights: of the base, as they are held (in full fine-tuning the bfloat16 copy). scales: of a quantized base.
    master: float32 weights that the optimizer changes (adapters: the only copy). gradients. optimizer: Adam's states.
    unpacked: one dequantized weight matrix, the largest. activations: an estimate, see :func:`activation_bytes`.
    """

    weights: int
    scales: int
    master: int
    gradients: int
    optimizer: int
    unpacked: int
    activations: int

    @property
    def total(self):
        r"""Sum of all purposes."""
        return sum(self)


def scale_bits():
    r"""Bits per weight for the scales, doubly quantized: 8/64 + 32/(64·256) = 0.127 (QLoRA, Section 3)."""
    return 8 / BLOCK + 32 / (BLOCK * SCALE_BLOCK)


def linear_parameters(shapes):
    r"""Number of weights in the linear maps of all layers: what QLoRA quantizes (not embeddings, head and norms)."""
    return _decoder(shapes).layers * sum(d * k for d, k in shapes.linears().values())


def activation_bytes(shapes, tokens, checkpointing=True, fused_loss=False):
    r"""An estimate of the largest number of bytes held for backward with ``tokens`` tokens in the batch, in bfloat16.

    Counted per token and layer without checkpointing: the inputs of both norms and their outputs (4 h), queries and
    keys before and after rotation, values and the attention output (3 q + 3 kv), and four vectors of the gated MLP
    (4 m). With checkpointing: the input of each layer, and later one layer in full while it is computed again. On
    top, the loss over the whole vocabulary, at its peak: 10 bytes a token and entry in the forward pass of
    Transformers' own loss, 14 in its backward, when no layer is computed again yet. fused_loss=True is a loss that
    never holds the logits of all tokens, and counts nothing for it. Not counted: float32 copies within norms, masks,
    the square of scores (that is, fused attention), memory that the allocator reserves. LoRA needs the same within
    about r numbers a layer.
    """
    s, tokens = _decoder(shapes), positive_integer("tokens", tokens, minimum=0)
    for name, flag in (("checkpointing", checkpointing), ("fused_loss", fused_loss)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name} must be True or False, got {flag!r}")
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    layer = 4 * s.hidden + 3 * q + 3 * kv + 4 * s.intermediate
    loss = 0 if fused_loss else LOSS_BYTES * s.vocabulary
    if not checkpointing:
        return tokens * (2 * s.layers * layer + loss)
    return tokens * (2 * s.layers * s.hidden + max(2 * layer, loss))


def fine_tuning_memory(
    shapes, r=None, targets=None, bits=16, tokens=0, checkpointing=True, fused_loss=False, rest_bytes=2
):
    r"""The :class:`MemoryAccount` of fine-tuning the decoder ``shapes``.

    Args:
        r: rank of the adapters; None is full fine-tuning of everything.
        targets: names among ``shapes.linears()``; None is all of them.
        bits: of a frozen linear map: 16, or 8 or 4 with doubly quantized scales. Full fine-tuning takes 16 only.
        tokens, checkpointing, fused_loss: as for :func:`activation_bytes`; 0 tokens leave activations out.
        rest_bytes: of each number that a quantized base does not quantize (embedding, head, norms): 2 is bfloat16;
            4 is float32, into which PEFT's ``prepare_model_for_kbit_training`` casts them.

    Raises ValueError or TypeError for a bad argument, bits below 16 without r, or rest_bytes=4 with 16 bits.
    """
    everything = _decoder(shapes).base_parameters()
    activations = activation_bytes(shapes, tokens, checkpointing, fused_loss)
    if bits not in (4, 8, 16) or isinstance(bits, bool):
        raise ValueError(f"bits must be 4, 8 or 16, got {bits!r}")
    if rest_bytes not in (2, 4) or (bits == 16 and rest_bytes != 2):
        raise ValueError(f"rest_bytes must be 2, or 4 with a quantized base, got {rest_bytes!r} with bits={bits}")
    if r is None:
        if bits != 16 or targets is not None:
            raise ValueError(f"full fine-tuning has no targets and 16 bits, got targets={targets!r}, bits={bits!r}")
        return MemoryAccount(2 * everything, 0, 4 * everything, 2 * everything, 8 * everything, 0, activations)
    trained = lora_parameters(shapes, shapes.linears() if targets is None else targets, r)
    linear, quantized = linear_parameters(shapes), bits < 16
    weights = rest_bytes * (everything - linear) + linear * bits // 8
    scales = round(linear * scale_bits() / 8) if quantized else 0
    unpacked = 2 * max(d * k for d, k in shapes.linears().values()) if quantized else 0
    return MemoryAccount(weights, scales, 4 * trained, 4 * trained, 8 * trained, unpacked, activations)


def _decoder(shapes):
    if not isinstance(shapes, DecoderShapes):
        raise TypeError(f"shapes must be a DecoderShapes, got {type(shapes).__name__}")
    return shapes
