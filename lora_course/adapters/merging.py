r"""Merging and unmerging all adapters of a model, all or none.

Symbols: W0 (d, k) a base weight, ΔW (d, k) the update of its adapter; merged: W0 + ΔW is the base weight.
"""

from contextlib import contextmanager

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_flag, check_model
from lora_course.adapters.walk import owned_parameters, places, weight_twins


def _adapters(model):
    """Return {first name: adapter} of the distinct adapters of a model; ValueError if there are none."""
    found = {}
    for place in places(check_model(model)):
        if isinstance(place.module, Adapter):
            found.setdefault(id(place.module), (place.name, place.module))
    if not found:
        raise ValueError("model has no adapters: inject them first")
    return dict(found.values())


@contextmanager
def named(name):
    r"""Put the name of the layer before what an adapter says of itself."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise type(error)(f"{name or 'model'}: {error}") from error


def merge_all(model, keep_base=False, untie=False):
    r"""Change ``model`` in place: merge every adapter into its base weight, W0 + ΔW, or none if one cannot.

    Ties are looked for afresh: a weight that another module uses too (an embedding, another adapter's base) is
    refused, unless untie=True gives each such layer a weight of its own; the twin then keeps its numbers.
    keep_base=True keeps a copy of each W0, for ``unmerge_all``.

    Returns {name: MergeReport}.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: no adapters; mixed devices; a merged weight that is not finite.
        RuntimeError: some adapter is merged already; a weight is tied (it names the twin).
    """
    adapters = _adapters(model)
    check_flag("keep_base", keep_base)
    check_flag("untie", untie)
    twins = weight_twins(owned_parameters(places(model)), [adapter.base for adapter in adapters.values()])
    tied = {name: twins[id(a.base)] for name, a in adapters.items() if id(a.base) in twins}
    if tied and not untie:
        says = "; ".join(f"the weight of {name} is tied to {', '.join(others)}" for name, others in tied.items())
        raise RuntimeError(f"{says}, which a merge would change too; pass untie=True to give it a weight of its own")
    for name, adapter in adapters.items():  # all or none: each sum is tried before the first is written
        with named(name):
            adapter.merged_weight()
    reports = {}
    for name, adapter in adapters.items():
        adapter.tied_to = tied.get(name, ())
        reports[name] = adapter.merge(keep_base=keep_base, untie=name in tied)
    return reports


def unmerge_all(model):
    r"""Change ``model`` in place: bring every base weight back to W0, bit for bit, from the copies kept.

    Raises:
        TypeError: model is no nn.Module.
        ValueError: no adapters.
        RuntimeError: some adapter is not merged, or was merged without keep_base=True; nothing is changed.
    """
    adapters = _adapters(model)
    for name, adapter in adapters.items():
        with named(name):
            adapter.check_can_unmerge()
    for adapter in adapters.values():
        adapter.unmerge()
