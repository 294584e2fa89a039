r"""Whether what a file holds fits a model: layers by name, tensors by type, shape and numbers; nothing is written.

Symbols: A (r, k), B (d, r) the factors of a layer with d outputs and k inputs (a convolution: (r, c, h, w) and
(d, r, 1, 1)). ``file`` is a safetensors handle, ``plan`` what the configuration says, see ``peft_format``.
"""

import math
import re

import torch
from torch import nn

from lora_course.adapters.adalora import SVDLinear
from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import why_not_adaptable
from lora_course.adapters.conv import LoRAConv2d, why_not_adaptable_conv
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.initialisers import factor_dtype
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.nf4 import NF4Linear, QLoRALinear
from lora_course.adapters.pair import CONFIG, TENSORS
from lora_course.adapters.peft_format import PREFIX, SHARED, ConfigError, kind_of, split_key
from lora_course.adapters.vera import VeRALinear, VeRAProjection
from lora_course.adapters.walk import places

CLASSES = {"lora": LoRALinear, "dora": DoRALinear, "adalora": SVDLinear, "vera": VeRALinear}
DTYPES = ("F16", "BF16", "F32", "F64")


class Misfit(ValueError):
    r"""A tensor that does not fit; the message begins with its key."""


def adapters_of(model):
    r"""Return {first name: adapter} of the distinct adapters, in order."""
    return {name: module for name, module in distinct(model).items() if isinstance(module, Adapter)}


def distinct(model):
    r"""Return {first name: module} of the distinct modules outside of adapters, adapters included."""
    found, inside = {}, ()
    for place in places(model):
        if not (inside and place.name.startswith(inside)):
            found.setdefault(id(place.module), (place.name, place.module))
            if isinstance(place.module, Adapter):
                inside += (place.name + ".",)
    return dict(found.values())


def ending_with(names, suffixes):
    r"""Return the set of the names that are one of the suffixes or end with "." and one."""
    return {name for name in names if any(("." + name).endswith("." + suffix) for suffix in suffixes)}


def grouped(keys, kind):
    r"""Return {name of the layer: {attribute: key}}, each of them complete."""
    attributes, groups = {key: attribute for attribute, key in kind.items()}, {}
    for key in sorted(keys):
        name, factor = split_key(key) or (None, None)
        group = groups.setdefault(name, {})
        if factor not in attributes or attributes[factor] in group:
            raise Misfit(f"{key!r:.200}: unexpected; expected are {PREFIX}NAME.{', '.join(attributes)}")
        group[attributes[factor]] = key
    for name, group in groups.items():
        for attribute in kind.keys() - group.keys():
            raise Misfit(f"{PREFIX}{name}.{kind[attribute]}: missing")
    if not groups:
        raise Misfit("it holds no tensors")
    return groups


def check_targets(plan, groups, model):
    r"""Check that target_modules and the tensors name the same layers, as far as no expression has to be run."""
    target = plan.target_modules
    if isinstance(target, str):
        if re.fullmatch(r"\w[\w.]*", target) and target not in groups:
            raise ConfigError(f"target_modules: {target!r:.80} is no layer that {TENSORS} has tensors for")
        return
    for suffix in target:
        if not plan.partial and not ending_with(groups, [suffix]):
            raise ConfigError(f"target_modules: {TENSORS} has no tensors for a layer {suffix!r:.80}")
    for name in groups.keys() - ending_with(groups, target):
        raise ConfigError(f"target_modules does not name {name!r}, for which {TENSORS} has tensors")
    for name in () if plan.partial else ending_with(distinct(model), target) - groups.keys():
        raise Misfit(f"{PREFIX}{name}.*: missing, though target_modules of {CONFIG} names {name!r}")


def class_for(kind, layer):
    r"""Return the class that adapts ``layer`` in this kind, or the reason in words why none can."""
    if kind == "lora" and isinstance(layer, NF4Linear):
        return QLoRALinear
    if kind == "lora" and isinstance(layer, nn.Conv2d):
        return why_not_adaptable_conv(layer) or LoRAConv2d
    return why_not_adaptable(layer) or CLASSES[kind]


