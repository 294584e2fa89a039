r"""AdaLoRA on a linear layer: the update as triplets P Λ Q, each of which can be switched off by itself.

Shapes: W0 (d, k); Q = lora_A (r, k); P = lora_B (d, r); Λ = diag(lora_E), lora_E (r, 1); scaling = alpha / r;
ΔW = scaling · P Λ Q. Triplet i is column i of P, λ_i and row i of Q; ``rank_allocation`` shares triplets out.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import (
    check_alpha,
    check_choice,
    check_dropout,
    check_generator,
    check_model,
    check_rank,
)
from lora_course.adapters.initialisers import factor_dtype
from lora_course.adapters.layer import LoRALinear


class SVDLinear(Adapter):
    r"""Freeze the nn.Linear ``base`` in place and train ΔW = scaling · P Λ Q beside it.

    Args:
        base, dropout: as for ``LoRALinear``.
        r: number of triplets at the start, an int of at least 1 (PEFT's ``init_r``).
        alpha: positive and finite; scaling = alpha / r with this r: switching triplets off does not change it.
            So it is in PEFT, which divides by r + 0.00001.
        generator: a torch.Generator or an int seed for P and Q.

    Attributes:
        lora_A (r, k), lora_B (d, r): Parameters Q and P, from N(0, 0.02²); lora_E (r, 1): Parameter λ, from 0,
            so that ΔW = 0 at the start. Names, shapes and start are PEFT's.
        scaling, r, alpha, dropout: as above.  base, merged, tied_to: see ``Adapter``.
    P and Q are not orthogonal by themselves: ``orthogonality_penalty`` in the loss draws them there.

    Raises TypeError or ValueError for a bad argument, before the base is touched.

    Source: Zhang et al. (2023), AdaLoRA, Section 3.1, Eq. (3).
    """

    def __init__(self, base, r, alpha, dropout=0.0, generator=0):
        r, alpha, dropout = check_rank(r), check_alpha(alpha), check_dropout(dropout)
        generator = check_generator(generator)
        super().__init__(base)
        vars(self).update(r=r, alpha=alpha, dropout=dropout)
        (d, k), dtype, device = base.weight.shape, factor_dtype(base.weight.dtype), base.weight.device
        for name, shape in {"lora_A": (r, k), "lora_E": (r, 1), "lora_B": (d, r)}.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape, dtype=dtype, device=device)))
        self.reset_parameters(generator)
        self.freeze_base()

    @property
    def scaling(self):
        r"""The factor in front of P Λ Q, alpha / r with the r of the start."""
        return self.alpha / self.r

    def forward(self, x):
        r"""Return h (..., d) for x (..., k), h = W0 x + b + scaling · P Λ Q dropout(x); merged, base(x)."""
        if self.merged:
            return self.base(x)
        h, z = self.base(x), F.dropout(x, self.dropout, self.training).to(self.lora_A.dtype)
        return (h + self.scaling * (z @ (self.lora_E * self.lora_A).T) @ self.lora_B.T).to(h.dtype)

    def delta_weight(self):
        r"""Return ΔW = scaling · P Λ Q, of shape (d, k), differentiable, in float32 at least."""
        wide = torch.promote_types(self.lora_A.dtype, torch.float32)
        return self.scaling * self.lora_B.to(wide) @ (self.lora_E.to(wide) * self.lora_A.to(wide))

    def reset_parameters(self, generator=0):
        r"""Change P, Λ and Q in place to a new start; RuntimeError if merged, TypeError for a bad ``generator``."""
        if self.merged:
            raise RuntimeError("this layer is merged: its start cannot be drawn anew (unmerge it first)")
        generator = check_generator(generator)
        with torch.no_grad():
            self.lora_E.zero_()
            for p in (self.lora_A, self.lora_B):
                if not p.is_meta:  # a meta tensor holds no numbers, and must not use up the generator
                    p.copy_(torch.empty_like(p, device=generator.device).normal_(0, 0.02, generator=generator))

    extra_repr = LoRALinear.extra_repr


def svd_layers(model):
    r"""Return {name: SVDLinear} of the distinct ones in ``model``; TypeError for no module, ValueError for none."""
    found = {name: m for name, m in check_model(model).named_modules() if isinstance(m, SVDLinear)}
    if not found:
        raise ValueError("model has no SVDLinear: inject some first")
    return found


def orthogonality_penalty(model, form="mean"):
    r"""Return how far P and Q of all SVDLinears are from orthonormal: a differentiable scalar for the loss.

    form="mean": mean of ‖Pᵀ P - I‖_F and ‖Q Qᵀ - I‖_F over all matrices; PEFT adds 0.5 (``orth_reg_weight``)
        times this to the loss of a model output that has a ``.loss``, and to others nothing.
    form="paper": Σ ‖Pᵀ P - I‖²_F + ‖Q Qᵀ - I‖²_F over the layers (Zhang et al., 2023, Eq. (4)), to be taken γ times.

    Raises TypeError or ValueError for a bad model or form. All layers must be on one device.
    """
    check_choice("form", form, ("mean", "paper"))
    flat = [Q for layer in svd_layers(model).values() for Q in (layer.lora_A, layer.lora_B.T)]
    norms = torch.stack([torch.linalg.vector_norm(Q @ Q.T - torch.eye(len(Q)).to(Q)) for Q in flat])
    return norms.mean() if form == "mean" else norms.square().sum()
