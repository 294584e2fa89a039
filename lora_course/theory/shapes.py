r"""The weight shapes of a decoder-only transformer, and what LoRA trains in it.

Shapes are (out_features, in_features), as in ``nn.Linear.weight``; r is the rank of every adapter.
"""

from dataclasses import dataclass, fields

from ._validate import positive_integer
from .counting import adapter_parameters, full_parameters


@dataclass(frozen=True)
class DecoderShapes:
    r"""Sizes of a Llama-like decoder: grouped-query attention, gated MLP, RMS norms, no biases.

    ``hidden`` is the width of the residual stream; attention has ``heads`` queries and ``kv_heads`` keys and
    values of ``head_dim`` entries each (heads · head_dim need not be ``hidden``); ``qk_norms`` says whether
    queries and keys have a norm of ``head_dim`` weights each. Raises ValueError or TypeError on a size that
    is no positive integer, or on ``heads`` that is no multiple of ``kv_heads``.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_embeddings: bool = True
    qk_norms: bool = True

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is bool:
                if not isinstance(value, bool):
                    raise TypeError(f"{field.name} must be True or False, got {value!r}")
            else:
                positive_integer(field.name, value)
        if self.heads % self.kv_heads:
            raise ValueError(f"heads must be a multiple of kv_heads={self.kv_heads}, got {self.heads}")

    def linears(self):
        r"""Shapes of the seven linear maps of one layer, by name, in the order of the forward pass."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }

    def base_parameters(self):
        r"""Number of all weights: embedding (twice if the output is not tied), layers, norms."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norms else 0)
        layer = sum(full_parameters(d, k) for d, k in self.linears().values()) + norms
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_embeddings else 2)
        return embeddings + self.layers * layer + self.hidden


# the sizes in the published config.json of Qwen3-0.6B
QWEN3_0_6B = DecoderShapes(
    hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, intermediate=3072, vocabulary=151936
)

# likewise Qwen3-8B and Qwen3-32B: output not tied to the embedding
QWEN3_8B = DecoderShapes(
    hidden=4096,
    layers=36,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate=12288,
    vocabulary=151936,
    tied_embeddings=False,
)
QWEN3_32B = DecoderShapes(
    hidden=5120,
    layers=64,
    heads=64,
    kv_heads=8,
    head_dim=128,
    intermediate=25600,
    vocabulary=151936,
    tied_embeddings=False,
)


def lora_parameters(shapes, targets, r):
    r"""Number of parameters that LoRA of rank r trains on the linear maps ``targets`` of each layer.

    The sum of r (d + k) over the targets, times the layers. ``targets`` is a collection of different names
    among ``shapes.linears()``. Raises ValueError on an unknown or repeated name or an empty collection,
    TypeError if ``targets`` is one string or ``shapes`` no :class:`DecoderShapes`.
    """
    if not isinstance(shapes, DecoderShapes):
        raise TypeError(f"shapes must be a DecoderShapes, got {type(shapes).__name__}")
    if isinstance(targets, str):
        raise TypeError(f"targets must be a collection of names such as [{targets!r}], got the string {targets!r}")
    targets, linears = list(targets), shapes.linears()
    unknown = [name for name in targets if name not in linears]
    if unknown or not targets or len(set(targets)) != len(targets):
        raise ValueError(f"targets must be different names among {list(linears)}, got {targets}")
    return shapes.layers * sum(adapter_parameters(*linears[name], r) for name in targets)
