"""Right answers and typical mistakes of chapter 9, which test_exercises.py tries."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from lora_course.adapters import RankAllocator
from lora_course.adapters.adalora import SVDLinear
from lora_course.book import checker
from lora_course.labs.exercises import adalora


def schedule(t, b0, b_T, t_i, t_f, T, power=3, rounded=int):
    last = T - t_f
    left = 1 - (min(max(t, t_i), last) - t_i) / (last - t_i)
    return rounded(b_T + (b0 - b_T) * left**power)


def in_cases(t, b0, b_T, t_i, t_f, T):
    if t <= t_i:
        return b0
    if t >= T - t_f:
        return b_T
    return int(np.floor(b_T + (b0 - b_T) * (1 - (t - t_i) / (T - t_f - t_i)) ** 3))


def unclipped(t, b0, b_T, t_i, t_f, T):
    return int(np.floor(b_T + (b0 - b_T) * (1 - (t - t_i) / (T - t_f - t_i)) ** 3))


def score(E, P, Q, mean_P=lambda P: P.mean(0), mean_Q=lambda Q: Q.mean(1)):
    return E + mean_P(P) + mean_Q(Q)


def normalize(P, lam, Q, keep=abs, sign=np.sign, lengths=True):
    p, q = np.linalg.norm(P, axis=0), np.linalg.norm(Q, axis=1)
    return P / p * sign(lam), keep(lam) * (p * q if lengths else 1), Q / q[:, None]


def by_q(P, lam, Q):
    P1, lam1, Q1 = normalize(P, lam, Q)
    return P1 * np.sign(lam), lam1, Q1 * np.sign(lam)[:, None]


def ones(lam):
    return np.ones_like(lam)


RIGHT = {
    "counts": [(1286, 4712), [1286.0, Fraction(4712)], np.array([1286, 4712])],
    "drop_cost": [0.3, Fraction(3, 10), np.float64(-2 * 0.5 * -0.3)],
    "schedule": [schedule, in_cases],
    "triplet_score": [
        score,
        lambda E, P, Q: [E[i] + sum(P[:, i]) / len(P) + sum(Q[i]) / len(Q[i]) for i in range(len(E))],
    ],
    "normalize": [normalize, by_q],
}
WRONG = {
    "counts": [
        *((stored, 4712) for stored in (1280, 4712, 1178, 65536, 7)),
        *((1286, trained) for trained in (1286, 4688, 3600, 14136, 7)),
    ],
    "drop_cost": [-0.3, 0.15, -0.15, 0.6, -0.6, 0.075, 7],
    "schedule": [
        lambda *a: schedule(*a, power=1, rounded=np.floor),
        lambda *a: schedule(*a, power=2),
        lambda *a: schedule(*a, rounded=np.ceil),
        lambda *a: schedule(*a, rounded=float),
        lambda t, b0, b_T, t_i, t_f, T: schedule(t, b0, b_T, t_i, 0, T),
        lambda t, b0, b_T, t_i, t_f, T: schedule(t, b0, b_T, 0, t_f, T),
        unclipped,
        lambda *a: 3,
        "b",
    ],
    "triplet_score": [
        lambda E, P, Q: score(E, P, Q, lambda P: P.sum(0), lambda Q: Q.sum(1)),
        lambda E, P, Q: score(E, P, Q, lambda P: P.mean(1)),
        lambda E, P, Q: score(E, P, Q, mean_Q=lambda Q: Q.mean(0)),
        lambda E, P, Q: score(E, P, Q, lambda P: P.mean(1), lambda Q: Q.mean(0)),
        lambda E, P, Q: E,
        lambda E, P, Q: score(0, P, Q),
        lambda E, P, Q: score(E, P, Q) / 3,
        lambda E, P, Q: score(E, P, Q).sum(),
        lambda E, P, Q: 2 * E,
        "S",
    ],
    "normalize": [
        lambda P, lam, Q: (P, lam, Q),
        lambda P, lam, Q: (P / np.linalg.norm(P, axis=1, keepdims=True), lam, Q),
        lambda P, lam, Q: (normalize(P, lam, Q)[0], abs(lam), Q),
        lambda *a: normalize(*a, keep=lambda lam: lam, sign=ones),
        lambda *a: normalize(*a, sign=ones),
        lambda *a: normalize(*a, lengths=False),
        lambda P, lam, Q: (normalize(P, lam, Q)[0], 3 * abs(lam), normalize(P, lam, Q)[2]),
        lambda P, lam, Q: (P, lam[:2], Q),
        lambda P, lam, Q: P,
        "normalize",
    ],
}


def test_half_an_answer_is_not_tried_yet():
    assert checker(adalora.counts)((..., 4712)).ok is None


@pytest.mark.parametrize("seed", range(2))
def test_the_package_gives_the_answers_that_are_accepted(seed):
    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Sequential(*(SVDLinear(torch.nn.Linear(6, 6), 6, 4, generator=generator) for _ in range(5)))
    allocator = RankAllocator(model, budget=7, t_start=10, t_final=25, total=100, every=1)
    checker(adalora.schedule)(lambda t, *setting: allocator.budget_at(t)).must_pass()
    shapes = [
        (layer.in_features, layer.out_features) for layer in (torch.nn.Linear(64, 128), torch.nn.Linear(128, 128))
    ]
    assert [k + d + 1 for k, d in shapes] == adalora.SIZES[:2].tolist()

    def by_allocator(E, P, Q):
        layer = model[0]
        for p, s in ((layer.lora_E, E[:, None]), (layer.lora_B, P), (layer.lora_A, Q)):
            allocator._smoothed[p] = torch.tensor(s), torch.ones(s.shape, dtype=torch.float64)
        return allocator.importance()["0"].numpy()

    checker(adalora.triplet_score)(by_allocator).must_pass()
