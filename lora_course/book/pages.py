r"""Work on finished HTML pages: which hosts a page would call, and repairs of the stock theme.

What a style sheet can mend stands in static/theme.css, what needs the laid-out page in static/theme.js.
"""

import re
from html.parser import HTMLParser

# attributes that make a browser fetch; `href` counts only on <link> (a plain link is followed by a click)
_FETCHING = ("src", "srcset", "poster", "data", "background", "xlink:href")
_FETCHING_LINKS = {"stylesheet", "preload", "prefetch", "preconnect", "icon", "modulepreload", "dns-prefetch"}
_FETCHING_LINKS |= {"apple-touch-icon", "manifest", "mask-icon"}
_OTHER_HOST = re.compile(r"(?:https?:)?//", re.I)
_IN_CSS = re.compile(r"(?:url\(\s*|@import\s+)['\"]?([^'\")\s;]+)", re.I)


class _Resources(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag, attrs):
        attrs = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        fetched = [attrs[name] for name in _FETCHING if name in attrs and name != "srcset"]
        fetched += [part.strip().split(" ")[0] for part in attrs.get("srcset", "").split(",")]
        if tag == "link" and set(attrs.get("rel", "").lower().split()) & _FETCHING_LINKS:
            fetched.append(attrs.get("href", ""))
        if tag in {"image", "use", "feimage"}:
            fetched.append(attrs.get("href", ""))
        for value in (attrs.get("style", ""), attrs.get("fill", ""), attrs.get("filter", "")):
            fetched += _IN_CSS.findall(value)
        self._add(fetched)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self._in_style = False

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        if self._in_style:
            self._add(_IN_CSS.findall(data))

    def _add(self, urls):
        self.found += [url.strip() for url in urls if _OTHER_HOST.match(url.strip())]


def external_resources(html: str) -> list[str]:
    r"""Addresses on other hosts that a browser would fetch when it opens the page `html`.

    Counts images, scripts, frames, media, style sheets and what inline styles name; a plain link does not.
    """
    parser = _Resources()
    parser.feed(html)
    parser.close()
    return parser.found


_NO_SCRIPT = """<noscript>
    <style>
      .pst-js-only, .sidebar-toggle, .btn-fullscreen-button, .btn-download-pdf-button {
        display: none !important;
      }
      div.math { display: block; overflow-x: auto; }
      span.math { overflow-wrap: anywhere; }
      .dropdown:focus-within > .dropdown-menu, .dropdown:hover > .dropdown-menu { display: block; }
    </style>
  </noscript>"""

_ICON = (
    '<link rel="icon" type="image/svg+xml" href="data:image/svg+xml,'
    "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%232158c8'/%3E"
    "%3Cpath d='M3 3h2v10H3zM7 3h6v2H7z' fill='white'/%3E%3C/svg%3E\">"
)

# (what the theme writes, what stands there afterwards, why)
_REPAIRS = [
    # Thebe is not used, names a third-party host, and its constant declared twice is an error in the console
    (r"<script>const THEBE_JS_URL.*?</script>\s*", ""),
    (r'<script[^>]*src="[^"]*sphinx-thebe\.js[^"]*"[^>]*></script>\s*', ""),
    (r'<link[^>]*href="[^"]*sphinx-thebe\.css[^"]*"[^>]*>\s*', ""),
    (r'<script type="text/x-thebe-config">.*?</script>\s*', ""),
    (r"<script>kernelName = .*?</script>\s*", ""),
    # icons come twice, as fonts and as half a megabyte of script: the fonts do, also without scripts
    (r'<script[^>]*src="[^"]*scripts/fontawesome\.js[^"]*"[^>]*></script>\s*', ""),
    (r'<link[^>]*href="[^"]*scripts/fontawesome\.js[^"]*"[^>]*>\s*', ""),
    # a slot for advertisements of another host
    (r'<div class="sidebar-primary-item">\s*<div id="ethical-ad-placement".*?</div>\s*</div>', ""),
    # colors hang on data-theme="light" or "dark"; "auto" leaves a page without scripts uncolored and makes a
    # dark page flash
    (r'(<html\b[^>]*) data-theme="auto"', r'\1 data-theme="light"'),
    (
        r'(dataset\.theme = localStorage\.getItem\("theme"\) \|\|) "auto";',
        r'\1 (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");',
    ),
    (
        r"<noscript>\s*<style>\s*\.pst-js-only \{ display: none !important; \}\s*</style>\s*</noscript>",
        _NO_SCRIPT,
    ),
    # every part of the page lies in a named landmark, every dialog has a name
    (r'(<div id="pst-primary-sidebar") class', r'\1 role="complementary" aria-label="Sidebar" class'),
    (r'(<dialog id="pst-search-dialog")>', r'\1 aria-label="Search">'),
    (r'(<dialog id="pst-primary-sidebar-modal")>', r'\1 aria-label="Sidebar">'),
    (r'(<dialog id="pst-secondary-sidebar-modal")>', r'\1 aria-label="On this page">'),
    # a summary is named by the words that it shows, not by "Toggle hidden content"
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),
    # a list holds list items
    (r'(<div class="citation" id="[^"]*") role="doc-biblioentry">', r'\1 role="listitem">'),
    # the same id on every theorem, exercise and solution of a page
    (r'(<section[^>]*) id="[a-z]+-content">', r"\1>"),
    (r'<div class="proof admonition" id="proof">', '<div class="proof admonition">'),
    # a tip has no title of its own; elsewhere its first words stand behind the fence, as a title would
    (r'(<p class="admonition-title">)Tip(</p>)\s*<p>(In one breath)</p>', r"\1\3\2"),
    # a page without an icon makes browsers ask for one, and log an error
    (r"\A(?!.*<link[^>]* rel=\"[^\"]*\bicon\b)(.*?)</head>", rf"\1{_ICON}\n  </head>"),
    # files that extensions copy late are known by a hash only to a build that finds them already there
    (r"(\b(?:mystnb\.[0-9a-f]+\.css|exercise\.css|proof\.css|tex-chtml\.js))\?v=[0-9a-f]+", r"\1"),
    # the corner of a data frame heads nothing
    (r"<th></th>", "<td></td>"),
]
_REPAIRS = [(re.compile(pattern, re.S), text) for pattern, text in _REPAIRS]


def repair(html: str) -> str:
    r"""The page `html` with the faults of the stock theme mended: accessibility, console errors, other hosts.

    Idempotent; a page of another origin passes unchanged.
    """
    for pattern, text in _REPAIRS:
        html = pattern.sub(text, html)
    return html
