r"""A page on paper: the article alone, in light colors, each slider as its picture with its values, nothing cut off."""

import json

import pytest

from tests.site.browser import Setting

GENERATED = ("genindex.html", "search.html")  # nothing but a title
PAPER = 680  # px at 96 dpi: what the margins of print.css leave of A4
FRAME = ".bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-footer, .bd-footer, .headerlink"

# what reaches over the right edge of the paper, by its own text
CUT = """() => [...document.querySelectorAll(".bd-article *")]
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .filter(e => e.checkVisibility() && !e.closest("svg, mjx-assistive-mml, script, style"))
    .map(e => `${e.tagName}.${e.className}: ${(e.textContent || "").trim().slice(0, 80)}`)"""

# of each slider figure: is its picture there, what do its sentence and its lines of values say, are controls left
ON_PAPER = """() => [...document.querySelectorAll(".lc-explore")].map((root) => ({
    picture: root.querySelector(".lc-stage svg").checkVisibility({visibilityProperty: true}),
    sentence: root.querySelector(".lc-say").innerText,
    label: root.querySelector(".lc-stage").getAttribute("aria-label"),
    axes: [...root.querySelectorAll(".lc-axis")].map((line) => ({
        label: line.querySelector("label").innerText,
        name: line.querySelector("input").dataset.label,
        output: line.querySelector("output").innerText,
        texts: line.querySelector("input").dataset.texts,
        start: line.querySelector("input").getAttribute("value"),
        shown: line.checkVisibility({visibilityProperty: true}),
    })),
    controls: [...root.querySelectorAll("input, button")].some((e) => e.checkVisibility({visibilityProperty: true})),
}))"""


@pytest.fixture
def printed(visitor):
    r"""`printed(page, scripts)`: the open page as the printer gets it."""

    def opened(page_path, scripts=True):
        options = {"settle": scripts, "java_script_enabled": scripts}
        page = visitor.kept(page_path, Setting(), use="print", **options).page
        page.set_viewport_size({"width": PAPER, "height": 1000})
        page.emulate_media(media="print")
        if scripts:
            page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        return page

    return opened


def test_article_alone_is_printed_and_nothing_is_cut_off(page_path, printed):
    page = printed(page_path)
    if page_path not in GENERATED:
        assert len(page.locator(".bd-article").inner_text()) > 100
    assert [e.get_attribute("class") for e in page.locator(FRAME).all() if e.is_visible()] == []
    assert page.evaluate(CUT) == []


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_slider_prints_as_its_default_frame_with_its_values(scripts, explore_page, printed):
    for figure in printed(explore_page, scripts).evaluate(ON_PAPER):
        assert figure["picture"] and figure["sentence"] == figure["label"]
        for axis in figure["axes"]:
            assert axis["label"] == axis["name"] and axis["shown"]
            assert axis["output"] == json.loads(axis["texts"])[int(axis["start"])]
        assert not figure["controls"]


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
    page = printed(explore_page)
    folded = page.locator("details.hide")
    if not folded.count():
        pytest.skip("no folded code on this page")
    assert not any(e.is_visible() for e in folded.all())
    folded.last.evaluate("e => e.open = true")
    assert folded.last.is_visible()
