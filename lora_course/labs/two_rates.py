r"""LoRA with two learning rates on the middle layer of a digits network: the experiment behind LoRA+.

eta_A, eta_B the rates of A (r, k) and B (d, r);  ratio = eta_B / eta_A;  mean = sqrt(eta_A eta_B).  The layers
around the adapter are frozen, so their part of the forward is computed once; P = ratios x means run at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.initialisers import kaiming
from lora_course.labs._checks import at_least, generator, positive
from lora_course.labs.stacked_adam import StackedAdam


def two_rates(
    network: nn.Sequential,
    data,
    *,
    ratios: Sequence[float],
    means: Sequence[float],
    r: int = 4,
    alpha: float = 8.0,
    steps: int = 80,
    batch: int = 32,
    last: int = 15,
    seed: int = 0,
) -> np.ndarray:
    r"""Return the mean loss of the last `last` batches, (ratios, means), of LoRA on layer "2" of `network`, by Adam.

    `network` is an `mlp` of three linear layers, which stays as it is; `data` has x_train and y_train. A loss that is
    not finite counts as infinite. Raises `TypeError` or `ValueError` for a bad argument.
    """
    if not isinstance(network, nn.Sequential) or len(network) != 5:
        raise TypeError(f"network must be an mlp of three linear layers, got {network!r}")
    shape = len(ratios), len(means)
    ratios = torch.tensor([positive("ratios", ratio) for ratio in ratios]).repeat_interleave(shape[1])
    means = torch.tensor([positive("means", mean) for mean in means]).repeat(shape[0])
    steps, batch, last = at_least("steps", steps, 1), at_least("batch", batch, 1), at_least("last", last, 1)
    s, source = positive("alpha", alpha) / at_least("r", r, 1), generator(seed)
    with torch.no_grad():
        features = network[1](network[0](data.x_train))
        before = network[2](features)
    A, B = (p.expand(len(ratios), *p.shape).clone().requires_grad_() for p in kaiming(network[2].weight, r, source))
    adams = [(StackedAdam([A]), means / ratios.sqrt()), (StackedAdam([B]), means * ratios.sqrt())]
    head, bias = network[4].weight.detach(), network[4].bias.detach()
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(features), (batch,), generator=source)
        z = before[rows] + s * (features[rows] @ A.mT) @ B.mT
        logits = network[3](z) @ head.T + bias
        each = F.cross_entropy(logits.flatten(0, 1), data.y_train[rows].repeat(len(ratios)), reduction="none")
        each = each.view(len(ratios), batch).mean(1)
        for (adam, rate), gradient in zip(adams, torch.autograd.grad(each.sum(), (A, B)), strict=True):
            adam.step([gradient], rate[:, None, None])
        losses.append(each.detach())
    found = torch.stack(losses[-last:]).mean(0).nan_to_num(nan=torch.inf)
    return found.view(shape).numpy()
