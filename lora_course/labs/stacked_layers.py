r"""The layers of P networks at once, with the backward pass written out: one object per layer, for all P points.

P points of a sweep, n rows of a batch, k inputs and d outputs of a layer, r the padded rank, s (P, 1, 1) = alpha / r.
h (P, n, k) input, or (n, k) where all points see the same;  z (P, n, d) output;  g (P, n, d) = dloss/dz.
W0 (d, k), b (d,) frozen and shared;  A (P, r, k);  Bt (P, r, d), B transposed, so that both have r rows. Padding is
a row of zeros in both: its gradients, s times a row of A (of Bt) times what follows, are zero, so it stays zero.
"""

import torch
from torch import nn
from torch.nn import functional as F


def _onednn_linear():
    """Return oneDNN's x W^T, faster than the default on processors that are not Intel's, or None where it is not so."""
    x, W = torch.ones(2, 3), torch.ones(4, 3)
    try:
        linear = torch.ops.mkldnn._linear_pointwise  # no public name, so it is tried out
        return linear if torch.equal(linear(x, W, None, "none", [], ""), x @ W.T) else None
    except (AttributeError, RuntimeError, TypeError):
        return None


_ONEDNN = _onednn_linear()


def shared_linear(h, W, b=None):
    r"""Return h W^T + b (..., d) for one W (d, k) and rows h (..., k), which is `F.linear`, by a faster kernel."""
    if _ONEDNN is None or h.dtype != torch.float32 or h.device.type != "cpu" or not h.is_contiguous():
        return F.linear(h, W, b)
    return _ONEDNN(h, W, b, "none", [], "")


class Frozen:
    r"""z = h W0^T + b, with nothing to train; z is (n, d) where h is (n, k)."""

    def __init__(self, linear):
        self.W0 = linear.weight.detach()
        self.W0t = self.W0.T.contiguous()
        self.b = None if linear.bias is None else linear.bias.detach()

    def forward(self, h):
        r"""Return z."""
        return shared_linear(h, self.W0, self.b)

    def backward(self, g, wanted):
        r"""Return dloss/dh, or None if it is not `wanted`."""
        return shared_linear(g, self.W0t) if wanted else None


class Factored(Frozen):
    r"""z = h W0^T + b + s (h A^T) B^T, with the two thin products apart: the cheap way if r is small."""

    def __init__(self, linear, s, A, Bt, grad_A, grad_Bt):
        super().__init__(linear)
        self.s, self.A, self.Bt, self.grad_A, self.grad_Bt = s, A, Bt, grad_A, grad_Bt

    def forward(self, h):
        r"""Return z (P, n, d)."""
        self.h = h.expand(len(self.A), -1, -1)
        self.t = torch.bmm(self.A, self.h.mT).mul_(self.s)  # s (h A^T)^T (P, r, n): BLAS likes the few rows first
        z = super().forward(h)
        return z.baddbmm_(self.t.mT, self.Bt) if z.dim() == 3 else torch.baddbmm(z, self.t.mT, self.Bt)

    def backward(self, g, wanted):
        r"""Write the gradients of A and Bt; return dloss/dh, or None if it is not `wanted`."""
        u = torch.bmm(self.Bt, g.mT).mul_(self.s)  # s (g B)^T (P, r, n)
        self.grad_Bt.copy_(torch.bmm(self.t, g))
        self.grad_A.copy_(torch.bmm(u, self.h))
        return super().backward(g, True).baddbmm_(u.mT, self.A) if wanted else None


class Full(Frozen):
    r"""z = h W^T + b with a trained W (P, d, k), one for each point."""

    def __init__(self, linear, W, grad_W):
        super().__init__(linear)
        self.W, self.grad_W = W, grad_W

    def forward(self, h):
        r"""Return z (P, n, d)."""
        self.h = h.expand(len(self.W), -1, -1)
        few = self.W.shape[1] < self.h.shape[1]
        z = torch.bmm(self.W, self.h.mT).mT if few else torch.bmm(self.h, self.W.mT)
        return z if self.b is None else z.add_(self.b)

    def backward(self, g, wanted):
        r"""Write the gradient of W; return dloss/dh, or None if it is not `wanted`."""
        self.grad_W.copy_(torch.bmm(g.mT, self.h))
        return torch.bmm(g, self.W) if wanted else None


