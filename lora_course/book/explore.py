"""Pictures with sliders: live in a notebook, and without any kernel on the built page.

Legend: an axis is a slider, `r=[1, 2, 4]`; a point is one choice of all sliders, {"r": 2, "alpha": 8};
a frame is the SVG that `draw(**point)` gives; words are the sentence that says what the frame shows.
Frames are numbered row-major over the axes in their given order.
"""

import itertools
import json
import math
from html import escape

from .figure import pictures, sentence
from .grid import check_signature, checked_axis, failure, named, texts
from .live import live
from .sheet import in_book_build

MOST_FRAMES = 64
SYMBOLS = {"r": "rank r", "alpha": "α"}
_times_made = {}  # name of draw -> explores made of it: two on one page need two ids


def explore(draw, *, alt, caption, start=None, labels=None, **axes):
    r"""Return a picture with one slider per axis: `explore(draw, alt=..., caption=..., r=[1, 2, 4, 8])`.

    `draw(r=..., ...)` returns a matplotlib figure, or a list of them to stand side by side. `alt` is the
    sentence that says what is to be seen, or a function of the axis values that gives it for each frame.
    `caption` is plain text. `start` gives the values shown first (else the middle of each axis),
    `labels` the name of a slider where it is not SYMBOLS' ("rank r", "α") or the axis' own.

    An axis holds increasing numbers or different strings; all together make at most 64 frames. In a notebook
    the sliders are ipywidgets and call draw; in a book build (LORA_COURSE_BOOK_BUILD=1) all frames are drawn
    here and now. Raises TypeError or ValueError for bad arguments; if draw or alt raises, RuntimeError that
    names the point (`r = 8, alpha = 16`).
    """
    return Explore(draw, axes, alt=alt, caption=caption, start=start, labels=labels)


