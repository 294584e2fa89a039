"""Each check of chapter 1 accepts right answers however written, and tells typical mistakes apart."""

from fractions import Fraction

import numpy as np
import pytest

from lora_course.book import checker
from lora_course.labs.exercises import funnel

D, K, R = 2048, 1024, 16
RIGHT = {
    "count": [49_152, np.int64(R * D + R * K), 49_152.0],
    "freedom": [48_896, R * (D + K) - R**2, np.float64(48_896)],
    "break_even": [682, np.int64(682), 682.0],
    "spacing": [2**-9, 1 / 512, Fraction(1, 512), 0.001953125],
    "delta": [
        lambda A, B, alpha: alpha / A.shape[0] * B @ A,
        lambda A, B, alpha: np.einsum("dr,rk->dk", B, A) * alpha / len(A),
        lambda A, B, alpha: (B * (alpha / B.shape[1])) @ A,
    ],
}
WRONG = {
    "count": [D * K, R * R, R * D, R * K, 2 * R * D, R * 8192, R * D * K, R * (D + K - R), 7],
    "freedom": [R * (D + K), R, R * R, D + K - R, R * (D + K + R), R * (D + K) - R, 7],
    "break_even": [1024, 512, 683, 700, 100],
    "spacing": [2**-10, 2**-8, 2**-7, 0.3 * 2**-8, 2**-12, 2**-25, 1.0],
    "delta": [
        lambda A, B, alpha: B @ A,
        lambda A, B, alpha: alpha * B @ A,
        lambda A, B, alpha: B @ A / len(A),
        lambda A, B, alpha: alpha / len(A) ** 0.5 * B @ A,
        lambda A, B, alpha: alpha / len(A) ** 2 * B @ A,
        lambda A, B, alpha: len(A) / alpha * B @ A,
        lambda A, B, alpha: alpha / A.shape[1] * B @ A,
        lambda A, B, alpha: (alpha / len(A) * B @ A).T,
        lambda A, B, alpha: A @ A.T,
        lambda A, B, alpha: np.ones((7, 5)),
    ],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_however_they_are_written(name):
    for answer in RIGHT[name]:
        assert checker(getattr(funnel, name))(answer).must_pass().ok


@pytest.mark.parametrize("name", WRONG)
def test_typical_mistakes_fail_each_with_its_own_message(name):
    check = checker(getattr(funnel, name))
    feedback = [check(answer) for answer in WRONG[name]]
    assert all(f.ok is False for f in feedback)
    assert len({f.message for f in feedback}) == len(feedback)


@pytest.mark.parametrize("name", RIGHT)
def test_nonsense_is_answered_not_raised(name):
    for answer in ["eight", None, [1, 2], lambda: 1]:
        feedback = checker(getattr(funnel, name))(answer)
        assert feedback.ok is False and feedback.message


@pytest.mark.parametrize("name", RIGHT)
def test_an_answer_not_tried_yet_is_no_mistake(name):
    assert checker(getattr(funnel, name))(...).ok is None
    assert checker(funnel.delta)(lambda A, B, alpha: ...).ok is None


def test_bfloat16_near_0_3_has_the_spacing_that_the_solution_says():
    torch = pytest.importorskip("torch")
    x = torch.tensor(0.3, dtype=torch.bfloat16)
    assert (torch.nextafter(x, torch.ones_like(x)) - x).item() == 2**-9
