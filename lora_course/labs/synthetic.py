r"""Data whose truth is known, because we made it: random facts to memorize, and a linear teacher to recover.

n: number of samples;  d: outputs, k: inputs of the teacher;  W0, delta: (d, k);  x: (n, k), y: (n, d).
"""

from dataclasses import dataclass

import torch

from lora_course.labs._checks import at_least, generator, real


def random_facts(
    n: int, inputs: int = 64, classes: int = 16, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""`n` facts without any rule: x (n, `inputs`) standard normal, y (n,) one of `classes`, evenly and independently.

    Nothing helps to guess a label, so to know all of them is to store n * log2(`classes`) bits. Raises `TypeError`
    or `ValueError` if a number is no int or not positive (`classes`: at least 2).
    """
    n, inputs = at_least("n", n, 1), at_least("inputs", inputs, 1)
    classes, source = at_least("classes", classes, 2), generator(seed)
    x = torch.randn(n, inputs, generator=source, dtype=dtype)
    return x, torch.randint(classes, (n,), generator=source)


@dataclass(frozen=True)
class TeacherStudent:
    r"""Samples (x, y) of a linear teacher W0 + delta, of which the student knows W0; all in float64."""

    x: torch.Tensor
    y: torch.Tensor
    W0: torch.Tensor
    delta: torch.Tensor


def teacher_student(
    n: int, d: int, k: int, rank: int, noise: float, tail: float = 0.0, seed: int = 0
) -> TeacherStudent:
    r"""Linear regression y = (W0 + Δ) x + ε where the wanted change Δ has low rank, or nearly so.

    x is standard normal, so the scales are those of one output: W0 x has variance 1; Δ is a product of Gaussian
    factors of rank `rank` that adds variance 1, plus, if `tail` > 0, a dense Gaussian matrix that adds variance
    `tail`²; ε has standard deviation `noise` (variances in expectation over the draw of the teacher). The teacher
    depends on `seed` and the shapes, not on n, `noise` or the size of `tail`.

    Raises `TypeError` or `ValueError` if n, d or k is not a positive int, unless 1 <= rank <= min(d, k), or if
    `noise` or `tail` is negative.
    """
    n, d, k, rank = (at_least(name, value, 1) for name, value in {"n": n, "d": d, "k": k, "rank": rank}.items())
    if rank > min(d, k):
        raise ValueError(f"rank={rank!r} must be at most min(d, k) = {min(d, k)}")
    noise, tail, source = real("noise", noise, 0), real("tail", tail, 0), generator(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    W0 = normal(d, k) / k**0.5
    delta = normal(d, rank) @ normal(rank, k) / (rank * k) ** 0.5 + tail * normal(d, k) / k**0.5
    x = normal(n, k)
    return TeacherStudent(x, x @ (W0 + delta).T + noise * normal(n, d), W0, delta)
