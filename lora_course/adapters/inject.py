r"""Putting LoRA into a model and taking it out again, by the names of its layers.

Symbols: r rank, alpha scale, W (d, k) the weight of an adapted nn.Linear with d outputs and k inputs.
"""

from torch import nn

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_choice, check_flag, check_generator, check_model
from lora_course.adapters.conv import LoRAConv2d
from lora_course.adapters.counting import ParameterCount, numel
from lora_course.adapters.initialisers import INITIALISERS
from lora_course.adapters.install import check_bare, install, restore_flags, some
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.merging import named
from lora_course.adapters.nf4 import NF4Linear, QLoRALinear
from lora_course.adapters.origin import check_can_undo, has_origin, prepare_start, undo_start
from lora_course.adapters.report import InjectionReport
from lora_course.adapters.starts import STARTS
from lora_course.adapters.targets import matched_names
from lora_course.adapters.walk import owned_parameters, places, weight_twins


def inject(model, target_modules, r, alpha, *, adapter=None, init=None, generator=0, **options):
    r"""Change ``model`` in place: wrap each matching nn.Linear into an adapter, freeze all other parameters.

    It is all or nothing: after an error the model is as it was. The output stays the same, because ΔW = 0 at
    the start (or because the base gives up what ΔW starts with, see ``init``). A layer that is used twice is
    wrapped once, under all its names. ``remove(model)`` undoes it.

    Args:
        model: any nn.Module.
        target_modules: a list of suffixes (["q_proj", "v_proj"]: the name, or its last parts), or a str as
            regular expression for the whole name, or a predicate ``(name, module) -> bool``. All that match
            must be adaptable, see ``LoRALinear``; nn.MultiheadAttention's out_proj, never called, is not.
        r, alpha: as for ``LoRALinear``, the same for each layer. An r above min(d, k) is allowed and reported: the
            rank of ΔW is capped there.
        adapter: None for LoRA on what is there (LoRALinear; LoRAConv2d on an nn.Conv2d; QLoRALinear on an
            NF4Linear); DoRALinear, SVDLinear, or any callable ``(base, r, alpha, generator=..., **options)`` that
            returns an Adapter.
        init: None for the adapter's own; "kaiming" or "gaussian"; or, for LoRALinear, a start that changes the
            base: "b_random", "pissa", "milora", "olora" (see ``start``; for "lora_ga" use ``start_all``).
        generator: a torch.Generator or an int seed, drawn from layer by layer.
        options: what the adapter takes besides, e.g. dropout and rslora. (The options of a start, as niter of "pissa"
            and keep_base, are those of ``start_all``, after an injection without init.)

    Returns an InjectionReport: names, counts, layers with r > min(d, k), layers used twice, tied weights.

    Raises:
        TypeError: an argument of the wrong type, or a matched module that cannot be adapted.
        ValueError: a bad value; no module matched (it lists near names); a model that has adapters already;
            mixed devices (in one layer, or a model of which only a part has left the meta device).
    """
    check_model(model)
    everywhere = places(model)
    check_bare(everywhere)
    if not (adapter is None or callable(adapter)):
        raise TypeError(f"adapter must be a class of adapters, a function that returns one, or None, got {adapter!r}")
    layers = matched_layers(target_modules, everywhere, adapter)
    generator = check_generator(generator)
    if init is not None:
        check_choice("init", init, [*INITIALISERS, *(name for name in STARTS if name != "lora_ga")])
    if init in INITIALISERS:
        options["init"] = init
    twins = weight_twins(owned_parameters(everywhere), layers.values()) if init in STARTS else {}
    starts = []

    def maker(name):
        def make(layer):
            made = (adapter or adapter_for(layer))(layer, r, alpha, generator=generator, **options)
            if init in STARTS:
                with named(name):
                    starts.append(prepare_start(made, init, generator, tied_to=twins.get(id(layer), ())))
            return made

        return make

    adapters = install(model, {name: maker(name) for name in layers}, everywhere)
    for carry_out in starts:
        carry_out()
    return _report(layers, everywhere, adapters)


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
            f"{some(merged)} {'is' if len(merged) == 1 else 'are'} merged: call unmerge_all(model) first, "
            "or pass keep_merged=True to leave the update in the weights"
        )
    started = {id(p.module): p for p in found if has_origin(p.module) and not p.module.merged}
    for place in started.values():
        with named(place.name):
            check_can_undo(place.module)
    for place in started.values():
        undo_start(place.module)
    for place in found:
        place.parent.add_module(place.key, place.module.base)
        restore_flags(place.module.base, place.module._trained_before)
    for module in model.modules():
        restore_flags(module, module.__dict__.pop("_trained_before", {}))
    return tuple(dict.fromkeys(place.name for place in found))


def adapter_for(layer):
    r"""Return the class that adapts a layer of this kind where none was named."""
    return QLoRALinear if isinstance(layer, NF4Linear) else LoRAConv2d if isinstance(layer, nn.Conv2d) else LoRALinear


def matched_layers(target_modules, everywhere, adapter=None):
    r"""Return {first name: layer} of the distinct matched layers, each of them checked; raises as ``inject``."""
    chosen = set(matched_names(target_modules, [(place.name, place.module) for place in everywhere]))
    ids = {id(place.module) for place in everywhere if place.name in chosen}
    layers, seen = {}, set()
    for name, parent, _, module in everywhere:
        if id(module) not in ids or id(module) in seen:
            continue
        if parent is None:
            raise TypeError("target_modules matches the model itself, which has no place to be replaced in")
        seen.add(id(module))
        check_base = getattr(adapter, "check_base", None) or adapter_for(module).check_base
        layers[name] = check_base(f"{name!r}, matched by target_modules,", module)
    on_meta = [name for name, layer in layers.items() if layer.weight.is_meta]
    if on_meta and len(on_meta) < len(layers):
        elsewhere = next(name for name in layers if name not in on_meta)
        raise ValueError(
            f"mixed devices: of the matched layers, {some(on_meta)} on the meta device and others, as "
            f"{elsewhere}, on {layers[elsewhere].weight.device}; load the whole model first"
        )
    return layers


def _report(layers, everywhere, adapters):
    names = {id(layer): [] for layer in layers.values()}
    for place in everywhere:
        names.get(id(place.module), []).append(place.name)
    one = next(iter(adapters.values()))
    added = numel(p for adapter in adapters.values() for p in adapter._parameters.values())
    base = numel({id(p): p for _, _, p in owned_parameters(everywhere)}.values())
    return InjectionReport(
        adapted=tuple(layers),
        r=one.r,
        alpha=one.alpha,
        scaling=one.scaling,
        parameters=ParameterCount(trainable=added, adapter=added, base=base),
        above_full_rank=tuple(n for n, la in layers.items() if one.r > min(len(la.weight), la.weight[0].numel())),
        used_twice={name: tuple(names[id(layer)][1:]) for name, layer in layers.items() if names[id(layer)][1:]},
        tied={name: adapter.tied_to for name, adapter in adapters.items() if adapter.tied_to},
    )
