r"""DoRA on a linear layer: a magnitude for each row (or column) of the weight, its direction adapted by LoRA.

Shapes: W0 (d, k); A (r, k); B (d, r); s = scaling; V = W0 + s B A (d, k); magnitudes m and norms n = ‖V‖ of the
rows (d,) or columns (k,) of V; c = m / n. The layer acts with W' = c V, i.e. W'_ij = c_i V_ij (or c_j V_ij).
"""

from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import fused
from lora_course.adapters.checks import check_choice, check_flag
from lora_course.adapters.layer import LoRALinear


class DoRALinear(LoRALinear):
    r"""Freeze the nn.Linear ``base`` in place and train the magnitudes and, by LoRA, the directions of its weight.

    Args:
        base, r, alpha, dropout, rslora, init: as for ``LoRALinear``.
        magnitude: "row", one m_i per output, as in PEFT and in the authors' own code for nn.Linear; or "column",
            one m_j per input, as Eq. (5) of the paper has it for a weight (d, k): m is (1, k), ‖·‖_c column-wise.
        detach_norm: n gets no gradient (Section 4.3 of the paper, PEFT); False: the gradient of the formula.
        dropout_on: what sees dropout in training. "correction": all of W' - W0, as in PEFT and in the authors'
            code, h = W0 x + (W' - W0) dropout(x), which costs a second product with W0. "branch": only s B A, as
            LoRA's dropout put into the paper's formula, h = c (W0 x + s B A dropout(x)).
        generator: a torch.Generator or an int seed for A.

    Attributes beside those of ``LoRALinear``:
        lora_magnitude_vector: Parameter m, (d,) or (k,), in the dtype of lora_A; at the start m = n, so that W' = W0
            (PEFT rounds m to the dtype of the base, which over half precision changes the start a little).
    A row (column) of V that is all zero has no direction: it stays zero, where m / n would be 0 / 0.

    Raises TypeError or ValueError for a bad argument, before the base is touched.

    Source: Liu et al. (2024), DoRA, Eqs. (2) and (5), and Section 4.3, Eq. (11).
    """

    def __init__(
        self,
        base,
        r,
        alpha,
        dropout=0.0,
        rslora=False,
        init="kaiming",
        magnitude="row",
        detach_norm=True,
        dropout_on="correction",
        generator=0,
    ):
        check_choice("magnitude", magnitude, ("row", "column"))
        check_flag("detach_norm", detach_norm)
        check_choice("dropout_on", dropout_on, ("correction", "branch"))
        super().__init__(base, r, alpha, dropout, rslora, init, generator)
        vars(self).update(magnitude=magnitude, detach_norm=detach_norm, dropout_on=dropout_on)
        self.lora_magnitude_vector = nn.Parameter(self.norms().detach().to(self.lora_A.dtype))

    def norms(self):
        r"""Return n, the norms (d,) of the rows of V or (k,) of its columns, differentiable, in float32 at least."""
        W = self.base.weight
        with nullcontext() if W.is_meta else torch.autocast(W.device.type, enabled=False):
            wide = torch.promote_types(self.lora_A.dtype, torch.float32)
            W, A, B = W.to(wide), self.lora_A.to(wide), self.lora_B.to(wide)
            return row_norms(*((W, A, B) if self.magnitude == "row" else (W.T, B.T, A.T)), self.scaling)

    def ratio(self):
        r"""Return c = m / n, and 0 where n = 0; the gradient reaches n only without ``detach_norm``."""
        with torch.no_grad() if self.detach_norm else nullcontext():
            n = self.norms()
        return self.lora_magnitude_vector / n.masked_fill(n == 0, torch.inf)

    def forward(self, x):
        r"""Return h (..., d) for x (..., k), h = W' x + b for rows x; merged, base(x)."""
        if self.merged:
            return self.base(x)
        c, b, by_row = self.ratio(), self.base.bias, self.magnitude == "row"
        if self.dropout and self.training and self.dropout_on == "correction":
            h, z = self.base(x), F.dropout(x, self.dropout)
            into, out = (1, c) if by_row else (c, 1)  # c stands before V by rows, behind it by columns
            u = F.linear(z if by_row else (z * (c - 1)).to(z.dtype), self.base.weight)
            v = self.scaling * ((z * into).to(self.lora_A.dtype) @ self.lora_A.T) @ self.lora_B.T
            return (h + ((c - 1) * u if by_row else u) + out * v).to(h.dtype)
        if not by_row:
            return super().forward((x * c).to(x.dtype))
        h = super().forward(x)  # V x + b, by LoRALinear's fast path
        return (h * c if b is None else torch.addcmul(b - b * c, h, c)).to(h.dtype)

    def delta_weight(self):
        r"""Return W' - W0, of shape (d, k) and in general of full rank, differentiable, in float32 at least."""
        c = self.ratio()
        branch = super().delta_weight()
        W = self.base.weight.to(branch.dtype)
        return (c[:, None] if self.magnitude == "row" else c) * (W + branch) - W

    def reset_parameters(self, generator=0):
        r"""Change A, B and m in place to a new start, as for ``LoRALinear``, and with the same errors."""
        super().reset_parameters(generator)
        with torch.no_grad():
            self.lora_magnitude_vector.copy_(self.norms())

    def extra_repr(self):
        r"""Return what print shows of the layer beside its parts."""
        return f"{super().extra_repr()}, magnitude={self.magnitude}"


def row_norms(W, A, B, scaling):
    r"""Return the norms (d,) of the rows of W + s B A, without forming it, differentiable in all four.

    ‖w + s b A‖² = ‖w‖² + b · (2 s A w + s² A Aᵀ b) for a row w (k,) of W and b (r,) of B. Where the terms cancel to
    under 1/64 of what is added, rounding would show, and those rows are formed after all; so the relative error
    stays that of the direct norm. For B = 0 the result is ‖w‖, bit for bit. Errors: none of its own.
    """
    squares = torch.linalg.vector_norm(W, dim=1).square() if W.is_contiguous() else W.square().sum(1)
    gram = A @ A.T
    added = squares + scaling**2 * B.square() @ gram.diagonal()
    squares = squares + (B * (2 * scaling * (A @ W.T).T + scaling**2 * (B @ gram))).sum(1)
    if fused.transforming():  # no branch on numbers there: all rows are formed
        squares = (W + scaling * B @ A).square().sum(1)
    elif not W.is_meta and (near := squares < added / 64).any():
        rows = near.nonzero()[:, 0]
        squares = squares.index_copy(0, rows, (W[rows] + scaling * B[rows] @ A).square().sum(1))
    zero = squares == 0  # the slope of a root at 0 is infinite, and 0 times that would be NaN in a gradient
    return squares.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
