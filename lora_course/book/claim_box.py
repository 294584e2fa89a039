r"""The box in which a page shows a claim: HTML for browsers (readable unstyled), text for terminals."""

import re
from html import escape

from .replications import replications
from .sheet import with_style

# a shape per verdict beside its word, so that color is never alone
ICONS = {"true": "✓", "true if": "◐", "misleading": "△", "false": "✗", "unsupported": "○", "untestable": "∅"}

MARK = 'class="lc-differs"'  # by which the build finds what came out differently
DID_NOT = "This claim did not hold in this run."
INSTEAD = "The values below break its relation; verdict and text speak of the published run."


def in_digits(value):
    r"""A number as readers see it: integers in full with commas, others with three significant digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        digits = f"{value:#.3g}"
        return f"{float(digits):,.0f}" if "e" in digits or digits.endswith(".") else digits
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}·10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _label(key):
    r"""The citation key hu2022lora as readers know such labels: [Hu 2022]; a name without a year is a library's."""
    parts = re.match(r"([a-z]+)_?(\d{4})", key)
    if not parts:
        return f"[{key.upper()}]"
    return f"[{'arXiv' if parts[1] == 'arxiv' else parts[1].title()} {parts[2]}]"


class ClaimBox:
    r"""What a page shows of ``claim``, of the ``values`` measured for it ({name: number}), and whether it held."""

    def __init__(self, claim, values, holds=True):
        self.claim, self.values, self.holds = claim, dict(values), holds

    def _lines(self):
        r"""(class, label, text) of each paragraph, in reading order."""
        from .claims import SOURCES

        c = self.claim
        yield "says", "", c.says
        yield "source", "From", f"source text {c.source}, “{SOURCES[c.source]}”"
        yield "true", "What is true", c.condition
        if c.settled == "derivation":
            yield "how", "Settled by derivation", f"asserted in {c.test}"
        elif c.settled == "source":
            yield "how", "Settled by a source", f"{_label(c.citation)}, {c.place}: {c.figure}"
        elif c.settled == "not testable":
            yield "how", "Not testable", c.reason
        else:
            yield "how", "Measured here", f"the page is published only if {c.relation.text}"
            if found := replications(c):
                yield "how", "Replications", found.in_words()

    def _repr_html_(self):
        c = self.claim
        icon, verdict = ICONS[c.verdict], c.verdict
        parts = [
            f'<aside class="lc-claim lc-claim--{verdict.replace(" ", "-")}" id="claim-{escape(c.id)}">',
            f'<p class="lc-claim-head"><span class="lc-claim-icon" aria-hidden="true">{icon}</span> '
            f"<strong>Claim {escape(c.id)} · {verdict}</strong></p>",
        ]
        if not self.holds:
            parts.append(f"<p {MARK}><strong>{DID_NOT}</strong> {INSTEAD}</p>")
        for kind, label, text in self._lines():
            label = f"<strong>{label}:</strong> " if label else ""
            text = f"<em>{escape(text)}</em>" if kind == "says" else escape(text)
            if kind == "how" and c.relation:
                text = text.replace(escape(c.relation.text), f"<code>{escape(c.relation.text)}</code>")
            parts.append(f'<p class="lc-claim-{kind}">{label}{text}</p>')
        rows = [
            f"<div><dt>{escape(c.measured[name])} (<code>{escape(name)}</code>)</dt><dd>{in_digits(value)}</dd></div>"
            for name, value in self.values.items()
        ]
        if rows:
            parts.append(f'<dl class="lc-claim-measured">{"".join(rows)}</dl>')
        return with_style("\n".join([*parts, "</aside>"]), "claims.css")

    def __repr__(self):
        c = self.claim
        lines = [f"[{ICONS[c.verdict]}] Claim {c.id} · {c.verdict}"]
        if not self.holds:
            lines.append(f"  [!] {DID_NOT} {INSTEAD}")
        lines += [f"  {label}: {text}" if label else f"  {text}" for _, label, text in self._lines()]
        lines += [f"    {c.measured[n]} ({n}): {in_digits(v)}" for n, v in self.values.items()]
        return "\n".join(lines)
