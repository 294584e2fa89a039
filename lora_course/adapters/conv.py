r"""LoRA on a convolution: A is a convolution to r channels, B mixes them by 1×1; the formula is that of a matrix.

Shapes: W0 (d, c, h, w) = (out_channels, in_channels, *kernel_size); A (r, c, h, w); B (d, r, 1, 1); x (N, c, H, W).
ΔW = scaling · B A with both flattened to (d, r) and (r, c·h·w), then of W0's shape again.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import (
    FLOATS,
    check_alpha,
    check_choice,
    check_dropout,
    check_flag,
    check_generator,
    check_one_device,
    check_rank,
)
from lora_course.adapters.initialisers import INITIALISERS
from lora_course.adapters.layer import LoRALinear


def why_not_adaptable_conv(module):
    r"""Return None if ``module`` can carry a LoRAConv2d, else the reason in words."""
    kind = type(module)
    if not isinstance(module, nn.Conv2d):
        return f"it is a {kind.__name__}, not an nn.Conv2d"
    W = module._parameters.get("weight")
    if W is None or "parametrizations" in module._modules:
        return "its weight or bias is computed from other tensors (parametrization, weight norm)"
    if is_lazy(W):
        return f"it is a {kind.__name__} without a shape yet: send one batch through the model first"
    if kind.forward is not nn.Conv2d.forward or kind._conv_forward is not nn.Conv2d._conv_forward:
        return f"its class {kind.__name__} has a forward of its own, which need not be a convolution with W"
    if module.groups != 1:
        return (
            f"it has groups={module.groups}: each group needs factors of its own (PEFT's branch ignores the groups "
            "in A, so it is no change of W and cannot be merged)"
        )
    if W.dtype not in FLOATS or not W.numel():
        return f"its weight is {W.dtype} of shape {tuple(W.shape)}; it must be floating-point and not empty"
    return None


def check_conv(name, module):
    r"""Return ``module``, called ``name``; TypeError if it cannot carry a LoRAConv2d, ValueError for mixed devices."""
    reason = why_not_adaptable_conv(module)
    if reason is not None:
        raise TypeError(f"{name} cannot be adapted: {reason}")
    return check_one_device(name, module)


class LoRAConv2d(Adapter):
    r"""Freeze the nn.Conv2d ``base`` in place and add the trained update ΔW = scaling · B A to its weight.

    A has the kernel, stride, padding, padding mode and dilation of the base, B is 1×1 with stride 1, so that the
    two in a row are one convolution with ΔW. (PEFT 0.21.2 leaves dilation and padding mode out of A: with those,
    its branch is not a convolution with ΔW, or fails on the shape. Without them, both are the same.)

    Args:
        base: an nn.Conv2d with groups=1; shared, not copied.
        r, alpha, dropout, rslora, generator: as for ``LoRALinear``.
        init: "kaiming" (as PEFT) or "gaussian", with fan-in c·h·w.

    Attributes:
        lora_A: Parameter (r, c, h, w).  lora_B: Parameter (d, r, 1, 1).
        r, alpha, scaling, dropout, rslora, init, base, merged: as for ``LoRALinear``.

    Raises TypeError or ValueError for a bad argument, which it names.
    """

    check_base = staticmethod(check_conv)

    def __init__(self, base, r, alpha, dropout=0.0, rslora=False, init="kaiming", generator=0):
        r, alpha, dropout = check_rank(r), check_alpha(alpha), check_dropout(dropout)
        check_flag("rslora", rslora)
        check_choice("init", init, INITIALISERS)
        generator = check_generator(generator)
        super().__init__(base)
        vars(self).update(r=r, alpha=alpha, dropout=dropout, rslora=rslora, init=init)
        A, B = self._start(generator)
        self.lora_A, self.lora_B = nn.Parameter(A), nn.Parameter(B)
        self.freeze_base()

    def _start(self, generator):
        W = self.base.weight
        A, B = INITIALISERS[self.init](W.flatten(1), self.r, generator)
        return A.view(self.r, *W.shape[1:]), B.view(-1, self.r, 1, 1)

    scaling = LoRALinear.scaling  # alpha / r, or alpha / √r with rslora

    def reset_parameters(self, generator=0):
        r"""Change lora_A and lora_B in place to a new start, e.g. after ``to_empty`` has left the meta device.

        Raises RuntimeError if merged, TypeError for a bad ``generator``.
        """
        if self.merged:
            raise RuntimeError("this layer is merged: its start cannot be drawn anew (unmerge it first)")
        with torch.no_grad():
            A, B = self._start(check_generator(generator))
            self.lora_A.copy_(A)
            self.lora_B.copy_(B)

    def forward(self, x):
        r"""Return base(x) + scaling · B ∗ (A ∗ dropout(x)), ∗ being the convolution; merged, base(x)."""
        h = self.base(x)
        if self.merged:
            return h
        z = F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        branch = F.conv2d(self.base._conv_forward(z, self.lora_A, None), self.lora_B)
        return (h + self.scaling * branch).to(h.dtype)

    def delta_weight(self):
        r"""Return ΔW = scaling · B A, of W0's shape (d, c, h, w), differentiable, in float32 at least."""
        wide = torch.promote_types(self.lora_A.dtype, torch.float32)
        product = self.lora_B.to(wide).flatten(1) @ self.lora_A.to(wide).flatten(1)
        return (self.scaling * product).view(self.base.weight.shape)

    def extra_repr(self):
        r"""Return what print shows of the layer beside its parts."""
        merged = ", merged" if self.merged else ""
        return f"r={self.r}, alpha={self.alpha}, scaling={self.scaling:.4g}, dropout={self.dropout}{merged}"
