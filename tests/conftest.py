"""For all tests: hypothesis profiles, fixed seeds, and a guard of the global random state."""

import os
import random
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

SEED = 20261122
os.environ.setdefault("LORA_COURSE_STRICT", "1")  # a result that differs fails a test, and is a box for readers

# the machine may be busy, so no example has a deadline; the draws of the default are the same at every run
settings.register_profile("default", deadline=None, max_examples=50, derandomize=True)
settings.register_profile(
    "long", deadline=None, max_examples=2000, derandomize=False, suppress_health_check=[HealthCheck.too_slow]
)
# hypothesis would choose its own profile in CI; --hypothesis-profile comes later and wins
settings.load_profile("default")

# draw from global generators by themselves: PEFT and transformers; the browser's driver
OTHERS = ("parity", "site")


def same(before, after) -> bool:
    """Whether two states of numpy's global generator are equal."""
    return all(np.array_equal(left, right) for left, right in zip(before, after, strict=True))


@pytest.fixture(autouse=True)
def global_random_state(request):
    """Seed the global generators; fail a test that draws from Python's or numpy's.

    Our functions take a seed or a generator. torch's state is seeded, but not guarded: every `nn.Linear` of a
    test draws from it.
    """
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:  # a test of pure numpy need not load it
        sys.modules["torch"].manual_seed(SEED)
    python, numpy = random.getstate(), np.random.get_state()
    yield
    if request.path.parent.name in OTHERS:
        return
    if random.getstate() != python:
        pytest.fail("the test changed the state of Python's global generator; pass a seed or random.Random")
    if not same(numpy, np.random.get_state()):
        pytest.fail("the test changed the state of numpy's global generator; pass a seed or a Generator")


def pytest_terminal_summary(terminalreporter):
    """Print what tests have to say besides passing (a fuzz its count), which xdist's workers would swallow."""
    for report in terminalreporter.getreports("passed"):
        for key, text in report.user_properties:
            if key == "says":
                terminalreporter.write_line(text)