class Merged(Full):
    r"""z = h (W0 + s B A)^T + b, with the sum formed anew at each step: the cheap way if r is large.

    `base` (P, d, k): what each point has in the place of W0.
    """

    def __init__(self, linear, s, A, Bt, grad_A, grad_Bt, base=None):
        super().__init__(linear, None, A.new_empty(len(A), *linear.weight.shape))
        self.base = self.W0 if base is None else base
        self.s, self.A, self.Bt, self.grad_A, self.grad_Bt = s, A, Bt, grad_A, grad_Bt

    def forward(self, h):
        r"""Return z (P, n, d)."""
        self.sBt = self.s * self.Bt
        self.W = torch.baddbmm(self.base, self.sBt.mT, self.A)
        return super().forward(h)

    def backward(self, g, wanted):
        r"""Write the gradients of A and Bt; return dloss/dh, or None if it is not `wanted`."""
        grad_h = super().backward(g, wanted)
        self.grad_A.copy_(torch.bmm(self.sBt, self.grad_W))
        self.grad_Bt.copy_(torch.bmm(self.s * self.A, self.grad_W.mT))
        return grad_h


class ReLU:
    r"""max(h, 0), written over h, and its gradient over g; only behind a layer that does not look at h again."""

    def forward(self, h):
        r"""Return max(h, 0)."""
        self.z = h.relu_()
        return self.z

    def backward(self, g, wanted):
        r"""Return g where h was positive, else 0; None if it is not `wanted`."""
        return torch.ops.aten.threshold_backward.grad_input(g, self.z, 0, grad_input=g) if wanted else None


class Elementwise:
    r"""f(h) for any activation f without parameters, with its gradient from autograd."""

    def __init__(self, f):
        self.f = f

    def forward(self, h):
        r"""Return f(h)."""
        with torch.enable_grad():
            self.h = h.detach().requires_grad_()
            self.z = self.f(self.h.clone())  # a copy, because f may work in place
        return self.z.detach()

    def backward(self, g, wanted):
        r"""Return dloss/dh, or None if it is not `wanted`."""
        return torch.autograd.grad(self.z, self.h, g)[0] if wanted else None


def adapted(linear, n, first, s, A, Bt, grad_A, grad_Bt):
    r"""Return `Merged` or `Factored`, whichever needs fewer multiplications; the `first` needs no dloss/dh."""
    (d, k), r = linear.weight.shape, A.shape[1]
    if first:
        merged, factored = 3 * r * k * d + 2 * n * k * d, n * r * (2 * k + 3 * d) + n * k * d
    else:
        merged, factored = 3 * r * k * d + 3 * n * k * d, 3 * n * r * (k + d) + 2 * n * k * d
    return (Merged if merged < factored else Factored)(linear, s, A, Bt, grad_A, grad_Bt)


def activation(module, previous):
    r"""Return the layer of an activation; `previous` is the layer before it, or None."""
    in_place = type(module) is nn.ReLU and isinstance(previous, Frozen)
    return ReLU() if in_place else Elementwise(module)


def cross_entropy(z, onehot):
    r"""Return the mean cross-entropy (P,) of logits z (P, n, d), and its gradient by z.

    `onehot` (d, n) or (P, d, n) is 1 at the class of a row: with the rows inside, sums over few classes are fast.
    """
    n = z.shape[1]
    logp = torch.log_softmax(z.mT.contiguous(), 1)
    loss = (logp * onehot).sum((1, 2)) / -n
    return loss, logp.exp_().sub_(onehot).div_(n).mT
