r"""Fine-tuning a real network from LoRA's start in many gauges: the same ΔW = 0, the same batches, another (B, A).

W0 (d, k) a target weight;  B = 0 (d, r), A (r, k);  M (r, r) a gauge, which starts at (B M, M⁻¹ A) = (0, M⁻¹ A).
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters import inject
from lora_course.labs._checks import at_least, choice, generator, positive
from lora_course.labs.training import accuracy, mean_loss


@dataclass(frozen=True, eq=False)
class GaugeRun:
    r"""What training at one point gave: test `loss` (inf if it diverged), `accuracy`, and {name: ΔW (d, k)}."""

    point: dict
    loss: float
    accuracy: float
    deltas: dict[str, torch.Tensor]


class GaugeExperiment:
    r"""The experiment "fine-tune `model` on `data` from a gauge" as a function of a point, for `sweep`.

    A point is {"optimizer": name, "gauge": s or M, "lr": ..., "seed": ...}: every adapter's (B, A) is made (B M, M⁻¹ A)
    before training, with M = s I for a number. The seed fixes the start of the adapters and the batches.

    Args:
        model: the network, which is copied.
        targets: which of its layers, as the target_modules of `inject`.
        data: has x_train, y_train, x_test, y_test, as `digits()`.
        optimizers: {name: function of (model, lr) that returns an optimizer}.
        r, alpha, steps, batch: of the adapters and of training.

    A point raises `TypeError` or `ValueError` for a bad value, before anything is trained.
    """

    def __init__(
        self,
        model: nn.Module,
        targets,
        data,
        optimizers: Mapping[str, Callable],
        *,
        r: int,
        alpha: float,
        steps: int,
        batch: int = 64,
    ):
        self.model, self.targets, self.data = model, targets, data
        self.optimizers, self.r, self.alpha = dict(optimizers), at_least("r", r, 1), positive("alpha", alpha)
        self.steps, self.batch = at_least("steps", steps, 1), at_least("batch", batch, 1)

    def __call__(self, point: Mapping) -> GaugeRun:
        r"""Inject, change the gauge, train, measure.

        Training stops where a number is no longer finite, or where
        PreconditionedSGD finds that a lora_A has lost a rank: both count as divergence.
        """
        make = self.optimizers[choice("optimizer", point["optimizer"], self.optimizers)]
        M, lr, source = self._gauge(point["gauge"]), positive("lr", point["lr"]), generator(point["seed"])
        model, data = copy.deepcopy(self.model), self.data
        report = inject(model, self.targets, self.r, self.alpha, generator=point["seed"])
        layers = {name: model.get_submodule(name) for name in report.adapted}
        with torch.no_grad():
            for layer in layers.values():
                gauge = M.to(layer.lora_A.dtype)
                layer.lora_B.copy_(layer.lora_B @ gauge)
                layer.lora_A.copy_(torch.linalg.solve(gauge, layer.lora_A))
        optimizer, trained = make(model, lr), [p for p in model.parameters() if p.requires_grad]
        lost = False
        for _ in range(self.steps):
            rows = torch.randint(len(data.x_train), (self.batch,), generator=source)
            loss = F.cross_entropy(model(data.x_train[rows]), data.y_train[rows])
            if not (math.isfinite(loss.item()) and all(p.isfinite().all() for p in trained)):
                break
            optimizer.zero_grad()
            loss.backward()
            try:
                optimizer.step()
            except RuntimeError as error:
                if "lost" not in str(error):
                    raise
                lost = True
                break
        final = math.inf if lost else mean_loss(model, data.x_test, data.y_test)
        deltas = {name: layer.delta_weight().detach() for name, layer in layers.items()}
        hits = accuracy(model, data.x_test, data.y_test)
        return GaugeRun(dict(point), final if math.isfinite(final) else math.inf, hits, deltas)

    def _gauge(self, gauge) -> torch.Tensor:
        """Return the gauge as a float64 matrix (r, r)."""
        if not isinstance(gauge, torch.Tensor):
            return positive("gauge", gauge) * torch.eye(self.r, dtype=torch.float64)
        if gauge.shape != (self.r, self.r) or torch.linalg.matrix_rank(gauge) < self.r:
            raise ValueError(f"gauge must be a number or an invertible ({self.r}, {self.r}) matrix, got {gauge!r}")
        return gauge.double()
