"""Right answers and typical mistakes of chapter 11, which test_exercises.py tries."""

from fractions import Fraction

import numpy as np

from lora_course.adapters import VeRALinear, count_parameters, inject_vera
from lora_course.book import checker
from lora_course.labs.exercises import family
from lora_course.theory import QWEN3_32B, fine_tuning_memory, scaling

WEIGHTS = 31_205_621_760


def fair(valid, test):
    return test[:, valid.mean(0).argmax()].mean()


def fair_by_loops(valid, test):
    means = [sum(column) for column in valid.T]
    return sum(test[:, means.index(max(means))]) / len(test)


RIGHT = {
    "exponents": [(-0.5, 0.25), [Fraction(-1, 2), Fraction(1, 4)], np.array([-1 / 2, 1 / 4])],
    "transfer": [0.5, 1 / np.sqrt(4), np.float64(0.5)],
    "base_bytes": [WEIGHTS * (4 + 8 / 64 + 32 / (64 * 256)) / 8e9, 16.1, 16.098, WEIGHTS * 4.127 / 8 / 1e9],
    "vera": [28 * (2048 + 256 + 1024 + 256), 100_352, 100_352.0],
    "fair": [fair, fair_by_loops],
}
WRONG = {
    "exponents": [
        *((sgd, 0.25) for sgd in (1 / 4, 1 / 2, -3 / 2, -3 / 4, -1, 0, 7)),
        *((-0.5, adam) for adam in (-1 / 2, -3 / 4, 1 / 2, -1 / 4, 7)),
    ],
    "transfer": [2, 1, 1 / 4, 4, 32**-0.5, 1 / 16, 7],
    "base_bytes": [
        WEIGHTS / 2e9,
        WEIGHTS * 4.5 / 8e9,
        WEIGHTS * (4 + 8 / 64 + 32 / 64 / 256) / 1e9,
        WEIGHTS * (4 + 8 / 64 + 32 / 64 / 256) / 8,
        WEIGHTS * (4 + 8 / 64 + 32 / 64 / 256) / 8 / 2**30,
        WEIGHTS * 2 / 1e9,
        WEIGHTS * 4.125 / 8e9,
        7,
    ],
    "vera": [
        3072 + 512,
        28 * (3072 + 256),
        28 * 3072,
        28 * 512,
        28 * (2048 + 512),
        28 * 256 * (3072 + 2048),
        100_352 + 256 * 3072,
        28 * 5120,
        7,
    ],
    "fair": [
        lambda valid, test: test.mean(0).max(),
        lambda valid, test: valid.mean(0).max(),
        lambda valid, test: np.mean([row[v.argmax()] for row, v in zip(test, valid, strict=True)]),
        lambda valid, test: test[:, valid.argmax() % valid.shape[1]].mean(),
        lambda valid, test: test[:, valid.mean(0).argmin()].mean(),
        lambda valid, test: test[valid.mean(1).argmax()].mean(),
        lambda valid, test: test[:, valid.mean(0).argmax()].max(),
        lambda valid, test: test[:, valid.mean(0).argmax()].sum(),
        lambda valid, test: 0.123,
        "fair",
    ],
}


def test_the_package_gives_the_answers_that_are_accepted():
    account = fine_tuning_memory(QWEN3_32B, r=1, bits=4)
    rest = 2 * (QWEN3_32B.base_parameters() - WEIGHTS)
    assert checker(family.base_bytes)((account.weights + account.scales - rest) / 1e9).must_pass().ok
    drop = {r: scaling(1, r, 0.5) * r for r in (8, 32)}  # equation (11.2)
    assert checker(family.transfer)(drop[8] / drop[32]).must_pass().ok


def test_vera_trains_as_many_numbers_as_the_exercise_says():
    import torch

    with torch.device("meta"):
        layer = torch.nn.ModuleDict({"q": torch.nn.Linear(1024, 2048), "v": torch.nn.Linear(1024, 1024)})
    inject_vera(layer, ["q", "v"], r=256)
    assert isinstance(layer["q"], VeRALinear)
    assert 28 * count_parameters(layer).trainable == 100_352
