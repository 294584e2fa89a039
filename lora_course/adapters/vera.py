r"""VeRA: one random pair A, B, frozen and shared by all layers; each layer trains two vectors that scale it.

Shapes: W0 (d, k); A (r, max_in), of which a layer uses A[:, :k]; B (max_out, r), of which it uses B[:d];
λ_d (r,), λ_b (d,); ΔW = diag(λ_b) B diag(λ_d) A (d, k). There is no alpha and no scaling.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_dropout, check_generator, check_model, check_rank
from lora_course.adapters.initialisers import factor_dtype
from lora_course.adapters.inject import inject, matched_layers
from lora_course.adapters.walk import places


class VeRAProjection(nn.Module):
    r"""Hold the shared, frozen A (r, max_in) and B (max_out, r), with entries uniform in ±√(6 / fan_in).

    fan_in is max_in for A and r for B: Kaiming with gain √2, the same bits that PEFT draws with
    ``projection_prng_key`` = ``generator``. A and B are float32 buffers, vera_A and vera_B, drawn on the CPU.
    Every layer holds this one module, so the pair moves, converts and deepcopies with the model, once. It is not
    in the state dict, where it would stand once per layer: shapes and seed give it back (PEFT saves it, once).

    Args:
        max_in, max_out: at least the largest k and d of the layers.  r: rank of the pair.
        generator: an int seed or a torch.Generator on the CPU.

    Raises TypeError or ValueError for a bad argument.
    """

    def __init__(self, max_in, max_out, r, generator=0):
        for name, n in {"max_in": max_in, "max_out": max_out}.items():
            if type(n) is not int or n < 1:
                raise (ValueError if type(n) is int else TypeError)(f"{name} must be an int of at least 1, got {n!r}")
        r, generator = check_rank(r), check_generator(generator)
        super().__init__()
        self.r = r
        for name, shape in {"vera_A": (r, max_in), "vera_B": (max_out, r)}.items():
            self.register_buffer(name, torch.empty(shape, dtype=torch.float32, device="cpu"), persistent=False)
        self.reset_parameters(generator)

    def reset_parameters(self, generator=0):
        r"""Change A and B in place to a new draw, e.g. after ``to_empty``; TypeError for a bad ``generator``."""
        generator = check_generator(generator)
        for p in (self.vera_A, self.vera_B):
            bound, draw = math.sqrt(6 / p.shape[1]), torch.empty(p.shape, dtype=torch.float32, device="cpu")
            p.copy_(draw.uniform_(-bound, bound, generator=generator))


class VeRALinear(Adapter):
    r"""Freeze the nn.Linear ``base`` in place and train the two vectors that scale a shared random update.

    Args:
        base: as for ``LoRALinear``.
        projection: a VeRAProjection with max_in >= k and max_out >= d, shared with other layers.
        d_initial: start of the entries of λ_d, finite and not 0; λ_b starts at 0, so that ΔW = 0.
        dropout: probability in [0, 1), applied in training to the input of the branch.

    Attributes:
        vera_lambda_d: Parameter λ_d (r,).  vera_lambda_b: Parameter λ_b (d,).  projection: as given.
        r: rank of the projection.  alpha: r.  scaling: 1.0, since nothing else scales the update.

    The state dict holds a few entries of A and B beside the vectors (as extra state): loading vectors that were
    trained with another pair, of another seed or other shapes, raises ValueError.

    Raises TypeError or ValueError for a bad argument, before the base is touched.

    Source: Kopiczko, Blankevoort & Asano (2024), VeRA, Section 3, Eq. (2).
    """

    scaling = 1.0

    def __init__(self, base, projection, d_initial=0.1, dropout=0.0):
        if not isinstance(projection, VeRAProjection):
            raise TypeError(f"projection must be a VeRAProjection, got {type(projection).__name__}")
        if type(d_initial) not in (int, float) or not (math.isfinite(d_initial) and d_initial):
            raise ValueError(f"d_initial must be a finite number, not 0 (which trains nothing), got {d_initial!r}")
        dropout = check_dropout(dropout)
        super().__init__(base)
        (d, k), (r, max_in), max_out = base.weight.shape, projection.vera_A.shape, len(projection.vera_B)
        if k > max_in or d > max_out:
            raise ValueError(f"projection of max_in={max_in}, max_out={max_out} is too small for a weight ({d}, {k})")
        vars(self).update(r=r, alpha=r, d_initial=d_initial, dropout=dropout)
        self.projection = projection
        options = {"dtype": factor_dtype(base.weight.dtype), "device": base.weight.device}
        self.vera_lambda_d = nn.Parameter(torch.full((r,), float(d_initial), **options))
        self.vera_lambda_b = nn.Parameter(torch.zeros(d, **options))
        self.freeze_base()

    def factors(self):
        r"""Return this layer's part of the pair, A (r, k) and B (d, r), in dtype and device of the vectors."""
        (d, k), pair = self.base.weight.shape, self.projection
        return pair.vera_A[:, :k].to(self.vera_lambda_d), pair.vera_B[:d].to(self.vera_lambda_d)

    def forward(self, x):
        r"""Return h = W0 x + b + λ_b (B (λ_d (A dropout(x)))), of shape (..., d) for x (..., k); merged, base(x)."""
        if self.merged:
            return self.base(x)
        A, B = self.factors()
        h, z = self.base(x), F.dropout(x, self.dropout, self.training).to(A.dtype)
        return (h + self.vera_lambda_b * ((self.vera_lambda_d * (z @ A.T)) @ B.T)).to(h.dtype)

    def delta_weight(self):
        r"""Return ΔW = diag(λ_b) B diag(λ_d) A, of shape (d, k), differentiable, in float32 at least."""
        A, B = (p.to(torch.promote_types(p.dtype, torch.float32)) for p in self.factors())
        return (self.vera_lambda_b[:, None] * B * self.vera_lambda_d) @ A

    def reset_parameters(self, generator=None):
        r"""Change the two vectors in place to their start, which draws nothing; RuntimeError if merged."""
        if self.merged:
            raise RuntimeError("this layer is merged: it cannot start anew (unmerge it first)")
        with torch.no_grad():
            self.vera_lambda_d.fill_(self.d_initial)
            self.vera_lambda_b.zero_()

    def get_extra_state(self):
        r"""Return up to eight entries of the pair, which tell it from others; for ``state_dict``."""
        A, B = self.factors()
        return torch.cat([A[-1, :4], B[:4, -1]]).float()

    def set_extra_state(self, state):
        r"""Compare with ``get_extra_state`` of the layer that was saved; ValueError if its pair was another."""
        mine = self.get_extra_state()
        if not mine.is_meta and not torch.allclose(mine, state.to(mine), rtol=0.02, atol=1e-3):  # as bfloat16 is
            raise ValueError("the vectors were trained with another VeRAProjection: take its seed and its shapes")


def inject_vera(model, target_modules, r, d_initial=0.1, dropout=0.0, generator=0):
    r"""Change ``model`` in place: wrap each matching nn.Linear into a VeRALinear, with one pair for all of them.

    The arguments are those of ``inject`` and VeRALinear; ``generator`` draws the pair, as large as the largest
    layers need. All or nothing, as ``inject``, with its errors and its InjectionReport; ``remove`` undoes it.
    """
    layers = list(matched_layers(target_modules, places(check_model(model)), VeRALinear).values())
    max_in, max_out = max(layer.in_features for layer in layers), max(layer.out_features for layer in layers)
    projection, W = VeRAProjection(max_in, max_out, r, generator), layers[0].weight
    projection.to(dtype=factor_dtype(W.dtype), device=None if W.is_meta else W.device)

    def adapter(base, r, alpha, generator):
        return VeRALinear(base, projection, d_initial, dropout)

    return inject(model, target_modules, projection.r, projection.r, adapter=adapter)
