r"""Every internal link and asset of every page leads to a file, and every fragment to an id in it."""

import functools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src", "poster", "action") and value:
                self.links.append(value)
            if name == "srcset" and value:
                self.links += [part.split()[0] for part in value.split(",")]
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)


@functools.cache
def read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text("utf8"))
    return page


def broken(link: str, page: Path) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None  # another host, mail, data: followed by a click only
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return f"{link}: there is no {target}"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in read(target).anchors:
        return f"{link}: {target.name} has no id {parts.fragment!r}"
    return None


def test_links_and_assets_exist(page_path, site):
    page = site / page_path
    assert [problem for link in read(page).links if (problem := broken(link, page))] == []


def test_what_style_sheets_name_exists(site):
    missing = []
    for sheet in site.rglob("*.css"):
        for url in re.findall(r"url\(\s*['\"]?([^'\")]+)", sheet.read_text("utf8")):
            parts = urlsplit(url)
            if not parts.scheme and parts.path and not (sheet.parent / unquote(parts.path)).is_file():
                missing.append(f"{sheet.relative_to(site)}: {url}")
            assert parts.scheme in ("", "data"), f"{sheet.relative_to(site)} loads {url}"
    assert missing == []
