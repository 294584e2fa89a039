"""Figures of a page: SVG with a sentence for those who cannot see it, and a caption.

Legend: alt says in words what is to be seen; a block is the HTML of a whole figure.
"""

import sys
from html import escape

from matplotlib.figure import Figure

from .render import svg
from .sheet import with_style


def sentence(text, name="alt"):
    r"""Return `text` if it is a sentence: at least 15 characters with a period at the end.

    Raises ValueError, naming the argument `name`, otherwise.
    """
    if not isinstance(text, str) or len(text.strip()) < 15 or not text.strip().endswith("."):
        raise ValueError(
            f"{name}={text!r} must be a sentence that says what is to be seen (15 characters or more, with a "
            "period at the end)"
        )
    return text.strip()


def pictures(drawn, what):
    r"""Return the SVG of a figure, or of each in a list or tuple, one after the other; close them in pyplot.

    Raises TypeError, naming `what` gave it, if `drawn` is neither a figure nor a sequence of figures.
    """
    figures = [drawn] if isinstance(drawn, Figure) else drawn
    if not isinstance(figures, (list, tuple)) or not figures or not all(isinstance(f, Figure) for f in figures):
        raise TypeError(f"{what} must be a matplotlib Figure or a list of them, not {_short(drawn)}")
    if len({id(f) for f in figures}) < len(figures):
        raise TypeError(f"{what} holds the same Figure twice; call canvas() once for each panel")
    text = "".join(svg(f) for f in figures)
    if "matplotlib.pyplot" in sys.modules:  # else a notebook would show the reader's figure a second time
        for f in figures:
            sys.modules["matplotlib.pyplot"].close(f)
    return text


def _short(value):
    return f"{type(value).__name__} {value!r}"[:80]


class Shown:
    r"""A rendered figure: `html` is its block; shown by Jupyter and on the page."""

    def __init__(self, html, alt):
        self.html, self.alt = html, alt

    def _repr_html_(self):
        return with_style(self.html, "lora_course.css")

    def __repr__(self):
        return f"<figure: {self.alt}>"


def figure(fig_or_figs, *, alt, caption=None):
    r"""Return a figure for the page: drawn at once, so that later changes to it do not show.

    `fig_or_figs` is a matplotlib figure, or a list of figures to stand side by side (on a phone:
    below each other). `alt` is the sentence that stands for the picture where it cannot be seen;
    `caption` is plain text. Raises ValueError if alt is no sentence or caption is empty, TypeError if there
    is no figure.
    """
    alt = sentence(alt)
    if caption is not None and not (isinstance(caption, str) and caption.strip()):
        raise ValueError(f"caption={caption!r} must be text, or left out")
    below = f"<figcaption>{escape(caption, quote=False)}</figcaption>" if caption else ""
    drawn = pictures(fig_or_figs, "fig_or_figs")
    stage = f'<div class="lc-stage" role="img" aria-label="{escape(alt)}">{drawn}</div>'
    return Shown(f'<figure class="lc-figure">{stage}{below}</figure>', alt)
