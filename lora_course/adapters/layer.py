r"""LoRA on a linear layer: h = W0 x + scaling · B A x, with W0 frozen and only A and B trained.

Shapes: W0 (d, k) = (out_features, in_features); A (r, k); B (d, r); ΔW = scaling · B A (d, k);
scaling = alpha / r (rsLoRA: alpha / √r); rows are samples, x (..., k), h (..., d).
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import fused
from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import (
    check_alpha,
    check_choice,
    check_dropout,
    check_flag,
    check_generator,
    check_rank,
)
from lora_course.adapters.initialisers import INITIALISERS


class LoRALinear(Adapter):
    r"""Freeze the nn.Linear ``base`` in place and add the trained update ΔW = scaling · B A to its weight.

    Args:
        base: an nn.Linear (or a subclass that keeps its forward); shared, not copied.
        r: number of rows of A, an int of at least 1. The rank of ΔW is at most min(r, d, k): an r above
            min(d, k) is allowed, as in PEFT, but only adds parameters.
        alpha: positive and finite; scaling = alpha / r.
        dropout: probability in [0, 1), applied in training to the input of the branch, never to the base's.
        rslora: scaling = alpha / √r instead (Kalajdzievski, 2023), so that a large r is not scaled away.
        init: start of A, "kaiming" (as PEFT) or "gaussian" (as the paper), see ``initialisers``; B starts at 0.
        generator: a torch.Generator or an int seed for A.

    Attributes:
        lora_A: Parameter (r, k).  lora_B: Parameter (d, r).  In the base's dtype, float32 over half precision.
        scaling: the factor in front of B A, follows alpha, r and rslora.
        r, alpha, dropout, rslora, init: as given.  base, merged, tied_to: see ``Adapter``.

    Raises TypeError or ValueError for a bad argument, before the base is touched.

    Source: Hu et al. (2022), LoRA, Section 4.1, Eq. (3).
    """

    def __init__(self, base, r, alpha, dropout=0.0, rslora=False, init="kaiming", generator=0):
        r, alpha, dropout = check_rank(r), check_alpha(alpha), check_dropout(dropout)
        check_flag("rslora", rslora)
        check_choice("init", init, INITIALISERS)
        generator = check_generator(generator)
        super().__init__(base)
        vars(self).update(r=r, alpha=alpha, dropout=dropout, rslora=rslora, init=init)
        A, B = INITIALISERS[init](base.weight, r, generator)
        self.lora_A, self.lora_B = nn.Parameter(A), nn.Parameter(B)
        self.freeze_base()

    @property
    def scaling(self):
        r"""The factor in front of B A: alpha / r, or alpha / √r with rslora."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    def forward(self, x):
        r"""Return h (..., d) for x (..., k): ``formula(x)``, by a shortcut where one applies; merged, base(x)."""
        if self.merged:
            return self.base(x)
        h = fused.forward(self, x)
        return self.formula(x) if h is None else h

    def formula(self, x):
        r"""Return h = W0 x + b + scaling · B A dropout(x), rows being samples, in the dtype of base(x)."""
        h, z = self.base(x), F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        return (h + self.scaling * (z @ self.lora_A.T) @ self.lora_B.T).to(h.dtype)

    def delta_weight(self):
        r"""Return ΔW = scaling · B A, of shape (d, k), differentiable, in float32 at least."""
        wide = torch.promote_types(self.lora_A.dtype, torch.float32)
        return self.scaling * self.lora_B.to(wide) @ self.lora_A.to(wide)

    def reset_parameters(self, generator=0):
        r"""Change lora_A and lora_B in place to a new start, e.g. after ``to_empty`` on leaving the meta device.

        Raises RuntimeError if merged or started from its own weight, TypeError for a bad ``generator``.
        """
        if getattr(self, "origin", None) is not None:
            raise RuntimeError("this layer is started from its own weight: undo_start it first")
        if self.merged:
            raise RuntimeError("this layer is merged: its start cannot be drawn anew (unmerge it first)")
        with torch.no_grad():
            A, B = INITIALISERS[self.init](self.base.weight, self.r, check_generator(generator))
            self.lora_A.copy_(A)
            self.lora_B.copy_(B)

    def extra_repr(self):
        r"""Return what print shows of the layer beside its parts."""
        merged = ", merged" if self.merged else ""
        return f"r={self.r}, alpha={self.alpha}, scaling={self.scaling:.4g}, dropout={self.dropout}{merged}"
