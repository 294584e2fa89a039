r"""By keyboard alone: the skip link, every slider and reset in reach, and always a visible focus."""

import re


def test_first_stop_skips_to_the_text(page_path, measured):
    skip = measured(page_path)["skip"]
    assert "skip" in skip["words"]
    assert skip["box"]["x"] >= 0 and skip["box"]["y"] >= 0 and skip["box"]["height"] > 10
    assert skip["inside"], skip["focused"]


def test_stops_follow_the_text(page_path, site):
    assert re.findall(r"""tabindex=["'][1-9]""", (site / page_path).read_text("utf8")) == []


def test_every_slider_and_reset_is_reached_by_tab_and_shows_it(explore_page, visitor):
    page = visitor.kept(explore_page).page
    for root in page.locator(".lc-explore").all():
        controls = root.locator("input[type=range], .lc-reset").all()
        shown = [clip(page, root), clip(page, root)]
        assert shown[0] == shown.pop()  # the picture is the same unless something changes
        # a stop just before the figure, from which the next ones follow
        root.evaluate("e => e.insertAdjacentHTML('beforebegin', '<i tabindex=0 id=lc-before></i>')")
        page.locator("#lc-before").focus()
        for control in controls:
            page.keyboard.press("Tab")
            assert control.evaluate("e => e === document.activeElement"), page.locator(":focus").inner_html()
            shown.append(clip(page, root))
        assert len(set(shown)) == 1 + len(controls)  # each stop looks different from the others, and from none
        page.locator("#lc-before").evaluate("e => e.remove()")


def clip(page, root) -> bytes:
    r"""Picture of a figure's controls with a margin, where an outline would be."""
    controls = root.locator(".lc-controls")
    controls.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = controls.bounding_box()
    frame = {"x": box["x"] - 6, "y": box["y"] - 6, "width": box["width"] + 12, "height": box["height"] + 12}
    return page.screenshot(clip=frame, animations="disabled")
