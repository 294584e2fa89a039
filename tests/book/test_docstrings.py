r"""What the page of the package makes of a docstring: whole sentences, items apart, no marks of other tools."""

from lora_course.book.docstrings import is_noise, readable

LONG = "word " * 20 + "end"  # 103 columns


def test_a_sentence_that_was_broken_for_its_length_is_one_line():
    assert readable([LONG, "of the sentence.", "Raises it."]) == [f"{LONG} of the sentence.", "Raises it."]


def test_short_lines_and_paragraphs_stay():
    assert readable(["One.", "Two.", "", "Three."]) == ["One.", "Two.", "", "Three."]


def test_arguments_stay_apart_and_keep_their_own_lines():
    lines = ["Args:", f"    a: {LONG}", "        and more", "        still.", "    b: short.", "", "Returns c."]
    assert readable(lines) == ["Args:", f"    a: {LONG} and more still.", "    b: short.", "", "Returns c."]


def test_marks_of_other_tools_go():
    assert readable(["As :func:`fit` does with ``x``."]) == ["As `fit` does with `x`."]


def test_what_python_wrote_is_noise():
    from lora_course.adapters import PlainFactors

    assert is_noise(PlainFactors.A.__doc__) and not is_noise(PlainFactors.__doc__) and not is_noise(None)
