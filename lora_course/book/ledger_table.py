r"""The pages about all claims together, as HTML: the ledger's table with its counts, and verdicts that changed.

Plain tables that read well without scripts; static/ledger.js adds the filter.
"""

import re
from collections import Counter
from html import escape
from pathlib import Path

import yaml

from .claim_box import ICONS
from .claims import SOURCES, VERDICTS, load_claims
from .replications import judged, origins, replications

HISTORY = Path(__file__).with_name("history.yml")
_REPLICATED = ("the same in every one", "held in every one", "not in every one", "none needed or recorded")
_HOW = {"cell": "a cell", "derivation": "a derivation", "source": "a source", "not testable": "not testable"}


def page_name(home):
    r"""How readers know a page: chapters/03_intrinsic_rank is Chapter 3, appendix/small_claims is Small claims."""
    folder, name = home.split("/")
    number = re.match(r"(\d+)_", name)
    return f"Chapter {int(number[1])}" if number else name.replace("_", " ").capitalize()


def _order(claim):
    source, number, letter = re.fullmatch(r"[A-Z]+(\d+)-(\d+)([a-z]?)", claim.id).groups()
    return int(source), int(number), letter


def _verdict(verdict):
    icon = f'<span class="lc-claim-icon" aria-hidden="true">{ICONS[verdict]}</span>'
    return f'<span class="lc-verdict lc-claim--{verdict.replace(" ", "-")}">{icon} {verdict}</span>'


