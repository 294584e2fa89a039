r"""What an experiment showed and the text speaks of: strict where the book is published, a box elsewhere.

A result of training differs a little between processors. ``observed("rank 4 learns the noise", "share > 0.7",
share=...)`` guards the sentence: if the relation breaks, publishing (LORA_COURSE_STRICT=1) stops with
:class:`DidNotHold`, and on a reader's machine a box says so and the notebook goes on.
"""

import functools
import math
import os
from html import escape

from .claim_box import MARK, in_digits
from .relation import Relation
from .sheet import with_style


class DidNotHold(AssertionError):
    r"""What was measured breaks a relation that the published text rests on."""


def strict():
    r"""Whether a result that comes out differently stops the run: in tests and where the book is published."""
    return os.environ.get("LORA_COURSE_STRICT", "") not in ("", "0")


def real_number(what, name, value):
    r"""``value`` as a finite int, float or bool of Python; TypeError or ValueError names ``what`` and ``name``."""
    try:
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, (str, bytes)):
            raise TypeError
        value = value if isinstance(value, (bool, int)) else float(value)
    except (TypeError, ValueError, RuntimeError):
        kind = type(value).__name__
        raise TypeError(f"{what}: {name} must be one real number, got {kind} {value!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"{what}: {name} must be finite, got {value!r}")
    return value


def truth(what, relation, values):
    r"""Whether ``relation`` holds for ``values``; ValueError names ``what`` where it cannot be evaluated."""
    try:
        return relation(**values)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"{what}: {relation.text!r} failed for {values}: {error}") from error


class Differs:
    r"""The box of a result that came out differently: what the text says, and what was measured here."""

    def __init__(self, says, relation, values):
        self.says, self.relation, self.values = says, relation, dict(values)

    def measured(self):
        r"""The values in words: "low = 0.3, high = 2"."""
        return ", ".join(f"{name} = {in_digits(value)}" for name, value in self.values.items())

    def _repr_html_(self):
        box = (
            f'<aside {MARK} role="note"><p><strong>On this machine it came out differently.</strong> '
            f"The text says: {escape(self.says)}. Measured here: {escape(self.measured())}, instead of "
            f"<code>{escape(self.relation.text)}</code>. The text below speaks of the published run.</p></aside>"
        )
        return with_style(box, "claims.css")

    def __repr__(self):
        return (
            f"[!] On this machine it came out differently. The text says: {self.says}. Measured here: "
            f"{self.measured()}, instead of {self.relation.text}. The text below speaks of the published run."
        )


_parsed = functools.cache(Relation)


def observed(says, relation, /, **measured):
    r"""Guard a sentence of the text by a relation between measured values; say nothing if it holds.

    Args:
        says: the sentence, in words, without a full stop.
        relation: as in the ledger, "share > 0.7 and share < best": names of ``measured``, numbers, comparisons.
        measured: each name's value, one real number (of Python, numpy or torch) or truth value.

    If the relation is broken: raises :class:`DidNotHold` in strict runs, else displays a box and returns.
    Raises ValueError if ``says`` is empty, the relation is none, uses other names than ``measured`` or cannot be
    evaluated, or a value is not finite; TypeError if a value is no real scalar.
    """
    if not isinstance(says, str) or not says.strip():
        raise ValueError(f"says must be the sentence that is guarded, got {says!r}")
    relation, what = _parsed(relation), f"observed({says!r})"
    if set(measured) != relation.names:
        raise ValueError(f"{what}: relation uses {sorted(relation.names)}, but measured has {sorted(measured)}")
    values = {name: real_number(what, name, value) for name, value in measured.items()}
    if truth(what, relation, values):
        return
    box = Differs(says, relation, values)
    if strict():
        raise DidNotHold(f"the text says: {says}; but '{relation.text}' does not hold: {box.measured()}")
    from IPython.display import display

    display(box)
