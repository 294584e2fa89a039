r"""QLoRA's NF4: base weights in 4 bits, block by block, with a LoRA branch on top.

Symbols: W (d, k) with n = d·k entries, read row by row in blocks of 64; a (n/64,) the largest |entry| of each block;
q one of 16 codes in [-1, 1] per entry, two to a byte; Ŵ = a · q the weight that the layer acts with.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.checks import check_flag, check_linear
from lora_course.adapters.layer import LoRALinear

# quantiles of N(0, 1), 7 of them below zero, 8 above, and zero, divided by the largest (QLoRA, Appendix E)
NF4_CODES = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


def _blocks(flat, size):
    """Return a flat tensor as rows of ``size``, the last one filled up with zeros."""
    return F.pad(flat, (0, -flat.numel() % size)).view(-1, size)


def quantize_nf4(W, block=64):
    r"""Return (codes, absmax): the nearest of 16 codes per entry, two to a byte (⌈n/2⌉,), and a, float32 (⌈n/block⌉,).

    The relative error E‖W - Ŵ‖²/‖W‖² on Gaussian blocks of 64 is 0.0085. A block of zeros stays zeros.
    Source: Dettmers et al. (2023), QLoRA, Section 3.

    Raises:
        TypeError: W is no floating-point tensor, block no integer.
        ValueError: W is empty or not finite in float32, block below 1.
    """
    if type(block) is not int or block < 1:
        raise (ValueError if type(block) is int else TypeError)(f"block must be an int of at least 1, got {block!r}")
    if not isinstance(W, torch.Tensor) or not W.is_floating_point():
        raise TypeError(f"W must be a floating-point tensor, got {getattr(W, 'dtype', type(W).__name__)}")
    rows = _blocks(W.detach().float().flatten(), block)
    if not W.numel() or not (W.is_meta or torch.isfinite(rows).all()):
        raise ValueError(f"W must hold finite float32 numbers, got shape {tuple(W.shape)} with NaN, Inf or nothing")
    table = torch.tensor(NF4_CODES, device=W.device)
    absmax = rows.abs().amax(1)
    scaled = rows / torch.where(absmax > 0, absmax, 1)[:, None]
    codes = torch.bucketize(scaled, (table[1:] + table[:-1]) / 2).to(torch.uint8).flatten()[: W.numel()]
    pairs = _blocks(codes, 2)
    return pairs[:, 0] * 16 + pairs[:, 1], absmax


def dequantize_nf4(codes, absmax, shape, block=64, dtype=torch.float32):
    r"""Return Ŵ = a · q of ``shape`` and ``dtype`` from what ``quantize_nf4`` returned; a fixed point of it."""
    table = torch.tensor(NF4_CODES, device=codes.device)
    n = math.prod(shape)
    q = table[torch.stack([codes >> 4, codes & 15], 1).flatten()[:n].int()]
    return (_blocks(q, block) * absmax[:, None]).flatten()[:n].view(shape).to(dtype)


def quantize_absmax(absmax, block=256):
    r"""Return (q, scale, mean): double quantization, a ≈ mean + scale · q / 127 with q int8, one scale per block.

    32 bits per 64 weights become 8/64 + 32/(64·256) = 0.127 bits per weight. QLoRA takes an 8-bit float where
    here is an integer; the mean is subtracted in both, since every a is positive.
    """
    mean = absmax.mean()
    rows = _blocks(absmax - mean, block)
    scale = rows.abs().amax(1)
    q = torch.round(rows / torch.where(scale > 0, scale, 1)[:, None] * 127)
    return q.to(torch.int8).flatten()[: absmax.numel()], scale, mean


def dequantize_absmax(q, scale, mean, block=256):
    r"""Return a, float32 and never negative, from what ``quantize_absmax`` returned."""
    return (_blocks(q.float(), block) * scale[:, None] / 127).flatten()[: q.numel()].add(mean).clamp(min=0)


class _NF4Product(torch.autograd.Function):
    """x Ŵᵀ, which keeps the codes for its backward and not Ŵ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x, layer):
        return F.linear(x, layer.dequantize(x.dtype))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.layer, ctx.dtype = inputs[1], inputs[0].dtype

    @staticmethod
    def backward(ctx, grad):
        return (grad @ ctx.layer.dequantize(grad.dtype)).to(ctx.dtype), None


