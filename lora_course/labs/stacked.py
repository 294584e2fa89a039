r"""Fine-tuning one network at many points at once: adapters as stacked factors, their ranks padded.

P points; n rows of a batch; A (P, r, k) and Bt (P, r, d) of a layer with k inputs and d outputs. Points of about
equal rank form a bucket. theta (P, N) holds all that a bucket trains, one row for each point, so PyTorch's own
optimizers step them all at once: they work entry by entry, and do not mind the stacking.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.adapters.initialisers import kaiming
from lora_course.labs._checks import generator
from lora_course.labs.progress import progress
from lora_course.labs.stacked_layers import Frozen, Full, Merged, activation, adapted, cross_entropy
from lora_course.labs.training import OPTIMIZERS

LEAST_RANK = 4  # smaller ranks are padded to this: a bucket of their own costs more
MOST_NUMBERS = 200_000  # in one activation of a bucket: more do not stay in the cache
FEW_POINTS = 6  # a bucket below this also takes points of another seed, whose batches differ
ELEMENTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
    *(nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid, nn.Identity),
)


def check_stackable(model):
    r"""Raise `ValueError`, which says what to do, unless `model` can be trained stacked.

    It can if it is an nn.Sequential of nn.Linear and elementwise activations, each nn.Linear used once.
    """
    remedy = "train it point by point: sweep(..., executor=concurrent.futures.ThreadPoolExecutor(1))"
    if type(model) is not nn.Sequential:
        raise ValueError(f"model is a {type(model).__name__}, and only an nn.Sequential can be stacked; {remedy}")
    seen = set()
    for name, layer in model._modules.items():
        if type(layer) not in (nn.Linear, *ELEMENTWISE):
            kind = type(layer).__name__
            raise ValueError(f"layer {name!r} is a {kind}, neither nn.Linear nor an elementwise activation; {remedy}")
        if isinstance(layer, nn.Linear) and id(layer.weight) in seen:
            raise ValueError(f"layer {name!r} has the weight of another layer; {remedy}")
        seen.add(id(getattr(layer, "weight", layer)))


def padded(r):
    r"""Return the rank to which r is padded: the next power of two, at least LEAST_RANK; 0 for full fine-tuning."""
    return 0 if r is None else max(LEAST_RANK, 1 << (r - 1).bit_length())


def buckets(points, numbers):
    r"""Return lists of points that are trained in one stack: of one padded rank, if possible of one seed.

    `numbers` is the size of the largest activation of one point: rows of a batch times width of a layer.
    """
    most = max(FEW_POINTS, MOST_NUMBERS // numbers)

    def key(point):
        return padded(point["r"]), point["seed"], point["lr"]

    found = []
    for point in sorted(points, key=key):
        last = found[-1] if found else []
        same_rank, same_seed = (last and key(last[-1])[:k] == key(point)[:k] for k in (1, 2))
        if same_rank and len(last) < (most if same_seed else FEW_POINTS):
            last.append(point)
        else:
            found.append([point])
    return found


class Stack:
    r"""The points of one bucket: parameters theta (P, N), their gradient, and the layers, which hold views of both.

    weights: {name: (A (P, r, k), Bt (P, r, d))}, or {name: (W (P, d, k),)} for full fine-tuning.
    base: {name: (P, d, k)}, W0 - s B0 A0 for the layers in which a start moved it.
    """

    def __init__(self, model, targets, points, batch, factors=None):
        self.points, self.batch, P = points, batch, len(points)
        r = max(point["r"] or 0 for point in points)
        self.W0 = {name: layer.weight.detach() for name, layer in targets.items()}
        shapes = {name: [(r, W.shape[1]), (r, W.shape[0])] if r else [W.shape] for name, W in self.W0.items()}
        zeros = next(iter(self.W0.values())).new_zeros
        self.theta, self.gradient = (
            zeros(P, sum(rows * columns for pair in shapes.values() for rows, columns in pair)) for _ in range(2)
        )
        self.weights, gradients = _views(self.theta, shapes), _views(self.gradient, shapes)
        s = zeros(P, 1, 1)
        s[:, 0, 0] = torch.tensor([point["alpha"] / point["r"] if r else 1.0 for point in points], dtype=s.dtype)
        self._start(factors or self._kaiming)
        moved = {name: s * pair[1].mT @ pair[0] for name, pair in self.weights.items() if r and pair[1].any()}
        self.base = {name: self.W0[name] - delta for name, delta in moved.items() if delta.any()}
        self.starts = {name: [factor.clone() for factor in self.weights[name]] for name in self.base}
        self.layers, self.first = [], None  # first: the index of the first trained layer, where backward ends
        for i, (name, layer) in enumerate(model._modules.items()):
            if not isinstance(layer, nn.Linear):
                made = activation(layer, self.layers[-1] if i else None)
            elif name not in targets:
                made = Frozen(layer)
            elif r and name in self.base:
                made = Merged(layer, s, *self.weights[name], *gradients[name], base=self.base[name])
            elif r:
                made = adapted(layer, batch, self.first is None, s, *self.weights[name], *gradients[name])
            else:
                made = Full(layer, *self.weights[name], *gradients[name])
            if name in targets and self.first is None:
                self.first = i
            self.layers.append(made)

    def _start(self, factors):
        """Fill in what training starts from: W0, or the factors {name: (A0 (r, k), B0 (d, r))} of each point."""
        drawn = {}
        for i, point in enumerate(self.points):
            key = point["r"], point["alpha"], point["seed"]
            if point["r"] is not None and key not in drawn:
                drawn[key] = factors(point)
            for name, W in self.W0.items():
                if point["r"] is None:
                    self.weights[name][0][i] = W
                else:
                    A0, B0 = drawn[key][name]
                    self.weights[name][0][i, : len(A0)] = A0
                    self.weights[name][1][i, : len(A0)] = B0.T

    def _kaiming(self, point):
        """Draw each A as `inject` does: layer by layer from one generator of the point's seed; B = 0."""
        source = generator(point["seed"])
        return {name: kaiming(W, point["r"], source) for name, W in self.W0.items()}

    def forward(self, x):
        r"""Return the logits (P, n, classes) for x (P, n, inputs), or (n, inputs) where all points see the same."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def step(self, batches):
        r"""Write the gradient for {seed: (x, onehot)}; return the losses (P,)."""
        x, onehot = together([batches[point["seed"]] for point in self.points])
        losses, g = cross_entropy(self.forward(x), onehot)
        for i in range(len(self.layers) - 1, self.first - 1, -1):
            g = self.layers[i].backward(g, i > self.first)
        return losses

    def accuracies(self, sets, part):
        r"""Return the shares of right classes on the "train" or "test" part of {seed: data}, one for each point."""
        of = [sets[point["seed"]] for point in self.points]
        x, y = together([(getattr(data, f"x_{part}"), getattr(data, f"y_{part}")) for data in of])
        hits = 0
        for rows, classes in zip(x.split(self.batch, -2), y.split(self.batch, -1), strict=True):  # what the cache holds
            hits = hits + (self.forward(rows).contiguous().argmax(-1) == classes).sum(-1)
        return (hits.float() / y.shape[-1]).tolist()

    def result(self, i):
        r"""Return ({name: (B (d, r), A (r, k))}, {}) of the i-th point, without padding, or ({}, {name: W - W0}).

        Where a start moved the base, B is (B, -B0) and A is A above A0, as `plain_factors` has them.
        """
        r, found = self.points[i]["r"], {}
        if r is None:
            return {}, {name: W[i] - self.W0[name] for name, (W,) in self.weights.items()}
        for name, (A, Bt) in self.weights.items():
            A, B = A[i, :r].clone(), Bt[i, :r].T.clone()
            if name in self.base:
                A0, B0 = (start[i] for start in self.starts[name])
                A, B = torch.cat([A, A0[:r]]), torch.cat([B, -B0[:r].T], 1)
            found[name] = B, A
        return found, {}

    def groups(self):
        r"""Return parameter groups for an optimizer: the rows of theta with one learning rate, and their gradient."""
        rates = [point["lr"] for point in self.points]
        edges = [0, *(i for i in range(1, len(rates)) if rates[i] != rates[i - 1]), len(rates)]
        found = []
        for i, j in zip(edges[:-1], edges[1:], strict=True):
            rows = nn.Parameter(self.theta[i:j])
            rows.grad = self.gradient[i:j]
            found.append({"params": [rows], "lr": rates[i]})
        return found


@torch.no_grad()
def train(model, targets, points, sets, *, steps, batch, optimizer, weight_decay, after_step, factors=None):
    r"""Return the trained Stacks and {id(point): losses (steps,)}.

    `targets` is {name: nn.Linear}, `sets` {seed: data}. `after_step(steps done, stacks)` is called before the first
    step and after each. `factors(point)` gives the start {name: (A0, B0)}; None: that of `inject`.
    """
    linears = [layer for layer in model if isinstance(layer, nn.Linear)]
    width, classes = max(layer.out_features for layer in linears), linears[-1].out_features
    stacks = [Stack(model, targets, bucket, batch, factors) for bucket in buckets(points, batch * width)]
    stepper = _stepper(optimizer, [group for stack in stacks for group in stack.groups()], weight_decay)
    sources, losses = {seed: generator(seed) for seed in sets}, []
    after_step(0, stacks)
    for step in progress(steps, "sweep"):
        batches = {}
        for seed, data in sets.items():
            rows = torch.randint(len(data.x_train), (batch,), generator=sources[seed])
            x, y = data.x_train[rows], data.y_train[rows]
            batches[seed] = x, F.one_hot(y, classes).T.to(x.dtype)
        losses.append(torch.cat([stack.step(batches) for stack in stacks]))
        stepper.step()
        after_step(step + 1, stacks)
    order = [id(point) for stack in stacks for point in stack.points]
    return stacks, dict(zip(order, torch.stack(losses, 1).double(), strict=True))


def together(batches):
    r"""Return the (x, y) of several points: as they are where all have the same, else stacked along a first axis."""
    xs, ys = zip(*batches, strict=True)
    if all(x is xs[0] for x in xs):
        return xs[0], ys[0]
    return torch.stack(xs), torch.stack(ys)


def _views(flat, shapes):
    """Return {name: views (P, rows, columns)} of consecutive parts of the rows of flat (P, N)."""
    views, begin = {}, 0
    for name, pair in shapes.items():
        views[name] = []
        for rows, columns in pair:
            end = begin + rows * columns
            views[name].append(flat[:, begin:end].view(len(flat), rows, columns))
            begin = end
    return views


def _stepper(optimizer, groups, weight_decay):
    """Return PyTorch's optimizer over the groups, with its one-pass kernel where this version has it for the CPU."""
    make = OPTIMIZERS[optimizer]
    try:
        return make([dict(group) for group in groups], lr=1.0, weight_decay=weight_decay, fused=True)
    except (RuntimeError, TypeError):
        return make(groups, lr=1.0, weight_decay=weight_decay)
