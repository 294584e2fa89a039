r"""What reads or writes pages: launch buttons, changed pages, links to other hosts, tables for teachers."""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import changed_pages  # noqa: E402
import check_links  # noqa: E402
import notebook_rules as rules  # noqa: E402
import teaching_tables  # noqa: E402

from lora_course.book.sphinx_ext import launched_from  # noqa: E402

# --- launch buttons


@pytest.mark.parametrize(
    "before,after",
    [
        (
            "https://colab.research.google.com/github/ada/main/blob/main/chapters/01_main.ipynb",
            "https://colab.research.google.com/github/ada/main/blob/published/chapters/01_main.ipynb",
        ),
        (
            "https://mybinder.org/v2/gh/ada/main/main?urlpath=lab/tree/chapters/01_main.ipynb",
            "https://mybinder.org/v2/gh/ada/main/published?urlpath=lab/tree/chapters/01_main.ipynb",
        ),
        ("https://github.com/ada/lora/edit/main/chapters/01_main.ipynb", None),
        ("_sources/chapters/01_main.ipynb", None),
    ],
)
def test_launch_buttons_lead_to_the_published_branch_and_others_stay(before, after):
    assert launched_from(before, "main") == (after or before)


# --- pages that changed

PAGE = """<html><head><title>x</title></head><body><nav>menu {menu}</nav>
<article class="bd-article"><h1>Rank</h1><p>A rank of <b>8</b> is
enough.</p><ul><li>one</li></ul>
<figure><svg viewBox="0 0 1 1"><g><path d="M0 0"/></g></svg>
<script type="application/json" class="lc-frames">{{"frames": ["<svg><path d='1'/><\\/svg>"]}}</script></figure>
<pre>1
2</pre></article><footer>now</footer></body></html>"""


@pytest.fixture
def sites(tmp_path):
    r"""`write(name, **pages)`: a site of that name; a page is given by its text."""

    def write(name, **pages):
        for page, text in pages.items():
            path = tmp_path / name / f"chapters/{page}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def test_content_of_a_page_is_its_article(sites):
    found = changed_pages.content(sites("a", one=PAGE) / "chapters/one.html")
    assert found.lines == ["Rank", "A rank of 8 is", "enough.", "one", "1", "2"]
    assert len(found.pictures) == 2


def test_same_article_under_another_menu_is_no_change(sites):
    old, new = sites("a", one=PAGE.format(menu=1)), sites("b", one=PAGE.format(menu=2))
    assert changed_pages.report(old, new) == "No page changed (1 compared).\n"


@pytest.mark.parametrize(
    "before,after,said",
    [
        ("of <b>8</b>", "of <b>9</b>", "1 lines new, 1 lines gone |"),
        ("<li>one</li>", "<li>one</li><li>two</li>", "1 lines new, 0 lines gone |"),
        ("2</pre>", "3</pre>", "1 lines new, 1 lines gone |"),
        ('<path d="M0 0"/>', '<path d="M0 1"/>', "| 1 of 2 pictures differ |"),
        ("d='1'", "d='2'", "| 1 of 2 pictures differ |"),
    ],
)
def test_changed_words_numbers_pictures_and_frames_are_found(sites, before, after, said):
    assert before in PAGE
    report = changed_pages.report(sites("a", one=PAGE, two=PAGE), sites("b", one=PAGE.replace(before, after), two=PAGE))
    assert report.startswith("1 of 2 pages changed.") and "`chapters/one.html`" in report and said in report
    assert "two.html" not in report


def test_new_and_lost_pages_are_named(sites):
    report = changed_pages.report(sites("a", one=PAGE, old=PAGE), sites("b", one=PAGE, new=PAGE))
    assert "| `chapters/new.html` | new page |" in report and "| `chapters/old.html` | page gone |" in report


def test_long_difference_is_cut_and_cannot_leave_its_block(sites):
    long = PAGE.replace("<li>one</li>", "<li>```</li>" + "".join(f"<li>line {n}</li>" for n in range(99)))
    report = changed_pages.report(sites("a", one=PAGE), sites("b", one=long))
    assert "100 lines new, 1 lines gone" in report and "... and 71 more lines" in report
    assert report.count("```") == 2


def test_folder_without_pages_is_an_error(sites, tmp_path, capsys):
    with pytest.raises(SystemExit):
        changed_pages.main([str(sites("a", one=PAGE)), str(tmp_path / "gone")])
    assert "holds no pages" in capsys.readouterr().err


# --- links to other hosts


