r"""The trainings of `AllocationExperiment` stacked: one forward, one backward and one masking for P points.

Symbols as in `allocation`; theta (P, N) holds Q, Pt and E of all layers, one row for each point. s = Ī Ū of an entry.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lora_course.labs._checks import generator
from lora_course.labs.progress import progress
from lora_course.labs.stacked import together
from lora_course.labs.stacked_adam import StackedAdam
from lora_course.labs.stacked_layers import activation, adapted, cross_entropy


class AllocationStack:
    r"""P trainings of one experiment, either all with a budget for AdaLoRA or all with fixed ranks.

    settings: list of (ranks, lr, seed), checked; ranks an int, or a tuple with the rank of each layer.
    """

    def __init__(self, experiment, settings):
        self.e, self.settings, P = experiment, settings, len(settings)
        self.adaptive = isinstance(settings[0][0], int)
        L, linears = len(experiment.layers), list(experiment.layers.values())
        full = (experiment.r,) * L
        self.shares = [full if self.adaptive else ranks for ranks, _, _ in settings]
        r = self.r = max(map(max, self.shares))
        shapes = [shape for W in linears for shape in ((r, W.in_features), (r, W.out_features), (r, 1))]
        zeros = linears[0].weight.new_zeros
        sizes = [rows * columns for rows, columns in shapes]
        self.theta, self.gradient = zeros(P, sum(sizes)), zeros(P, sum(sizes))
        self.Q, self.Pt, self.E = _views(self.theta, sizes, shapes)
        self.gQ, self.gPt, self.gE = _views(self.gradient, sizes, shapes)
        self._start()
        s = zeros(P, 1, 1) + experiment.alpha / experiment.r
        self.M, self.gM = [torch.zeros_like(Q) for Q in self.Q], [torch.zeros_like(Q) for Q in self.Q]
        self.net, at = [], 0
        for module in experiment.model:
            if isinstance(module, nn.Linear):
                parts = self.M[at], self.Pt[at], self.gM[at], self.gPt[at]
                self.net.append(adapted(module, experiment.batch_size, at == 0, s, *parts))
                at += 1
            else:
                self.net.append(activation(module, self.net[-1] if self.net else None))

    def _start(self):
        """Draw Q and P as SVDLinear does, layer by layer from one generator of the point's seed; λ = 0."""
        for i, (share, (_, _, seed)) in enumerate(zip(self.shares, self.settings, strict=True)):
            source = generator(seed)
            for Q, Pt, rank in zip(self.Q, self.Pt, share, strict=True):
                if rank:
                    Q[i, :rank] = torch.empty_like(Q[i, :rank]).normal_(0, 0.02, generator=source)
                    Pt[i, :rank] = torch.empty(Pt.shape[2], rank).to(Pt).normal_(0, 0.02, generator=source).T

    def forward(self, x):
        r"""Return the logits (P, n, classes)."""
        for M, E, Q in zip(self.M, self.E, self.Q, strict=True):
            torch.mul(E, Q, out=M)
        for layer in self.net:
            x = layer.forward(x)
        return x

    def _backward(self, g):
        """Write the gradient of cross-entropy plus gamma times the penalty."""
        for i in range(len(self.net) - 1, -1, -1):
            g = self.net[i].backward(g, i > 0)
        for Q, Pt, E, gQ, gPt, gE, gM in zip(self.Q, self.Pt, self.E, self.gQ, self.gPt, self.gE, self.gM, strict=True):
            torch.sum(gM * Q, 2, keepdim=True, out=gE)
            torch.mul(E, gM, out=gQ)
            for X, gX in ((Q, gQ), (Pt, gPt)):
                gram = torch.bmm(X, X.mT)
                gram.diagonal(dim1=1, dim2=2).sub_(1)  # a row of padding stays zero all the same
                gX.baddbmm_(gram, X, alpha=4 * self.e.gamma)

    @torch.no_grad()
    def train(self, data):
        r"""Return, for each point, (ranks, history, test accuracy, training loss)."""
        e, P = self.e, len(self.settings)
        lr = self.theta.new_tensor([rate for _, rate, _ in self.settings])[:, None]
        adam, sources = StackedAdam([self.theta]), {seed: generator(seed) for _, _, seed in self.settings}
        if self.adaptive:
            masking = _Masking(self)
        for t in progress(e.steps, "allocation"):
            batches = {}
            for seed, source in sources.items():
                rows = torch.randint(len(data.x_train), (e.batch_size,), generator=source)
                batches[seed] = data.x_train[rows], F.one_hot(data.y_train[rows], self.net[-1].W0.shape[0])
            pairs = [(x, onehot.T.to(x.dtype)) for x, onehot in (batches[seed] for _, _, seed in self.settings)]
            x, onehot = together(pairs)
            self._backward(cross_entropy(self.forward(x), onehot)[1])
            adam.step([self.gradient], lr)
            if self.adaptive:
                masking.step(t)
        hits, losses = self._measure(data.x_test, data.y_test)[0], self._measure(data.x_train, data.y_train)[1]
        if not self.adaptive:
            return [(share, [], h, loss) for share, h, loss in zip(self.shares, hits, losses, strict=True)]
        return [(masking.history[i][-1][2], masking.history[i], hits[i], losses[i]) for i in range(P)]

    def _measure(self, x, y):
        """Return (accuracies, mean losses), a list each, over all rows, as many at a time as in training."""
        hits, nats = 0, 0
        for rows, classes in zip(x.split(self.e.batch_size), y.split(self.e.batch_size), strict=True):
            z = self.forward(rows)
            hits = hits + (z.argmax(-1) == classes).sum(-1)
            nats = nats + F.cross_entropy(z.mT, classes.expand(len(z), -1), reduction="none").sum(-1)
        return (hits.float() / len(y)).tolist(), (nats / len(y)).tolist()


