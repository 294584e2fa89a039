r"""The fast path of LoRALinear: the same forward and gradients, with every skinny product in the shape BLAS likes.

With N rows, x (N, k), W (d, k), A (r, k), B (d, r), s the scaling, C = A xᵀ (r, N) and U = Bᵀ gᵀ (r, N):
    h = x Wᵀ + b + s Cᵀ Bᵀ (N, d);   ∂x = g W + s Uᵀ A;   ∂A = s U x;   ∂B = s (C g)ᵀ.
Codes are kept as (r, N), long side contiguous: for r = 8, gᵀ Cᵀ takes five times as long as (C g)ᵀ, the same numbers.
"""

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

_PLAIN = (torch.Tensor, nn.Parameter)


def autocasting(device_type):
    r"""Return whether autocast is on for ``device_type``."""
    try:
        return torch.is_autocast_enabled(device_type)
    except TypeError:  # torch before 2.4 has one function for cuda and one for the cpu
        return torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()


def _transforming():
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


def _is_bare(base):
    hooked = (
        base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks
    )
    return not hooked and "forward" not in base.__dict__


def applies(layer, x):
    r"""Return whether the shortcut computes what ``layer.formula(x)`` computes; if not, the formula itself is run.

    It does for ordinary tensors of one dtype on one device, a frozen base without hooks, and reverse-mode autograd
    of any order; not under torch.compile, torch.func, forward-mode AD, tracing, autocast, or on the meta device.
    """
    if _transforming():
        return False
    base, A, B = layer.base, layer.lora_A, layer.lora_B
    W, b = base.weight, base.bias
    return (
        all(type(t) in _PLAIN and t.dtype is W.dtype and t.device == W.device for t in (x, W, A, B))
        and not (W.requires_grad or (b is not None and b.requires_grad))
        and W.device.type != "meta"
        and x.layout is torch.strided
        and x.dim() > 0
        and x.shape[-1] == W.shape[1]
        and _is_bare(base)
        and not autocasting(W.device.type)
    )


def forward(layer, x):
    r"""Return ``layer.formula(x)`` by the shortcut; the caller has asked ``applies`` before."""
    z = F.dropout(x, layer.dropout) if layer.dropout and layer.training else None
    args = (x, z, layer.base.weight, layer.base.bias, layer.lora_A, layer.lora_B, layer.scaling)
    return FusedLoRA.apply(*args) if torch.is_grad_enabled() else _forward(*args)[0]


def _codes(x, z, A):
    return A @ (x if z is None else z).reshape(-1, A.shape[1]).T


def _forward(x, z, W, b, A, B, scaling):
    h = F.linear(x.reshape(-1, W.shape[1]), W, b)
    codes = _codes(x, z, A)
    h.addmm_(codes.T, B.T, alpha=scaling)  # in place: no second (N, d) array is written
    return h.view(*x.shape[:-1], W.shape[0]), codes


class FusedLoRA(torch.autograd.Function):
    r"""h = x Wᵀ + b + s z Aᵀ Bᵀ, where z is x after dropout, or None for x itself; W and b get no gradient."""

    @staticmethod
    def forward(ctx, x, z, W, b, A, B, scaling):
        r"""Return h of shape (..., d) for x of shape (..., k)."""
        h, codes = _forward(x, z, W, b, A, B, scaling)
        ctx.save_for_backward(x, z, W, A, B, codes)
        ctx.scaling = scaling
        return h

    @staticmethod
    def backward(ctx, grad):
        r"""Return the gradients of x, z, A and B, themselves differentiable if the graph is kept for it."""
        if autocasting(grad.device.type):  # the forward ran without it
            with torch.autocast(grad.device.type, enabled=False):
                return FusedLoRA.backward(ctx, grad)
        x, z, W, A, B, codes = ctx.saved_tensors
        need_x, need_z, _, _, need_A, need_B, _ = ctx.needs_input_grad
        s = ctx.scaling
        g = grad.reshape(-1, W.shape[0]).contiguous()
        rows = (x if z is None else z).reshape(-1, W.shape[1])
        grad_x = grad_z = grad_A = grad_B = None
        U = s * (B.T @ g.T) if need_x or need_z or need_A else None
        if need_x:
            grad_x = g @ W
            if z is None:
                grad_x = grad_x.addmm_(U.T, A)
            grad_x = grad_x.view(x.shape)
        if need_z:
            grad_z = (U.T @ A).view(z.shape)
        if need_A:
            grad_A = U @ rows
        if need_B:
            if torch.is_grad_enabled():  # double backward: the saved codes have no history, these have
                codes = _codes(x, z, A)
            grad_B = (s * (codes @ g)).T
        return grad_x, grad_z, None, None, grad_A, grad_B, None
