r"""Gradient descent on (B, A) whose path in ΔW does not depend on the gauge: on which of all (B M, M⁻¹ A) is trained.

A (r, k), B (d, r); T = A Aᵀ, S = BᵀB; G_A, G_B the gradients of both; M (r, r), invertible; lr η, damping δ.
"""

import math
import numbers

import torch

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_model


class PreconditionedSGD(torch.optim.Optimizer):
    r"""B ← B - η G_B T⁻¹, A ← A - η (S + δ T⁻¹)⁻¹ G_A for each pair of an injected model; plain SGD for the rest.

    With δ = 0 and factors of full rank this is the preconditioned gradient of Zhang and Pilanci (2024): the
    Riemannian gradient of the metric tr(dBᵀdB T) + tr(S dA dAᵀ), which is invariant under GL(r).

    The gauge. Two models whose pairs differ by a gauge, (B, A) and (B M, M⁻¹ A), any M in GL(r), have the same ΔW
    after each step, for every δ >= 0, with momentum too, and from B = 0 as well; only in rounding do they differ
    (1e-12 in float64 for a well-conditioned M). Zhang and Pilanci's own damping, T + δ I and S + δ I, is invariant
    for orthogonal M only. δ T⁻¹ works for all, because a gauge carries it as it carries S, to Mᵀ( · )M. In other
    words: S + δ I is inverted in the gauge in which A's rows are orthonormal. There S has the eigenvalues σ_i(B A)²,
    so that δ is compared with the squared singular values of B A, which no gauge changes.

    At B = 0 only B moves, by -η G_B T⁻¹, since A's gradient is 0, as in LoRA. In a direction in which B A is 0, A
    stands still, so that δ = 0 is allowed there, too: it is the limit δ → 0. But the part of a step that is quadratic
    in η, η² G_B T⁻¹ (S + δ T⁻¹)⁻¹ G_A, grows as 1 / σ_i(B A) where σ_i² >> δ: small σ_i ask for a small η or a
    larger δ. A's side has no damping: A must have r linearly independent rows, so r <= k. The factor `scaling` is
    in both gradients: to first order, ΔW moves in proportion to η · scaling².

    Args:
        model: an injected model; each Adapter with lora_A and lora_B is a group of its own, with its "name", all
            other trained parameters are the group "other". A factor that is not trained stands still.
        lr: η > 0, of all groups.  damping: δ >= 0.  momentum: of the heavy ball, in [0, 1), on preconditioned steps.

    Raises:
        TypeError: model is no nn.Module; an argument is no real number; an SVDLinear, where a gauge M would have to
            commute with its diagonal.
        ValueError: a number out of its range; no pair that is trained; r > k.
        RuntimeError (from ``step``, before anything is changed): a lora_A has lost a rank.

    Source: Zhang and Pilanci (2024), Riemannian Preconditioned LoRA, Equation (1), for δ = 0 (their damping: Section
    6.1); the damping that a gauge carries along is ours.
    """

    def __init__(self, model, lr, damping=1e-6, momentum=0.0):
        check_model(model)
        for name, value in (("lr", lr), ("damping", damping), ("momentum", momentum)):
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
        if not (math.isfinite(lr) and lr > 0):
            raise ValueError(f"lr must be positive and finite, got {lr!r}")
        if not (math.isfinite(damping) and damping >= 0):
            raise ValueError(f"damping must be at least 0 and finite, got {damping!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum!r}")
        groups = [{"name": name, "params": [B, A], "pair": True} for name, B, A in _pairs(model)]
        if not groups:
            raise ValueError("model has no trained lora_A and lora_B: inject adapters first")
        paired = {id(p) for group in groups for p in group["params"]}
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in paired]
        groups += [{"name": "other", "params": others}] if others else []
        super().__init__(groups, {"lr": lr, "damping": damping, "momentum": momentum, "pair": False})

    @torch.no_grad()
    def step(self, closure=None):
        r"""Take one step; a ``closure`` computes the loss anew, and its value is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moves = [(group, p, move) for group in self.param_groups for p, move in _directions(group)]
        for group, p, move in moves:
            if group["momentum"]:
                state = self.state[p]
                # a tensor of its own: a plain move is p.grad itself, which zero_grad may set to zero in place
                state["velocity"] = move = move + group["momentum"] * state.get("velocity", 0)
            p.sub_(group["lr"] * move)
        return loss


def _pairs(model):
    """Return (name, lora_B, lora_A) of every adapter of which a factor is trained."""
    found = []
    for name, module in model.named_modules():
        A, B = (module._parameters.get(key) for key in ("lora_A", "lora_B"))
        if not isinstance(module, Adapter) or A is None or B is None or not (A.requires_grad or B.requires_grad):
            continue
        if "lora_E" in module._parameters:
            raise TypeError(
                f"{name} is a {type(module).__name__}: with a diagonal between B and A the gauge is another"
            )
        rows, columns = A.flatten(1).shape
        if rows > columns:
            raise ValueError(f"{name} has r = {rows} rows in lora_A of {columns} entries: r must be at most {columns}")
        found.append((name or type(module).__name__, B, A))
    return found


def _directions(group):
    """Return (parameter, what lr is multiplied by) for each parameter of a group that has a gradient."""
    if not group["pair"]:
        return [(p, p.grad) for p in group["params"] if p.grad is not None]
    B, A = group["params"]
    wide = torch.promote_types(A.dtype, torch.float32)
    R = torch.linalg.qr(A.flatten(1).to(wide).mT, mode="r").R  # T = RᵀR; the gauge M = Rᵀ makes A's rows orthonormal
    size = R.diagonal().abs()
    eps = torch.finfo(wide).eps
    if not size.min() > eps * max(A.flatten(1).shape) * size.max():
        raise RuntimeError(
            f"lora_A of {group['name']} must have r linearly independent rows, it has lost one (did training diverge?)"
        )
    found = []
    if B.grad is not None:
        half = torch.linalg.solve_triangular(R, B.grad.flatten(1).to(wide), upper=True, left=False)
        found.append((B, torch.linalg.solve_triangular(R.mT, half, upper=False, left=False)))
    if A.grad is not None:
        C = B.flatten(1).to(wide) @ R.mT
        s, V = torch.linalg.svd(torch.linalg.qr(C, mode="r").R, full_matrices=False)[1:]
        weights = torch.where(s > eps * max(C.shape) * s[0], 1 / (s**2 + group["damping"]), 0)
        found.append((A, R.mT @ (V.mT * weights @ (V @ (R @ A.grad.flatten(1).to(wide))))))
    return [(p, move.reshape(p.shape).to(p.dtype)) for p, move in found]
