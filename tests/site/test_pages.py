r"""Every built page, over http and from a file: what it asks for, what it logs, what a reader sees."""

import re
from collections import Counter

import pytest

from tests.site.browser import DESK, HAND, Setting

SETTINGS = [
    Setting("http", "light", 1280),
    Setting("http", "dark", 360),
    DESK,
    HAND,
]
settings = pytest.mark.parametrize("setting", SETTINGS, ids=str)


@settings
def test_page_asks_no_other_host_and_finds_all_that_it_asks_for(page_path, setting, measured, visitor):
    visit = measured(page_path, setting)
    own = (visitor.address + "/", visitor.site.as_uri() + "/", "data:", "blob:", "about:")
    assert [url for url in visit["requests"] if not url.startswith(own)] == []
    assert visit["failed"] == []


@settings
def test_console_is_silent(page_path, setting, measured):
    assert measured(page_path, setting)["console"] == []


@settings
def test_every_formula_is_set_and_no_source_of_one_is_left(page_path, setting, measured):
    formulas = measured(page_path, setting)["formulas"]
    assert formulas["raw"] == [] and formulas["broken"] == []
    assert formulas["set"] == formulas["wanted"]


@settings
def test_no_formula_is_cut_off(page_path, setting, measured):
    assert measured(page_path, setting)["formulas"]["cut"] == []


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.width == 1280], ids=str)
def test_desk_shows_formulas_and_printed_lines_to_their_end(page_path, setting, measured):
    assert measured(page_path, setting)["wide"] == []


@pytest.mark.parametrize("setting", [s for s in SETTINGS if s.width == 360], ids=str)
def test_phone_does_not_scroll_sideways(page_path, setting, measured):
    page, window, sticking_out = measured(page_path, setting)["sideways"]
    assert page <= window, sticking_out


def test_one_worker_has_all_tests_of_a_page(page_path, request):
    if getattr(request.config.option, "loadgroup", False):  # xdist's workers know it so
        assert request.node.nodeid.endswith(f"@{page_path}")  # else each worker would open every page


def test_every_picture_has_words(page_path, measured):
    assert measured(page_path)["wordless"] == []


def test_ids_are_unique(page_path, site):
    html = (site / page_path).read_text("utf8")
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
    twice = {name: n for name, n in Counter(re.findall(r"""<[^>]*\sid=["']([^"'>]+)""", html)).items() if n > 1}
    assert twice == {}
