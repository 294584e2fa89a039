"""A sweep computes every point, in order, on any executor, and survives the failure of some."""

import operator
import pickle
import random
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from lora_course.labs import accuracy, digits, mlp
from lora_course.labs.sweep import LoRAExperiment, SweepError, grid, sweep

value = operator.itemgetter("r")  # pickles by name, also for a process that cannot import this file


def small_experiment():
    return LoRAExperiment(mlp([64, 10]), ["0"], digits().subset(100, 0), steps=3, batch=8)


def test_a_grid_is_the_product_with_the_last_axis_fastest():
    assert grid(r=[1, 2], alpha=16, seed=range(2)) == [
        {"r": 1, "alpha": 16, "seed": 0},
        {"r": 1, "alpha": 16, "seed": 1},
        {"r": 2, "alpha": 16, "seed": 0},
        {"r": 2, "alpha": 16, "seed": 1},
    ]
    assert grid(r=None, kind="full") == [{"r": None, "kind": "full"}]
    assert len(grid(r=(r for r in (1, 2)), lr=torch.tensor([0.1, 0.2]).tolist())) == 4


def test_a_grid_without_points_is_refused():
    with pytest.raises(ValueError, match="no axis"):
        grid()
    with pytest.raises(ValueError, match=r"alpha=\[\] is empty"):
        grid(r=[1], alpha=[])


def test_results_stand_in_the_order_of_the_points_whatever_is_done_first():
    def slow_at_first(point):
        time.sleep(0.02 * (4 - point["r"]))
        return point["r"]

    points = grid(r=range(5))
    assert sweep(slow_at_first, points) == [0, 1, 2, 3, 4]
    with ThreadPoolExecutor(5) as executor:
        assert sweep(slow_at_first, points, executor=executor) == [0, 1, 2, 3, 4]
        assert sweep(value, iter(points + points), executor=executor) == [0, 1, 2, 3, 4] * 2
    assert sweep(value, []) == []


def test_failing_points_are_named_and_the_others_kept():
    def inverse(point):
        return 1 / point["r"]

    points = grid(r=[1, 0, 2, 0, 0, 0])
    with ThreadPoolExecutor(2) as executor:
        for where in (None, executor):
            with pytest.raises(SweepError, match=r"4 of 6 points failed: \{'r': 0\}: ZeroDivisionError.*1 more") as e:
                sweep(inverse, points, executor=where)
            assert e.value.results == [1, None, 0.5, None, None, None]
            assert [point for point, _ in e.value.failures] == [{"r": 0}] * 4
            assert all(isinstance(error, ZeroDivisionError) for _, error in e.value.failures)
    again = pickle.loads(pickle.dumps(e.value))
    assert again.results == e.value.results and str(again) == str(e.value)


def test_processes_give_what_the_stack_gives_and_a_bad_point_is_named():
    points = grid(r=[1, 2], alpha=3, lr=1e-2, seed=[0, 1])
    expected = sweep(small_experiment(), points)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        results = sweep(small_experiment(), points, executor=executor)
        for ours, theirs in zip(results, expected, strict=True):
            assert ours.point == theirs.point and torch.allclose(ours.delta("0"), theirs.delta("0"), atol=1e-6)
        with pytest.raises(SweepError, match=r"1 of 2 points failed: \{'r': 0,.*r=0 must be positive") as e:
            sweep(small_experiment(), [points[0], points[0] | {"r": 0}], executor=executor)
        assert torch.equal(e.value.results[0].delta("0"), results[0].delta("0")) and e.value.results[1] is None
        with pytest.raises(SweepError, match="2 of 2 points failed.*ickle"):
            sweep(lambda point: point, points[:2], executor=executor)
        assert sweep(value, points, executor=executor) == [1, 1, 2, 2]  # the executor is alive