class _Masking:
    """What RankAllocator does, for P models: importance from theta and its gradient, masks on E."""

    def __init__(self, stack):
        self.stack, e = stack, stack.e
        # one allocator per point knows the schedule; it is never given a gradient
        model = e._adapted((e.r,) * len(e.layers), 0)
        self.plans = [e.allocator(model, budget) for budget, _, _ in stack.settings]
        self.mean, self.spread = torch.zeros_like(stack.theta), torch.zeros_like(stack.theta)
        self.kept, self.history = None, [[] for _ in stack.settings]
        widths = [(Q.shape[2], Pt.shape[2]) for Q, Pt in zip(stack.Q, stack.Pt, strict=True)]
        self.shapes = [shape for k, d in widths for shape in ((stack.r, k), (stack.r, d), (stack.r, 1))]
        self.sizes = [rows * columns for rows, columns in self.shapes]

    def step(self, t):
        plan, stack = self.plans[0], self.stack
        last = plan.total - plan.t_final
        if t < last:
            now = (stack.theta * stack.gradient).abs_()
            self.mean.mul_(plan.beta1).add_(now, alpha=1 - plan.beta1)
            self.spread.mul_(plan.beta2).add_((now - self.mean).abs_(), alpha=1 - plan.beta2)
        due = plan.t_start < t < last and t % plan.every == 0
        if due or t == last:
            self._choose(t)
        if due or t >= last:
            for E, kept in zip(stack.E, self.kept.split(stack.r, 1), strict=True):
                E.mul_(kept[:, :, None])

    def _choose(self, t):
        Q, Pt, E = _views(self.mean * self.spread, self.sizes, self.shapes)
        S = torch.cat([e[:, :, 0] + q.mean(2) + p.mean(2) for q, p, e in zip(Q, Pt, E, strict=True)], 1)
        order = S.sort(dim=1, descending=True, stable=True).indices
        self.kept = torch.zeros_like(S)
        for i, plan in enumerate(self.plans):
            budget = plan.budget_at(t)
            self.kept[i, order[i, :budget]] = 1
            ranks = tuple(int(part.sum()) for part in self.kept[i].split(self.stack.r))
            self.history[i].append((t, budget, ranks))


def _views(flat, sizes, shapes):
    """Return the views (P, rows, columns) of consecutive parts of flat (P, N): three lists, of Q, of Pt and of E."""
    parts = [part.view(len(flat), *shape) for part, shape in zip(flat.split(sizes, 1), shapes, strict=True)]
    return parts[0::3], parts[1::3], parts[2::3]
