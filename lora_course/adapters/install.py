r"""Putting adapters of any class into a model, all or none: the half of ``inject`` that knows no kind of adapter."""

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.walk import owned_parameters, places, weight_twins


def install(model, makers, everywhere=None):
    r"""Change ``model`` in place: put ``makers[name](layer)`` in the place of each layer, freeze all else.

    ``makers`` is {first name of a layer: function from the layer to an Adapter}; ``everywhere`` is
    ``places(model)``, if it is at hand. A layer that is used twice is replaced under all its names. After an error
    the model is as it was.

    Returns {name: Adapter}. Raises ValueError if the model has adapters already, TypeError if it lacks a name or
    is itself to be replaced, and what the makers raise.
    """
    everywhere = places(model) if everywhere is None else everywhere
    check_bare(everywhere)
    layers = {place.name: place.module for place in everywhere if place.name in makers}
    missing = makers.keys() - layers.keys()
    if missing or "" in layers:
        raise TypeError(f"model has no place for an adapter at {min(missing, default='')!r}")
    owned = owned_parameters(everywhere)
    twins = weight_twins(owned, [layer for layer in layers.values() if layer._parameters.get("weight") is not None])
    distinct = {id(p): (name, p) for _, name, p in reversed(owned)}
    trained = {name: p.requires_grad for name, p in distinct.values()}
    try:
        wrapped = {id(layer): _made(name, layer, makers[name](layer)) for name, layer in layers.items()}
    except BaseException:
        restore_flags(model, trained)
        raise
    for _, p in distinct.values():
        p.requires_grad_(False)
    for place in everywhere:
        if id(place.module) in wrapped:
            place.parent.add_module(place.key, wrapped[id(place.module)])
    for key, adapter in wrapped.items():
        adapter.tied_to = twins.get(key, ())
    model._trained_before = trained
    return {name: wrapped[id(layer)] for name, layer in layers.items()}


def _made(name, layer, made):
    if not isinstance(made, Adapter) or made.base is not layer:
        raise TypeError(
            f"adapter must return an Adapter over the layer that it is given, got {type(made).__name__} for {name!r}"
        )
    return made


def check_bare(everywhere):
    r"""Raise ValueError if there is an adapter among these Places."""
    taken = [place.name for place in everywhere if isinstance(place.module, Adapter)]
    if taken:
        raise ValueError(
            f"model has adapters already, at {some(taken)}; take them off with remove(model), or merge them "
            "for good with merge_all(model) and remove(model, keep_merged=True)"
        )


def restore_flags(module, trained):
    r"""Change ``requires_grad`` of the parameters of ``module`` in place to what {name: flag} says."""
    for name, p in module.named_parameters():
        if name in trained:
            p.requires_grad_(trained[name])


def some(names):
    r"""Return the first four names and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