def test_a_dask_cluster_of_processes_gives_the_same_and_names_a_bad_point():
    distributed = pytest.importorskip("distributed")
    points = grid(r=[1, 2], alpha=3, lr=1e-2, seed=[0, 1])
    expected = sweep(small_experiment(), points)
    state = random.getstate()
    try:
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
        with cluster, distributed.Client(cluster) as client, client.get_executor() as executor:
            results = sweep(small_experiment(), points, executor=executor)
            for ours, theirs in zip(results, expected, strict=True):
                assert ours.point == theirs.point and torch.allclose(ours.delta("0"), theirs.delta("0"), atol=1e-6)
            with pytest.raises(SweepError, match=r"1 of 5 points failed: \{'r': 0,.*r=0 must be positive") as e:
                sweep(small_experiment(), [points[0] | {"r": 0}, *points], executor=executor)
            assert e.value.results[0] is None and all(result is not None for result in e.value.results[1:])
            assert sweep(value, points, executor=executor) == [1, 1, 2, 2]
    finally:  # Dask draws from Python's global generator
        random.setstate(state)


def test_a_closed_executor_fails_at_every_point():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(SweepError, match="2 of 2 points failed.*after shutdown"):
        sweep(value, grid(r=[1, 2]), executor=executor)


def test_an_interrupt_ends_the_sweep_and_what_waits_is_not_begun():
    begun = []

    def interrupted(point):
        begun.append(point["r"])
        if point["r"] == 1:
            raise KeyboardInterrupt
        time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        sweep(interrupted, grid(r=range(50)))
    assert begun == [0, 1]
    with ThreadPoolExecutor(1) as executor, pytest.raises(KeyboardInterrupt):
        sweep(interrupted, grid(r=range(50)), executor=executor)
    assert len(begun) < 40


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("f", [{}]), "experiment='f' must be callable"),
        ((value, {"r": 1}), "points=.*list of dicts"),
        ((value, 3), "points=3 must be a list"),
        ((value, [{"r": 1}, 2]), r"points\[1\]=2 must be a dict"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(TypeError, match=message):
        sweep(*arguments)
    with pytest.raises(TypeError, match="executor=.*no submit"):
        sweep(value, [{"r": 1}], executor=4)


# --- starts


def own_start(W, r, s, generator):
    A = torch.randn(r, W.shape[1], generator=generator, dtype=W.dtype)
    return A, torch.randn(W.shape[0], r, generator=generator, dtype=W.dtype) / 3


@pytest.mark.parametrize("start", ["b_random", "pissa", "milora", "olora", "lora_ga", own_start])
def test_stacked_training_from_any_start_is_one_by_one_training_and_begins_at_the_pretrained_network(start):
    model, data = mlp([64, 20, 16, 10], seed=1, dtype=torch.float64), digits(dtype=torch.float64).rotated()
    options = {"steps": 30, "batch": 16, "start": start, "evaluate_every": 15}
    experiment = LoRAExperiment(model, ["0", "2"], data, **options)
    points = grid(r=[1, 3], alpha=5, lr=[1e-3, 1e-2], seed=[0, 1])
    for point, together in zip(points, sweep(experiment, points), strict=True):
        alone = experiment(point)
        assert (together.losses - alone.losses).abs().max() < 1e-10
        assert together.curve == alone.curve and together.curve[0] == (0, accuracy(model, data.x_test, data.y_test))
        for name in ("0", "2"):
            assert (together.delta(name) - alone.delta(name)).abs().max() < 1e-10 < alone.delta(name).abs().max()
            assert together.factors[name][1].shape == alone.factors[name][1].shape
        assert accuracy(together.apply(model), data.x_test, data.y_test) == pytest.approx(together.accuracy, abs=2e-3)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="start='best'"):
        LoRAExperiment(mlp([64, 10]), ["0"], digits(), steps=1, start="best")


@pytest.mark.parametrize("start", ["pissa", "milora"])
@pytest.mark.parametrize("optimizer, power, lr", [("sgd", 1.0, 1.0), ("adam", 0.5, 4e-3)])
def test_for_pissa_and_milora_alpha_is_only_a_learning_rate(start, optimizer, power, lr):
    model, data = mlp([64, 24, 10], seed=2, dtype=torch.float64), digits(dtype=torch.float64).rotated()
    experiment = LoRAExperiment(model, ["0"], data, steps=20, optimizer=optimizer, start=start)
    plain = LoRAExperiment(model, ["0"], data, steps=20, optimizer=optimizer)
    for seed in (0, 1):
        at = [{"r": 3, "alpha": a, "lr": lr / (a / 2) ** power, "seed": seed} for a in (2, 32)]
        small, large = (experiment(point).losses for point in at)
        assert torch.allclose(small, large, atol=1e-4)
        assert not torch.allclose(*(plain(point).losses for point in at), atol=1e-4)
