r"""Sharing a budget of rank out among the layers of one small network: by AdaLoRA, or fixed by hand; many runs at once.

P points; n rows of a batch; r triplets at the start in a layer with k inputs and d outputs, each p_i λ_i q_i.
Q (P, r, k);  Pt (P, r, d), P transposed;  E (P, r) the λ;  M = E ∘ Q, so that ΔW = scaling · P M, scaling = alpha / r.
A layer with fewer than r triplets is padded with zero rows, which get zero gradients and stay zero.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import RankAllocator, SVDLinear, inject, orthogonality_penalty, trainable_parameters
from lora_course.adapters.checks import check_alpha
from lora_course.labs._checks import at_least, generator, positive, real
from lora_course.labs.allocation_stack import AllocationStack
from lora_course.labs.progress import progress
from lora_course.labs.stacked import check_stackable
from lora_course.labs.training import accuracy, mean_loss


@dataclass(frozen=True)
class Allocated:
    r"""What a training with shared-out rank gave.

    Attributes:
        point: the settings, as given.
        ranks: number of triplets of each layer at the end.
        history: [(step, budget b, ranks)] for each masking of AdaLoRA; empty for fixed ranks.
        accuracy, train_loss: of the trained network on x_test, in [0, 1], and on x_train, in nats.
        stored, trained: number of parameters of the triplets that are left, and of those that the optimizer held.
    """

    point: dict
    ranks: tuple[int, ...]
    history: list[tuple[int, int, tuple[int, ...]]]
    accuracy: float
    train_loss: float
    stored: int
    trained: int


class AllocationExperiment:
    r"""The experiment "fine-tune `model` on `data` with so many triplets" as a function of a point, for `sweep`.

    A point is {"ranks": ..., "lr": ..., "seed": ...}. ranks is an int b, the budget that AdaLoRA (`SVDLinear`,
    `RankAllocator`) is to leave in all layers together, starting from r in each; or a tuple with one fixed rank from 0
    to r for each layer, in the same SVD form and with the same scaling alpha / r. The seed fixes start and batches.

    Args:
        model: an nn.Sequential of nn.Linear and elementwise activations, copied; all linear layers are adapted.
        data: has x_train, y_train, x_test, y_test, as `digits()`.
        r, alpha: of each layer at the start.
        steps, batch: of Adam with PyTorch's defaults, batches as in `fit`.
        gamma: weight of the paper's penalty in the loss.
        warmup, final, every: t_start, t_final and every of `RankAllocator`; by default steps // 10, 3 steps // 10, 10.

    Raises `TypeError` or `ValueError` for a bad argument; a point is checked before anything is trained.
    """

    def __init__(
        self, model, data, *, r=8, alpha=16, steps=300, batch=64, gamma=0.1, warmup=None, final=None, every=10
    ):
        check_stackable(model)
        self.model, self.data = copy.deepcopy(model).requires_grad_(False), data
        self.layers = {name: layer for name, layer in self.model._modules.items() if isinstance(layer, nn.Linear)}
        self.r, self.alpha, self.gamma = at_least("r", r, 1), check_alpha(alpha), real("gamma", gamma, 0)
        self.steps, self.batch_size = at_least("steps", steps, 1), at_least("batch", batch, 1)
        schedule = {"t_start": self.steps // 10 if warmup is None else warmup, "total": self.steps, "every": every}
        self.schedule = schedule | {"t_final": 3 * self.steps // 10 if final is None else final}
        self.allocator(self._adapted((self.r,) * len(self.layers), 0), len(self.layers))  # checks the schedule

    def allocator(self, model, budget):
        r"""Return the `RankAllocator` of this experiment's schedule for a model with SVDLinears."""
        return RankAllocator(model, budget, **self.schedule)

    def __call__(self, point: Mapping) -> Allocated:
        r"""Train at one point with the package's own adapters: the slow, plain way."""
        ranks, lr, seed = self._checked(point)
        adaptive = isinstance(ranks, int)
        model = self._adapted((self.r,) * len(self.layers) if adaptive else ranks, seed)
        allocator = self.allocator(model, ranks) if adaptive else None
        optimizer, source, history = torch.optim.Adam(trainable_parameters(model), lr=lr), generator(seed), []
        for t in progress(self.steps):
            rows = torch.randint(len(self.data.x_train), (self.batch_size,), generator=source)
            loss = F.cross_entropy(model(self.data.x_train[rows]), self.data.y_train[rows])
            optimizer.zero_grad()
            (loss + self.gamma * orthogonality_penalty(model, "paper")).backward()
            optimizer.step()
            if adaptive:
                before = allocator.kept
                budget = allocator.step(t)
                if allocator.kept is not before:
                    history.append((t, budget, tuple(allocator.ranks().values())))
        ranks = history[-1][2] if adaptive else ranks
        scores = (
            accuracy(model, self.data.x_test, self.data.y_test),
            mean_loss(model, self.data.x_train, self.data.y_train),
        )
        return self._result(point, ranks, history, *scores)

    def batch(self, points) -> list[Allocated]:
        r"""Train at all points at once; the same as one by one but for rounding."""
        points = list(points)
        settings = [self._checked(point) for point in points]
        found = [None] * len(points)
        # fixed ranks need neither importance nor as many rows
        for adaptive in (True, False):
            chosen = [i for i, (ranks, _, _) in enumerate(settings) if isinstance(ranks, int) is adaptive]
            if chosen:
                stack = AllocationStack(self, [settings[i] for i in chosen])
                for i, parts in zip(chosen, stack.train(self.data), strict=True):
                    found[i] = self._result(points[i], *parts)
        return found

    def _adapted(self, ranks, seed):
        """Return a copy of the model with an SVDLinear of its own rank on each layer whose rank is not 0."""
        model = copy.deepcopy(self.model)
        sizes = {name: rank for name, rank in zip(self.layers, ranks, strict=True) if rank}
        by_id = {id(model.get_submodule(name)): rank for name, rank in sizes.items()}

        def make(base, r, alpha, generator):
            return SVDLinear(base, by_id[id(base)], alpha / r * by_id[id(base)], generator=generator)

        inject(model, lambda name, module: name in sizes, self.r, self.alpha, adapter=make, generator=seed)
        return model

    def _result(self, point, ranks, history, hits, loss):
        sizes = [layer.in_features + layer.out_features + 1 for layer in self.layers.values()]
        stored = sum(rank * size for rank, size in zip(ranks, sizes, strict=True))
        trained = self.r * sum(sizes) if history else stored
        return Allocated(dict(point), tuple(ranks), history, hits, loss, stored, trained)

    def _checked(self, point):
        if not isinstance(point, Mapping) or set(point) != {"ranks", "lr", "seed"}:
            raise ValueError(f"point={point!r} must be a dict with the keys ranks, lr and seed")
        ranks, most = point["ranks"], self.r * len(self.layers)
        if isinstance(ranks, (tuple, list)):
            ranks = tuple(at_least(f"ranks[{i}]", rank, 0) for i, rank in enumerate(ranks))
            if len(ranks) != len(self.layers) or max(ranks) > self.r or not any(ranks):
                raise ValueError(f"ranks={ranks!r} must be {len(self.layers)} ranks from 0 to {self.r}, not all 0")
        elif at_least("ranks", ranks, 1) > most:
            raise ValueError(f"ranks={ranks!r} must be at most {most}, the number of triplets at the start")
        return ranks, positive("lr", point["lr"]), at_least("seed", point["seed"], 0)
