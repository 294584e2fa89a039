import numpy as np
import pytest
import torch

from lora_course.book.checks import Feedback, checker


def diagnose_scaling(answer):
    r"""alpha / r for alpha = 16, r = 8."""
    if answer == 16 / 8:
        return None
    if answer == 16:
        return "r is missing: divide <alpha> by r."
    return "compute alpha / r."


def diagnose_function(double):
    return None if double(3) == 6 else "it must double its argument."


check = checker(diagnose_scaling)


@pytest.mark.parametrize("answer", [2, 2.0, np.float32(2), torch.tensor(2.0)])
def test_right_answer_passes(answer):
    feedback = check(answer)
    assert feedback.ok is True
    assert feedback.must_pass() is feedback
    assert repr(feedback) == "[✓] Right."


def test_wrong_answers_are_told_what_is_probably_wrong():
    assert check(16).ok is check(3).ok is False
    assert check(16).message != check(3).message
    with pytest.raises(AssertionError, match="^Not yet: compute alpha / r.$"):
        check(3).must_pass()


@pytest.mark.parametrize("answer", [(...,), (), ((..., 3),), ([1, ...],), (3, ...), ({"r": ...},)])
def test_answer_still_open_is_not_tried_yet_and_does_not_raise(answer):
    feedback = check(*answer)
    assert feedback.ok is None
    assert "Not tried yet" in repr(feedback) and "Not tried yet" in feedback._repr_html_()
    with pytest.raises(AssertionError, match="Not tried yet"):
        feedback.must_pass()


def test_array_answers_are_tried():
    same = checker(lambda a: None if np.array_equal(a, np.eye(2)) else "it is the unit matrix.")
    assert same(np.eye(2)).ok is True and same(np.ones((2, 2))).ok is False


@pytest.mark.parametrize("answer,words", [("two", r"'two' \(str\)"), (np.ones((3, 4)), r"ndarray of shape \(3, 4\)")])
def test_exception_caused_by_the_answer_is_a_message(answer, words):
    feedback = checker(lambda a: None if bool(a + 1.0 > 2) else "no.")(answer)
    assert feedback.ok is False
    with pytest.raises(AssertionError, match=f"your answer is (a )?{words}, and that cannot be compared"):
        feedback.must_pass()


def test_function_that_raises_is_told_so():
    def halve(x):
        return x / 0

    feedback = checker(diagnose_function)(halve)
    assert feedback.ok is False
    assert (
        feedback.message == "running your answer (the function halve) stopped with ZeroDivisionError: division by zero"
    )
    assert checker(diagnose_function)(lambda x: x + x).ok is True


def test_check_has_the_name_and_words_of_its_diagnosis():
    assert check.__name__ == "check_scaling" and check.__doc__ == diagnose_scaling.__doc__


def test_several_answers_and_names_are_passed_on():
    both = checker(lambda d, k: None if (d, k) == (6, 5) else "other way round.")
    assert both(6, 5).ok and both(d=6, k=5).ok and both(5, 6).ok is False


def test_html_has_word_and_shape_and_is_escaped():
    html = check(16)._repr_html_()
    assert "lc-feedback--wrong" in html and "Not yet" in html and "✗" in html
    assert "&lt;alpha&gt;" in html


def test_broken_diagnosis_is_an_error_of_ours():
    with pytest.raises(TypeError, match="must return None or a sentence, got False"):
        checker(lambda a: False)(1)
    with pytest.raises(TypeError, match="diagnose must be a function of the answer, got 3"):
        checker(3)
    with pytest.raises(ValueError, match="ok must be True, False or None, got 2"):
        Feedback(2, "")