class Explore:
    r"""A picture with sliders; made by `explore`."""

    def __init__(self, draw, axes, *, alt, caption, start=None, labels=None):
        if not callable(draw):
            raise TypeError(f"draw={draw!r} must be a function that returns a figure")
        if not axes:
            raise ValueError("explore needs at least one axis of values, for example r=[1, 2, 4, 8]")
        self.axes = {name: checked_axis(name, values) for name, values in axes.items()}
        count = math.prod(map(len, self.axes.values()))
        if count > MOST_FRAMES:
            sizes = " × ".join(f"{len(values)} ({name})" for name, values in self.axes.items())
            raise ValueError(f"{sizes} make {count} frames, more than {MOST_FRAMES}: a page must stay small")
        self.start = {name: values[len(values) // 2] for name, values in self.axes.items()}
        self.start = self._point(start or {}, "start")
        check_signature(draw, self.start)
        self.alt = alt if callable(alt) else sentence(alt)
        if not isinstance(caption, str) or not caption.strip():
            raise ValueError(f"caption={caption!r} must be text")
        for name in labels or {}:
            if name not in self.axes:
                raise ValueError(f"labels names {name!r}, but the axes are {', '.join(self.axes)}")
        self.labels = {name: (labels or {}).get(name, SYMBOLS.get(name, name)) for name in self.axes}
        self.draw, self.caption = draw, caption
        self._frames, self._words, self._widget = {}, {}, None
        name = getattr(draw, "__name__", "draw").strip("<>")
        _times_made[name] = _times_made.get(name, 0) + 1
        self.id = f"explore-{name}" + (f"-{_times_made[name]}" if _times_made[name] > 1 else "")
        # here and not when it is shown: Jupyter would print an exception of then, and let the cell pass
        for point in self.grid() if in_book_build() else [self.start]:
            self.frame(**point)
            self.words(**point)

    def __repr__(self):
        axes = ", ".join(f"{name} in {list(values)}" for name, values in self.axes.items())
        return f"<explore {self.id.removeprefix('explore-')}: {axes}; starts at {named(self.start)}>"

    def grid(self):
        r"""Iterate over all points, row-major, as dictionaries {axis: value}."""
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def frame(self, **point):
        r"""Return the SVG (of all panels) at a point; axes left out stand at their start.

        Each point is drawn once. Raises ValueError off the grid, RuntimeError naming the point if draw fails.
        """
        point = self._point(point, "frame")
        key = tuple(point.values())
        if key not in self._frames:
            try:
                self._frames[key] = pictures(self.draw(**point), "what draw returns")
            except Exception as error:
                raise RuntimeError(failure("draw", self.draw, point, error)) from error
        return self._frames[key]

    def words(self, **point):
        r"""Return the sentence of the frame at a point; axes left out stand at their start."""
        point = self._point(point, "words")
        key = tuple(point.values())
        if not callable(self.alt):
            return f"At {self._read(point)}: {self.alt}"
        if key not in self._words:
            try:
                self._words[key] = sentence(self.alt(**point), "what alt returns")
            except Exception as error:
                raise RuntimeError(failure("alt", self.alt, point, error)) from error
        return self._words[key]

    def html(self):
        r"""Return the block for a static page: all frames and native sliders, for static/explore.js."""
        points = list(self.grid())
        data = {"frames": [self.frame(**p) for p in points], "say": [self.words(**p) for p in points]}
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        text = text.replace("</", r"<\/").replace("<!--", r"\u003c!--").replace("<script", r"\u003cscript")
        sliders = "".join(self._slider(name) for name in self.axes)
        longest = max(map(len, data["say"]))  # room for it, so that the page below does not jump
        return (
            f'<figure class="lc-explore" id="{escape(self.id)}">{self.stage(self.start)}'
            f'<div class="lc-controls" role="group" aria-label="Sliders of the picture" hidden>{sliders}'
            '<button type="button" class="lc-reset">Reset</button></div>'
            f'<p class="lc-say" aria-live="polite" style="--lc-lines:{longest // 75 + 1};'
            f'--lc-lines-phone:{longest // 34 + 1}">{escape(self.words(), quote=False)}</p>'
            '<noscript><p class="lc-noscript">The sliders of this picture need JavaScript; it stands at '
            f"{escape(self._read(self.start), quote=False)}.</p></noscript>"
            f"<figcaption>{escape(self.caption, quote=False)}</figcaption>"
            f'<script type="application/json" class="lc-frames">{text}</script></figure>'
        )

    @property
    def widget(self):
        r"""The live picture: an ipywidgets box of picture, sliders and reset button, made once."""
        if self._widget is None:
            self._widget = live(self)
        return self._widget

    def _ipython_display_(self):
        from IPython.display import display

        if in_book_build():
            display({"text/html": self.html(), "text/plain": repr(self)}, raw=True)
        else:
            display(self.widget)

    def stage(self, point):
        r"""Return the picture at a point with its sentence as the label for those who cannot see it."""
        label = escape(self.words(**point))
        return f'<div class="lc-stage" role="img" aria-label="{label}">{self.frame(**point)}</div>'

    def _slider(self, name):
        values, at = self.axes[name], self.axes[name].index(self.start[name])
        shown, label, own_id = texts(values), escape(self.labels[name]), escape(f"{self.id}-{name}")
        return (
            f'<div class="lc-axis"><label for="{own_id}">{label}</label>'
            f'<output for="{own_id}" aria-hidden="true">{escape(shown[at])}</output>'
            f'<input type="range" id="{own_id}" min="0" max="{len(values) - 1}" step="1" value="{at}" '
            f'autocomplete="off" style="--lc-steps:{max(len(values) - 1, 1)}" data-axis="{escape(name)}" '
            f'data-label="{label}" data-values="{escape(json.dumps(values))}" '
            f'data-texts="{escape(json.dumps(shown, ensure_ascii=False))}" '
            f'aria-valuetext="{label} = {escape(shown[at])}"></div>'
        )

    def _read(self, point):
        """The point as a person would say it: "rank r = 8, α = 16"."""
        at = {name: self.axes[name].index(value) for name, value in point.items()}
        return ", ".join(f"{self.labels[name]} = {texts(self.axes[name])[at[name]]}" for name in at)

    def _point(self, given, argument):
        for name, value in given.items():
            if name not in self.axes:
                raise ValueError(f"{argument} names {name!r}, but the axes are {', '.join(self.axes)}")
            if value not in self.axes[name]:
                raise ValueError(f"{argument}: {name}={value!r} is not on the grid {list(self.axes[name])}")
        return {name: self.axes[name][self.axes[name].index(given.get(name, self.start[name]))] for name in self.axes}
