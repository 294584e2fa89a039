r"""Names in a model: every path to every module, and which parameters lie in the same memory.

A module that is used twice has two names; a tied weight is one memory under two modules.
"""

from collections import defaultdict
from typing import NamedTuple

from torch import nn
from torch.nn.parameter import is_lazy


class Place(NamedTuple):
    r"""One path to a module: full name, the module that holds it (None for the model), last part, itself."""

    name: str
    parent: nn.Module | None
    key: str
    module: nn.Module


def places(model):
    r"""Return the Places of all modules of ``model``, by every path, in the order of ``named_modules``."""
    found, above = [], set()

    def visit(name, parent, key, module):
        found.append(Place(name, parent, key, module))
        above.add(id(module))
        prefix = name + "." if name else ""
        for child_key, child in module._modules.items():
            if child is not None and id(child) not in above:  # a module inside of itself has no end of names
                visit(prefix + child_key, module, child_key, child)
        above.discard(id(module))

    visit("", None, "", model)
    return found


def _memory(p):
    """Return a key that tensors of one storage share; without a storage to ask, the tensor's own."""
    if p.is_meta or is_lazy(p):
        return id(p)
    try:
        return p.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return id(p)


def _extent(p):
    """Return the first byte of a tensor and the byte after its last."""
    last = sum((n - 1) * step for n, step in zip(p.shape, p.stride(), strict=True))
    return p.data_ptr(), p.data_ptr() + (last + 1) * p.element_size()


def _overlap(p, q):
    if p is q or p.is_meta or q.is_meta or not (p.numel() and q.numel()):
        return p is q
    (p_start, p_end), (q_start, q_end) = _extent(p), _extent(q)
    return p_start < q_end and q_start < p_end


def owned_parameters(everywhere):
    r"""Return (module, name, parameter) for each parameter of each distinct module of a list of Places."""
    modules = {id(place.module): place for place in reversed(everywhere)}  # the first name wins
    return [
        (place.module, f"{place.name}.{key}" if place.name else key, p)
        for place in reversed(modules.values())
        for key, p in place.module._parameters.items()
        if p is not None
    ]


def weight_twins(owned, layers):
    r"""Return {id(layer): names of the parameters of other modules in the memory of ``layer.weight``}.

    Found are a parameter that is shared, and one that is a view of the same numbers (a transpose, a slice).
    ``owned`` is what ``owned_parameters`` returns; a module that is used twice is no twin of itself.
    """
    memory = defaultdict(list)
    for entry in owned:
        memory[_memory(entry[2])].append(entry)
    twins = {}
    for layer in layers:
        W = layer.weight
        near = memory[_memory(W)]
        names = tuple(name for owner, name, p in near if owner is not layer and _overlap(W, p))
        if names:
            twins[id(layer)] = names
    return twins
