r"""The Sphinx extension of the course: what the book's pages need beyond Jupyter Book's own settings.

It tells kernels that a book is being built, keys the notebook cache, adds our style and scripts and the directives
of the appendix, links first uses of terms, shows docstrings as they stand, makes warnings errors, points the launch
buttons to the published branch, says at the top of a page that a result came out differently, repairs what the theme
leaves inaccessible, writes the site map, and stops a build whose pages would ask another host for anything.
"""

import hashlib
import os
import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from .cache import book_environment, cache_key, cache_path
from .claim_box import MARK
from .directives import DIRECTIVES
from .docstrings import is_noise, readable
from .glossary_links import link_first_uses
from .pages import external_resources, repair
from .sheet import STATIC

PUBLISHED = "published"  # the branch that tools/set_repository.py and the publishing workflow write


def _prepare(app: Sphinx, config) -> None:
    os.environ.update(book_environment())
    root = Path(app.confdir)
    config.nb_execution_cache_path = str(cache_path(root))
    config.lora_course_key = cache_key(root)  # rebuild="env": a changed package re-reads every page
    config.lora_course_look = _look()  # rebuild="html": a changed style or script writes every page again
    config.html_static_path.append(str(STATIC))
    config.ogp_site_url = config.html_baseurl  # link previews need whole addresses
    app.warningiserror = app.keep_going = True  # also for plain `jupyter-book build .`


def _look() -> str:
    digest = hashlib.sha256()
    for path in sorted(STATIC.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _launch_from_published(app, pagename, templatename, context, doctree) -> None:
    branch = app.config.html_theme_options.get("repository_branch", "main")
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("url"):
                button["url"] = launched_from(button["url"], branch)


def launched_from(url: str, branch: str) -> str:
    r"""The address of a launch button (Colab, Binder) with its branch changed from `branch` to `PUBLISHED`.

    Addresses that launch nothing, such as that of the edit button, come back unchanged.
    """
    if url.startswith("https://colab.research.google.com/github/"):
        return url.replace(f"/blob/{branch}/", f"/blob/{PUBLISHED}/", 1)
    if "/v2/gh/" in url:
        return url.replace(f"/{branch}?urlpath=", f"/{PUBLISHED}?urlpath=", 1)
    return url


_DIFFERS = (
    '<aside class="lc-differs" role="note"><p><strong>On this machine something came out differently.</strong> '
    "The boxes below that look like this one say what. Text and verdicts speak of the published run.</p></aside>"
)


def _say_what_differs(app, pagename, templatename, context, doctree) -> None:
    body = context.get("body") or ""
    if MARK in body:
        context["body"] = re.sub(r"(</h1>)", lambda end: end[1] + _DIFFERS, body, count=1)


def _docstring_as_it_stands(app, what, name, obj, options, lines) -> None:
    # ours are plain text with formulas, in which reStructuredText would see marks of its own
    if what != "module" and lines:
        lines[:] = [".. code-block:: text", "", *(f"   {line}" for line in readable(lines)), ""]
    elif what == "module":
        lines.clear()


def _without_noise(app, what, name, obj, skip, options):
    return True if is_noise(getattr(obj, "__doc__", None)) else None


def _finish(app: Sphinx, exception) -> None:
    if exception or app.builder.format != "html":
        return
    problems = []
    for page in sorted(Path(app.outdir).rglob("*.html")):
        if "_static" in page.parts:
            continue
        text = page.read_text("utf8")
        repaired = repair(text)
        if repaired != text:
            page.write_text(repaired, "utf8")
        problems += [f"{page.relative_to(app.outdir)}: {url}" for url in external_resources(repaired)]
    # all pages, not only those that this build wrote anew
    pages = sorted(app.env.found_docs)
    addresses = "".join(f"<url><loc>{app.config.html_baseurl}{page}.html</loc></url>\n" for page in pages)
    sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{addresses}</urlset>\n'
    (Path(app.outdir) / "sitemap.xml").write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n{sitemap}', "utf8")
    if problems:
        raise ExtensionError("pages would load from other hosts:\n  " + "\n  ".join(problems))


def setup(app: Sphinx) -> dict:
    r"""Register the extension (called by Sphinx)."""
    app.add_config_value("lora_course_key", "", "env")
    app.add_config_value("lora_course_look", "", "html")
    app.connect("config-inited", _prepare)
    app.connect("html-page-context", _launch_from_published, priority=600)
    app.connect("html-page-context", _say_what_differs)
    app.connect("autodoc-process-docstring", _docstring_as_it_stands)
    app.connect("autodoc-skip-member", _without_noise)
    app.connect("doctree-resolved", link_first_uses)
    app.connect("build-finished", _finish)
    for name, directive in DIRECTIVES.items():
        app.add_directive(name, directive)
    for name in sorted(STATIC.glob("*.css")):
        app.add_css_file(name.name, priority=900)
    for name in sorted(STATIC.glob("*.js")):
        app.add_js_file(name.name, loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
