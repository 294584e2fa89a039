r"""Full fine-tuning, LoRA, DoRA and magnitudes alone on one network, all points of a method trained at once.

P points of one method; W0 (d, k) a target weight;  A (P, r, k), B (P, d, r), m (P, d, 1);  s = alpha / r (P, 1, 1);
W' (P, d, k) the weights that act.  "lora": W' = W0 + s B A;  "dora": W' = m V / ‖V‖ by rows, V = W0 + s B A, the norm
without gradient;  "dora-exact": with it;  "magnitude": V = W0, only m is trained;  "full": W' is trained itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.checks import check_alpha
from lora_course.adapters.initialisers import kaiming
from lora_course.labs._checks import at_least, choice, generator, positive
from lora_course.labs.stacked import check_stackable
from lora_course.labs.stacked_adam import StackedAdam

METHODS = ("full", "lora", "dora", "dora-exact", "magnitude")
KEYS = {"method", "r", "alpha", "lr", "seed"}


@dataclass(frozen=True, eq=False)
class MagnitudeRun:
    r"""What training at one point gave: `accuracy` on the test rows, and `path`, {step: {name: W' (d, k)}}."""

    point: dict
    accuracy: float
    path: dict[int, dict[str, torch.Tensor]]


def magnitude_sweep(model, data, points, *, steps, batch=64, marks=()) -> list[MagnitudeRun]:
    r"""Fine-tune all linear layers of `model` on `data` with Adam at each point; `model` stays as it is.

    A point is {"method", "r", "alpha", "lr", "seed"}; r and alpha are None for "full" and "magnitude". The seed fixes
    the start of A, as `inject` draws it, and the batches, as `fit` draws them; biases are frozen. `path` of a run has
    the weights after the steps in `marks` and after the last one.

    Raises ValueError if the model is no nn.Sequential of nn.Linear and elementwise activations, a point has other
    keys or values than those, or a mark is no step from 1 to `steps`; TypeError for what is no number. Nothing is
    trained then.
    """
    check_stackable(model)
    steps, batch, points = at_least("steps", steps, 1), at_least("batch", batch, 1), list(points)
    for point in points:
        _check(point)
    if not all(at_least("mark", mark, 1) <= steps for mark in marks):
        raise ValueError(f"marks={tuple(marks)!r} must be steps from 1 to {steps}")
    done = {}
    for method in METHODS:
        chosen = [point for point in points if point["method"] == method]
        if chosen:
            runs = _train(model, data, method, chosen, steps, batch, {*marks, steps})
            done |= dict(zip(map(id, chosen), runs, strict=True))
    return [done[id(point)] for point in points]


def _check(point):
    if not isinstance(point, Mapping) or set(point) != KEYS:
        raise ValueError(f"point={point!r} must have the keys {sorted(KEYS)}")
    alone = choice("method", point["method"], METHODS) in ("full", "magnitude")
    if alone != (point["r"] is None) or alone != (point["alpha"] is None):
        raise ValueError(f"r={point['r']!r}, alpha={point['alpha']!r}: give both, and None for 'full' and 'magnitude'")
    if not alone:
        at_least("r", point["r"], 1)
        check_alpha(point["alpha"])
    positive("lr", point["lr"])
    at_least("seed", point["seed"], 0)


def _train(model, data, method, points, steps, batch, marks):
    """Train the points of one method; return their MagnitudeRuns."""
    layers = {name: layer for name, layer in model.named_children() if isinstance(layer, nn.Linear)}
    parts = _start(layers, method, points)
    parameters = [p.requires_grad_() for part in parts.values() for p in part["train"]]
    stepper = StackedAdam(parameters)
    rates = torch.tensor([point["lr"] for point in points])[:, None, None].to(parameters[0].dtype)
    sources = {seed: generator(seed) for seed in {point["seed"]: 0 for point in points}}
    paths = [{} for _ in points]
    for step in range(1, steps + 1):
        rows = {seed: torch.randint(len(data.x_train), (batch,), generator=g) for seed, g in sources.items()}
        rows = torch.stack([rows[point["seed"]] for point in points])
        logits = _forward(model, {name: _weights(method, part) for name, part in parts.items()}, data.x_train[rows])
        loss = F.cross_entropy(logits.flatten(0, 1), data.y_train[rows].flatten(), reduction="sum") / batch
        stepper.step(torch.autograd.grad(loss, parameters), rates)  # a point's loss has no gradient elsewhere
        if step in marks:
            with torch.no_grad():
                weights = {name: _weights(method, part) for name, part in parts.items()}
            for i, path in enumerate(paths):
                path[step] = {name: W[i].detach().clone() for name, W in weights.items()}
    with torch.no_grad():
        hits = _forward(model, weights, data.x_test.expand(len(points), -1, -1)).argmax(-1) == data.y_test
    shares = hits.double().mean(-1).tolist()
    return [MagnitudeRun(dict(p), share, path) for p, share, path in zip(points, shares, paths, strict=True)]


def _start(layers, method, points):
    """Return {name: {"W0", "s", "train": [...]}}, each A as `inject` draws it, padded with rows that stay zero."""
    P, most = len(points), max(point["r"] or 0 for point in points)
    sources = [generator(point["seed"]) for point in points]
    parts = {}
    for name, layer in layers.items():
        W = layer.weight.detach()
        A, B = W.new_zeros(P, most, W.shape[1]), W.new_zeros(P, W.shape[0], most)
        for i, point in enumerate(points):
            if point["r"]:
                A[i, : point["r"]] = kaiming(W, point["r"], sources[i])[0]
        m = W.norm(dim=1, keepdim=True).repeat(P, 1, 1)
        train = {"full": [W.repeat(P, 1, 1)], "lora": [A, B], "magnitude": [m]}.get(method, [A, B, m])
        s = torch.tensor([point["alpha"] / point["r"] if point["r"] else 0 for point in points], dtype=W.dtype)
        parts[name] = {"W0": W, "s": s[:, None, None], "train": train}
    return parts


def _weights(method, part):
    """Return W' (P, d, k)."""
    W0, train = part["W0"], part["train"]
    if method == "full":
        return train[0]
    if method == "magnitude":
        return train[0] * (W0 / W0.norm(dim=1, keepdim=True))
    V = torch.baddbmm(W0.expand(len(part["s"]), -1, -1), part["s"] * train[1], train[0])
    if method == "lora":
        return V
    norm = V.norm(dim=2, keepdim=True)
    return train[2] / (norm if method == "dora-exact" else norm.detach()) * V


def _forward(model, weights, x):
    """Return the logits (P, n, classes) for x (P, n, inputs)."""
    for name, layer in model.named_children():
        if isinstance(layer, nn.Linear):
            x = x @ weights[name].mT + (0 if layer.bias is None else layer.bias.detach())
        else:
            x = layer(x)
    return x
