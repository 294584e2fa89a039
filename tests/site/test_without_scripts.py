r"""With JavaScript off a page is readable: text, default frames, colors, nothing that waits for a script."""

import re

import pytest

from tests.site.browser import Setting

WAITING = ("loading", "please wait", "javascript is disabled", "error displaying widget", "slider(")


@pytest.mark.parametrize("setting", [Setting("http", "light", 1280), Setting("file", "light", 360)], ids=str)
def test_page_is_readable_without_scripts(page_path, setting, visitor):
    with visitor.open(page_path, setting, settle=False, java_script_enabled=False) as visit:
        page = visit.page
        main = page.locator("main")
        words = main.inner_text()
        assert page.locator("main h1:visible").count() >= 1
        assert len(words) > (500 if page.locator(".lc-explore").count() else 20)
        outputs = " ".join(page.locator(".cell_output").all_inner_texts()).lower()
        assert [w for w in WAITING if w in outputs] == []
        for explore in page.locator(".lc-explore").all():
            pictures = explore.locator(".lc-stage svg").all()
            assert pictures
            for picture in pictures:
                box = picture.bounding_box()
                assert picture.is_visible() and box["width"] > 200 and box["height"] > 100
            assert not explore.locator(".lc-controls").is_visible()
            assert len(explore.locator(".lc-say").inner_text()) > 15
            assert explore.locator("svg text").count() >= 1


def test_colors_do_not_wait_for_a_script(page_path, site):
    assert re.search(r'<html\b[^>]* data-theme="(light|dark)"', (site / page_path).read_text("utf8"))


def test_dark_page_is_dark_from_its_first_paint(visitor):
    with visitor.open("index.html", Setting("http", "dark", 1280)) as visit:
        visit.page.add_init_script(
            "const themes = window.lcThemes = [];"
            "new MutationObserver(() => themes.push(document.documentElement.dataset.theme))"
            ".observe(document, {attributes: true, subtree: true, attributeFilter: ['data-theme']})"
        )
        visit.page.reload()
        assert set(visit.page.evaluate("window.lcThemes")) == {"dark"}
