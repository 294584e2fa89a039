r"""Starting a LoRALinear from its own weight, and finding back to the weight that it came from.

Symbols: W0 (d, k) the original base weight; s the scaling; A0 (r, k), B0 (d, r) the factors at the start;
W' = W0 - s B0 A0 the weight that is frozen in its place, so that W' + s B0 A0 = W0.
"""

from typing import NamedTuple

import torch
from torch import nn

from lora_course.adapters.checks import check_flag, check_generator, check_linear, check_model
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.rounding import add_and_report
from lora_course.adapters.starts import start_factors
from lora_course.adapters.walk import owned_parameters, places, weight_twins


class Origin(nn.Module):
    r"""What a started layer remembers in ``layer.origin``: buffers A0, B0, and W0 (None without keep_base)."""

    def __init__(self, A0, B0, W0):
        super().__init__()
        for key, value in (("A0", A0), ("B0", B0), ("W0", W0)):
            self.register_buffer(key, value)


def start(layer, name, *, generator=0, keep_base=True, **options):
    r"""Change ``layer`` in place: lora_A, lora_B to the start ``name`` of STARTS, the base weight to W0 - s B0 A0.

    The output becomes (again) that of the base W0; what the layer had learned is lost. All is computed in float32
    (float64 for a float64 base) and W' rounded once to the base's dtype. In half precision W' + s B0 A0 differs
    from W0 by up to half a unit in the last place of W', which the report counts as lost.

    Args:
        layer: a LoRALinear (not DoRA's) with r <= min(d, k), neither merged nor started; a tied weight
            (``tied_to``) is refused, since its twin would change too.
        name: "b_random", "pissa", "milora", "olora" or "lora_ga", see ``starts``; or a function of your own
            (W, r, scaling, generator) -> (A0, B0).
        generator: a torch.Generator or an int seed, for what is random.
        keep_base: keep a copy of W0, as large as the base, from which ``undo_start`` (and ``remove``) restore it
            bit for bit; adding s B0 A0 again would round. A0, B0 and the copy are part of the state dict, which
            only a layer with the same start takes.
        options: for "pissa" niter; for "lora_ga" gradient and gamma.

    Returns the MergeReport of adding -s B0 A0 to W0: how far the base moved, what its rounding lost.

    Raises TypeError, ValueError or RuntimeError for a bad argument or layer, before anything is changed.
    """
    return prepare_start(layer, name, check_generator(generator), keep_base, **options)()


def start_all(model, name, *, generator=0, keep_base=True, gradients=None, **options):
    r"""Change ``model`` in place: ``start`` each of its LoRALinears, or none if one cannot.

    Ties are looked for afresh. For "lora_ga", gradients is {name of layer: G}, as from ``weight_gradients``.
    Returns {name of layer: MergeReport}. Raises what ``start`` raises, with the name of the layer.
    """
    layers, generator, steps = _layers(model), check_generator(generator), {}
    if name == "lora_ga" and (not isinstance(gradients, dict) or gradients.keys() != layers.keys()):
        raise ValueError(f"gradients must be a dictionary with a gradient for each of {', '.join(layers)}")
    twins = weight_twins(owned_parameters(places(model)), [layer.base for layer in layers.values()])
    for where, layer in layers.items():
        own = options if gradients is None else {**options, "gradient": gradients.get(where)}
        try:
            steps[where] = prepare_start(layer, name, generator, keep_base, twins.get(id(layer.base), ()), **own)
        except (RuntimeError, TypeError, ValueError) as error:
            raise type(error)(f"{where or 'model'}: {error}") from error
    return {where: step() for where, step in steps.items()}


def prepare_start(layer, name, generator, keep_base=True, tied_to=None, **options):
    r"""Return the function without arguments that does what ``start`` does; all errors are raised here."""
    A, B, base = _checked(layer).lora_A, layer.lora_B, check_linear("layer.base", layer.base)
    W, tied_to = base.weight, layer.tied_to if tied_to is None else tied_to
    check_flag("keep_base", keep_base)
    if layer.merged or has_origin(layer):
        raise RuntimeError(f"this layer is {'merged: unmerge' if layer.merged else 'started: undo_start'} it first")
    if tied_to:
        raise RuntimeError(f"the weight of this layer is tied to {', '.join(tied_to)}, which a start would change too")
    if W.is_meta or A.device != W.device or B.device != W.device:
        raise ValueError(f"a start needs base and factors on one real device, got {W.device} and {A.device}")
    with torch.no_grad(), torch.autocast(W.device.type, enabled=False):
        wide = torch.promote_types(W.dtype, torch.float32)
        A0, B0 = start_factors(name, W.to(wide), layer.r, layer.scaling, generator, **options)
        A0, B0 = A0.to(A.dtype).contiguous(), B0.to(B.dtype).contiguous()
        frozen, report = add_and_report(W, -layer.scaling * B0.to(wide) @ A0.to(wide))

    @torch.no_grad()
    def carry_out():
        if report.delta_norm:  # else B0 A0 = 0 and the base keeps all it has
            layer.origin = Origin(A0, B0, W.detach().clone() if keep_base else None)
            W.copy_(frozen)
        A.copy_(A0)
        B.copy_(B0)
        return report

    return carry_out


