r"""Putting LoRA into a model and taking it out again, by the names of its layers.

Symbols: r rank, alpha scale, W (d, k) the weight of an adapted nn.Linear with d outputs and k inputs.
"""

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_flag, check_generator, check_linear, check_model
from lora_course.adapters.counting import ParameterCount, numel
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.report import InjectionReport
from lora_course.adapters.targets import matched_names
from lora_course.adapters.walk import owned_parameters, places, weight_twins


def inject(model, target_modules, r, alpha, *, dropout=0.0, rslora=False, init="kaiming", generator=0):
    r"""Change ``model`` in place: wrap each matching nn.Linear into a LoRALinear, freeze all other parameters.

    It is all or nothing: after an error the model is as it was. The output stays the same, because B = 0.
    A layer that is used twice is wrapped once, under all its names. ``remove(model)`` undoes it.

    Args:
        model: any nn.Module.
        target_modules: a list of suffixes (["q_proj", "v_proj"]: the name, or its last parts), or a str as
            regular expression for the whole name, or a predicate ``(name, module) -> bool``. All that match
            must be adaptable, see ``LoRALinear``; nn.MultiheadAttention's out_proj, never called, is not.
        r, alpha, dropout, rslora, init: as for ``LoRALinear``, the same for each layer. An r above min(d, k) is
            allowed and reported: the rank of ΔW is capped there.
        generator: a torch.Generator or an int seed, drawn from layer by layer.

    Returns an InjectionReport: names, counts, layers with r > min(d, k), layers used twice, tied weights.

    Raises:
        TypeError: an argument of the wrong type, or a matched module that cannot be adapted.
        ValueError: a bad value; no module matched (it lists near names); a model that has adapters already;
            mixed devices (in one layer, or a model of which only a part has left the meta device).
    """
    check_model(model)
    everywhere = places(model)
    taken = [place.name for place in everywhere if isinstance(place.module, Adapter)]
    if taken:
        raise ValueError(
            f"model has adapters already, at {_some(taken)}; take them off with remove(model), or merge them "
            "for good with merge_all(model) and remove(model, keep_merged=True)"
        )
    layers = _matched_layers(target_modules, everywhere)
    owned = owned_parameters(everywhere)
    twins = weight_twins(owned, layers.values())
    options = {"dropout": dropout, "rslora": rslora, "init": init, "generator": check_generator(generator)}
    distinct = {id(p): (name, p) for _, name, p in reversed(owned)}
    trained = {name: p.requires_grad for name, p in distinct.values()}
    try:
        wrapped = {id(layer): LoRALinear(layer, r, alpha, **options) for layer in layers.values()}
    except BaseException:
        _restore_flags(model, trained)
        raise
    for _, p in distinct.values():
        p.requires_grad_(False)
    for place in everywhere:
        if id(place.module) in wrapped:
            place.parent.add_module(place.key, wrapped[id(place.module)])
    for key, adapter in wrapped.items():
        adapter.tied_to = twins.get(key, ())
    model._trained_before = trained
    base = numel(p for _, p in distinct.values())
    return _report(layers, everywhere, wrapped, twins, base)


def remove(model, keep_merged=False):
    r"""Change ``model`` in place: take all adapters off, put the original nn.Linear objects and flags back.

    ``requires_grad`` of every parameter becomes what it was before the injection. A merged adapter is refused,
    since its base holds W0 + ΔW: unmerge first, or keep that with keep_merged=True.

    Returns the names of the layers.

    Raises:
        TypeError: model is no nn.Module, or is itself an adapter (its layer is ``model.base``).
        ValueError: the model has no adapters.
        RuntimeError: some are merged and keep_merged is False; nothing is changed.
    """
    check_model(model)
    check_flag("keep_merged", keep_merged)
    if isinstance(model, Adapter):
        raise TypeError("model is itself an adapter, which cannot take itself off: use model.base")
    found = [place for place in places(model) if isinstance(place.module, Adapter)]
    if not found:
        raise ValueError("model has no adapters to remove")
    merged = [place.name for place in found if place.module.merged]
    if merged and not keep_merged:
        raise RuntimeError(
            f"{_some(merged)} {'is' if len(merged) == 1 else 'are'} merged: call unmerge_all(model) first, "
            "or pass keep_merged=True to leave the update in the weights"
        )
    for place in found:
        place.parent.add_module(place.key, place.module.base)
        _restore_flags(place.module.base, place.module._trained_before)
    for module in model.modules():
        _restore_flags(module, module.__dict__.pop("_trained_before", {}))
    return tuple(dict.fromkeys(place.name for place in found))


def _matched_layers(target_modules, everywhere):
    """Return {first name: layer} of the distinct matched layers, each of them checked."""
    chosen = set(matched_names(target_modules, [(place.name, place.module) for place in everywhere]))
    ids = {id(place.module) for place in everywhere if place.name in chosen}
    layers, seen = {}, set()
    for name, parent, _, module in everywhere:
        if id(module) not in ids or id(module) in seen:
            continue
        if parent is None:
            raise TypeError("target_modules matches the model itself, which has no place to be replaced in")
        seen.add(id(module))
        layers[name] = check_linear(f"{name!r}, matched by target_modules,", module)
    on_meta = [name for name, layer in layers.items() if layer.weight.is_meta]
    if on_meta and len(on_meta) < len(layers):
        elsewhere = next(name for name in layers if name not in on_meta)
        raise ValueError(
            f"mixed devices: of the matched layers, {_some(on_meta)} on the meta device and others, as "
            f"{elsewhere}, on {layers[elsewhere].weight.device}; load the whole model first"
        )
    return layers


def _restore_flags(module, trained):
    for name, p in module.named_parameters():
        if name in trained:
            p.requires_grad_(trained[name])


def _some(names):
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _report(layers, everywhere, wrapped, twins, base):
    names = {key: [] for key in wrapped}
    for place in everywhere:
        names.get(id(place.module), []).append(place.name)
    one = next(iter(wrapped.values()))
    added = numel(p for adapter in wrapped.values() for p in adapter._parameters.values())
    return InjectionReport(
        adapted=tuple(layers),
        r=one.r,
        alpha=one.alpha,
        scaling=one.scaling,
        parameters=ParameterCount(trainable=added, adapter=added, base=base),
        above_full_rank=tuple(name for name, layer in layers.items() if one.r > min(layer.weight.shape)),
        used_twice={name: tuple(names[id(layer)][1:]) for name, layer in layers.items() if names[id(layer)][1:]},
        tied={name: twins[id(layer)] for name, layer in layers.items() if id(layer) in twins},
    )