def matched_layers(groups, plan, model, adapters):
    r"""Return {name: layer that is adapted} for the layers of the file, all of which the model must have."""
    modules, layers = distinct(model), {}
    for name in adapters.keys() - groups.keys():
        raise Misfit(f"{PREFIX}{name}.*: missing, though the model has an adapter at {name!r}")
    for name, keys in groups.items():
        key, module = next(iter(keys.values())), modules.get(name)
        if module is None or bool(adapters) != isinstance(module, Adapter):
            raise Misfit(f"{key}: the model has no {'adapter' if adapters else 'layer'} {name!r:.200}")
        layers[name] = layer = module.base if adapters else module
        reason, (r, alpha) = class_for(plan.kind, layer), plan.of(name)
        if isinstance(reason, str):
            raise Misfit(f"{key}: the layer {name!r} cannot be adapted: {reason}")
        if adapters and (kind_of(module) != plan.kind or module.r != r):
            raise Misfit(f"{key}: {plan.kind} with r = {r}, where the model has {kind_of(module)} with r = {module.r}")
        scaling = alpha / (math.sqrt(r) if plan.rslora else r)
        if adapters and not math.isclose(module.scaling, scaling, rel_tol=1e-6):
            raise ConfigError(
                f"lora_alpha: scaling {scaling:.6g} at {name!r}, where the model has {module.scaling:.6g}"
            )
    return layers


def tensors_of(file, name, keys, layer, plan, adapters):
    r"""Return {attribute: tensor} of one layer, in the dtype that the factors have in the model."""
    r, W = plan.of(name)[0], layer.weight
    mask = plan.masks.get(name, [True] * r if plan.masks else None)
    n, (d, *rest) = r if mask is None else sum(mask), W.shape
    shapes = {"lora_A": [n, *rest], "lora_B": [d, n, *[1] * (len(rest) - 1)], "lora_E": [n, 1]}
    shapes |= {"lora_magnitude_vector": [d], "vera_lambda_b": [d], "vera_lambda_d": [r]}
    dtype = next(adapters[name].parameters(recurse=False)).dtype if adapters else factor_dtype(W.dtype)
    found = {a: checked_tensor(file, key, shapes[a], dtype) for a, key in keys.items()}
    if mask is None:
        return found
    whole = {a: t.new_zeros([d, r] if a == "lora_B" else [r, t.shape[1]]) for a, t in found.items()}
    for a, tensor in found.items():  # PEFT leaves out what AdaLoRA has switched off, where lora_E is 0
        (whole[a].T if a == "lora_B" else whole[a])[torch.tensor(mask)] = tensor.T if a == "lora_B" else tensor
    return whole


def largest(layers):
    r"""Return the largest d and the largest k of the layers."""
    return map(max, zip(*(layer.weight.shape for layer in layers), strict=True))


def checked_tensor(file, key, shape, dtype):
    r"""Return the tensor ``key`` in ``dtype``, checked: its type and shape before it is read, then its numbers."""
    found = file.get_slice(key)
    if found.get_dtype() not in DTYPES:
        raise Misfit(f"{key}: its type is {found.get_dtype()}; it must be one of {', '.join(DTYPES)}")
    if found.get_shape() != shape:
        raise Misfit(f"{key}: its shape is {found.get_shape()}; r and the layer of the model make it {shape}")
    tensor = file.get_tensor(key).to(dtype, copy=True)
    if not torch.isfinite(tensor).all():
        raise Misfit(f"{key}: has entries that are not finite in {dtype}")
    return tensor


def projection_of(file, plan, layers, adapters):
    r"""Return a VeRAProjection with the pair of the file, or of its seed if the file leaves the pair out."""
    d, k = largest(layers)
    for adapter in adapters.values():
        if adapter.projection.vera_A.shape[1] < k or len(adapter.projection.vera_B) < d:
            raise Misfit(f"{SHARED[0]}: the model's projection is smaller than its layers")
    pair = VeRAProjection(k, d, plan.r, generator=plan.prng_key or 0)
    for key, buffer in zip(SHARED, (pair.vera_A, pair.vera_B), strict=True) if plan.prng_key is None else ():
        if key not in file.keys():
            raise Misfit(f"{key}: missing, though save_projection is true")
        buffer.copy_(checked_tensor(file, key, list(buffer.shape), buffer.dtype))
    return pair
