r"""The small real experiment of the course: 8x8 handwritten digits, a three-layer network, one training loop.

x: (n, 64) pixels in [0, 1];  y: (n,) classes 0..9;  rotated digits are the new task, upright ones the old.
"""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn


@dataclass(frozen=True)
class Digits:
    r"""Images and labels, split: `x_train` (1257, 64), `x_test` (540, 64), labels `y_train`, `y_test`."""

    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor

    def rotated(self, quarter_turns: int = 1) -> "Digits":
        r"""The same digits turned by `quarter_turns` times 90 degrees: a new task for a network trained upright.

        Raises `TypeError` if `quarter_turns` is not an int.
        """
        if not isinstance(quarter_turns, int):
            raise TypeError(f"quarter_turns={quarter_turns!r} must be an int, the number of turns by 90 degrees")

        def turn(x):
            return torch.rot90(x.reshape(-1, 8, 8), quarter_turns, dims=(1, 2)).reshape(-1, 64).contiguous()

        return Digits(turn(self.x_train), self.y_train, turn(self.x_test), self.y_test)


def digits(seed: int = 0, dtype: torch.dtype = torch.float32) -> Digits:
    r"""scikit-learn's 1797 handwritten digits (UCI optical recognition), shuffled by `seed`, 70 % for training.

    Pixels are divided by 16, so they lie in [0, 1]. Raises `TypeError` if `seed` is not an int.
    """
    data = load_digits()
    x = torch.as_tensor(data.data, dtype=dtype) / 16
    y = torch.as_tensor(data.target, dtype=torch.long)
    order = torch.randperm(len(x), generator=_generator(seed))
    train, test = order[:1257], order[1257:]
    return Digits(x[train], y[train], x[test], y[test])


def digit_network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    r"""Network 64 -> 128 -> 128 -> 10 with ReLU; weights and biases uniform in $\pm 1/\sqrt{\text{in}}$, by `seed`.

    Raises `TypeError` if `seed` is not an int.
    """
    generator = _generator(seed)
    sizes = [(64, 128), (128, 128), (128, 10)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in sizes:
        # built on the meta device first: nn.Linear's own initialization would draw from the global generator
        linear = nn.Linear(fan_in, fan_out, device="meta", dtype=dtype).to_empty(device="cpu")
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def fit(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    steps: int,
    lr: float,
    batch: int = 128,
    seed: int = 0,
) -> list[float]:
    r"""Train, in place, the trainable parameters of `model` with Adam on cross-entropy; return the loss per step.

    Batches of `batch` rows are drawn with replacement by `seed`. Raises `ValueError` if `steps`, `lr` or `batch`
    is not positive, or if no parameter of `model` is trainable.
    """
    for name, value in {"steps": steps, "lr": lr, "batch": batch}.items():
        if not value > 0:
            raise ValueError(f"{name}={value!r} must be positive")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("model has no trainable parameter; set requires_grad or inject an adapter")
    optimizer = torch.optim.Adam(parameters, lr=lr)
    generator = _generator(seed)
    losses = []
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    r"""Share of rows of `x` that `model` classifies as `y`, in [0, 1]. Raises `ValueError` if `x` is empty."""
    if len(x) == 0:
        raise ValueError("x has no rows; accuracy needs at least one")
    return (model(x).argmax(-1) == y).float().mean().item()


def _generator(seed: int) -> torch.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed={seed!r} must be an int")
    return torch.Generator().manual_seed(seed)
