r"""What every page has for being found: description, picture, canonical address; and the links to the glossary."""

import re

import yaml

from tests.site.browser import ROOT, SITE, pages

BASE = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))["html"]["baseurl"]


def written():
    return [p for p in pages() if p.startswith(("chapters/", "appendix/")) or p == "index.html"]


def written_last():
    r"""The page at the end of the table of contents."""
    return re.findall(r"- file: (\S+)", (ROOT / "_toc.yml").read_text("utf8"))[-1] + ".html"


def test_every_page_has_a_canonical_address_and_a_preview():
    for page in written():
        html = (SITE / page).read_text("utf8")
        assert f'<link rel="canonical" href="{BASE}{page}"' in html, page
        meta = dict(re.findall(r'<meta (?:property|name)="([^"]+)" content="([^"]*)"', html))
        assert meta["og:title"] and len(meta["og:description"]) > 40 and meta["description"], page
        assert meta["og:image"].startswith(BASE), page
        assert (SITE / meta["og:image"].removeprefix(BASE)).is_file(), page


def test_every_page_has_its_buttons_and_neighbors():
    buttons = {"download": "btn-download-source-button", "edit": "/edit/main/", "issue": "/issues/new"}
    for page in written():
        html = (SITE / page).read_text("utf8")
        assert [name for name, sign in buttons.items() if sign not in html] == [], page
        assert ("left-prev" in html) == (page != "index.html") and ("right-next" in html) == (page != written_last()), (
            page
        )
        if (ROOT / page).with_suffix(".ipynb").is_file():
            assert "colab.research.google.com" in html and "mybinder.org" in html, page


def test_the_sitemap_names_every_page():
    named = re.findall(r"<loc>([^<]*)</loc>", (SITE / "sitemap.xml").read_text("utf8"))
    assert {BASE + page for page in written()} <= set(named)


def test_first_uses_of_terms_lead_to_the_glossary():
    glossary = (SITE / "appendix/glossary.html").read_text("utf8")
    anchors = set(re.findall(r'<dt id="(term-[^"]+)"', glossary))
    linked = set()
    for page in written():
        html = (SITE / page).read_text("utf8")
        links = re.findall(r'<a class="lc-term[^"]*" href="[^"#]*glossary\.html#(term-[^"]+)"', html)
        assert len(links) == len(set(links)), page
        linked |= set(links)
    assert linked <= anchors and anchors - linked == set()
