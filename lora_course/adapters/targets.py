r"""Which modules ``target_modules`` means: a list of suffixes, a regular expression, or a predicate.

Names are those of ``model.named_modules()``, e.g. "layers.0.self_attn.q_proj"; a suffix is its last parts.
"""

import difflib
import re

from torch import nn


def matched_names(target_modules, named):
    r"""Return the names that ``target_modules`` selects out of ``named``, a list of (name, module).

    - list, tuple or set of str: the name is an entry, or ends with "." and an entry; each entry must match;
    - str or compiled pattern: a regular expression that matches the whole name (``re.fullmatch``);
    - callable: ``target_modules(name, module)`` is true.

    Raises TypeError for anything else, ValueError if nothing matches (it lists near names that exist) or if
    the regular expression is not valid.
    """
    names = [name for name, _ in named]
    if isinstance(target_modules, (str, re.Pattern)):
        return _by_pattern(target_modules, named, names)
    if isinstance(target_modules, (list, tuple, set, frozenset)):
        return _by_suffixes(target_modules, named, names)
    if callable(target_modules):
        found = [name for name, module in named if target_modules(name, module)]
        if not found:
            raise ValueError(f"target_modules: the predicate is true for no module; {_existing(named)}")
        return found
    kind = type(target_modules).__name__
    raise TypeError(
        "target_modules must be a list of suffixes, a regular expression or a predicate (name, module) -> "
        f"bool, got {target_modules!r} of type {kind}"
    )


def _by_pattern(target_modules, named, names):
    try:
        pattern = re.compile(target_modules)
        found = [name for name in names if pattern.fullmatch(name)]
    except (re.error, TypeError) as error:
        raise ValueError(f"target_modules={target_modules!r} is no regular expression for names: {error}") from error
    if not found:
        hint = ""
        if any(_ends_with(name, pattern.pattern) for name in names):
            hint = f" (a str is a regular expression for all of it; for a suffix give [{pattern.pattern!r}])"
        raise ValueError(
            f"target_modules: no module name matches {pattern.pattern!r} as a whole{hint}; "
            + _near(pattern.pattern, named)
        )
    return found


def _by_suffixes(target_modules, named, names):
    for suffix in target_modules:
        if not isinstance(suffix, str):
            kind = type(suffix).__name__
            raise TypeError(f"target_modules must hold names as str, got {suffix!r} of type {kind}")
    dotted = tuple("." + suffix for suffix in target_modules if suffix)
    found = [name for name in names if ("." + name).endswith(dotted)]
    for suffix in target_modules:
        if not any(_ends_with(name, suffix) for name in found):
            near = _near(suffix, named)
            raise ValueError(f"target_modules: no module name is or ends with {suffix!r}; {near}")
    if not found:
        raise ValueError(f"target_modules is empty: no module can match; {_existing(named)}")
    return found


def _ends_with(name, suffix):
    return bool(suffix) and ("." + name).endswith("." + suffix)


def _linears(named):
    return [name for name, module in named if name and isinstance(module, nn.Linear)]


def _near(wanted, named):
    """Say which names come near: last parts first, as a suffix list would name them, then whole names."""
    linears = _linears(named)
    ends = dict.fromkeys(name.rpartition(".")[2] for name in linears)
    last = wanted.rpartition(".")[2]
    near = difflib.get_close_matches(last, ends, n=4) + difflib.get_close_matches(wanted, linears, n=4)
    return f"near names that exist: {', '.join(dict.fromkeys(near))}" if near else _existing(named)


def _existing(named):
    ends = list(dict.fromkeys(name.rpartition(".")[2] for name in _linears(named)))
    if not ends:
        return "the model holds no nn.Linear with a name"
    return f"linear layers that exist: {', '.join(ends[:12])}" + (", …" if len(ends) > 12 else "")
