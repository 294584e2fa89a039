r"""At every grid point the page shows what the live widget drew in a kernel after all cells of the notebook."""

import functools
import itertools
import re

import pytest

from tests.site.sliders import NUMBER, Sliders


@pytest.fixture(scope="module")
def walked(explores, visitor):
    r"""`walked(page)`: (id, Drawn, what the page showed at each point) of its slider figures; without any server."""

    def of(page_path):
        page, found = visitor.kept(page_path).page, []
        for own_id, drawn in explores(page_path).items():
            sliders = Sliders(page, own_id)
            assert sliders.axes == list(drawn.axes)
            assert sliders.shows(drawn.number()), f"{own_id} does not start at its default frame"
            grid = [{axis: drawn.axes[axis].index(value) for axis, value in point.items()} for point in drawn.grid()]
            found.append((own_id, drawn, sliders.walk(grid, drawn.frames)))
        return found

    return functools.cache(of)


def test_page_and_notebook_have_the_same_sliders(explore_page, explores, site):
    shown = re.findall(r'<figure class="lc-explore" id="([^"]+)"', (site / explore_page).read_text("utf8"))
    assert sorted(shown) == sorted(explores(explore_page))


def test_frame_shown_at_each_grid_point_is_what_the_live_widget_drew(explore_page, walked):
    for own_id, drawn, seen in walked(explore_page):
        wrong = [point for point, look in zip(drawn.grid(), seen, strict=True) if not look["same"]]
        assert wrong == [], own_id


def test_sliders_move_over_http_too(explore_page, explores, measured):
    assert measured(explore_page)["moved"] == [True] * len(explores(explore_page))


def test_words_in_each_frame_are_those_that_draw_wrote(explore_page, walked):
    for own_id, drawn, seen in walked(explore_page):
        for point, texts, look in zip(drawn.grid(), drawn.texts, seen, strict=True):
            assert [t for t in texts if t not in " ".join(look["texts"])] == [], f"{own_id} at {point}"
        numbers = {tuple(NUMBER.findall(" ".join(look["texts"]))) for look in seen}
        assert len(numbers) > 1, f"{own_id}: no number written in the picture changes with the sliders"


def test_sliders_and_picture_say_where_they_stand(explore_page, walked):
    for own_id, drawn, seen in walked(explore_page):
        for point, words, look in zip(drawn.grid(), drawn.words, seen, strict=True):
            assert look["label"] == words, f"{own_id} at {point}"
            for axis, value in point.items():
                said = look["says"][axis]
                assert drawn.labels[axis] in said and look["outputs"][axis] in said
                assert said.endswith(value if isinstance(value, str) else f"{value:.6g}"), f"{own_id} at {point}"


def test_neighbors_along_each_axis_differ(explore_page, explores):
    for own_id, drawn in explores(explore_page).items():
        for point, axis in itertools.product(drawn.grid(), drawn.axes):
            values = drawn.axes[axis]
            following = values.index(point[axis]) + 1
            if following < len(values):
                other = point | {axis: values[following]}
                assert drawn.frame(**point) != drawn.frame(**other), f"{own_id}: {point} and {other}"


def test_the_live_button_brings_the_default_frame_back(explore_page, explores):
    for own_id, drawn in explores(explore_page).items():
        assert drawn.reset == drawn.frame(), own_id
