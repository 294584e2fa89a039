r"""What fine-tuning a decoder holds in memory, in bytes, by purpose: full, LoRA, and LoRA on a quantized base.

Widths: bfloat16 2 bytes, float32 4. Full: bfloat16 weights and gradients, float32 master weights and two states of
Adam, 16 bytes a parameter. Adapters: float32 throughout, 16 bytes a parameter as well. Frozen: 2 bytes, or ``bits``.
"""

from typing import NamedTuple

from ._validate import positive_integer
from .shapes import DecoderShapes, lora_parameters

BLOCK, SCALE_BLOCK = 64, 256  # weights per scale; scales per scale of scales: double quantization


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


def activation_bytes(shapes, tokens, checkpointing=True):
    r"""An estimate of the bytes kept for backward with ``tokens`` tokens in the batch, in bfloat16.

    Counted per token and layer without checkpointing: the inputs of both norms and their outputs (4 h), queries and
    keys before and after rotation, values and the attention output (3 q + 3 kv), and four vectors of the gated MLP
    (4 m). With checkpointing: the input of each layer, and one layer in full while it is computed again. On top,
    logits in bfloat16 and float32. Not counted: float32 copies within norms, masks, the square of scores (that
    is, fused attention), memory that the allocator reserves. LoRA needs the same within about r numbers a layer.
    """
    s, tokens = _decoder(shapes), positive_integer("tokens", tokens, minimum=0)
    if not isinstance(checkpointing, bool):
        raise TypeError(f"checkpointing must be True or False, got {checkpointing!r}")
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    layer = 4 * s.hidden + 3 * q + 3 * kv + 4 * s.intermediate
    numbers = s.layers * s.hidden + layer if checkpointing else s.layers * layer
    return tokens * (2 * numbers + (2 + 4) * s.vocabulary)


def fine_tuning_memory(shapes, r=None, targets=None, bits=16, tokens=0, checkpointing=True):
    r"""The :class:`MemoryAccount` of fine-tuning the decoder ``shapes``.

    Args:
        r: rank of the adapters; None is full fine-tuning of everything.
        targets: names among ``shapes.linears()``; None is all of them.
        bits: of a frozen linear map: 16, or 8 or 4 with doubly quantized scales. Full fine-tuning takes 16 only.
        tokens, checkpointing: as for :func:`activation_bytes`; 0 tokens leave activations out.

    Raises ValueError or TypeError for a bad argument, or bits below 16 without r.
    """
    everything, activations = _decoder(shapes).base_parameters(), activation_bytes(shapes, tokens, checkpointing)
    if bits not in (4, 8, 16) or isinstance(bits, bool):
        raise ValueError(f"bits must be 4, 8 or 16, got {bits!r}")
    if r is None:
        if bits != 16 or targets is not None:
            raise ValueError(f"full fine-tuning has no targets and 16 bits, got targets={targets!r}, bits={bits!r}")
        return MemoryAccount(2 * everything, 0, 4 * everything, 2 * everything, 8 * everything, 0, activations)
    trained = lora_parameters(shapes, shapes.linears() if targets is None else targets, r)
    linear, quantized = linear_parameters(shapes), bits < 16
    weights = 2 * (everything - linear) + linear * bits // 8
    scales = round(linear * scale_bits() / 8) if quantized else 0
    unpacked = 2 * max(d * k for d, k in shapes.linears().values()) if quantized else 0
    return MemoryAccount(weights, scales, 4 * trained, 4 * trained, 8 * trained, unpacked, activations)


def _decoder(shapes):
    if not isinstance(shapes, DecoderShapes):
        raise TypeError(f"shapes must be a DecoderShapes, got {type(shapes).__name__}")
    return shapes
