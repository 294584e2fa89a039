r"""First uses of terms: whole words, in any case, the longest term first, each once."""

import pytest

pytest.importorskip("docutils")  # the environments of Colab and of the oldest versions build no pages

from docutils import nodes  # noqa: E402

from lora_course.book.glossary_links import first_uses, linkable  # noqa: E402

TERMS = {"rank", "stable rank", "full fine-tuning", "spread", "factors"}


def found(*texts):
    return [(n, texts[n][start:end], term) for n, start, end, term in first_uses(texts, TERMS)]


def test_only_the_first_use_counts():
    assert found("no", "a rank, a rank", "rank") == [(1, "rank", "rank")]


def test_the_longer_term_wins_and_the_shorter_still_gets_its_first_use():
    assert found("The stable rank is no rank.") == [(0, "stable rank", "stable rank"), (0, "rank", "rank")]


def test_any_case_any_white_space_and_a_plural():
    assert found("Full\nfine-tuning of Ranks") == [
        (0, "Full\nfine-tuning", "full fine-tuning"),
        (0, "Ranks", "rank"),
    ]


def test_parts_of_words_do_not_count():
    assert found("ranking, low-rank, widespread, ranks") == [(0, "ranks", "rank")]


def test_an_everyday_word_does_not_count():
    assert found("energy is spread evenly, the factor is two, in factors of three") == []
    assert found("more than the spread of both factors") == [(0, "spread", "spread"), (0, "factors", "factors")]


def test_a_link_that_is_written_in_html_stays_one_link():
    cell = nodes.paragraph("", "", nodes.raw("", '<a href="x.html">'), nodes.Text("low rank"), nodes.raw("", "</a>"))
    cell += nodes.Text(" of rank 1")
    assert [t.astext() for t in cell.findall(nodes.Text) if linkable(t)] == [" of rank 1"]