class NF4Linear(nn.Module):
    r"""A frozen linear layer whose weight is kept in NF4 and dequantized to the dtype of x at each call.

    Args:
        linear: an nn.Linear; its weight is quantized into buffers, its bias shared and frozen in place.
        block: entries per absmax.
        double: quantize absmax too, as QLoRA does; a block whose a is far below the mean of all may vanish.

    Attributes: in_features, out_features, bias; buffers codes, absmax (or absmax, scale, mean if double), which
    keep their dtype under ``.half()``; weight, Ŵ in the dtype of ``linear``, computed at each reading.

    Raises TypeError or ValueError for a bad argument, which it names.
    """

    def __init__(self, linear, block=64, double=True):
        W = check_linear("linear", linear).weight
        codes, absmax = quantize_nf4(W, block)
        check_flag("double", double)
        super().__init__()
        vars(self).update(in_features=linear.in_features, out_features=linear.out_features, block=block, dtype=W.dtype)
        self.double, self.bias = double, linear.bias
        parts = quantize_absmax(absmax) if double else (absmax,)
        for name, part in zip(("codes", "absmax", "scale", "mean"), (codes, *parts), strict=False):
            self.register_buffer(name, part)
        self.requires_grad_(False).train(linear.training)

    def dequantize(self, dtype):
        r"""Return Ŵ (d, k) in ``dtype``."""
        a = dequantize_absmax(self.absmax, self.scale, self.mean) if self.double else self.absmax
        return dequantize_nf4(self.codes, a, (self.out_features, self.in_features), self.block, dtype)

    @property
    def weight(self):
        r"""Ŵ (d, k) in the dtype of the layer that was quantized."""
        return self.dequantize(self.dtype)

    def forward(self, x):
        r"""Return x Ŵᵀ + b (..., d) for x (..., k), in the dtype of x."""
        h = _NF4Product.apply(x, self)
        return h if self.bias is None else h + self.bias.to(h.dtype)

    def weight_bytes(self):
        r"""Return the bytes that the weight takes, scales included; times 8 over d·k it is the bits per parameter."""
        return sum(b.numel() * b.element_size() for b in self._buffers.values())

    def _apply(self, fn, recurse=True):
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, b in before.items():
            if self._buffers[name].dtype != b.dtype:
                self._buffers[name] = b.to(self._buffers[name].device)
        return self

    def extra_repr(self):
        r"""Return what print shows of the layer."""
        bits = 8 * self.weight_bytes() / (self.in_features * self.out_features)
        return f"in_features={self.in_features}, out_features={self.out_features}, {bits:.3f} bits per parameter"


def check_nf4(name, module):
    r"""Return ``module``, called ``name`` in errors; TypeError if it is no NF4Linear."""
    if not isinstance(module, NF4Linear):
        raise TypeError(f"{name} must be an NF4Linear, got a {type(module).__name__}")
    return module


class QLoRALinear(LoRALinear):
    r"""LoRA over a frozen ``NF4Linear``: h = Ŵ x + b + scaling · B A x; arguments as for ``LoRALinear``.

    ``merge`` is refused: rounding Ŵ + ΔW to 16 codes again would lose most of a small ΔW.

    Source: Dettmers et al. (2023), QLoRA, Section 3, Eqs. (3) and (5).
    """

    check_base = staticmethod(check_nf4)

    def forward(self, x):
        r"""Return h (..., d) for x (..., k)."""
        return self.formula(x)

    def merged_weight(self):
        r"""Raise RuntimeError: W + ΔW has no place in 4 bits."""
        raise RuntimeError(
            "the base is kept in NF4: rounding Ŵ + ΔW to its 16 codes would lose most of ΔW, so it is not merged; "
            "layer.weight is Ŵ + ΔW in full precision, to be put into an nn.Linear"
        )