@pytest.fixture
def host():
    r"""A server on this machine that answers with the status that the path names; /get/N does so to GET alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status = int(self.path.rsplit("/", 1)[1])
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/200")
            self.end_headers()

        def do_HEAD(self):
            if self.path.startswith("/get/"):
                self.send_response(404)
                self.end_headers()
            else:
                self.do_GET()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize(
    "path,found",
    [("200", "ok"), ("302", "ok"), ("get/200", "ok"), ("404", "broken"), ("410", "broken"), ("get/404", "broken")]
    + [("403", "unsure"), ("429", "unsure"), ("503", "unsure")],
)
def test_answer_of_a_host(host, path, found):
    assert check_links.answer(f"{host}/{path}")[0] == found


def test_host_that_does_not_exist_is_broken_and_one_that_is_down_is_unsure(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert check_links.answer(f"http://127.0.0.1:{port}/")[0] == "unsure"

    def unknown(*args, **kwargs):
        raise check_links.urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    monkeypatch.setattr(check_links.urllib.request, "urlopen", unknown)
    assert check_links.answer("http://nowhere.invalid/")[0] == "broken"


def test_links_are_collected_by_page_and_the_own_repository_is_left_out(sites):
    text = '<a href="https://a.org/x#y">1</a><a href="https://github.com/ada/lora/issues">2</a><a href="b.html">3</a>'
    found = check_links.links(sites("a", one=text, two='<a href="https://a.org/x">4</a>'), "ada/lora")
    assert found == {"https://a.org/x": ["chapters/one.html", "chapters/two.html"]}


def test_broken_link_fails_the_check_and_names_its_page(sites, host, capsys):
    good = f'<a href="{host}/200">1</a><a href="{host}/403">2</a>'
    assert check_links.main([str(sites("a", one=good))]) == 0
    assert f"unsure: {host}/403 (403), on chapters/one.html" in capsys.readouterr().out
    assert check_links.main([str(sites("b", one=good + f'<a href="{host}/404">3</a>'))]) == 1
    assert f"broken: {host}/404 (404), on chapters/one.html" in capsys.readouterr().out


# --- the tables for teachers


def test_tables_of_the_teaching_page_are_what_the_chapters_say(capsys):
    assert teaching_tables.main(["--check"]) == 0, capsys.readouterr().err


@pytest.fixture
def book(tmp_path):
    r"""A small book with one chapter and the teaching page; `write(body, code)` gives its root."""

    def write(exercise="(Easy, 3 minutes.) How?", code="explore(draw, alt=say, r=[1, 2], caption='C')", opening=None):
        opening = opening or "# What is r?\n\n**Time:** about 40 minutes; fast."
        texts = [opening, f":::{{exercise}} Count\n:label: ex\n\n{exercise}\n:::\n"]
        cells = [
            {"cell_type": "markdown", "id": f"text-{n}", "metadata": {}, "source": text} for n, text in enumerate(texts)
        ]
        cells.append({"cell_type": "code", "id": "fig", "metadata": {}, "source": code})
        (tmp_path / "chapters").mkdir(exist_ok=True)
        (tmp_path / "appendix").mkdir(exist_ok=True)
        rules.write_notebook(tmp_path / "chapters/01_rank.ipynb", {"cells": cells})
        names = ("times", "exercises", "sliders")
        comments = [f"<!-- {n}: written by tools/teaching_tables.py -->\n<!-- end of {n} -->\n" for n in names]
        (tmp_path / teaching_tables.PAGE).write_text("# T\n" + "".join(comments), encoding="utf-8")
        return tmp_path

    return write


def test_tables_name_times_exercises_and_sliders(book):
    root = book(
        code="explore(draw, alt=s, r=[1], caption='C')\n"
        "explore(draw, alt=s, n=[1], alpha=[2], labels={'n': 'N'}, caption='D')"
    )
    assert teaching_tables.main([], root) == 0
    page = (root / teaching_tables.PAGE).read_text("utf-8")
    assert '| 1. <a href="../chapters/01_rank.html">What is r?</a> | 40 min | 1 in 3 min | 2 |' in page
    assert "| 1 | Count (3 min) |  |  |" in page
    assert '<a href="../chapters/01_rank.html#explore-draw">r</a> | C |' in page
    assert '<a href="../chapters/01_rank.html#explore-draw-2">N, α</a> | D |' in page
    assert teaching_tables.main(["--check"], root) == 0
    assert teaching_tables.main([], root) == 0 and (root / teaching_tables.PAGE).read_text("utf-8") == page


def test_stale_table_is_found_and_not_written(book, capsys):
    root = book()
    assert teaching_tables.main([], root) == 0
    page = (root / teaching_tables.PAGE).read_text("utf-8")
    book("(Hard, 5 minutes.) How?")  # writes an empty page, too
    (root / teaching_tables.PAGE).write_text(page, encoding="utf-8")
    assert teaching_tables.main(["--check"], root) == 1
    assert "run python tools/teaching_tables.py" in capsys.readouterr().err
    assert (root / teaching_tables.PAGE).read_text("utf-8") == page


@pytest.mark.parametrize(
    "given,said",
    [
        ({"exercise": "How?"}, "cell 'text-1': an exercise must say"),
        ({"exercise": "(Brutal, 5 minutes.) How?"}, "cell 'text-1': an exercise must say"),
        ({"opening": "# What is r?"}, "chapters/01_rank.ipynb: the first cell must say"),
    ],
)
def test_chapter_without_times_is_named(book, capsys, given, said):
    assert teaching_tables.main([], book(**given)) == 1
    assert said in capsys.readouterr().err


def test_page_without_place_for_a_table_is_an_error(book, capsys):
    root = book()
    (root / teaching_tables.PAGE).write_text("# T\n")
    assert teaching_tables.main([], root) == 1
    assert "must hold once" in capsys.readouterr().err
