"""Made data: facts without a rule, a teacher whose change has the rank and the scales that its docstring states."""

import pytest
import torch

from lora_course.labs import random_facts, teacher_student
from lora_course.theory import numerical_rank


def test_facts_are_normal_inputs_and_even_labels_without_a_rule():
    x, y = random_facts(20_000, inputs=5, classes=4, seed=3)
    assert x.shape == (20_000, 5) and y.shape == (20_000,) and x.dtype == torch.float32
    assert x.mean(0).abs().max() < 0.03 and (x.T.cov() - torch.eye(5)).abs().max() < 0.05
    assert (torch.bincount(y, minlength=4) / len(y) - 0.25).abs().max() < 0.02
    means = torch.stack([x[y == c].mean(0) for c in range(4)])
    assert means.abs().max() < 0.06  # no class lies anywhere: 4 standard deviations
    assert random_facts(3, dtype=torch.float64)[0].dtype == torch.float64 and random_facts(7)[0].shape == (7, 64)


def test_made_data_are_the_same_for_the_same_seed_and_touch_no_global_generator():
    before = torch.get_rng_state()
    for one, same, other in [
        [random_facts(9, seed=s) for s in (1, 1, 2)],
        [(t.x, t.y) for t in (teacher_student(9, 4, 3, 2, 0.1, 0.2, seed=s) for s in (1, 1, 2))],
    ]:
        assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1]) and not torch.equal(one[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("d, k, rank", [(12, 7, 3), (5, 9, 5), (6, 6, 1)])
def test_without_a_tail_the_change_has_exactly_the_rank_and_with_it_full_rank(d, k, rank, seed):
    low = teacher_student(10, d, k, rank, noise=0.5, seed=seed)
    assert low.delta.shape == low.W0.shape == (d, k) and numerical_rank(low.delta) == rank
    dense = teacher_student(10, d, k, rank, noise=0.5, tail=0.3, seed=seed)
    assert numerical_rank(dense.delta) == min(d, k)
    # the same teacher otherwise: the tail grows in proportion, nothing else changes
    half = teacher_student(10, d, k, rank, noise=0.5, tail=0.15, seed=seed)
    torch.testing.assert_close(half.delta - low.delta, (dense.delta - low.delta) / 2)
    assert torch.equal(dense.W0, low.W0) and torch.equal(dense.x, low.x)
    longer = teacher_student(30, d, k, rank, noise=0.1, seed=seed)
    assert torch.equal(longer.delta, low.delta) and torch.equal(longer.W0, low.W0)


def test_targets_are_the_teacher_plus_noise_of_that_size():
    exact, noisy = (teacher_student(4000, 8, 6, 2, noise=s, tail=0.2, seed=5) for s in (0.0, 0.7))
    clean = exact.x @ (exact.W0 + exact.delta).T
    torch.testing.assert_close(exact.y, clean)
    assert exact.y.dtype == torch.float64 and abs((noisy.y - clean).std() - 0.7) < 0.02


def test_scales_are_those_of_the_docstring_on_average_over_teachers():
    W0, delta, tail = [], [], []
    for seed in range(300):
        plain = teacher_student(2, 8, 6, 2, noise=0.0, seed=seed)
        W0.append(plain.W0.square().sum(1).mean())
        delta.append(plain.delta.square().sum(1).mean())
        tail.append((teacher_student(2, 8, 6, 2, 0.0, 0.5, seed).delta - plain.delta).square().sum(1).mean())
    for found, expected in [(W0, 1.0), (delta, 1.0), (tail, 0.25)]:
        assert torch.stack(found).mean() == pytest.approx(expected, rel=0.08)


def test_least_squares_recovers_a_teacher_without_noise():
    task = teacher_student(30, 7, 5, 2, noise=0.0, tail=0.3, seed=1)
    found = torch.linalg.lstsq(task.x, task.y - task.x @ task.W0.T).solution.T
    assert torch.allclose(found, task.delta, rtol=0, atol=1e-10)


def test_bad_arguments_are_named():
    for name, value in {"n": 0, "inputs": 0, "classes": 1, "seed": -1}.items():
        with pytest.raises(ValueError, match=f"{name}="):
            random_facts(**({"n": 5} | {name: value}))
    good = {"n": 5, "d": 4, "k": 3, "rank": 2, "noise": 0.1}
    for name, value in {"n": 0, "d": 0, "k": -1, "rank": 4, "noise": -0.1, "tail": float("nan"), "seed": -2}.items():
        with pytest.raises(ValueError, match=f"{name}="):
            teacher_student(**(good | {name: value}))
    for name, value in {"n": 2.0, "rank": "2", "noise": None, "tail": "a", "seed": 1.5}.items():
        with pytest.raises(TypeError, match=f"{name}="):
            teacher_student(**(good | {name: value}))
