r"""AdaLoRA's sharing out of the rank: a budget of triplets that shrinks, and goes where the importance is.

Symbols: t the number of the step; b0 = Σ r triplets at the start; I = |p ∂L/∂p| the sensitivity of an entry p,
Ī its smoothed value, Ū the smoothed |I - Ī|, its uncertainty; s = Ī Ū. A triplet i of a layer has the importance
    S_i = s(λ_i) + mean_j s(Q_ij) + mean_j s(P_ji).
"""

import math
from numbers import Integral, Real

import torch

from lora_course.adapters.adalora import svd_layers


def _check(name, value, low, high=math.inf, kind=Integral):
    what = "an integer" if kind is Integral else "a number"
    wanted = f"{name} must be {what} " + (f"of at least {low}" if high == math.inf else f"from {low} to {high}")
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{wanted}, got {value!r} of type {type(value).__name__}")
    if not low <= value <= high:
        raise ValueError(f"{wanted}, got {value}")
    return value


class RankAllocator:
    r"""Switch triplets of the SVDLinears of ``model`` off (λ = 0), until ``budget`` of them are left.

    Call ``step(t)`` for t = 0, 1, ... after ``optimizer.step()`` and before ``zero_grad()``: as in PEFT, the
    importance then is that of the *updated* entries with the gradient from before.

    Args:
        model: an nn.Module with SVDLinears.
        budget: how many triplets to leave in all layers together, from 1 to b0 (PEFT: target_r × layers).
        t_start: up to this step nothing is masked (PEFT's tinit).
        t_final: number of last steps, in which the choice stands (PEFT's tfinal).
        total: number of all steps, above t_start + t_final.
        every: between t_start and total - t_final, mask at multiples of this number (PEFT's deltaT).
        beta1, beta2: decay of Ī and Ū, in (0, 1).

    A masked λ still gets gradients: it may revive between two maskings and win its place back at the next one,
    until the choice at step total - t_final. Other than PEFT, a budget of b0 is allowed (PEFT stops with an
    error), and among equals as many are kept as the budget says (PEFT masks all that equal the threshold).

    Raises TypeError or ValueError for a bad argument.

    Source: Zhang et al. (2023), AdaLoRA, Section 3.2, Eqs. (8) to (13), Algorithm 1, and the schedule of
    Section 3.3, with PEFT's names and rounding.
    """

    def __init__(self, model, budget, t_start, t_final, total, every, beta1=0.85, beta2=0.85):
        self.layers = svd_layers(model)
        self.initial_budget = sum(layer.r for layer in self.layers.values())
        self.final_budget = _check("budget", budget, 1, self.initial_budget)
        self.t_start, self.t_final = _check("t_start", t_start, 0), _check("t_final", t_final, 0)
        self.total = _check("total (more than t_start + t_final)", total, t_start + t_final + 1)
        self.every = _check("every", every, 1)
        inside = (math.nextafter(0, 1), math.nextafter(1, 0), Real)
        self.beta1, self.beta2 = _check("beta1", beta1, *inside), _check("beta2", beta2, *inside)
        self.kept = {name: torch.ones(layer.r, dtype=torch.bool) for name, layer in self.layers.items()}
        self.is_final, self._smoothed = False, {}

    def budget_at(self, t):
        r"""Return b(t) = ⌊budget + (b0 - budget) (1 - (t - t_start) / (total - t_final - t_start))³⌋.

        Before t_start it is b0, and from total - t_final on it is the budget.
        """
        last = self.total - self.t_final
        left = 1 - (min(max(t, self.t_start), last) - self.t_start) / (last - self.t_start)
        return int((self.initial_budget - self.final_budget) * left**3 + self.final_budget)

    def ranks(self):
        r"""Return {name: number of triplets that the last masking kept}; before the first one, r of each layer."""
        return {name: int(kept.sum()) for name, kept in self.kept.items()}

    def importance(self):
        r"""Return {name: S (r,)}, the importance of the triplets; zeros before the first step."""

        def s(p):
            return math.prod(self._smoothed.get(p, (torch.zeros_like(p),)))

        return {
            name: (s(layer.lora_E)[:, 0] + s(layer.lora_A).mean(1) + s(layer.lora_B).mean(0)).detach()
            for name, layer in self.layers.items()
        }

    @torch.no_grad()
    def step(self, t):
        r"""Change the model in place after step t: note the importance, mask if it is time; return b(t).

        Raises, and changes nothing:
            TypeError, ValueError: t is no integer of at least 0.
            ValueError: a gradient is not finite (leave the call out where the optimizer leaves its step out).
            RuntimeError: no SVDLinear has a gradient.
        """
        last = self.total - self.t_final
        if _check("t", t, 0) < last:
            self._note_importance()
        due = self.t_start < t < last and t % self.every == 0
        if due or (t >= last and not self.is_final):
            self._choose(self.budget_at(t))
            self.is_final = t >= last
        if due or t >= last:
            for name, layer in self.layers.items():
                layer.lora_E.masked_fill_(~self.kept[name].to(layer.lora_E.device)[:, None], 0)
        return self.budget_at(t)

    def _note_importance(self):
        named = [(f"{n}.{key}", p) for n, layer in self.layers.items() for key, p in layer._parameters.items()]
        if all(p.grad is None for _, p in named):
            raise RuntimeError("no SVDLinear has a gradient: call step(t) after backward() and before zero_grad()")
        for name, p in named:
            if p.grad is not None and not torch.isfinite(p.grad).all():
                raise ValueError(f"the gradient of {name} is not finite: leave step(t) out, as the optimizer's step")
        for _, p in named:
            sensitivity, uncertainty = self._smoothed.get(p, (torch.zeros_like(p),) * 2)
            now = torch.zeros_like(p) if p.grad is None else (p * p.grad).abs()
            sensitivity = self.beta1 * sensitivity + (1 - self.beta1) * now
            uncertainty = self.beta2 * uncertainty + (1 - self.beta2) * (now - sensitivity).abs()
            self._smoothed[p] = sensitivity, uncertainty

    def _choose(self, budget):
        scores = {name: S.cpu() for name, S in self.importance().items()}
        order = torch.cat(list(scores.values())).sort(descending=True, stable=True).indices
        kept = torch.zeros(self.initial_budget, dtype=torch.bool).index_fill(0, order[:budget], True)
        self.kept = dict(zip(scores, kept.split([len(S) for S in scores.values()]), strict=True))
