r"""At every grid point the page shows what `draw` draws anew in this process; so does the live widget."""

import itertools
import re

from tests.site.browser import Setting
from tests.site.sliders import NUMBER, Sliders, drawn_texts


def test_page_and_notebook_have_the_same_sliders(explore_page, explores, site):
    shown = re.findall(r'<figure class="lc-explore" id="([^"]+)"', (site / explore_page).read_text("utf8"))
    assert sorted(shown) == sorted(explores(explore_page))


def test_frame_shown_at_each_grid_point_is_what_draw_draws(explore_page, explores, visitor):
    with visitor.open(explore_page, Setting("file")) as visit:
        for own_id, explore in explores(explore_page).items():
            sliders = Sliders(visit.page, own_id)
            assert sliders.axes == list(explore.axes)
            assert sliders.shows(explore.frame()), f"{own_id} does not start at its default frame"
            visited = []
            for point in sliders.walk(explore.axes):
                assert sliders.shows(explore.frame(**point)), f"{own_id} shows a wrong frame at {point}"
                visited.append(point)
            assert visited == list(explore.grid())


def test_words_in_each_frame_are_those_that_draw_wrote(explore_page, explores, visitor):
    with visitor.open(explore_page) as visit:
        for own_id, explore in explores(explore_page).items():
            sliders, seen = Sliders(visit.page, own_id), set()
            for point in explore.grid():
                sliders.put({axis: explore.axes[axis].index(value) for axis, value in point.items()})
                texts = sliders.texts()
                missing = [t for t in drawn_texts(explore.draw(**point)) if t not in " ".join(texts)]
                assert missing == [], f"{own_id} at {point}: {texts}"
                seen.add(tuple(NUMBER.findall(" ".join(texts))))
            assert len(seen) > 1, f"{own_id}: no number written in the picture changes with the sliders"


def test_neighbors_along_each_axis_differ(explore_page, explores):
    for own_id, explore in explores(explore_page).items():
        for point, axis in itertools.product(explore.grid(), explore.axes):
            values = explore.axes[axis]
            following = values.index(point[axis]) + 1
            if following < len(values):
                other = point | {axis: values[following]}
                assert explore.frame(**point) != explore.frame(**other), f"{own_id}: {point} and {other}"


def test_live_widget_shows_the_same_picture(explore_page, explores, visitor):
    import ipywidgets

    for own_id, explore in explores(explore_page).items():
        parts = list(everything(explore.widget))
        live = {axis: s for axis, s in zip(explore.axes, of(parts, ipywidgets.SelectionSlider), strict=True)}
        picture = next(of(parts, ipywidgets.HTML))
        (reset,) = of(parts, ipywidgets.Button)
        with visitor.open(explore_page) as visit:
            page = Sliders(visit.page, own_id)
            for point in explore.grid():
                for axis, value in point.items():
                    live[axis].value = value
                assert explore.frame(**point) in picture.value, f"{own_id}: live picture at {point}"
                page.put({axis: explore.axes[axis].index(value) for axis, value in point.items()})
                stage = re.search(r'<div class="lc-stage".*?>(<svg.*</svg>)</div>', picture.value, re.S)
                assert page.shows(stage[1]), f"{own_id}: page and notebook differ at {point}"
        reset.click()
        assert explore.frame() in picture.value


def everything(widget):
    r"""The widget and all below it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def of(widgets, kind):
    r"""Those of a kind (HTML and labels are kinds of each other's base: compare exactly)."""
    return (w for w in widgets if type(w) is kind)
