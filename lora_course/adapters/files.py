r"""Saving and loading adapters in PEFT's own format, for PEFT and from PEFT; only safetensors, never a pickle.

Symbols: A (r, k), B (d, r) the factors of a layer with d outputs and k inputs (a convolution: (r, c, h, w) and
(d, r, 1, 1)); m (d,) DoRA's magnitudes; s the scaling.
"""

import math
import re
import warnings
from collections import Counter

import torch
from torch import nn

from lora_course.adapters.checks import check_model
from lora_course.adapters.fitting import (
    Misfit,
    adapters_of,
    check_targets,
    class_for,
    distinct,
    ending_with,
    grouped,
    largest,
    matched_layers,
    projection_of,
    tensors_of,
)
from lora_course.adapters.initialisers import factor_dtype
from lora_course.adapters.install import install
from lora_course.adapters.origin import has_origin, plain_factors
from lora_course.adapters.pair import CONFIG, TENSORS, AdapterFileError, check_folder, opened_pair, write_pair
from lora_course.adapters.peft_format import KINDS, PREFIX, SHARED, ConfigError, kind_of, make_config, read_plan
from lora_course.adapters.vera import VeRALinear
from lora_course.adapters.walk import places


def save_adapter(model, folder, base_model_name=None):
    r"""Write the adapters of ``model`` into ``folder``: adapter_config.json and adapter_model.safetensors, as PEFT's.

    ``PeftModel.from_pretrained(base, folder)`` and ``load_adapter(base, folder)`` read it, on the original base: a
    layer whose start has moved its base (PiSSA, ...) is written as a plain adapter of rank 2r, see
    ``plain_factors``. A killed save leaves the old adapter whole, or the new one. A layer that is used twice is
    written once, under its first name (PEFT would adapt the first use only).

    Returns the names of the layers.

    Raises:
        TypeError: model is no nn.Module, folder no path, base_model_name neither a str nor None.
        ValueError: no adapters, or of several kinds; one without a format in PEFT; one that is not finite.
    """
    check_model(model)
    folder = check_folder(folder)
    if not isinstance(base_model_name, (str, type(None))):
        raise TypeError(f"base_model_name must be a str or None, got {base_model_name!r}")
    adapters = adapters_of(model)
    if not adapters or "" in adapters:
        raise ValueError("model is itself an adapter" if adapters else "model has no adapters: inject them first")
    kind, *others = {kind_of(adapter) for adapter in adapters.values()}
    if others:
        raise ValueError(f"model has adapters of several kinds ({', '.join([kind, *others])}): one file holds one kind")
    rslora = all(getattr(adapter, "rslora", False) for adapter in adapters.values())
    tensors, ranks, alphas = {}, {}, {}
    for name, adapter in adapters.items():
        factors = {key: p.detach() for key, p in adapter._parameters.items()}
        if has_origin(adapter):
            factors["lora_A"], factors["lora_B"], *_ = plain_factors(adapter)
        ranks[name] = r = len(factors.get("lora_A", factors.get("vera_lambda_d")))
        alphas[name] = _rounded(adapter.scaling * (math.sqrt(r) if rslora else r))
        for attribute, key in KINDS[kind][1].items():
            tensors[f"{PREFIX}{name}.{key}"] = factors[attribute]
    tensors |= _shared_pair(adapters) if kind == "vera" else {}
    for key, tensor in tensors.items():
        if tensor.is_meta or not torch.isfinite(tensor).all():
            raise ValueError(f"{key} is {'on the meta device' if tensor.is_meta else 'not finite'}")
        tensors[key] = tensor.cpu().contiguous().clone()
    _warn_of_convolutions({name: adapter.base for name, adapter in adapters.items()})
    dropout = max(adapter.dropout for adapter in adapters.values())
    config = make_config(kind, ranks, alphas, rslora, dropout, _targets(model, adapters), base_model_name)
    write_pair(folder, config, tensors)
    return tuple(adapters)


