r"""What an argument must be, said once: each check returns the value or raises an error that names it.

Symbols: r rank, alpha scale, W (d, k) the weight of an nn.Linear with k inputs and d outputs.
"""

import math
import numbers

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.parameter import is_lazy

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32, torch.float64)


def check_rank(r):
    r"""Return ``r`` as an int; TypeError if it is no integer (a bool is none), ValueError if it is below 1."""
    if isinstance(r, bool) or not isinstance(r, numbers.Integral):
        raise TypeError(f"r must be an integer of at least 1, got {r!r} of type {type(r).__name__}")
    if r < 1:
        raise ValueError(f"r must be an integer of at least 1, got {r}")
    return int(r)


def _check_real(name, value, wanted):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {wanted}, got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_alpha(alpha):
    r"""Return ``alpha`` as int or float; TypeError if not a real number, ValueError unless in (0, ∞)."""
    number = _check_real("alpha", alpha, "a positive, finite number")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"alpha must be a positive, finite number, got {alpha!r}")
    return alpha if type(alpha) is int else number


def check_dropout(dropout):
    r"""Return ``dropout`` as a float; TypeError if it is no real number, ValueError outside of [0, 1)."""
    number = _check_real("dropout", dropout, "a probability in [0, 1)")
    if not 0 <= number < 1:
        raise ValueError(f"dropout must be a probability in [0, 1), got {dropout!r}")
    return number


def check_flag(name, value):
    r"""Return the bool ``value`` of the argument ``name``; TypeError for anything else."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return value


def check_choice(name, value, choices):
    r"""Return ``value`` if it is one of ``choices``; ValueError (it lists them) if not."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_model(model):
    r"""Return ``model``; TypeError if it is no nn.Module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {model!r} of type {type(model).__name__}")
    return model


def check_generator(generator):
    r"""Return a torch.Generator; an int is the seed of a new one; TypeError otherwise.

    There is no default that draws from torch's global generator: no call of this library changes its state.
    """
    if isinstance(generator, torch.Generator):
        return generator
    if isinstance(generator, bool) or not isinstance(generator, numbers.Integral):
        kind = type(generator).__name__
        raise TypeError(f"generator must be a torch.Generator or an int seed, got {generator!r} of type {kind}")
    return torch.Generator().manual_seed(int(generator))


def why_not_adaptable(module):
    r"""Return None if ``module`` can be adapted, else the reason in words.

    Adaptable is an nn.Linear, or a subclass that keeps nn.Linear's forward: of one with a forward of its own
    nobody knows that it computes x W.T + b, and so that W + ΔW is the merged layer.
    """
    kind = type(module)
    if not isinstance(module, nn.Linear):
        return f"it is a {kind.__name__}, not an nn.Linear"
    if isinstance(module, NonDynamicallyQuantizableLinear):
        return (
            f"it is a {kind.__name__}, as nn.MultiheadAttention's out_proj is: that module reads its weight "
            "and never calls its forward, so dropout and hooks of an adapter would silently not happen "
            "(write the attention with nn.Linear, or leave out_proj out of target_modules)"
        )
    W = module._parameters.get("weight")
    if W is None or "parametrizations" in module._modules:
        return "its weight or bias is computed from other tensors (parametrization, weight norm)"
    if is_lazy(W):
        return f"it is a {kind.__name__} without a shape yet: send one batch through the model first"
    if kind.forward is not nn.Linear.forward:
        return f"its class {kind.__name__} has a forward of its own, which need not be x W.T + b"
    if W.dtype not in FLOATS:
        return f"its weight is {W.dtype}; it must be float16, bfloat16, float32 or float64"
    if not W.numel():
        return f"its weight of shape {tuple(W.shape)} is empty"
    return None


def check_linear(name, module):
    r"""Return ``module``; TypeError (with ``name``) if it cannot be adapted, ValueError for mixed devices."""
    reason = why_not_adaptable(module)
    if reason is not None:
        raise TypeError(f"{name} cannot be adapted: {reason}")
    return check_one_device(name, module)


def check_one_device(name, module):
    r"""Return ``module``; ValueError (with ``name``) if its weight and its bias are on different devices."""
    if module.bias is not None and module.bias.device != module.weight.device:
        raise ValueError(
            f"{name} cannot be adapted: mixed devices, its weight is on {module.weight.device} "
            f"and its bias on {module.bias.device}; move both to one device"
        )
    return module
