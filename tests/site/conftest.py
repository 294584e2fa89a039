r"""Fixtures of the browser tests, which read _build/html (`make book` first) with this machine's Chromium."""

import functools
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # `pytest` alone, unlike `python -m pytest`, leaves the root out
    sys.path.insert(0, str(ROOT))

from tests.site.browser import (  # noqa: E402
    BY_LOOK,
    HAND,
    LEAST_CONTRAST,
    SITE,
    Setting,
    Visitor,
    find_browser,
    findings,
    pages,
    served,
    started,
)
from tests.site.notebooks import drawn_by  # noqa: E402

BUILT = (SITE / "index.html").is_file()
HOW_TO_GET_ONE = (
    "no browser found, so the built site was not tested. Debian: apt-get install chromium; elsewhere install "
    "Chromium or Chrome, or set CHROMIUM to its path"
)


def explore_pages() -> list[str]:
    r"""Pages that hold a slider figure."""
    return [p for p in (pages() if BUILT else []) if 'class="lc-explore' in (SITE / p).read_text("utf8")]


def pytest_generate_tests(metafunc):
    if "page_path" in metafunc.fixturenames:
        metafunc.parametrize("page_path", pages() if BUILT else ["(no site)"])
    if "explore_page" in metafunc.fixturenames:
        metafunc.parametrize("explore_page", explore_pages() if BUILT else ["(no site)"])


@pytest.hookimpl(tryfirst=True)  # xdist looks for the marks in this hook, too
def pytest_collection_modifyitems(items):
    r"""Tests of a page stand together, so that a worker opens it once (with --dist loadgroup, one worker has all)."""

    def page(item):
        found = getattr(item, "callspec", None)
        return (found and (found.params.get("page_path") or found.params.get("explore_page"))) or ""

    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.site)
            if page(item):
                item.add_marker(pytest.mark.xdist_group(page(item)))
    items.sort(key=lambda item: page(item) if here in item.path.parents else "")


@pytest.fixture(scope="session")
def browser():
    if find_browser() is None:
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(HOW_TO_GET_ONE, pytrace=False)
        pytest.skip(HOW_TO_GET_ONE)
    with started() as browser:
        yield browser


@pytest.fixture(scope="session")
def site():
    if not BUILT:
        pytest.fail(f"{SITE} holds no site: run make book first", pytrace=False)
    return SITE


@pytest.fixture(scope="session")
def visitor(browser, site):
    with served(site) as address:
        visitor = Visitor(browser, address, site)
        yield visitor
        visitor.release()


@pytest.fixture(scope="session")
def explores(site):
    r"""`explores(page)`: what the sliders of the page's notebook drew live, by id."""
    return functools.cache(lambda page: drawn_by((ROOT / page).with_suffix(".ipynb")))


@pytest.fixture(scope="session")
def measured(visitor):
    r"""`measured(page, setting)`: what one visit showed (on a desktop: a first one), shared by the tests."""
    done = {}

    def of(page, setting=Setting()):  # noqa: B008
        if (page, setting) not in done:
            if setting.transport == "file":
                visit = visitor.by_hand(page) if setting == HAND else visitor.kept(page, setting)
                done[page, setting] = plain(visit)
            else:
                with visitor.open(page, setting, first=setting.width == 1280) as visit:
                    done[page, setting] = plain(visit) | looks(visit, () if setting == Setting() else BY_LOOK)
        return done[page, setting]

    return of


def plain(visit) -> dict:
    r"""What a visit shows without changing the page."""
    seen = {name: visit.probe(name) for name in ("formulas", "sideways", "wide", "wordless")}
    return seen | {name: getattr(visit, name) for name in ("requests", "failed", "console")}


def looks(visit, rules) -> dict:
    r"""What only a changed page shows: use it for nothing afterwards."""
    seen = {"skip": skipped(visit)} | contrast(visit)
    visit.probe("unfolded")
    return seen | {"unreachable": visit.probe("unreachable"), "axe": findings(visit.page, rules)}


def contrast(visit) -> dict:
    r"""Text of low contrast in figures, sliders at their start, first and last positions; and which pictures moved."""
    looked_at = visit.probe("contrast", ".lc-figure, .lc-explore", LEAST_CONTRAST)
    shown = []
    for end in ("Home", "End"):
        for slider in visit.page.locator(".lc-explore input[type=range]").all():
            slider.press(end)
        if visit.page.locator(".lc-explore").count():
            more = visit.probe("contrast", ".lc-explore", LEAST_CONTRAST)
            looked_at["low"] += [f"sliders at {end}: {line}" for line in more["low"]]
        shown.append(visit.page.locator(".lc-explore .lc-stage").evaluate_all("all => all.map(e => e.innerHTML)"))
    return {"contrast": looked_at, "moved": [first != last for first, last in zip(*shown, strict=True)]}


def skipped(visit) -> dict:
    r"""By keyboard from the top: the first stop, and whether Enter there leads into the text."""
    page = visit.page
    page.keyboard.press("Tab")
    visit.probe("still")  # it slides in
    stop = page.locator(":focus")
    seen = {"words": stop.inner_text().lower(), "box": stop.bounding_box()}
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    seen["focused"] = page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    seen["inside"] = page.evaluate("document.activeElement.closest('main') !== null")
    page.evaluate("document.activeElement.blur()")
    for tooltip in page.locator(".tooltip").all():  # of the button that had the focus: it fades, and axe would see it
        tooltip.wait_for(state="detached")
    return seen