def load_adapter(model, folder):
    r"""Change ``model`` in place: give it the adapter in ``folder``, saved by ``save_adapter`` or by PEFT.

    A model without adapters gets them, as by ``inject``; one that has them must have the same, layer by layer, and
    gets their numbers. All is checked before the first write; after an error the model is as it was.

    Returns the names of the layers.

    Raises:
        AdapterFileError (a ValueError): the files are missing, damaged, not sure to be one pair, lead out of the
            folder, or do not fit the model; the message names the file and the key.
        TypeError: model is no nn.Module, folder no path.
        RuntimeError, ValueError: the adapters of the model are merged or started; a part is on the meta device.
    """
    check_model(model)
    folder = check_folder(folder)
    adapters = adapters_of(model)
    for name, adapter in adapters.items():
        if adapter.merged or has_origin(adapter):
            raise RuntimeError(f"{name} is {'merged: unmerge' if adapter.merged else 'started: undo_start'} it first")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("model is on the meta device, at least in part: load its own weights first")
    with opened_pair(folder) as (config, file):
        try:
            plan = read_plan(config)
            groups = grouped(set(file.keys()) - set(SHARED if plan.kind == "vera" else ()), KINDS[plan.kind][1])
            layers = matched_layers(groups, plan, model, adapters)
            check_targets(plan, groups, model)
            loaded = {name: tensors_of(file, name, groups[name], layers[name], plan, adapters) for name in layers}
            pair = projection_of(file, plan, layers.values(), adapters) if plan.kind == "vera" else None
        except ConfigError as error:
            raise AdapterFileError(f"{folder / CONFIG}: {error}") from None
        except Misfit as error:
            raise AdapterFileError(f"{folder / TENSORS}: {error}") from None
    _warn_of_convolutions(layers)
    _warn_of_repeats(model, layers)
    if not adapters:
        if pair is not None:
            W = next(iter(layers.values())).weight
            pair.to(device=W.device, dtype=factor_dtype(W.dtype))
        try:
            adapters = install(model, {name: _maker(name, plan, pair) for name in layers})
        except (TypeError, ValueError) as error:  # e.g. the weight and the bias of a layer on two devices
            raise AdapterFileError(f"{folder / TENSORS}: {error}") from error
    with torch.no_grad():
        if pair is not None:
            _fill_pair(adapters, pair)
        for name, factors in loaded.items():
            for attribute, tensor in factors.items():
                adapters[name]._parameters[attribute].copy_(tensor)
    return tuple(loaded)


def _rounded(alpha):
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


def _targets(model, adapters):
    """Return target_modules for exactly these layers: last parts of names, whole names, or an expression."""
    names = distinct(model).keys()
    for choice in (sorted({name.rpartition(".")[2] for name in adapters}), sorted(adapters)):
        if ending_with(names, choice) == adapters.keys():
            return choice
    return "|".join(re.escape(name) for name in sorted(adapters))


def _shared_pair(adapters):
    """Return VeRA's A and B by their keys, as large as the layers need them, as PEFT has them."""
    pairs = {id(adapter.projection): adapter.projection for adapter in adapters.values()}
    if len(pairs) > 1:
        raise ValueError("model has VeRA layers with different projections: one file holds one")
    (pair,) = pairs.values()
    d, k = largest(adapter.base for adapter in adapters.values())
    return dict(zip(SHARED, (pair.vera_A[:, :k], pair.vera_B[:d]), strict=True))


def _fill_pair(adapters, pair):
    for projection in {id(a.projection): a.projection for a in adapters.values()}.values():
        projection.vera_A[:, : pair.vera_A.shape[1]].copy_(pair.vera_A)
        projection.vera_B[: len(pair.vera_B)].copy_(pair.vera_B)


def _maker(name, plan, pair):
    def make(layer):
        r, alpha = plan.of(name)
        if pair is not None:
            return VeRALinear(layer, pair, dropout=plan.dropout)
        options = {} if plan.kind == "adalora" else {"rslora": plan.rslora}
        return class_for(plan.kind, layer)(layer, r, alpha, dropout=plan.dropout, generator=0, **options)

    return make


def _warn_of_repeats(model, layers):
    uses = Counter(id(place.module) for place in places(model))
    for name, layer in layers.items():
        if uses[id(layer)] > 1:
            warnings.warn(f"{name}: is used more than once; PEFT would adapt its first use only", stacklevel=3)


def _warn_of_convolutions(layers):
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and (set(layer.dilation) != {1} or layer.padding_mode != "zeros"):
            warnings.warn(
                f"{name}: PEFT 0.21.2 leaves dilation and padding mode out of its branch of a convolution, so there "
                "the same file computes something else than here",
                stacklevel=3,
            )
