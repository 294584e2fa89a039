r"""Checks of exercises: a diagnosis of the answer, turned into feedback that helps.

``diagnose(answer)`` returns None for a right answer, `...` for a function that still returns `...`, else a
sentence that says what is probably wrong.
"""

import functools
from html import escape

from .sheet import with_style

_KINDS = {
    True: ("right", "✓", "Right"),
    False: ("wrong", "✗", "Not yet"),
    None: ("open", "○", "Not tried yet"),
}
_DOTS = "put your answer in the place of the three dots and run the cell again."


class Feedback:
    r"""What a check says: ``ok`` is True (right), False (wrong) or None (not tried), ``message`` why."""

    def __init__(self, ok, message):
        if not any(ok is kind for kind in _KINDS):
            raise ValueError(f"ok must be True, False or None, got {ok!r}")
        self.ok, self.message = ok, message

    def must_pass(self):
        r"""The feedback itself if the answer is right; else AssertionError with the message."""
        if self.ok is not True:
            raise AssertionError(self._text())
        return self

    def _text(self):
        word = _KINDS[self.ok][2]
        return f"{word}: {self.message}" if self.message else f"{word}."

    def __repr__(self):
        return f"[{_KINDS[self.ok][1]}] {self._text()}"

    def _repr_html_(self):
        kind, icon, word = _KINDS[self.ok]
        message = f": {escape(self.message)}" if self.message else "."
        return with_style(
            f'<p class="lc-feedback lc-feedback--{kind}" role="status">'
            f'<span aria-hidden="true">{icon}</span> <strong>{word}</strong>{message}</p>',
            "claims.css",
        )


def checker(diagnose):
    r"""The check that goes with ``diagnose``: a function from an answer to :class:`Feedback`.

    An answer that is still ``...`` (or holds a ``...``, as ``(…, 3)`` does) is "not tried yet". An exception
    that the answer causes in ``diagnose`` becomes a message. The check takes the arguments that ``diagnose``
    takes, and bears its name with "check" for "diagnose". Raises TypeError if ``diagnose`` is not callable,
    or later if it returns anything but None or a sentence.
    """
    if not callable(diagnose):
        raise TypeError(f"diagnose must be a function of the answer, got {diagnose!r}")

    @functools.wraps(diagnose)
    def check(*answer, **named):
        given = [*answer, *named.values()]
        if not given or any(_untried(part) for part in given):
            return Feedback(None, _DOTS)
        try:
            message = diagnose(*answer, **named)
        except Exception as error:
            return Feedback(False, _caused_by(error, given))
        if message is ...:
            return Feedback(None, _DOTS)
        if message is None:
            return Feedback(True, "")
        if not isinstance(message, str) or not message:
            raise TypeError(f"{diagnose!r} must return None or a sentence, got {message!r}")
        return Feedback(False, message)

    check.__name__ = getattr(diagnose, "__name__", "answer").replace("diagnose", "check", 1)
    return check


def _untried(answer):
    if isinstance(answer, dict):
        answer = tuple(answer.values())
    return answer is ... or (isinstance(answer, (tuple, list)) and any(_untried(part) for part in answer))


def _caused_by(error, given):
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    kinds = " and ".join(_in_words(part) for part in given)
    if any(callable(part) for part in given):
        return f"running your answer ({kinds}) stopped with {what}"
    return f"your answer is {kinds}, and that cannot be compared with the solution ({what})"


def _in_words(answer):
    shape = getattr(answer, "shape", None)
    kind = type(answer).__name__
    if callable(answer):
        return f"the function {getattr(answer, '__name__', kind)}"
    if shape is not None:
        return f"a {kind} of shape {tuple(shape)}"
    return f"{answer!r} ({kind})" if len(repr(answer)) <= 60 else f"a {kind}"
