r"""Runs inside a notebook's kernel (see tests/kept_runs.py): what its sliders draw once all its cells have run.

A reader who moves a slider after "Run all" gets this, not what was drawn in passing: a name that a later cell
binds anew would show. Written as {id: {"axes", "start", "labels", "words", "frames", "texts", "reset"}}: "frames"
are the pictures that the widget shows at the points of the grid, row-major, "texts" what `draw` wrote in them,
"words" the sentences below; "reset" is the picture after its button.
"""

import importlib
import json
import re

import ipywidgets

_made = []


def watch():
    r"""From now on remember every Explore that is made."""
    # the module, which the function of the same name in lora_course.book hides
    Explore = importlib.import_module("lora_course.book.explore").Explore
    plain = Explore.__init__

    def remembered(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        _made.append(self)

    Explore.__init__ = remembered


def write(path):
    r"""Move the live sliders of each Explore over their grid, and write down what they showed.

    Raises `RuntimeError` if two share an id.
    """
    if len({e.id for e in _made}) < len(_made):
        raise RuntimeError(f"two sliders share an id: {[e.id for e in _made]}")
    seen = json.dumps({explore.id: shown(explore) for explore in _made}, ensure_ascii=False)
    with open(path, "w", encoding="utf8") as file:
        file.write(seen)


def shown(explore):
    r"""What one Explore's live widget shows at every point of the grid, drawn anew, each point once."""
    explore._frames.clear()
    explore._widget = None
    draw, wrote = explore.draw, {}

    def heard(**point):
        drawn = draw(**point)
        wrote[tuple(point.values())] = sorted(drawn_texts(drawn))
        return drawn

    explore.draw = heard
    parts = list(everything(explore.widget))
    (picture,) = (w for w in parts if type(w) is ipywidgets.HTML)
    (reset,) = (w for w in parts if type(w) is ipywidgets.Button)
    sliders = dict(zip(explore.axes, (w for w in parts if type(w) is ipywidgets.SelectionSlider), strict=True))
    frames, points = [], list(explore.grid())
    for point in points:
        for axis, value in point.items():
            sliders[axis].value = value
        frames.append(stage(picture.value))
    reset.click()
    return {
        "axes": explore.axes,
        "start": explore.start,
        "labels": explore.labels,
        "words": [explore.words(**point) for point in points],
        "frames": frames,
        "texts": [wrote[tuple(point.values())] for point in points],
        "reset": stage(picture.value),
    }


def stage(html):
    r"""The SVG in what a widget shows; an error that it shows instead comes back as it is."""
    found = re.search(r'<div class="lc-stage".*?>(<svg.*</svg>)</div>', html, re.S)
    return found[1] if found else html


def everything(widget):
    r"""The widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def drawn_texts(drawn) -> set[str]:
    r"""Titles, annotations and legends of what a `draw` returned, from matplotlib, not from its SVG."""
    found = set()
    for figure in drawn if isinstance(drawn, (list, tuple)) else [drawn]:
        artists = list(figure.texts)
        for axes in figure.axes:
            artists += [axes.title, axes._left_title, axes._right_title, *axes.texts]
            artists += axes.get_legend().get_texts() if axes.get_legend() else []
        for legend in figure.legends:
            artists += legend.get_texts()
        found |= {line.strip() for a in artists if a.get_visible() for line in a.get_text().splitlines()}
    return found - {""}
