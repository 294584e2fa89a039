r"""axe-core finds nothing serious in either theme and width; text in figures and sliders stands out."""

import pytest

from tests.site.browser import Setting, findings

# those of test_pages.py, so that one visit serves both: axe takes seconds on a long page
VIEWS = [Setting("http", "light", 1280), Setting("http", "dark", 360)]
views = pytest.mark.parametrize("view", VIEWS, ids=str)
BUTTONS = ("dropdown-toggle", "search-button__button", "primary-toggle", "secondary-toggle")


@views
def test_axe_finds_nothing_serious(page_path, view, measured):
    assert measured(page_path, view)["axe"] == []


@views
def test_text_in_figures_and_sliders_stands_out(page_path, view, measured, site):
    contrast = measured(page_path, view)["contrast"]
    assert contrast["low"] == []
    html = (site / page_path).read_text("utf8")
    assert contrast["seen"] >= 3 * (html.count('class="lc-figure"') + html.count('class="lc-explore"'))


@views
def test_what_scrolls_can_be_reached_by_keyboard(page_path, view, measured):
    assert measured(page_path, view)["unreachable"] == []


@views
def test_axe_finds_nothing_serious_in_menus_and_dialogs(view, visitor):
    opened = []
    for button in BUTTONS:
        with visitor.open("index.html", view) as visit:
            visible = [b for b in visit.page.locator(f"button.{button}").all() if b.is_visible()]
            if visible:
                visible[0].evaluate("e => e.click()")  # a mouse would open a tooltip as well, which fades in
                visit.page.wait_for_timeout(100)
                visit.probe("still")
                assert findings(visit.page) == []
                opened.append(button)
    assert len(opened) >= 3  # on a wide page the contents stand beside the text, without a button
