r"""The two modules of source text 004, made to run: what it calls a gauge field and a fiber bundle.

W0 (d, k) = (out_features, in_features) of the base, an nn.Linear; rows are samples, x (..., k). Written by us from the
text's formulas; each class names the repairs without which it would not run, and nothing else is repaired.
"""

import torch
from torch import nn

from lora_course.labs._checks import at_least, generator


def _base(name, layer) -> nn.Linear:
    """Return the layer; TypeError unless it is an nn.Linear, which knows its two sizes."""
    if not isinstance(layer, nn.Linear):
        raise TypeError(f"{name} must be an nn.Linear, got {type(layer).__name__}")
    return layer


class LoRAGaugeField(nn.Module):
    r"""Text 004's "gauge field": output = base(x) + x phi A, with phi (k, r) and A (r, d) trained, and so is the base.

    Repairs: (1) the text asks the base for an attribute `dim` that nn.Linear does not have; here its two sizes are
    read, so that d may differ from k. (2) The two methods that `parallel_transport` calls are not defined there; here
    they are the least that two end points determine: the straight line, followed to its end. (3) The numbers are drawn
    by `seed`, not by the global generator; as in the text they are standard normal, both of them.

    Args:
        base_model: an nn.Linear; shared, not copied, not frozen (the text does not).
        rank: r, a positive int.
        seed: of the start.

    Raises `TypeError` or `ValueError` for a bad argument.
    """

    def __init__(self, base_model: nn.Linear, rank: int = 8, seed: int = 0):
        super().__init__()
        weight, self.rank = _base("base_model", base_model).weight, at_least("rank", rank, 1)
        source, like = generator(seed), {"dtype": weight.dtype}
        self.A = nn.Parameter(torch.randn(self.rank, weight.shape[0], generator=source, **like))
        self.phi = nn.Parameter(torch.randn(weight.shape[1], self.rank, generator=source, **like))
        self.base_model = base_model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r"""Return base(x) + x phi A, (..., d) for x (..., k)."""
        return self.base_model(x) + x @ (self.phi @ self.A)

    def delta_weight(self) -> torch.Tensor:
        r"""Return what is added to the base's weight, (phi A)ᵀ = Aᵀ phiᵀ (d, k): in LoRA's letters B = Aᵀ, A = phiᵀ."""
        return (self.phi @ self.A).T

    def compute_parallel_path(self, start: torch.Tensor, target: torch.Tensor):
        r"""Return the straight line from `start` to `target` as a function of t in [0, 1] (repair 2)."""
        return lambda t: (1 - t) * start + t * target

    def execute_parallel_transport(self, path) -> torch.Tensor:
        r"""Return the weight at the end of the path, path(1) (repair 2)."""
        return path(1)

    def parallel_transport(self, target_weights: torch.Tensor) -> torch.Tensor:
        r"""Return the base's weight, "transported" to `target_weights`: the text's two lines."""
        path = self.compute_parallel_path(self.base_model.weight, target_weights)
        return self.execute_parallel_transport(path)


class LoRAFiberBundle(nn.Module):
    r"""Text 004's "fiber bundle": output = base(x) + the sum of `fiber_dim` dense layers of the base's size.

    Repairs: (1) as for `LoRAGaugeField`, the base's two sizes are read instead of its `dim`; (2) the dense layers start
    as nn.Linear does, but drawn by `seed`; of a base on the meta device they stay there, for counting.

    Args:
        base_model: an nn.Linear; shared, not copied, not frozen.
        fiber_dim: number of dense layers, which the text calls the fiber's dimension and takes for the rank.
        seed: of the start.

    Raises `TypeError` or `ValueError` for a bad argument.
    """

    def __init__(self, base_model: nn.Linear, fiber_dim: int = 8, seed: int = 0):
        super().__init__()
        weight, self.fiber_dim = _base("base_model", base_model).weight, at_least("fiber_dim", fiber_dim, 1)
        self.base_model, self.fibers, source = base_model, nn.ModuleList(), generator(seed)
        d, k = weight.shape
        for _ in range(self.fiber_dim):
            fiber = nn.Linear(k, d, device="meta", dtype=weight.dtype)  # else it would draw from the global generator
            if not weight.is_meta:
                fiber = fiber.to_empty(device="cpu")
                with torch.no_grad():
                    for parameter in fiber.parameters():
                        parameter.uniform_(-(k**-0.5), k**-0.5, generator=source)
            self.fibers.append(fiber)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        r"""Return base(x) + the sum of all fibers' outputs, (..., d) for x (..., k)."""
        return self.base_model(x) + torch.stack([fiber(x) for fiber in self.fibers]).sum(0)

    def as_one_layer(self) -> nn.Linear:
        r"""Return the single nn.Linear that computes the same for every x: weights and biases added up."""
        layers = [self.base_model, *self.fibers]
        d, k = self.base_model.weight.shape
        one = nn.Linear(k, d, device="meta", dtype=layers[0].weight.dtype).to_empty(device="cpu")
        with torch.no_grad():
            one.weight.copy_(sum(layer.weight for layer in layers))
            one.bias.copy_(sum(layer.bias for layer in layers if layer.bias is not None))
        return one
