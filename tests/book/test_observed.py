r"""Guards of sentences: silent where they hold; where not, an error in strict runs, a box elsewhere, live or built."""

import os

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from lora_course.book import claim, observed
from lora_course.book.claim_box import DID_NOT, MARK
from lora_course.book.claims import ClaimBroken
from lora_course.book.observed import DidNotHold, Differs
from lora_course.book.relation import Relation
from lora_course.book.sphinx_ext import _say_what_differs

BROKEN = {
    "memorized_rank_4": 0.1,
    "memorized_rank_1": 0.1,
    "best_lora": 0.88,
    "best_full": 0.68,
    "right_labels": 0.91,
}


@pytest.fixture(params=["1", ""])
def strict(request, monkeypatch):
    monkeypatch.setenv("LORA_COURSE_STRICT", request.param)
    return bool(request.param)


def test_what_holds_says_nothing(strict, capsys):
    assert observed("b is larger", "a < b", a=np.float32(1), b=2) is None
    assert capsys.readouterr() == ("", "")


def test_what_breaks_stops_a_strict_run_with_value_bound_and_sentence(monkeypatch):
    monkeypatch.setenv("LORA_COURSE_STRICT", "1")
    with pytest.raises(DidNotHold, match=r"b is larger; but 'a < b' does not hold: a = 3.00, b = 2"):
        observed("b is larger", "a < b", a=3.0, b=2)


def test_what_breaks_elsewhere_shows_a_box_and_goes_on(monkeypatch, capsys):
    monkeypatch.delenv("LORA_COURSE_STRICT", raising=False)
    observed("b is larger", "a < b", a=3.0, b=2)
    said = capsys.readouterr().out
    assert "On this machine it came out differently. The text says: b is larger." in said
    assert "a = 3.00, b = 2, instead of a < b. The text below speaks of the published run." in said


def test_the_box_is_found_by_the_build_and_escaped():
    html = Differs("a < b & so", Relation("a < b"), {"a": 3, "b": 2})._repr_html_()
    assert html.count(MARK) == 1 and "a &lt; b &amp; so" in html and "<code>a &lt; b</code>" in html


def test_a_broken_claim_stops_a_strict_run_and_says_so_elsewhere(strict):
    if strict:
        with pytest.raises(ClaimBroken, match="S0-16"):
            claim("S0-16").check(**BROKEN)
        return
    box = claim("S0-16").check(**BROKEN)
    assert DID_NOT in repr(box) and DID_NOT in box._repr_html_() and MARK in box._repr_html_()


@pytest.mark.parametrize(
    "says,relation,measured,error,message",
    [
        (" ", "a < 1", {"a": 0}, ValueError, "says must be the sentence that is guarded, got ' '"),
        ("x", "a <", {"a": 0}, ValueError, "relation is no expression: 'a <'"),
        ("x", "a < b", {"a": 0}, ValueError, "relation uses ['a', 'b'], but measured has ['a']"),
        ("x", "a < 1", {"a": 0, "c": 1}, ValueError, "relation uses ['a'], but measured has ['a', 'c']"),
        ("x", "a < 1", {"a": float("nan")}, ValueError, "a must be finite, got nan"),
        ("x", "a < 1", {"a": "0.5"}, TypeError, "a must be one real number, got str '0.5'"),
        ("x", "a < 1", {"a": [1, 2]}, TypeError, "a must be one real number, got list"),
        ("x", "1 / a < 1", {"a": 0}, ValueError, "'1 / a < 1' failed for {'a': 0}: division by zero"),
    ],
)
def test_bad_input_is_named(strict, says, relation, measured, error, message):
    with pytest.raises(error) as raised:
        observed(says, relation, **measured)
    assert message in str(raised.value)


def run(cells, strict):
    r"""The notebook of these cells, run in a real kernel as a reader or as publishing would."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    env = {k: v for k, v in os.environ.items() if k not in ("LORA_COURSE_STRICT", "LORA_COURSE_BOOK_BUILD")}
    client = NotebookClient(notebook, kernel_name="python3", timeout=60)
    client.create_kernel_manager()
    client.start_new_kernel(env=env | ({"LORA_COURSE_STRICT": "1"} if strict else {}))
    client.start_new_kernel_client()
    try:
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
    finally:
        client._cleanup_kernel()
    return notebook


CELLS = [
    "from lora_course.book import observed",
    "share = 0.5\nobserved('most are right', 'share > 0.7', share=share)\nprint('went on')",
    "print('and on')",
]


def test_live_notebook_shows_the_box_and_goes_on():
    outputs = [out for cell in run(CELLS, strict=False).cells for out in cell.outputs]
    [box] = [out.data for out in outputs if out.output_type == "display_data"]
    assert MARK in box["text/html"] and "share = 0.500, instead of share &gt; 0.7" in box["text/plain"].replace(
        ">", "&gt;"
    )
    assert [out.text for out in outputs if out.output_type == "stream"] == ["went on\n", "and on\n"]


def test_strict_notebook_stops_in_its_cell():
    with pytest.raises(CellExecutionError, match=r"DidNotHold.*: the text says: most are right"):
        run(CELLS, strict=True)


@pytest.mark.parametrize("body,times", [(f"<h1>T</h1><aside {MARK}>x</aside>", 2), ("<h1>T</h1><p>x</p>", 0)])
def test_a_page_says_at_its_top_that_something_differs(body, times):
    context = {"body": body}
    _say_what_differs(None, "chapters/x", "page.html", context, None)
    assert context["body"].count(MARK) == times
    assert not times or context["body"].startswith(f"<h1>T</h1><aside {MARK}")
