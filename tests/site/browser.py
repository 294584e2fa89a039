r"""A real browser on the built site: finding it, serving the pages, and writing down what a visit showed.

Legend: setting = (transport, theme, width), transport "http" or "file"; page = path below the site's folder.
"""

import functools
import os
import shutil
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3 (AA)
HEIGHTS = {1280: 900, 360: 740}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
FLAGS = (
    "--no-sandbox --disable-gpu --no-first-run --no-default-browser-check --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions "
    "--force-color-profile=srgb"
).split()
PROBE = Path(__file__).with_name("probe.js").read_text("utf8")


class Setting(NamedTuple):
    r"""How a page is visited."""

    transport: str = "http"
    theme: str = "light"
    width: int = 1280

    def __str__(self):
        return f"{self.transport}-{self.theme}-{self.width}"


# pages that stay open for all tests that move something: from a file, the most restricted way; by mouse, by finger
DESK = Setting("file", "dark", 1280)
HAND = Setting("file", "light", 360)
FINGER = {"has_touch": True, "is_mobile": True}
# what of axe's rules depends on theme or width
BY_LOOK = ("color-contrast", "link-in-text-block", "target-size", "scrollable-region-focusable", "css-orientation-lock")


def find_browser() -> str | None:
    r"""Path of a Chromium: the variable CHROMIUM, or the first of the usual names on the PATH, or None.

    Raises `ValueError` if CHROMIUM names no program.
    """
    if named := os.environ.get("CHROMIUM"):
        if not (found := shutil.which(named)):
            raise ValueError(f"CHROMIUM={named!r} is no program; give the path of a Chromium or Chrome")
        return found
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def pages(site: Path = SITE) -> list[str]:
    r"""Every page of the built site, as paths below it."""
    found = (p.relative_to(site) for p in sorted(site.rglob("*.html")))
    return [p.as_posix() for p in found if p.parts[0] not in {"_static", "_sources"}]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextmanager
def served(site: Path = SITE):
    r"""Serve the folder on a free port of this machine; gives the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


@contextmanager
def started():
    r"""Start the browser (Playwright's synchronous interface)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), headless=True, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    r"""An open page and what the browser said since it was opened."""

    page: object
    requests: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)

    def settle(self):
        r"""Wait until formulas stand and the page is painted."""
        self.page.evaluate(PROBE)
        self.probe("settled")

    def probe(self, name: str, *arguments):
        r"""Call a function of probe.js in the page."""
        return self.page.evaluate(f"(arguments) => lcProbe.{name}(...arguments)", list(arguments))


class Visitor:
    r"""Opens pages of the site in a browser; visits of one setting share a context (and so its cache)."""

    def __init__(self, browser, address: str, site: Path = SITE):
        self.browser, self.address, self.site = browser, address, site
        self._contexts = {}
        self._kept, self._closing = {}, ExitStack()

    def url(self, page: str, transport: str = "http") -> str:
        r"""Address of a page, by "http" or "file"."""
        return f"{self.address}/{page}" if transport == "http" else (self.site / page).as_uri()

    def _context(self, setting, options):
        size = {"width": setting.width, "height": HEIGHTS[setting.width]}
        return self.browser.new_context(viewport=size, color_scheme=setting.theme, **options)

    @contextmanager
    def open(self, page: str, setting: Setting = Setting(), *, first=False, settle=True, **options):  # noqa: B008
        r"""Open a page, as a `first` visit (nothing stored) or not; `options` go to the browser's context."""
        key = (setting.theme, setting.width, *sorted(options.items()))
        if first:
            context = self._context(setting, options)
        elif key in self._contexts:
            context = self._contexts[key]
        else:
            context = self._contexts[key] = self._context(setting, options)
        visit = Visit(context.new_page())
        on = visit.page.on
        on("request", lambda request: visit.requests.append(request.url))
        on("requestfailed", lambda request: visit.failed.append(f"{request.url}: {request.failure}"))
        on("response", lambda r: r.status >= 400 and visit.failed.append(f"{r.url}: {r.status}"))
        on("console", lambda m: m.type == "error" and visit.console.append(f"{m.text} ({m.location})"))
        on("pageerror", lambda error: visit.console.append(f"exception: {error}"))
        try:
            visit.page.goto(self.url(page, setting.transport), wait_until="load")
            if settle:
                visit.settle()
            yield visit
        finally:
            (context if first else visit.page).close()

    def kept(self, page: str, setting: Setting = DESK, use: str = "", **options) -> Visit:
        r"""The page as `open` gives it, open until another page is asked for: loading takes longer than most tests.

        Sliders, folded parts, focus and scrolling are at their start. `use` tells apart visits of one setting that
        change the page in other ways, as to the size of paper.
        """
        if self._kept and next(iter(self._kept))[0] != page:
            self.release()
        key = (page, setting, use, *sorted(options.items()))
        if key not in self._kept:
            self._kept[key] = self._closing.enter_context(self.open(page, setting, **options))
        visit = self._kept[key]
        visit.page.bring_to_front()  # a page behind another one is painted slowly
        visit.page.mouse.move(0, 0)
        visit.page.evaluate("window.lcProbe?.fresh()")
        return visit

    def by_hand(self, page: str) -> Visit:
        r"""The page as `kept` gives it, on a phone with a touch screen."""
        return self.kept(page, HAND, **FINGER)

    def release(self):
        r"""Close the pages that `kept` holds open."""
        self._kept.clear()
        self._closing.close()


@functools.cache
def axe_script() -> str:
    r"""Source of axe-core, from the PyPI package that brings it."""
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf8")


def findings(page, rules=(), impacts=("serious", "critical")) -> list[str]:
    r"""What axe-core finds on the open page, one line a node, by the given rules (default: all) and impacts.

    Thins the page out before (see repeats in probe.js): do not use it for anything afterwards.
    """
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe_script())
    page.evaluate("lcProbe.repeats()")
    # preload would fetch style sheets, which a browser refuses on file:// pages
    options = {"resultTypes": ["violations"], "preload": False} | ({"runOnly": list(rules)} if rules else {})
    report = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{rule['impact']} {rule['id']} at {node['target']}: {' '.join(node['failureSummary'].split())}\n"
        f"    {node['html'][:160]}"
        for rule in report["violations"]
        if rule["impact"] in impacts
        for node in rule["nodes"]
    ]
