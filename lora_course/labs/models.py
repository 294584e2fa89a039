r"""The small networks of the experiments: fully connected layers with ReLU between them, started by a seed."""

from collections.abc import Sequence

import torch
from torch import nn

from lora_course.labs._checks import at_least, generator


def mlp(sizes: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    r"""Network sizes[0] -> sizes[1] -> ... with ReLU between; weights and biases uniform in ±1/√in.

    That is also what `nn.Linear` starts with, but drawn by `seed`. Linear layers are called "0", "2", "4", ...
    Raises `TypeError` if `sizes` or `seed` are no ints, `ValueError` if there are fewer than two sizes or one is
    not positive.
    """
    sizes = [at_least(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes)]
    if len(sizes) < 2:
        raise ValueError(f"sizes={sizes!r} must have at least two entries, inputs and outputs")
    source = generator(seed)
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True):
        # built on the meta device first: nn.Linear's own initialization would draw from the global generator
        linear = nn.Linear(fan_in, fan_out, device="meta", dtype=dtype).to_empty(device="cpu")
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=source)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def digit_network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    r"""`mlp([64, 128, 128, 10])`, the network for digits; `TypeError` if `seed` is not an int."""
    return mlp([64, 128, 128, 10], seed, dtype)
