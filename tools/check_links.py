r"""Whether the links of a built site to other hosts still lead somewhere.

    python tools/check_links.py SITE

Exits with 1 if one is broken: answered by 404 or 410, or the host does not exist. What cannot be told (the host
refuses robots, is slow or down) is listed and no failure. Links to the course's own repository are left out: they
lead to what is published only after this check.
"""

import argparse
import socket
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag

from notebook_rules import repository_of

GONE = {404, 410}
TIMEOUT = 20
ATTEMPTS = 2
HEADERS = {"User-Agent": "Mozilla/5.0 (link check of a course)", "Accept": "text/html,*/*"}


class _Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = set()

    def handle_starttag(self, tag, attrs):
        link = dict(attrs).get("href") or ""
        if tag == "a" and link.startswith(("http://", "https://")):
            self.found.add(urldefrag(link).url)


def links(site, repository):
    r"""Address on another host -> the pages of the folder ``site`` that link to it."""
    where = defaultdict(list)
    for page in sorted(Path(site).rglob("*.html")):
        parser = _Links()
        parser.feed(page.read_text(encoding="utf-8"))
        for link in parser.found:
            if f"/{repository}" not in link:
                where[link].append(page.relative_to(site).as_posix())
    return dict(where)


def answer(link):
    r"""("ok", "broken" or "unsure", what the host said)."""
    said = ""
    for attempt in range(ATTEMPTS):
        # many servers do not know HEAD: the second attempt is what a reader's browser does
        request = urllib.request.Request(link, headers=HEADERS, method="GET" if attempt else "HEAD")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return "ok", str(response.status)
        except urllib.error.HTTPError as error:
            said = str(error.code)
            if error.code in GONE and attempt:
                return "broken", said
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            said = str(reason)
            if isinstance(reason, socket.gaierror) and reason.errno == socket.EAI_NONAME and attempt:
                return "broken", said
    return "unsure", said


def main(arguments=None):
    r"""Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", metavar="SITE", type=Path)
    options = parser.parse_args(arguments)
    where = links(options.site, repository_of())
    if not where:
        parser.error(f"{options.site} holds no page with a link to another host; give a built site")
    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip(where, pool.map(answer, where), strict=True))
    for kind in ("unsure", "broken"):
        for link, (found, said) in sorted(answers.items()):
            if found == kind:
                print(f"{kind}: {link} ({said}), on {', '.join(where[link])}")
    broken = sum(found == "broken" for found, _ in answers.values())
    print(f"{len(answers)} links, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
