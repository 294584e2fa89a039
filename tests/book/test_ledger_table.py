r"""The pages about all claims: each claim is there once, in order, linked to its box, and the counts add up."""

import re

import pytest

from lora_course.book import ledger_table
from lora_course.book.claims import VERDICTS, load_claims
from lora_course.book.ledger_table import counts_html, history_html, ledger_html, load_history, page_name

LEDGER = """
- {id: S1-10, says: "a < b", source: 001, verdict: "true", condition: y, home: chapters/02_two, settled: derivation,
   test: "tests/test_a.py::test_a"}
- {id: S1-2, says: x, source: 001, verdict: true if, condition: "& so", home: chapters/11_eleven, settled: not testable,
   reason: none}
- {id: S0-3, says: x, source: 000, verdict: "false", condition: y, home: appendix/small_claims, settled: source,
   citation: hu2022lora, place: Section 4, figure: "3"}
"""


@pytest.fixture
def claims(tmp_path):
    (tmp_path / "ledger.yml").write_text(LEDGER)
    return load_claims(tmp_path / "ledger.yml")


def test_pages_have_the_names_that_readers_know():
    assert page_name("chapters/03_intrinsic_rank") == "Chapter 3"
    assert page_name("chapters/12_fiber_bundles") == "Chapter 12"
    assert page_name("appendix/small_claims") == "Small claims"


def test_claims_stand_in_the_order_of_their_numbers_and_lead_to_their_boxes(claims):
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', ledger_html(claims))
    assert links == [
        ("../appendix/small_claims.html#claim-S0-3", "S0-3"),
        ("../chapters/11_eleven.html#claim-S1-2", "S1-2"),
        ("../chapters/02_two.html#claim-S1-10", "S1-10"),
    ]


def test_text_is_escaped(claims):
    html = ledger_html(claims)
    assert "a &lt; b" in html and "&amp; so" in html and "a < b" not in html


def test_rows_carry_what_the_filter_looks_at_and_the_filter_offers_it(claims):
    html = ledger_html(claims)
    rows = re.findall(
        r'<tr data-verdict="(.*?)" data-source="(.*?)" data-home="(.*?)" data-how="(.*?)" data-held="(.*?)"', html
    )
    unreplicated = "none needed or recorded"
    assert ("true if", "001", "Chapter 11", "not testable", unreplicated) in rows and len(rows) == 3
    for row in rows:
        for value in row:
            assert f"<option>{value}</option>" in html
    pages = re.findall(r"<option>(Chapter \d+|Small claims)</option>", html)
    assert pages == ["Chapter 2", "Chapter 11", "Small claims"]


def test_counts_add_up(claims):
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th>(.*?)</tr>", counts_html(claims))
    numbers = [[int(n or 0) for n in re.findall(r"<td>(\d*)</td>", cells)] for _, cells in rows]
    names = [re.sub(r"<[^>]+>", "", name).split(" ", 1)[-1] for name, _ in rows]
    assert names == [*VERDICTS, "all"]
    counts = dict(zip(names, numbers, strict=True))  # columns: 000 to 004, all
    assert counts["true"] == counts["true if"] == [0, 1, 0, 0, 0, 1] and counts["false"] == [1, 0, 0, 0, 0, 1]
    assert counts["misleading"] == [0] * 6 and counts["all"] == [1, 2, 0, 0, 0, 3]


def test_the_real_ledger_is_there_whole():
    html = ledger_html()
    assert all(html.count(f'#claim-{id}"') == 1 for id in load_claims())
    assert f'<p class="lc-ledger-count" role="status">{len(load_claims())} claims</p>' in html


def test_the_real_history_ends_at_the_verdicts_of_the_ledger():
    entries = load_history()
    assert entries and all(e["was"] != e["now"] for e in entries)
    assert all(f">{e['id']}</a>" in history_html() for e in entries)


def write(tmp_path, **changes):
    entry = {"id": "S0-1", "date": "2026-01-01", "was": "true", "now": "false", "why": "w"} | changes
    file = tmp_path / "history.yml"
    file.write_text("- {" + ", ".join(f'{k}: "{v}"' for k, v in entry.items() if v) + "}\n")
    return file


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"now": "true"}, "S0-1: now is 'true', which is not the ledger's verdict"),
        ({"was": "perhaps"}, "was must be one of"),
        ({"why": ""}, "the fields must be id, date, was, now, why"),
        ({"id": "S9-9"}, "S9-9: now is 'false'"),
    ],
)
def test_history_that_contradicts_the_ledger_is_refused(tmp_path, changes, message):
    assert load_claims()["S0-1"].verdict == "misleading"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_history(write(tmp_path, **changes))
    assert load_history(write(tmp_path, now="misleading"))
    assert ledger_table.HISTORY.is_file()
