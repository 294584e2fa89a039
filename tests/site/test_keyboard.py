r"""By keyboard alone: the skip link, every slider and reset in reach, and always a visible focus."""

WHICH = "selector => [...document.querySelectorAll(selector)].indexOf(document.activeElement)"
TABS = 1500  # more stops than any page has


def focused(page):
    return page.evaluate("document.activeElement && (document.activeElement.outerHTML.slice(0, 200))")


def test_first_stop_skips_to_the_text(page_path, visitor):
    with visitor.open(page_path) as visit:
        page = visit.page
        page.keyboard.press("Tab")
        visit.probe("still")  # it slides in
        link = page.locator(":focus")
        assert "skip" in link.inner_text().lower(), focused(page)
        box = link.bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0 and box["height"] > 10
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('main') !== null"), focused(page)


def test_every_slider_and_reset_is_reached_by_tab_and_shows_it(explore_page, visitor):
    with visitor.open(explore_page) as visit:
        page = visit.page
        selector = ".lc-explore input[type=range], .lc-explore .lc-reset"
        wanted = page.locator(selector).count()
        plain = [bytes(clip(page, control)) for control in page.locator(selector).all()]
        again = [bytes(clip(page, control)) for control in page.locator(selector).all()]
        assert plain == again  # the picture is the same unless something changes
        reached = []
        page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
        for _ in range(TABS):
            page.keyboard.press("Tab")
            number = page.evaluate(WHICH, selector)
            if number >= 0 and number not in reached:
                reached.append(number)
                assert clip(page, page.locator(selector).nth(number)) != plain[number], focused(page)
            if len(reached) == wanted:
                break
        assert reached == list(range(wanted))


def clip(page, control):
    r"""Picture of a control with a margin, where an outline would be."""
    control.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = control.bounding_box()
    frame = {"x": box["x"] - 6, "y": box["y"] - 6, "width": box["width"] + 12, "height": box["height"] + 12}
    return page.screenshot(clip=frame, animations="disabled")
