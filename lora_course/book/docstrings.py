r"""Docstrings as the page of the package shows them: plain text, whose long lines the page breaks, not the source."""

import re

_WIDTH = 100  # a line that the next word would have made longer than this was broken for its length only
_ROLE = re.compile(r":(?:func|class|meth|attr|data|mod):`~?([^`]*)`")


def readable(lines):
    r"""The `lines` of a docstring without marks for other tools, and with each broken sentence on one line.

    A line that is indented deeper than the one before continues it, unless that one ends with a colon.
    """
    out, start = [], 0  # start: indent of the first line of what is being continued
    last = ""
    for raw in lines:
        line = _ROLE.sub(r"`\1`", raw.rstrip()).replace("``", "`")
        words = line.split()
        indent = len(line) - len(line.lstrip())
        deeper = indent > start and not last.endswith(":")
        broken = indent == start == 0 and words and len(last) + 1 + len(words[0]) > _WIDTH
        if last and words and (deeper or broken):
            out[-1] += " " + line.strip()
        else:
            out.append(line)
            start = indent
        last = line.rstrip()
    return out


def is_noise(doc):
    r"""Whether the docstring `doc` was written by Python, as those of a named tuple's fields are."""
    return bool(doc) and doc.startswith("Alias for field number ")
