r"""The values that sliders run over: checking them, and naming a point of their grid in words.

An axis is a tuple of numbers or strings; a point is one choice of all axes, {"r": 2, "alpha": 8}.
"""

import inspect
import itertools
import math
import traceback


def checked_axis(name, values):
    r"""Return the values of the axis `name` as a tuple of plain int, float or str.

    Raises TypeError or ValueError if they are no increasing numbers or different strings.
    """
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name}={values!r} must be a list of values, or it is no argument of explore")
    plain = tuple(v.item() if hasattr(v, "item") else v for v in values)
    if not plain:
        raise ValueError(f"{name}={values!r} must hold at least one value")
    if all(isinstance(v, str) for v in plain):
        if len(set(plain)) < len(plain):
            raise ValueError(f"{name}={values!r} holds a value twice")
        return plain
    for v in plain:
        if not isinstance(v, (int, float)) or isinstance(v, bool) or not math.isfinite(v):
            raise TypeError(f"{name}={values!r} must hold finite numbers only, or strings only; {v!r} is neither")
    if any(a >= b for a, b in itertools.pairwise(plain)):
        raise ValueError(f"{name}={values!r} must increase from left to right, as the slider does")
    return plain


def check_signature(draw, point):
    r"""Raise TypeError unless `draw` takes the axes of `point` as keywords."""
    try:
        signature = inspect.signature(draw)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return
    try:
        signature.bind(**point)
    except TypeError as error:
        raise TypeError(f"draw must take the axes {', '.join(point)} as arguments: {error}") from None


def texts(values):
    r"""Return the values of an axis as short strings, all different."""
    short = [v if isinstance(v, str) else f"{v:.6g}" for v in values]
    return short if len(set(short)) == len(short) else [str(v) for v in values]


def named(point):
    r"""Return a point as text: "r = 8, alpha = 16"."""
    return ", ".join(f"{name} = {value}" for name, value in point.items())


def failure(what, function, point, error):
    r"""Return what failed, where on the grid, and in which line of the reader's own code."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    own = [step for step in traceback.extract_tb(error.__traceback__) if step.filename == file]
    line = f"\n  in line {own[-1].lineno}: {own[-1].line}" if own else ""
    return f"{what} failed at {named(point)}: {type(error).__name__}: {error}{line}"
