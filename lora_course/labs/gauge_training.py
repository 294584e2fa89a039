r"""Training from one update ΔW in many gauges: (s B, A / s) is the same product for every s, but not the same training.

T (d, k) a target;  B (d, r), A (r, k);  loss = ½ ‖B A - T‖², G = B A - T, so that G_B = G Aᵀ and G_A = Bᵀ G.
A race trains all gauges s and all learning rates at once, stacked along a first axis P.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lora_course.adapters import LoRALinear
from lora_course.labs._checks import at_least, choice, positive
from lora_course.theory.geometry import RowFactors

METHODS = ("gd", "adam", "preconditioned")
DIVERGED = 1e6  # times the first loss


@dataclass(frozen=True, eq=False)
class GaugeRace:
    r"""What `gauge_race` gave.

    Attributes:
        scales, rates: the gauges s and the learning rates.
        losses: (steps + 1, scales, rates), relative to the first loss, which all gauges share; inf once diverged.
        products: (scales, rates, d, k), B A at the end (the last ones before it diverged).
    """

    scales: tuple
    rates: tuple
    losses: np.ndarray
    products: np.ndarray

    def steps_to(self, share: float) -> np.ndarray:
        r"""Return the number of steps until the loss is below `share` of the first, (scales, rates); inf if never."""
        below = self.losses < positive("share", share)
        return np.where(below.any(0), below.argmax(0), np.inf)

    def best(self, share: float) -> np.ndarray:
        r"""Return the fewest steps to `share` over the learning rates, (scales,)."""
        return self.steps_to(share).min(1)


def low_rank_target(d: int, k: int, r: int, condition: float = 10.0, seed: int = 0) -> np.ndarray:
    r"""Return a random (d, k) matrix of rank r, singular values from 1 down to 1 / condition in equal ratios."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.normal(size=(n, r)))[0] for n in (d, k))
    return U * np.geomspace(1, 1 / positive("condition", condition), r) @ V.T


def gauge_race(target, B, A, method: str, *, scales, rates, steps: int) -> GaugeRace:
    r"""Minimize ½ ‖B A - target‖² from (s B, A / s), for all `scales` s and learning `rates`, by full gradients.

    `method` is "gd"; "adam" (PyTorch's defaults); or "preconditioned", the step of Zhang and Pilanci (2024) without
    damping, B - lr G_B (A Aᵀ)⁻¹ and A - lr (Bᵀ B)⁻¹ G_A, for which B and A must have full rank.

    Raises `TypeError` or `ValueError` for an unknown method, a scale, rate or `steps` that is not positive, and
    shapes that do not fit.
    """
    choice("method", method, METHODS)
    target, B, A = (np.asarray(M, dtype=np.float64) for M in (target, B, A))
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0] or target.shape != (len(B), A.shape[1]):
        raise ValueError(f"B (d, r), A (r, k) must fit target (d, k), got {B.shape}, {A.shape} and {target.shape}")
    scales = tuple(positive("scales", s) for s in scales)
    rates = tuple(positive("rates", lr) for lr in rates)
    steps, start = at_least("steps", steps, 1), (B, A)
    s = np.repeat(scales, len(rates))[:, None, None]
    lr = np.tile(rates, len(scales))[:, None, None]
    B, A, alive = s * B, A / s, np.ones(len(s), dtype=bool)
    losses, state = np.full((steps + 1, len(s)), np.inf), {}
    with np.errstate(all="ignore"):
        for step in range(steps + 1):
            G = B @ A - target
            now = 0.5 * (G**2).sum((1, 2))
            alive &= now < DIVERGED * (now[0] if step == 0 else losses[0, 0])  # false for nan, too
            losses[step, alive] = now[alive]
            if step == steps or not alive.any():
                break
            moves = _direction(method, B, A, G, step + 1, state)
            B, A = (np.where(alive[:, None, None], M - lr * move, M) for M, move in zip((B, A), moves, strict=True))
            lost = ~(np.isfinite(B).all((1, 2)) & np.isfinite(A).all((1, 2)))
            B[lost], A[lost], alive = *start, alive & ~lost
    shape = len(scales), len(rates)
    return GaugeRace(scales, rates, (losses / losses[0, 0]).reshape(-1, *shape), (B @ A).reshape(*shape, *target.shape))


def steps_of(make, start, target, count: int) -> list:
    r"""Return [(pair, step)] of an optimizer of PyTorch on ½ ‖B A - target‖², from `start` = (B, A), for `count` steps.

    `make(layer)` returns the optimizer of a LoRALinear in float64; the pair, RowFactors, is the one before the step,
    and the step (dB, dA) is what was subtracted from it.
    """
    (d, r), k = start.B.shape, start.A.shape[1]
    layer = LoRALinear(nn.Linear(k, d, bias=False, dtype=torch.float64), r=r, alpha=r)
    factors, target, taken = (layer.lora_B, layer.lora_A), torch.as_tensor(target), []
    with torch.no_grad():
        for factor, value in zip(factors, (start.B, start.A), strict=True):
            factor.copy_(torch.as_tensor(value))
    optimizer = make(layer)
    for _ in range(at_least("count", count, 1)):
        B, A = (factor.detach().numpy().copy() for factor in factors)
        optimizer.zero_grad()
        (0.5 * ((layer.delta_weight() - target) ** 2).sum()).backward()
        optimizer.step()
        step = tuple(old - new.detach().numpy() for old, new in zip((B, A), factors, strict=True))
        taken.append((RowFactors(B, A), step))
    return taken


def _direction(method, B, A, G, step, state):
    """Return what is subtracted from B and A, times the learning rate."""
    At, Bt = A.transpose(0, 2, 1), B.transpose(0, 2, 1)
    gradients = G @ At, Bt @ G
    if method == "gd":
        return gradients
    if method == "preconditioned":
        return np.linalg.solve(A @ At, gradients[0].transpose(0, 2, 1)).transpose(0, 2, 1), np.linalg.solve(
            Bt @ B, gradients[1]
        )
    moves = []
    for name, gradient in zip("BA", gradients, strict=True):  # Adam: beta 0.9 and 0.999, eps 1e-8
        mean, square = state.get(name, (0.0, 0.0))
        state[name] = mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        moves.append(mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8))
    return moves
