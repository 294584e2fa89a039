r"""Which pages differ between two built sites, as Markdown for a pull request's summary.

    python tools/changed_pages.py OLD NEW

OLD and NEW are folders of HTML. Compared is what a reader gets of each page: the words of its article, line by line,
and its pictures with all frames of the sliders. Menus, styles and addresses of buttons are left out.
"""

import argparse
import difflib
import hashlib
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

BLOCKS = set("p li h1 h2 h3 h4 h5 h6 pre tr dt dd figcaption summary div section table ul ol".split())
SHOWN = 30  # changed lines of a page in its folded part
GENERATED = {"genindex.html", "search.html"}


class Content(NamedTuple):
    r"""What a page says, line by line, and a hash of each of its pictures."""

    lines: list[str]
    pictures: list[str]


class _Article(HTMLParser):
    def __init__(self):
        super().__init__()
        self.lines, self.pictures = [""], []
        self.inside = self.drawing = 0
        self.drawn = ""

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "article" or self.inside:
            self.inside += tag == "article"
        if not self.inside:
            return
        if tag in BLOCKS:
            self.lines.append("")
        if tag == "img":
            self.pictures.append(attrs.get("src") or "")
        if tag == "script" and "lc-frames" in (attrs.get("class") or ""):
            self.drawing, self.drawn = 1, ""
        elif tag == "svg" or self.drawing:
            self.drawing += tag == "svg"
            self.drawn += self.get_starttag_text()

    def handle_startendtag(self, tag, attrs):
        if self.drawing:
            self.drawn += self.get_starttag_text()

    def handle_endtag(self, tag):
        if tag == "article":
            self.inside -= 1
        if tag in ("svg", "script") and self.drawing:
            self.drawing -= 1
            if not self.drawing:
                self.pictures.append(hashlib.sha256(self.drawn.encode()).hexdigest())
        elif tag in BLOCKS:
            self.lines.append("")

    def handle_data(self, data):
        if self.drawing:
            self.drawn += data
        elif self.inside:
            self.lines[-1] += data


def content(path):
    r"""The :class:`Content` of the page at ``path``."""
    article = _Article()
    article.feed(Path(path).read_text(encoding="utf-8"))
    article.close()
    lines = [" ".join(line.split()) for block in article.lines for line in block.split("\n")]
    return Content([line for line in lines if line], article.pictures)


def pages(site):
    r"""The pages of a site that somebody wrote, as paths below it; ValueError if there are none."""
    found = {path.relative_to(site).as_posix() for path in Path(site).rglob("*.html")}
    found = {page for page in found if page not in GENERATED and not page.startswith("_")}
    if not found:
        raise ValueError(f"{site} holds no pages; give a folder of HTML, such as _build/html")
    return found


def difference(old, new):
    r"""(words about what differs between two :class:`Content`, lines of a diff); ("", []) if nothing does."""
    diff = [
        line
        for line in difflib.unified_diff(old.lines, new.lines, n=0, lineterm="")
        if line[:2] not in ("@@", "--", "++")
    ]
    added, removed = sum(line[0] == "+" for line in diff), sum(line[0] == "-" for line in diff)
    said = [f"{added} lines new, {removed} lines gone"] if diff else []
    if old.pictures != new.pictures:
        both = zip(old.pictures, new.pictures, strict=False)
        count = sum(a != b for a, b in both) + abs(len(old.pictures) - len(new.pictures))
        said.append(f"{count} of {max(len(old.pictures), len(new.pictures))} pictures differ")
    return "; ".join(said), diff


def report(old, new):
    r"""Markdown that lists the pages of the sites ``old`` and ``new`` that differ."""
    before, after = pages(old), pages(new)
    rows, details, same = [], [], 0
    for page in sorted(before | after):
        if page not in before or page not in after:
            rows.append(f"| `{page}` | {'new page' if page in after else 'page gone'} |")
            continue
        said, diff = difference(content(Path(old) / page), content(Path(new) / page))
        same += not said
        if said:
            rows.append(f"| `{page}` | {said} |")
        if diff:
            shown = [line.replace("```", "'''")[:300] for line in diff[:SHOWN]]
            more = [f"... and {len(diff) - SHOWN} more lines"] if len(diff) > SHOWN else []
            body = "\n".join(["```diff", *shown, *more, "```"])
            details.append(f"<details><summary>{page}</summary>\n\n{body}\n\n</details>")
    if not rows:
        return f"No page changed ({same} compared).\n"
    table = "\n".join(["| Page | Change |", "|---|---|", *rows])
    return f"{len(rows)} of {len(rows) + same} pages changed.\n\n{table}\n\n" + "\n".join(details) + "\n"


def main(arguments=None):
    r"""Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    options = parser.parse_args(arguments)
    try:
        print(report(options.old, options.new), end="")
    except ValueError as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
