r"""The course is whole: every sentence that was found in the source texts is taken up, every chapter has its parts."""

import re
from pathlib import Path

import pytest

from lora_course.book.claims import load_claims
from tests.test_notebooks import NOTEBOOKS

ROOT = Path(__file__).resolve().parents[1]

# how many sentences were found in each of the five texts, numbered from 1
FOUND = {"S0": 28, "S1": 64, "S2": 32, "S3": 17, "S4": 20}
CHAPTERS = [notebook for notebook in NOTEBOOKS if notebook.file.startswith("chapters/")]


def test_every_sentence_is_taken_up():
    wanted = {f"{text}-{n}" for text, count in FOUND.items() for n in range(1, count + 1)}
    assert len(wanted) == 161
    assert sorted(wanted - set(load_claims())) == []


def test_each_chapter_of_the_outline_is_there():
    assert [int(re.search(r"/(\d+)_", c.file)[1]) for c in CHAPTERS] == list(range(1, 14))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.file)
def test_each_chapter_has_its_parts(chapter):
    text = "\n\n".join(source for _, _, source in chapter.cells("markdown"))
    title = text.splitlines()[0]
    assert title.startswith("# ") and title.endswith("?")
    for part in ("**You will be able to**", "**You need**", "**Time:**", "## Exercises", "## Quiz", "## Takeaway"):
        assert part in text, part
    assert "## Sources" in text and ":::{prf:theorem}" in text and ":::{exercise}" in text
    code = "\n".join(source for _, _, source in chapter.cells("code"))
    assert "explore(" in code and "figure(" in code and ".must_pass()" in code
