r"""First use of a term on a page becomes a link to the glossary, so that authors write plain words.

A transform of finished pages: it looks for the terms of the glossary directive in running text, the longest
first, and leaves titles, links, code, formulas and the pages that define or list terms alone. Words that also have
an everyday meaning count only where the words around them show the course's own.
"""

import re

from docutils import nodes

SKIPPED_PAGES = {"index"} | {f"appendix/{name}" for name in ("glossary", "notation", "ledger", "api", "bibliography")}
_SKIPPED = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.raw, nodes.caption)

# term: what stands before it and behind it where it has the glossary's meaning
_OWN_SENSE = {
    "factors": (r"(?<!under both )", r"(?! of (?:two|three|ten|\d))"),  # not: by factors of two
    "horizontal": ("", r"(?! or vertical)"),  # not: an edge
    "spread": (r"(?<=\bthe\s)", ""),  # not: is spread over all entries
}


def pattern(terms):
    r"""Regular expression that finds any of `terms` as whole words in any case, with or without a plural s."""
    longest_first = sorted(terms, key=lambda term: (-len(term), term))
    words = "|".join(_with_its_sense(term) for term in longest_first)
    return re.compile(rf"(?<![\w-])(?:{words})s?(?![\w-])", re.IGNORECASE)


def _with_its_sense(term):
    before, behind = _OWN_SENSE.get(term.lower(), ("", ""))
    return before + re.escape(term).replace(r"\ ", r"\s+") + behind


def _term(found, terms):
    words = " ".join(found.lower().split())
    return words if words in terms else words.removesuffix("s")


def first_uses(texts, terms):
    r"""[(number of the text, start, end, term)]: where each of `terms` (lower case) first occurs in `texts`."""
    seen, uses, search = set(), [], pattern(terms)
    for number, text in enumerate(texts):
        for found in search.finditer(text):
            term = _term(found[0], terms)
            if term not in seen:
                seen.add(term)
                uses.append((number, found.start(), found.end(), term))
    return uses


def link_first_uses(app, doctree, docname):
    r"""Change `doctree` in place: link the first use of each glossary term (for Sphinx's doctree-resolved)."""
    entries = app.env.get_domain("std").objects.items()
    places = {name.lower(): place for (kind, name), place in entries if kind == "term"}
    if docname in SKIPPED_PAGES or not places or app.builder.format != "html":
        return
    running = [t for t in doctree.findall(nodes.Text) if linkable(t)]
    seen, pieces = set(), {}
    for number, start, end, term in first_uses([t.astext() for t in running], places):
        # two words for one entry: one link is enough
        if places[term] not in seen:
            seen.add(places[term])
            pieces.setdefault(number, []).append((start, end, places[term]))
    for number, found in pieces.items():
        text, at, new = running[number].astext(), 0, []
        for start, end, (page, anchor) in found:
            uri = f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
            new += [nodes.Text(text[at:start])] if start > at else []
            new.append(nodes.reference("", text[start:end], refuri=uri, internal=True, classes=["lc-term"]))
            at = end
        new += [nodes.Text(text[at:])] if at < len(text) else []
        running[number].parent.replace(running[number], new)


def linkable(text):
    r"""Whether the text node `text` is running text: in a paragraph, in no link, title, formula or code."""
    if _in_raw_link(text):
        return False
    node, in_paragraph = text, False
    while (node := node.parent) is not None:
        if isinstance(node, _SKIPPED):
            return False
        in_paragraph |= isinstance(node, nodes.paragraph)
    return in_paragraph


def _in_raw_link(text):
    # between the <a ...> and the </a> of a link that its author wrote in HTML
    opened = False
    for sibling in text.parent.children:
        if sibling is text:
            break
        for mark in re.findall(r"<(/?)a\b", sibling.astext()) if isinstance(sibling, nodes.raw) else ():
            opened = not mark
    return opened