def has_origin(layer):
    r"""Return whether the base of ``layer`` has given up a part to a start."""
    return isinstance(getattr(layer, "origin", None), Origin)


def undo_start(layer):
    r"""Change ``layer`` in place: the base weight back to W0, bit for bit, and lora_B to 0, so the output is W0's.

    Raises RuntimeError if it is merged, was not started, or keeps no copy of W0; nothing is changed then.
    """
    check_can_undo(layer)
    with torch.no_grad():
        layer.base.weight.copy_(layer.origin.W0)
        layer.lora_B.zero_()
    del layer.origin


def check_can_undo(layer):
    r"""Raise the RuntimeError that ``undo_start`` would raise, if it would, and change nothing."""
    if not has_origin(layer):
        raise RuntimeError("the base of this layer was not changed by a start: there is nothing to undo")
    if layer.merged or layer.origin.W0 is None:
        why = "it is merged (unmerge it first)" if layer.merged else "it was started with keep_base=False"
        raise RuntimeError(f"cannot give this layer its weight W0 back: {why}")


class PlainFactors(NamedTuple):
    r"""A (r, k), B (d, r), r and alpha of a plain LoRA adapter on W0, with scaling alpha / r, rsLoRA or not."""

    A: torch.Tensor
    B: torch.Tensor
    r: int
    alpha: float


def plain_factors(layer):
    r"""Return the PlainFactors that do on the ORIGINAL base W0 what ``layer`` does on W', up to rounding.

    After a start that moved the base: A' = [A; A0], B' = [B, -B0], r' = 2r, alpha' = r' s (2 alpha without
    rsLoRA), since s B' A' = s (B A - B0 A0). Otherwise lora_A and lora_B themselves, r' = r. They are copies.
    Raises TypeError if ``layer`` is no LoRALinear, or one with another ΔW, as DoRA's.
    """
    A, B = _checked(layer).lora_A.detach().clone(), layer.lora_B.detach().clone()
    if has_origin(layer):
        A, B = torch.cat([A, layer.origin.A0.to(A)]), torch.cat([B, -layer.origin.B0.to(B)], dim=1)
    alpha = layer.scaling * len(A) if layer.rslora else layer.alpha * (len(A) // layer.r)
    return PlainFactors(A, B, len(A), alpha)


def weight_gradients(model, loss):
    r"""Return {name: ∂ loss(model) / ∂ W (d, k)} for the frozen base weight W of each LoRALinear of ``model``.

    loss takes the model and returns a scalar, e.g. ``lambda m: cross_entropy(m(x), y)``: one forward and one
    backward, in the mode the model is in (eval() for one without dropout). All gradients are held at once, as
    large as the adapted weights together. Neither .grad nor any flag of the model changes.

    Raises TypeError or ValueError: no LoRALinear; a loss that is no scalar, or does not depend on some layer.
    """
    layers = _layers(model)
    for name, layer in layers.items():
        check_linear(f"{name}.base", layer.base)
    weights = {layer.base.weight: layer.base.weight.requires_grad for layer in layers.values()}
    try:
        for W in weights:
            W.requires_grad_(True)
        with torch.enable_grad():
            value = loss(model)
            if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
                raise ValueError(f"loss must return a scalar tensor that depends on the model, got {value!r}")
            found = dict(zip(weights, torch.autograd.grad(value.sum(), list(weights), allow_unused=True), strict=True))
    finally:
        for W, flag in weights.items():
            W.requires_grad_(flag)
    unused = [name for name, layer in layers.items() if found[layer.base.weight] is None]
    if unused:
        raise ValueError(f"loss does not depend on {', '.join(unused)}: no gradient to start from")
    return {name: found[layer.base.weight] for name, layer in layers.items()}


def _checked(layer):
    if getattr(type(layer), "delta_weight", None) is not LoRALinear.delta_weight:
        raise TypeError(f"layer must be a LoRALinear with ΔW = scaling · B A, got {type(layer).__name__}")
    return layer


def _layers(model):
    """Return {first name: layer} of the distinct LoRALinears of a model; ValueError if there are none."""
    found = {id(p.module): p for p in reversed(places(check_model(model))) if isinstance(p.module, LoRALinear)}
    if not found:
        raise ValueError("model has no LoRALinear: inject them first")
    return {place.name: place.module for place in reversed(found.values())}
