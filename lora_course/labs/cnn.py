r"""A small convolutional network for the digits, and what its layers compute.

x (n, 64): pixels of 8x8 pictures.  A stage is a place where the network is looked at, as "pool1" or "logits".
"""

from collections import OrderedDict

import torch
from torch import nn

from lora_course.labs._checks import choice, generator

CHANNELS, HIDDEN, CLASSES = (8, 16), 32, 10
PADDINGS = ("zeros", "circular")
# where the network is looked at: after these of its modules, under these names
STAGES = {
    "image": "pixels",
    "relu1": "conv1",
    "pool1": "pool1",
    "relu2": "conv2",
    "pool2": "pool2",
    "relu3": "hidden",
    "fc2": "logits",
}


def small_cnn(
    seed: int = 0,
    *,
    padding_mode: str = "zeros",
    pooling: bool = True,
    averaging: bool = False,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    r"""Network for rows of 64 pixels: twice (3x3 convolution, ReLU, 2x2 max-pooling), then 32 hidden units, 10 logits.

    Its parts are called conv1 (1 -> 8 channels), conv2 (8 -> 16), fc1, fc2. With `averaging` the hidden units see the
    mean of each channel over all positions instead of every position; without `pooling` the maps keep their size.
    `padding_mode` is what lies beyond the border: "zeros", or "circular", the other side. Weights and biases are
    uniform in ±1/√(fan-in), as PyTorch's own, but drawn by `seed`.

    Raises `TypeError` if `seed` is not an int, `ValueError` for another `padding_mode`.
    """
    choice("padding_mode", padding_mode, PADDINGS)
    source, size = generator(seed), 1 if averaging else 4 if pooling else 64
    first, second = CHANNELS
    # built on the meta device: PyTorch's own initialization would draw from the global generator
    on_meta = {"device": "meta", "dtype": dtype}
    layers = OrderedDict(image=nn.Unflatten(1, (1, 8, 8)))
    for i, (c, d) in enumerate(((1, first), (first, second)), 1):
        layers[f"conv{i}"] = nn.Conv2d(c, d, 3, padding=1, padding_mode=padding_mode, **on_meta)
        layers[f"relu{i}"] = nn.ReLU()
        if pooling:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
    if averaging:
        layers["mean"] = nn.AdaptiveAvgPool2d(1)
    layers |= OrderedDict(flat=nn.Flatten(), fc1=nn.Linear(second * size, HIDDEN, **on_meta))
    layers |= OrderedDict(relu3=nn.ReLU(), fc2=nn.Linear(HIDDEN, CLASSES, **on_meta))
    model = nn.Sequential(layers).to_empty(device="cpu")
    with torch.no_grad():
        for layer in model:
            for parameter in layer.parameters():
                bound = layer.weight[0].numel() ** -0.5
                parameter.uniform_(-bound, bound, generator=source)
    return model


@torch.no_grad()
def activations(model: nn.Sequential, x: torch.Tensor) -> dict[str, torch.Tensor]:
    r"""Return {stage: (n, numbers)}: what `model`, a `small_cnn`, computes of x (n, 64) on its way, maps flattened.

    The stages are those of "pixels", "conv1", "pool1", "conv2", "pool2", "hidden", "logits" that the model has, each
    after its ReLU. Raises `ValueError` if the model has none of them.
    """
    seen = {}
    for name, layer in model.named_children():
        x = layer(x)
        if name in STAGES:
            seen[STAGES[name]] = x.flatten(1)
    if not seen:
        raise ValueError(f"model={model!r} has none of the layers {', '.join(STAGES)}; is it a small_cnn?")
    return seen