def _table(name, head, rows, kind):
    cells = "".join(f'<th scope="col">{escape(h)}</th>' for h in head)
    body = "\n".join(rows)
    return (
        f'<div class="lc-table {kind}" role="region" aria-label="{escape(name)}" tabindex="0"><table class="table">'
        f"<thead><tr>{cells}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def counts_html(claims=None):
    r"""The source texts by name, and a table: how many claims of each (columns) have each verdict (rows)."""
    claims = list((claims or load_claims()).values())
    count = Counter((c.source, c.verdict) for c in claims) + Counter(("all", c.verdict) for c in claims)
    columns, rows = [*SOURCES, "all"], []
    for verdict in [*VERDICTS, "all"]:
        name = verdict if verdict == "all" else _verdict(verdict)
        numbers = [sum(n for (s, v), n in count.items() if s == source and verdict in (v, "all")) for source in columns]
        rows.append(f'<tr><th scope="row">{name}</th>' + "".join(f"<td>{n or ''}</td>" for n in numbers) + "</tr>")
    texts = "".join(f"<li><strong>{source}</strong> {escape(title)}</li>" for source, title in SOURCES.items())
    table = _table("Claims by verdict and source text", ["verdict", *columns], rows, "lc-counts")
    return f'<ul class="lc-sources">{texts}</ul>{table}'


def ledger_html(claims=None, up="../"):
    r"""The filter (shown by its script) and the table of all claims, each linked to its box.

    `up` leads from the page of the table to the root of the site.
    """
    claims = sorted((claims or load_claims()).values(), key=_order)
    rows = []
    for c in claims:
        link = f'<a href="{up}{c.home}.html#claim-{c.id}">{c.id}</a>'
        found = replications(c)
        held = f"<small>held in {found.count()[0]} of {found.count()[1]} replications</small>" if found else ""
        kind = found.in_short() if found else _REPLICATED[-1]
        rows.append(
            f'<tr data-verdict="{c.verdict}" data-source="{c.source}" data-home="{page_name(c.home)}" '
            f'data-how="{_HOW[c.settled]}" data-held="{kind}" data-distance="{found.distance if found else 1e9:.3g}">'
            f'<th scope="row">{link}<br>{_verdict(c.verdict)}'
            f"<small>{page_name(c.home)}, {_HOW[c.settled]}</small>{held}</th>"
            f'<td data-label="The text says">{escape(c.says)}</td>'
            f'<td data-label="What is true">{escape(c.condition)}</td></tr>'
        )
    homes = sorted({c.home for c in claims}, key=lambda h: (not h.startswith("chapters"), h))
    choices = {
        "verdict": VERDICTS,
        "source": SOURCES,
        "home": [page_name(h) for h in homes],
        "how": list(_HOW.values()),
        "held": _REPLICATED,
    }
    labels = {
        "verdict": "Verdict",
        "source": "Source text",
        "home": "Page",
        "how": "Settled by",
        "held": "Replications",
    }
    selects = "".join(
        f'<label>{labels[axis]} <select data-axis="{axis}"><option value="">all</option>'
        + "".join(f"<option>{escape(value)}</option>" for value in values)
        + "</select></label>"
        for axis, values in choices.items()
    )
    table = _table("All claims", ["claim", "the text says", "what is true"], rows, "lc-blocks")
    return (
        '<div class="lc-ledger"><form class="lc-ledger-filter" hidden>'
        f'{selects}<label>Order <select data-order><option value="">by number</option>'
        '<option value="distance">nearest to its bound first</option></select></label>'
        '<label>Search <input type="search" data-axis="words"></label>'
        f'<button type="reset">Show all</button></form><p class="lc-ledger-count" role="status">{len(claims)} claims'
        f"</p>{table}</div>"
    )


def load_history(path=HISTORY):
    r"""The changes of verdicts, oldest first: [{"id", "date", "was", "now", "why"}].

    Raises ValueError on a missing or unknown field, an unknown verdict, and where the last "now" of a claim is
    not its verdict in the ledger.
    """
    claims, entries, last = load_claims(), yaml.load(Path(path).read_text("utf8"), Loader=yaml.BaseLoader), {}
    for entry in entries:
        where = f"{Path(path).name}, claim {entry.get('id')}"
        if set(entry) != {"id", "date", "was", "now", "why"}:
            raise ValueError(f"{where}: the fields must be id, date, was, now, why, got {sorted(entry)}")
        for name in ("was", "now"):
            if entry[name] not in VERDICTS:
                raise ValueError(f"{where}: {name} must be one of {list(VERDICTS)}, got {entry[name]!r}")
        last[entry["id"]] = entry["now"]
    for id, now in last.items():
        if id not in claims or claims[id].verdict != now:
            raise ValueError(f"{Path(path).name}, claim {id}: now is {now!r}, which is not the ledger's verdict")
    return entries


def history_html(up="../"):
    r"""Table of the claims whose verdict changed, each linked to its box."""
    claims, rows = load_claims(), []
    for e in load_history():
        link = f'<a href="{up}{claims[e["id"]].home}.html#claim-{e["id"]}">{e["id"]}</a>'
        rows.append(
            f'<tr><th scope="row">{link}<br><time>{e["date"]}</time></th><td data-label="Was">{_verdict(e["was"])}</td>'
            f'<td data-label="Is">{_verdict(e["now"])}</td>'
            f'<td data-label="Why">{escape(" ".join(e["why"].split()))}</td></tr>'
        )
    return _table("Claims whose verdict changed", ["claim", "was", "is", "why"], rows, "lc-blocks")


def replicated_html(root, up="../"):
    r"""What was replicated, page by page, and the ten results that are nearest to their bounds.

    `root` is the folder of the notebooks, `up` leads from the page of the tables to the root of the site.
    """
    found, rows = judged(root, load_claims()), []
    for page, origin in ((p, origins().get(p.partition("/")[2])) for p in dict.fromkeys(j.page for j in found)):
        mine = [j.replications for j in found if j.page == page]
        runs = max(r.count()[1] for r in mine)
        held = sum(all(r.held.values()) for r in mine)
        rows.append(
            (
                page,
                f'<tr><th scope="row"><a href="{up}{page}.html">{page_name(page)}</a></th>'
                f'<td data-label="Replications">{runs}</td><td data-label="Checked results">{len(mine)}</td>'
                f'<td data-label="Held in every one">{held}</td>'
                f'<td data-label="Recorded">{origin["date"]}, commit {escape(origin["commit"])}, '
                f"{escape(origin['processor'])}</td>"
                f'<td data-label="Minutes">{origin["seconds"] / 60:.0f}</td></tr>',
            )
        )
    rows = [row for _, row in sorted(rows, key=lambda row: (not row[0].startswith("chapters"), row[0]))]
    head = ["page", "replications", "checked results", "held in every one", "recorded", "minutes"]
    pages = _table("Replications, page by page", head, rows, "lc-blocks")
    rows = []
    for j in found[:10]:
        place = f"#claim-{j.check}" if re.fullmatch(r"S\d-\w+", j.check) else ""
        (all_held, runs), (seeds_held, seeds) = j.replications.count(), j.replications.count("seeds")
        rows.append(
            f'<tr><th scope="row"><a href="{up}{j.page}.html{place}">{page_name(j.page)}, {escape(j.check)}</a></th>'
            f'<td data-label="What is said">{escape(j.says)}</td>'
            f'<td data-label="Checked"><code>{escape(j.relation)}</code></td>'
            f'<td data-label="Held">{all_held} of {runs}; other seeds {seeds_held} of {seeds}</td>'
            f'<td data-label="Spreads to the bound">{j.replications.distance:.1f}</td></tr>'
        )
    head = ["place", "what is said", "checked", "held", "spreads to the bound"]
    return (
        pages
        + "<h2>The ten that are nearest to their bounds</h2>"
        + _table("The thinnest ten", head, rows, "lc-blocks")
    )
