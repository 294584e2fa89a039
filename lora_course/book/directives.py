r"""Directives of the appendix, for pages that are written by the build: claims, their history, the environment."""

import platform
import re
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from .ledger_table import counts_html, history_html, ledger_html, replicated_html


def environment_html(requirements):
    r"""Table of Python, the system, and the installed versions of the packages that `requirements` pins."""
    rows = [("Python", platform.python_version()), ("system", f"{platform.system()}, {platform.machine()}")]
    for line in requirements.splitlines():
        if name := re.match(r"[\w.-]+(?===)", line):
            try:
                rows.append((name[0], version(name[0])))
            except PackageNotFoundError:
                rows.append((name[0], "not installed"))
    cells = "\n".join(f'<tr><th scope="row">{escape(n)}</th><td>{escape(v)}</td></tr>' for n, v in rows)
    return (
        f'<table class="table">\n<thead><tr><th>package</th><th>version</th></tr></thead><tbody>{cells}</tbody></table>'
    )


def _directive(html):
    class Written(SphinxDirective):
        r"""A directive whose content `html(root of the book)` writes."""

        def run(self):
            r"""Return one raw node (called by docutils)."""
            return [nodes.raw("", html(Path(self.env.srcdir)), format="html")]

    return Written


DIRECTIVES = {
    "claims-ledger": _directive(lambda root: ledger_html()),
    "claims-counts": _directive(lambda root: counts_html()),
    "claims-history": _directive(lambda root: history_html()),
    "claims-replicated": _directive(replicated_html),
    "build-environment": _directive(lambda root: environment_html((root / "requirements.txt").read_text("utf8"))),
}
