r"""Fine-tuning one network as a function of a point {"r", "alpha", "lr", "seed"}: one by one, or all points at once.

W0 (d, k) a target weight;  B (d, r), A (r, k);  delta W = scaling B A, scaling = alpha / r.  With r=None the weights
themselves are trained: full fine-tuning of the targets.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import inject, plain_factors, start_all, weight_gradients
from lora_course.adapters.checks import check_alpha, check_model
from lora_course.adapters.inject import matched_layers
from lora_course.adapters.starts import STARTS
from lora_course.adapters.walk import places
from lora_course.labs import stacked
from lora_course.labs._checks import at_least, choice, positive, real
from lora_course.labs.training import OPTIMIZERS, accuracy, fit


@dataclass(frozen=True, eq=False)
class Trained:
    r"""What training at one point gave.

    Attributes:
        point: the settings, as given.
        losses: (steps,), the loss of each step's batch.
        factors: {name: (B (d, r), A (r, k))} of the targets; empty with r=None.
        full: {name: W - W0 (d, k)} with r=None; otherwise empty.
        accuracy, train_accuracy: of the trained network on x_test and x_train.
        curve: [(steps done, test accuracy)], at the end and, if asked for, before and on the way.
    """

    point: dict
    losses: torch.Tensor
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    full: dict[str, torch.Tensor]
    accuracy: float
    train_accuracy: float
    curve: list[tuple[int, float]]

    def delta(self, name: str) -> torch.Tensor:
        r"""Return delta W (d, k) = alpha / r B A of a target; `KeyError` (it lists the targets) for another name."""
        if name in self.full:
            return self.full[name]
        if name not in self.factors:
            raise KeyError(f"name={name!r} was not trained; targets are {', '.join([*self.factors, *self.full])}")
        B, A = self.factors[name]
        return self.point["alpha"] / self.point["r"] * B @ A

    def apply(self, model: nn.Module) -> nn.Module:
        r"""Return a copy of `model` with each target's delta W added to its weight; `model` stays as it is.

        Raises `AttributeError` if a target is no layer of `model`, `ValueError` if its weight has another shape.
        """
        model = copy.deepcopy(check_model(model))
        for name in [*self.factors, *self.full]:
            weight, delta = model.get_submodule(name).weight, self.delta(name)
            if weight.shape != delta.shape:
                raise ValueError(f"model's {name}.weight is {tuple(weight.shape)}, delta W {tuple(delta.shape)}")
            weight.data += delta
        return model


class LoRAExperiment:
    r"""The experiment "fine-tune `model` on `data`" as a function of a point, for `sweep`.

    A point is {"r": rank or None, "alpha": ..., "lr": ..., "seed": ...}; with r=None alpha may be missing. The seed
    fixes the start of the adapters and the batches. Biases and all but the targets are frozen.

    Args:
        model: the network, which is copied; for `batch` an nn.Sequential of nn.Linear and elementwise activations.
        targets: which of its layers, as the target_modules of `inject`.
        data: has x_train, y_train, x_test, y_test, as `digits()`; or a function of the seed that returns such.
        steps, batch, optimizer, weight_decay: as for `fit`.
        evaluate_every: measure the test accuracy also before training and each time after so many steps.
        start: None for that of `inject`, or a name or function that `start_all` takes, with random numbers from the
            seed; the gradient of "lora_ga" is that of the whole training set. `Trained.factors` are then the
            `plain_factors`.

    Raises `TypeError` or `ValueError` for a bad argument; a point is checked before anything is trained.
    """

    def __init__(
        self,
        model: nn.Module,
        targets,
        data,
        *,
        steps: int,
        batch: int = 128,
        optimizer: str = "adam",
        weight_decay: float = 0.0,
        evaluate_every: int | None = None,
        start: str | Callable | None = None,
    ):
        self.model = copy.deepcopy(check_model(model))
        self.names = tuple(matched_layers(targets, places(self.model)))
        if not callable(data) and not all(hasattr(data, part) for part in ("x_train", "y_train", "x_test", "y_test")):
            raise TypeError(f"data={data!r} must have x_train, y_train, x_test, y_test, as digits(), or be a function")
        self.data = data
        self.steps, self.batch_size = at_least("steps", steps, 1), at_least("batch", batch, 1)
        self.optimizer = choice("optimizer", optimizer, OPTIMIZERS)
        self.weight_decay = real("weight_decay", weight_decay, 0)
        self.evaluate_every = None if evaluate_every is None else at_least("evaluate_every", evaluate_every, 1)
        self.start = start if start is None or callable(start) else choice("start", start, STARTS)

    def __call__(self, point: Mapping) -> Trained:
        r"""Train at one point: inject (or unfreeze the targets), then fit."""
        settings, data = check_point(point), self._data(point["seed"])
        model = copy.deepcopy(self.model)
        before = {name: model.get_submodule(name).weight.detach().clone() for name in self.names}
        if settings["r"] is None:
            model.requires_grad_(False)
            for name in self.names:
                model.get_submodule(name).weight.requires_grad_()
        else:
            self._inject(model, settings, data)
        curve = []

        def measure(done):
            if self._due(done):
                curve.append((done, accuracy(model, data.x_test, data.y_test)))

        measure(0)
        options = {"batch": self.batch_size, "optimizer": self.optimizer, "weight_decay": self.weight_decay}
        options |= {"lr": settings["lr"], "seed": settings["seed"]}
        losses = fit(model, data.x_train, data.y_train, steps=self.steps, after_step=measure, **options)
        layers = {name: model.get_submodule(name) for name in self.names}
        if settings["r"] is None:
            factors, full = {}, {name: layer.weight.detach() - before[name] for name, layer in layers.items()}
        else:
            pairs = {name: plain_factors(layer) for name, layer in layers.items()}
            factors, full = {name: (pair.B, pair.A) for name, pair in pairs.items()}, {}
        seen = accuracy(model, data.x_train, data.y_train)
        return Trained(dict(point), torch.tensor(losses, dtype=torch.float64), factors, full, curve[-1][1], seen, curve)

    def batch(self, points) -> list[Trained]:
        r"""Train at all points at once, as stacked factors with padded ranks; the same as one by one but for rounding.

        Raises, before anything is trained, `TypeError` or `ValueError` for a bad point, and `ValueError` for a model
        that cannot be stacked or data that do not fit it or differ in size between seeds.
        """
        points = list(points)
        settings = [check_point(point) for point in points]
        layers = {name: self.model.get_submodule(name) for name in self.names}
        stacked.check_stackable(self.model)
        sets = {point["seed"]: self._data(point["seed"]) for point in settings}
        sizes = {seed: (tuple(data.x_train.shape), tuple(data.x_test.shape)) for seed, data in sets.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"data must have the same size for each seed, got (x_train, x_test) of {sizes}")
        curves = {id(point): [] for point in settings}

        def measure(done, stacks):
            if self._due(done):
                for stack in stacks:
                    for point, share in zip(stack.points, stack.accuracies(sets, "test"), strict=True):
                        curves[id(point)].append((done, share))

        options = {"steps": self.steps, "batch": self.batch_size, "after_step": measure}
        options |= {"optimizer": self.optimizer, "weight_decay": self.weight_decay}
        if self.start is not None:
            options["factors"] = lambda point: self._factors(point, sets[point["seed"]])
        stacks, losses = stacked.train(self.model, layers, settings, sets, **options)
        done = {}
        for stack in stacks:
            for i, (point, seen) in enumerate(zip(stack.points, stack.accuracies(sets, "train"), strict=True)):
                curve = curves[id(point)]
                parts = losses[id(point)], *stack.result(i), curve[-1][1], seen, curve
                done[id(point)] = parts
        return [Trained(dict(given), *done[id(point)]) for given, point in zip(points, settings, strict=True)]

    def _inject(self, model, point, data):
        """Put adapters into `model`, started as the experiment says; return them as {name: LoRALinear}."""
        inject(model, self._is_target, point["r"], point["alpha"], generator=point["seed"])
        if self.start == "lora_ga":
            gradients = weight_gradients(model, lambda model: F.cross_entropy(model(data.x_train), data.y_train))
            start_all(model, self.start, gradients=gradients)
        elif self.start is not None:
            start_all(model, self.start, generator=point["seed"])
        return {name: model.get_submodule(name) for name in self.names}

    def _factors(self, point, data):
        """Return the start {name: (A0 (r, k), B0 (d, r))} of a point."""
        layers = self._inject(copy.deepcopy(self.model), point, data)
        return {name: (layer.lora_A.detach(), layer.lora_B.detach()) for name, layer in layers.items()}

    def _data(self, seed):
        """Return the data for a seed, of the dtype of the model."""
        data = self.data(seed) if callable(self.data) else self.data
        wanted = self.model.get_submodule(self.names[0]).weight.dtype
        if data.x_train.dtype != wanted:
            raise ValueError(f"data.x_train is {data.x_train.dtype}, the model {wanted}: make both of one dtype")
        return data

    def _due(self, done):
        return done == self.steps or (self.evaluate_every is not None and done % self.evaluate_every == 0)

    def _is_target(self, name, module: Callable):
        return name in self.names


def check_point(point: Mapping) -> dict:
    r"""Return {"r", "alpha", "lr", "seed"} of a point as plain numbers; an error names point, key and value."""
    try:
        if not isinstance(point, Mapping):
            raise TypeError("it must be a dict")
        wanted = {"r", "lr", "seed"} | ({"alpha"} if point.get("r") is not None or "alpha" in point else set())
        for keys, problem in ((wanted - set(point), "is missing"), (set(point) - wanted, "is unknown")):
            if keys:
                raise ValueError(f"{min(keys, key=str)!r} {problem}; give r, alpha, lr and seed")
        return {
            "r": None if point["r"] is None else at_least("r", point["r"], 1),
            "alpha": None if point["r"] is None else check_alpha(point["alpha"]),
            "lr": positive("lr", point["lr"]),
            "seed": at_least("seed", point["seed"], 0),
        }
    except (TypeError, ValueError) as error:
        raise type(error)(f"point {point!r}: {error}") from None
