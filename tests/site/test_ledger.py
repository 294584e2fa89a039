r"""The ledger in a browser: the filter hides what does not match, and without scripts the whole table shows."""

import re

import pytest

from lora_course.book.claims import load_claims
from lora_course.book.replications import replications
from tests.site.browser import SITE

PAGE = "appendix/ledger.html"


@pytest.fixture
def ledger(visitor):
    with visitor.open(PAGE) as visit:
        yield visit.page


def shown(page):
    return page.locator(".lc-ledger tbody tr:visible").count()


def test_all_claims_show_at_first(ledger):
    assert shown(ledger) == len(load_claims())


def test_choices_combine_and_the_button_undoes_them(ledger):
    wanted = [c for c in load_claims().values() if c.verdict == "false" and c.source == "001"]
    ledger.locator("[data-axis=verdict]").select_option("false")
    ledger.locator("[data-axis=source]").select_option("001")
    assert shown(ledger) == len(wanted) > 0
    assert ledger.locator(".lc-ledger-count").inner_text() == f"{len(wanted)} of {len(load_claims())} claims"
    ledger.get_by_role("button", name="Show all").click()
    ledger.wait_for_timeout(50)
    assert shown(ledger) == len(load_claims())


def test_order_puts_the_thinnest_first_and_back(ledger):
    ids = ledger.locator(".lc-ledger tbody th a")
    before = ids.all_inner_texts()
    ledger.locator("[data-order]").select_option("distance")
    distances = [float(row.get_attribute("data-distance")) for row in ledger.locator(".lc-ledger tbody tr").all()]
    assert distances == sorted(distances) and ids.all_inner_texts() != before
    ledger.get_by_role("button", name="Show all").click()
    ledger.wait_for_timeout(50)
    assert ids.all_inner_texts() == before


def test_replications_can_be_chosen_and_rows_say_how_many_held(ledger):
    ledger.locator("[data-axis=held]").select_option("held in every one")
    chosen = ledger.locator(".lc-ledger tbody tr:visible")
    wanted = [c for c in load_claims().values() if (r := replications(c)) and r.in_short() == "held in every one"]
    assert chosen.count() == len(wanted) > 0
    assert re.search(r"held in (\d+) of \1 replications", chosen.first.inner_text())


def test_search_looks_at_words_and_numbers(ledger):
    ledger.locator("[data-axis=words]").fill("S3-16")
    assert shown(ledger) == 1
    ledger.locator("[data-axis=words]").fill("claim piano keys")
    assert shown(ledger) == 1
    ledger.locator("[data-axis=words]").fill("r = 8")
    spaced = shown(ledger)
    ledger.locator("[data-axis=words]").fill("r=8")
    assert shown(ledger) == spaced > 0


def test_coming_back_from_a_box_keeps_the_search(ledger):
    ledger.locator("[data-axis=words]").fill("piano keys")
    ledger.locator(".lc-ledger tbody tr:visible a").first.click()
    ledger.wait_for_url("**/*#claim-S0-8")
    ledger.go_back()
    ledger.wait_for_load_state("load")
    words = ledger.locator("[data-axis=words]").input_value()
    assert (words, shown(ledger)) in {("piano keys", 1), ("", len(load_claims()))}


def test_every_claim_has_its_box_where_the_ledger_says():
    html = (SITE / PAGE).read_text("utf8")
    links = re.findall(r'href="\.\./([^"#]+)#(claim-[^"]+)"', html)
    assert len(links) == len(load_claims())
    for page, anchor in links:
        assert f'id="{anchor}"' in (SITE / page).read_text("utf8"), (page, anchor)


def test_without_scripts_the_table_shows_and_the_filter_does_not(browser, visitor):
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(f"{visitor.address}/{PAGE}")
        assert shown(page) == len(load_claims())
        assert not page.locator(".lc-ledger-filter").is_visible()
    finally:
        context.close()
