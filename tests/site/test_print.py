r"""A page on paper: the article alone, in light colors, each slider as its picture with its values, nothing cut off."""

import json

import pytest

from tests.site.browser import Setting

GENERATED = ("genindex.html", "search.html")  # nothing but a title
PAPER = 680  # px at 96 dpi: what the margins of print.css leave of A4
FRAME = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer, .bd-footer, .headerlink"

# what reaches over the right edge of the paper, by its own text
CUT = """() => [...document.querySelectorAll(".bd-article *")]
    .filter(e => e.checkVisibility() && !e.closest("svg, mjx-assistive-mml, script, style"))
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(e => `${e.tagName}.${e.className}: ${(e.textContent || "").trim().slice(0, 80)}`)"""


@pytest.fixture
def printed(visitor):
    r"""`printed(page, **options)`: the open page as the printer gets it."""
    from contextlib import contextmanager

    @contextmanager
    def opened(page_path, theme="light", **options):
        scripts = options.get("java_script_enabled", True)
        with visitor.open(page_path, Setting("http", theme, 1280), first=True, settle=scripts, **options) as visit:
            visit.page.set_viewport_size({"width": PAPER, "height": 1000})
            visit.page.emulate_media(media="print")
            if scripts:
                visit.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
            yield visit.page

    return opened


def test_article_alone_is_printed_and_nothing_is_cut_off(page_path, printed):
    with printed(page_path) as page:
        if page_path not in GENERATED:
            assert len(page.locator(".bd-article").inner_text()) > 100
        assert [e.get_attribute("class") for e in page.locator(FRAME).all() if e.is_visible()] == []
        assert page.evaluate(CUT) == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_slider_prints_as_its_default_frame_with_its_values(scripts, explore_page, printed):
    with printed(explore_page, java_script_enabled=scripts) as page:
        for root in page.locator(".lc-explore").all():
            assert root.locator(".lc-stage svg").first.is_visible()
            assert root.locator(".lc-say").inner_text() == root.get_by_role("img").get_attribute("aria-label")
            for line in root.locator(".lc-axis").all():
                slider = line.locator("input")
                value = json.loads(slider.get_attribute("data-texts"))[int(slider.get_attribute("value"))]
                assert line.locator("label").inner_text() == slider.get_attribute("data-label")
                assert line.locator("output").inner_text() == value and line.is_visible()
            assert not any(e.is_visible() for e in root.locator("input, button").all())


def test_dark_page_prints_light_and_is_dark_again(visitor):
    with visitor.open("index.html", Setting("http", "dark", 1280), first=True) as visit:
        theme = "document.documentElement.dataset.theme"
        assert visit.page.evaluate(theme) == "dark"
        visit.page.evaluate("window.lcSeen = []")
        visit.page.evaluate(f"window.addEventListener('beforeprint', () => lcSeen.push({theme}))")
        assert visit.page.pdf().startswith(b"%PDF")  # the browser really prints
        assert visit.page.evaluate("window.lcSeen") == ["light"]
        assert visit.page.evaluate(theme) == "dark"


def test_solutions_stay_off_the_paper_unless_unfolded(explore_page, printed):
    with printed(explore_page) as page:
        folded = page.locator("details.hide")
        if not folded.count():
            pytest.skip("no folded code on this page")
        assert not any(e.is_visible() for e in folded.all())
        folded.last.evaluate("e => e.open = true")
        assert folded.last.is_visible()
