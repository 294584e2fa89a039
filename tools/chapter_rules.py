r"""What the pages of the book may hold: claims settled in their homes, figures with words, nothing fetched.

The rules read code with ``ast`` and run nothing; see claim_rules.py for the values that claims get.
"""

import ast
import re
from pathlib import Path

from claim_rules import called, parse_cell, settling_call
from notebook_rules import Problem

_CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
_HOST = r"(?:https?:)?//"
_FOREIGN = {
    "an external image": rf"!\[[^\]]*\]\(\s*<?{_HOST}|<img\b[^>]*\bsrc\s*=\s*[\"']?{_HOST}"
    rf"|^\s*(?:```|:::+)\{{(?:image|figure)\}}\s+{_HOST}|^\[[^\]]+\]:\s*{_HOST}\S+\.(?:png|jpe?g|gif|svg|webp)",
    "a script": r"<script\b",
    "an embedded page or object": r"<(?:iframe|object|embed|video|audio|link)\b",
    "an external style": rf"@import|url\(\s*[\"']?{_HOST}",
}


def home_problems(claims, uses, root):
    r"""Claims without a home, or settled elsewhere, twice or nowhere; derivations without their test."""
    for id, entry in claims.items():
        home, where = f"{entry.home}.ipynb", [use for use in uses if use.id == id]
        if not (Path(root) / home).is_file():
            yield Problem("the ledger", "", f"claim {id}: its home {home} does not exist")
        for use in where:
            if use.file != home:
                yield Problem(use.file, use.cell, f"claim {id} has its home in {home}")
        count = sum(use.file == home for use in where)
        if count != 1:
            what = f"claim {id} must be settled here once, {settling_call(entry)}, not {count} times"
            yield Problem(home, "", what)
        if entry.settled == "derivation" and not test_exists(root, entry.test):
            yield Problem("the ledger", "", f"claim {id}: there is no test {entry.test}")


def test_exists(root, test):
    r"""Whether "file.py::name" or "file.py::Class::name" is defined under ``root``."""
    file, *names = test.split("::")
    path = Path(root) / file
    body = ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []
    for name in names:
        body = next((n.body for n in body if getattr(n, "name", None) == name), [])
    return bool(body)


test_exists.__test__ = False  # for pytest, which takes every test_ for its own


def word_problems(notebook):
    r"""figure() and explore() calls without a sentence of alt text."""
    for name, _, source in notebook.cells("code"):
        try:
            nodes = list(ast.walk(parse_cell(source)))
        except SyntaxError:
            continue  # claim_problems reports it
        for node in nodes:
            if not isinstance(node, ast.Call) or called(node) not in ("figure", "explore"):
                continue
            if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") != "book":
                continue  # plt.figure and the like
            alt = next((keyword.value for keyword in node.keywords if keyword.arg == "alt"), None)
            if alt is None or (isinstance(alt, ast.Constant) and not str(alt.value or "").strip()):
                yield Problem(
                    notebook.file,
                    name,
                    f"{called(node)}(...) needs alt=, a sentence for those who cannot see it",
                )


def page_problems(notebook, bibliography):
    r"""Citations that are not in ``bibliography`` (a set of keys); pictures, scripts, styles of others."""
    for name, _, source in notebook.cells("markdown"):
        for key in (key.strip() for keys in _CITATION.findall(source) for key in keys.split(",")):
            if key not in bibliography:
                yield Problem(notebook.file, name, f"references.bib has no entry {key!r}")
        for what, pattern in _FOREIGN.items():
            if re.search(pattern, source, re.IGNORECASE | re.MULTILINE):
                yield Problem(notebook.file, name, f"has {what}: pages must not fetch or run anything of others")
        for formula in re.findall(r"\$\$(.*?)\$\$", source, re.DOTALL):
            if r"\tag" in formula and r"\\" in formula:
                yield Problem(notebook.file, name, r"has \tag and a row break \\ in one formula: write \cr")


_SHAPE = re.compile(
    r"\$(\\?[A-Za-z]+)\$ (?:be (?:an? |any |any fixed |a real |the )?)?(?:of shape )?\$\(([a-zA-Z0-9+\-\\, ]+)\)\$"
)
_COUNT = re.compile(r"\$(\\?[A-Za-z]+)\$,? (?:is|be|for|counts|denotes) the number of ([a-z]+)")


def symbol_problems(notebook):
    r"""Letters that a chapter gives two shapes, or makes the number of two things."""
    found = {}
    for name, _, source in notebook.cells("markdown"):
        for pattern, what in ((_SHAPE, "the shape ({})"), (_COUNT, "the number of {}")):
            for letter, meaning in pattern.findall(source):
                found.setdefault((letter, what), {}).setdefault(meaning.replace(" ", "").replace("\\,", ""), name)
    for (letter, what), meanings in found.items():
        if len(meanings) > 1:
            both = " and in cell ".join(f"{cell!r} {what.format(meaning)}" for meaning, cell in meanings.items())
            yield Problem(notebook.file, "", f"${letter}$ has in cell {both}: one letter, one meaning")


def label_problems(notebooks):
    r"""Labels of theorems and exercises that come twice: they belong to the whole book."""
    seen = {}
    for notebook in notebooks:
        for name, _, source in notebook.cells("markdown"):
            for label in re.findall(r"^:label: (\S+)", source, re.MULTILINE):
                if label in seen:
                    yield Problem(notebook.file, name, f"the label {label} stands in {seen[label]} already")
                seen.setdefault(label, notebook.file)


def bibliography_keys(root):
    r"""The keys of references.bib; empty if there is no such file."""
    path = Path(root) / "references.bib"
    return set(re.findall(r"^@\w+\{\s*([^,\s]+)", path.read_text("utf-8"), re.MULTILINE)) if path.is_file() else set()


def source_problems(claims, bibliography):
    r"""Claims settled by a source that is not in the bibliography."""
    for id, entry in claims.items():
        if entry.settled == "source" and entry.citation not in bibliography:
            yield Problem("the ledger", "", f"claim {id}: references.bib has no entry {entry.citation!r}")
