r"""How fast sliders repaint, and what pages weigh (`python -m benchmarks bench_site`).

Legend: paint = input event to the second animation frame after it, in ms; weight = compressed by gzip, in KB
(1000 bytes), as a server would send it. Needs the built site and a Chromium, as tests/site does.
"""

import gzip
import re
import sys
from pathlib import Path
from statistics import median
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.site.browser import SITE, Visitor, find_browser, pages, served, started  # noqa: E402

PAINT_TARGET, WEIGHT_TARGET = 33.0, 1000.0  # ms; KB
COMPRESSED = {".woff", ".woff2", ".png", ".jpg", ".webp", ".gif"}  # what gzip cannot make smaller

PAINT = """async (root) => {
    const painted = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    const sliders = [...root.querySelectorAll("input[data-axis]")];
    root.scrollIntoView({block: "center", behavior: "instant"});
    const sizes = sliders.map(s => Number(s.max) + 1), times = [];
    const count = sizes.reduce((a, b) => a * b);
    for (let n = 0; n < count; n++) {
        let rest = n;
        for (let i = sliders.length - 1; i >= 0; i--) {
            sliders[i].value = rest % sizes[i];
            rest = Math.floor(rest / sizes[i]);
        }
        await painted();
        await new Promise(done => setTimeout(done, (7 * n) % 17));  // a hand moves at any moment of a frame
        const start = performance.now();
        sliders.at(-1).dispatchEvent(new Event("input", {bubbles: true}));
        const handled = performance.now() - start;
        await painted();
        times.push([performance.now() - start, handled]);
    }
    return times;
}"""


def paint_times(visitor, page: str) -> list[tuple[str, list, list]]:
    r"""(figure id, ms to paint, ms in our script) over the whole grid, for each slider figure of a page."""
    with visitor.open(page) as visit:
        found = []
        for root in visit.page.locator("figure.lc-explore").all():
            whole, script = zip(*root.evaluate(PAINT), strict=True)
            found.append((root.get_attribute("id"), list(whole), list(script)))
        return found


def weight(path: Path) -> int:
    r"""Bytes of a file as a server sends it."""
    data = path.read_bytes()
    return len(data) if path.suffix in COMPRESSED else len(gzip.compress(data, 6))


def page_weights(visitor, page: str) -> dict[str, float]:
    r"""KB of a page: itself with its own pictures, and with all that a first visit fetches."""
    with visitor.open(page, first=True) as visit:
        paths = {unquote(urlsplit(url).path).lstrip("/") for url in visit.requests if url.startswith("http")}
    own = {p for p in paths if p == page or p.startswith("_images/")}
    sizes = {p: weight(visitor.site / p) / 1000 for p in paths if (visitor.site / p).is_file()}
    return {"own": sum(sizes[p] for p in own & sizes.keys()), "all": sum(sizes.values())}


def run() -> list[tuple]:
    r"""Rows (what, value, target or None, unit), as `python -m benchmarks` prints them; empty without a browser.

    Raises `FileNotFoundError` if the site is not built.
    """
    if find_browser() is None:
        return []
    if not (SITE / "index.html").is_file():
        raise FileNotFoundError(f"{SITE} holds no site: run make book first")
    rows = []

    def row(what, value, unit, target=None):
        rows.append((what, value, target, unit))

    with served() as address, started() as browser:
        visitor = Visitor(browser, address)
        for page in pages():
            if not re.search(r'class="lc-explore', (SITE / page).read_text("utf8")):
                continue
            for name, whole, script in paint_times(visitor, page):
                grid = f"{page} {name}, {len(whole)} frames"
                row(f"slider to paint, median: {grid}", median(whole), "ms", PAINT_TARGET)
                row(f"slider to paint, slowest: {grid}", max(whole), "ms")
                row(f"of it in our script, median: {grid}", median(script), "ms")
        for page in pages():
            weights = page_weights(visitor, page)
            row(f"weight with pictures: {page}", weights["own"], "KB", WEIGHT_TARGET)
            row(f"weight with all assets, first visit: {page}", weights["all"], "KB")
    return rows
