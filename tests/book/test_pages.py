r"""Finished pages: which hosts they would call, and the repairs of the stock theme."""

import pytest

from lora_course.book.pages import external_resources, repair

FETCHED = [
    '<img src="https://a.org/x.png">',
    '<IMG SRC="//a.org/x.png">',
    '<img srcset="x.png 1x, https://a.org/x2.png 2x">',
    '<script src="http://a.org/x.js"></script>',
    '<link rel="stylesheet" href="https://a.org/x.css">',
    '<link rel="preconnect" href="https://a.org">',
    '<link rel="shortcut icon" href="https://a.org/i.ico">',
    '<iframe src="https://a.org"></iframe>',
    '<video poster="https://a.org/x.png"></video>',
    '<object data="https://a.org/x.svg"></object>',
    "<p style=\"background: url('https://a.org/x.png')\">",
    "<style>@import 'https://a.org/x.css';</style>",
    "<style>p { background: url(//a.org/x.png) }</style>",
    '<svg><image href="https://a.org/x.png"/></svg>',
    '<svg><use xlink:href="https://a.org/x.svg#a"/></svg>',
]
NOT_FETCHED = [
    '<a href="https://a.org">',
    '<img src="_images/x.png">',
    '<img src="data:image/png;base64,iVBORw0KGgo=">',
    '<link rel="canonical" href="https://a.org/page">',
    '<link rel="next" href="https://a.org/page">',
    '<script>const text = "<img src=https://a.org/x.png>";</script>',
    "<pre>url(https://a.org/x.png)</pre>",
    '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
]


@pytest.mark.parametrize("html", FETCHED)
def test_what_a_browser_fetches_from_another_host_is_found(html):
    assert [url.split("/")[2].strip("'") for url in external_resources(html)] == ["a.org"]


@pytest.mark.parametrize("html", NOT_FETCHED)
def test_what_stays_here_or_waits_for_a_click_is_not(html):
    assert external_resources(html) == []


def test_nothing_of_thebe_is_left():
    thebe = (
        '<link rel="stylesheet" type="text/css" href="_static/sphinx-thebe.css?v=4" />'
        '<script>const THEBE_JS_URL = "https://unpkg.com/thebe@0.8.2/lib/index.js"; const thebe_selector = 1</script>'
        '<script async="async" src="_static/sphinx-thebe.js?v=c"></script>'
        '<script type="text/x-thebe-config">{ requestKernel: true }</script>'
        "<script>kernelName = 'python3'</script>"
    )
    assert repair(f"<p>before</p>{thebe}<p>after</p>") == "<p>before</p><p>after</p>"


def test_theme_is_known_without_and_before_scripts():
    page = repair(
        '<html lang="en" data-content_root="../" data-theme="auto">'
        'document.documentElement.dataset.mode = localStorage.getItem("mode") || "auto";'
        'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
    )
    assert page.startswith('<html lang="en" data-content_root="../" data-theme="light">')
    assert 'getItem("mode") || "auto"' in page and "prefers-color-scheme: dark" in page


def test_summary_is_named_by_its_own_words():
    assert repair('<summary aria-label="Toggle hidden content">') == "<summary>"


def test_ids_that_sphinx_repeats_are_dropped_and_others_stay():
    html = '<section class="theorem-content" id="proof-content"></section><section id="exercise-content"></section>'
    assert repair(html) == '<section class="theorem-content"></section><section></section>'
    assert repair('<section id="content">') == '<section id="content">'


def test_icon_is_added_once_and_never_beside_another():
    page = repair("<html><head><title>x</title></head><body></body></html>")
    assert page.count('rel="icon"') == 1 and external_resources(page) == []
    own = '<html><head><link rel="icon" href="a.svg"></head></html>'
    assert repair(own) == own


def test_the_takeaway_is_named_by_its_own_words():
    title, words = '<p class="admonition-title">{}</p>', "<p>In one breath</p>"
    assert repair(f"{title.format('Tip')}\n{words}\n<p>x</p>") == f"{title.format('In one breath')}\n<p>x</p>"
    assert repair(title.format("Tip") + "<p>x</p>") == title.format("Tip") + "<p>x</p>"


@pytest.mark.parametrize("html", ["", "text", "<p>a < b</p>", "<html><head></head><body></body></html>"])
def test_repair_twice_is_repair_once(html):
    assert repair(repair(html)) == repair(html)


def test_repair_of_a_real_page_is_idempotent():
    page = (
        '<html data-theme="auto"><head></head><noscript>\n <style>\n .pst-js-only { display: none !important; }\n\n'
        ' </style>\n </noscript><dialog id="pst-search-dialog"></dialog><div id="pst-primary-sidebar" class="a">'
        '<div class="citation" id="id2" role="doc-biblioentry"><th></th></html>'
    )
    once = repair(page)
    assert repair(once) == once
    for mended in ('aria-label="Search"', 'role="complementary"', 'role="listitem"', "<td></td>", "focus-within"):
        assert mended in once


def test_addresses_do_not_depend_on_what_an_earlier_build_left():
    late = '<link href="../_static/{0}"/><script src="../_static/mathjax/tex-chtml.js{1}"></script>'
    late += '<link href="../_static/mystnb.8ecb98da25f57f5357bf6f572d296f466b2cfe2517ffebfabe82451661e28f02.css{1}"/>'
    assert repair(late.format("exercise.css?v=982b99e0", "?v=20daa33d")) == late.format("exercise.css", "")
    own = '<link href="../_static/theme.css?v=a1b2c3d4"/>'  # ours change, and must not come from a browser's store
    assert repair(own) == own
