r"""Nine methods and full fine-tuning on one task: every method gets the same learning rates, steps, batches and seeds.

All trainings of one kind run at once: their parameters are stacked, (P, ...) for P = methods x seeds x rates, and the
adapters' own forward is mapped over them. Seed s brings its own network, its own data and its own batches.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import DoRALinear, inject, inject_vera, start_all, weight_gradients
from lora_course.labs._checks import at_least, choice, generator, positive
from lora_course.labs.progress import progress
from lora_course.labs.stacked_adam import StackedAdam

STARTS = {"Init[B]": "b_random", "PiSSA": "pissa", "MiLoRA": "milora", "LoRA-GA": "lora_ga"}
METHODS = ("LoRA", "Init[B]", "LoRA+", "rsLoRA", "PiSSA", "MiLoRA", "LoRA-GA", "DoRA", "VeRA", "full")


@dataclass(frozen=True, eq=False)
class Race:
    r"""What `race` measured: accuracies on held-out training rows (`valid`) and on the test rows (`test`).

    Both have the shape (methods, checkpoints, seeds, rates). `parameters` counts what each method trains.
    """

    methods: tuple[str, ...]
    checkpoints: tuple[int, ...]
    rates: tuple[float, ...]
    valid: np.ndarray
    test: np.ndarray
    parameters: dict[str, int]

    def chosen(self) -> np.ndarray:
        r"""Index of the rate with the best mean of `valid` over the seeds, (methods, checkpoints)."""
        return self.valid.mean(2).argmax(-1)

    def best(self) -> np.ndarray:
        r"""`test` at the chosen rates, (methods, checkpoints, seeds): the test rows have no say in the choice."""
        return np.take_along_axis(self.test, self.chosen()[:, :, None, None], -1)[..., 0]


def adapted(method: str, model: nn.Module, r: int, alpha: float, seed: int, x, y, vera_rank: int = 64) -> nn.Module:
    r"""Return a copy of `model` with every nn.Linear adapted by `method`, one of METHODS; x, y serve LoRA-GA only.

    LoRA+ is LoRA here, since it differs in the optimizer. "full" trains the weights themselves, not the biases.
    """
    model, linear = copy.deepcopy(model), lambda name, module: isinstance(module, nn.Linear)
    if choice("method", method, METHODS) == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith("weight"))
    elif method == "VeRA":
        inject_vera(model, linear, vera_rank, generator=seed)
    elif method == "DoRA":
        inject(model, linear, r, alpha, adapter=DoRALinear, generator=seed)
    else:
        inject(model, linear, r, alpha, rslora=method == "rsLoRA", generator=seed)
    if method == "LoRA-GA":
        start_all(model, "lora_ga", gradients=weight_gradients(model, lambda net: F.cross_entropy(net(x), y)))
    elif method in STARTS:
        start_all(model, STARTS[method], generator=seed)
    return model


def race(
    models: Sequence[nn.Module],
    data: Sequence,
    *,
    rates: Sequence[float],
    checkpoints: Sequence[int],
    r: int = 4,
    alpha: float = 8.0,
    methods: Sequence[str] = METHODS,
    batch: int = 64,
    held_out: int = 240,
    ratio: float = 16.0,
    vera_rank: int = 64,
) -> Race:
    r"""Train each of `methods` from each of `models` on `data` of the same seed with each of `rates`, by Adam.

    Args:
        models: one pretrained network for each seed 0, 1, ...; all of the same shape; they stay as they are.
        data: for each seed an object with x_train, y_train, x_test, y_test, as `digits()`; all of the same size.
        rates: constant learning rates; LoRA+ trains B with `ratio` times the rate.
        checkpoints: numbers of steps after which accuracies are measured; training stops after the largest.
        held_out: so many of the last training rows are not trained on: they choose the rate.

    Raises `TypeError` or `ValueError` for a bad argument, before anything is trained.
    """
    rates, checkpoints = [positive("rates", rate) for rate in rates], [at_least("steps", n, 1) for n in checkpoints]
    methods = [choice("methods", method, METHODS) for method in methods]
    if len(models) != len(data) or not models or not rates or not checkpoints or not methods:
        raise ValueError(f"give one of data for each of models, and none empty: got {len(models)} and {len(data)}")
    keep = len(data[0].x_train) - at_least("held_out", held_out, 1)
    at_least("rows that are left for training", keep, 1)
    lanes = {method: [] for method in methods}
    for seed, (model, part) in enumerate(zip(models, data, strict=True)):
        for method in methods:
            x, y = part.x_train[:keep], part.y_train[:keep]
            lanes[method].append(adapted(method, model, r, alpha, seed, x, y, vera_rank))
    parameters = {m: sum(p.numel() for p in lane[0].parameters() if p.requires_grad) for m, lane in lanes.items()}
    shape = len(methods), len(checkpoints), len(models), len(rates)
    valid, test = np.zeros(shape), np.zeros(shape)
    alike = {}  # LoRA and its starts have one forward: they are trained in one stack
    for method in methods:
        plain = method == "LoRA+" or method in STARTS
        alike.setdefault("LoRA" if plain else method, []).append(method)
    for group in alike.values():
        stack = _Stack([model for method in group for model in lanes[method]], rates)
        faster = torch.tensor([ratio if m == "LoRA+" else 1.0 for m in group]).repeat_interleave(len(models))
        rows, sources = [methods.index(method) for method in group], [generator(seed) for seed in range(len(models))]
        for step in progress(max(checkpoints), group[0]):
            picked = [torch.randint(keep, (batch,), generator=source) for source in sources]
            drawn = [(part.x_train[i], part.y_train[i]) for part, i in zip(data, picked, strict=True)]
            stack.step(*_for_each(group, drawn), faster)
            for c in [i for i, done in enumerate(checkpoints) if done == step + 1]:
                for found, name, of in ((valid, "train", slice(keep, None)), (test, "test", slice(None))):
                    sets = [(getattr(part, f"x_{name}")[of], getattr(part, f"y_{name}")[of]) for part in data]
                    hits = stack.accuracies(*_for_each(group, sets))
                    found[rows, c] = hits.view(len(group), len(models), len(rates)).numpy()
    return Race(tuple(methods), tuple(checkpoints), tuple(rates), valid, test, parameters)


def _for_each(group, of_seeds):
    """Return x and y of all seeds stacked, once for each method of the group: (methods * seeds, rows, ...)."""
    return [torch.stack(part).repeat(len(group), *[1] * part[0].dim()) for part in zip(*of_seeds, strict=True)]


class _Stack:
    """Models of one structure, each with every rate: tensors {name: (models * rates, ...)}."""

    def __init__(self, models, rates):
        self.skeleton, self.rates = models[0], torch.tensor(rates)
        tensors = [{**dict(model.named_parameters()), **dict(model.named_buffers())} for model in models]
        names = [n for n, p in models[0].named_parameters() if p.requires_grad]
        shared = tensors[0].keys()  # a start leaves buffers behind (its origin), which the forward does not use
        stacked = {n: torch.stack([t[n].detach() for t in tensors]) for n in shared if all(n in t for t in tensors)}
        stacked = {n: t.repeat_interleave(len(rates), 0) for n, t in stacked.items()}
        self.trained = {n: stacked.pop(n).requires_grad_() for n in names}
        self.frozen = stacked
        flat = {name: p.detach().flatten(1) for name, p in self.trained.items()}  # views: Adam writes through them
        self.is_B = [name.endswith("lora_B") for name in flat]
        self.adams = {B: StackedAdam(self.part(flat.values(), B)) for B in (False, True)}

        def call(trained, frozen, x):
            return torch.func.functional_call(self.skeleton, {**trained, **frozen}, (x,))

        self.forward = torch.func.vmap(call)

    def part(self, tensors, B):
        return [p for p, is_B in zip(tensors, self.is_B, strict=True) if is_B == B]

    def spread(self, part):
        return part.repeat_interleave(len(self.rates), 0)

    def step(self, x, y, faster):
        z = self.forward(self.trained, self.frozen, self.spread(x))
        loss = F.cross_entropy(z.flatten(0, 1), self.spread(y).flatten(), reduction="sum") / x.shape[1]
        gradients = [g.flatten(1) for g in torch.autograd.grad(loss, list(self.trained.values()))]
        lr = self.rates.repeat(len(faster))[:, None]
        for B, adam in self.adams.items():
            adam.step(self.part(gradients, B), lr * self.spread(faster)[:, None] if B else lr)

    @torch.no_grad()
    def accuracies(self, x, y):
        hits = self.forward(self.trained, self.frozen, self.spread(x)).argmax(-1) == self.spread(y)
        return hits.float().mean(1)
