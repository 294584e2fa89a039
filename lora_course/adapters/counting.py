r"""Parameters of a live model, each counted once: what is trained, what the adapters add, what was there.

Here the tensors are asked; by the formula, an adapter of rank r on a (d, k) weight has r (d + k) parameters.
"""

from typing import NamedTuple

from torch.nn.parameter import is_lazy

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_model


class ParameterCount(NamedTuple):
    r"""Numbers of parameters: trainable; in adapters; in the base, i.e. in all the rest (trained or not)."""

    trainable: int
    adapter: int
    base: int

    @property
    def total(self):
        r"""All parameters, adapters and base."""
        return self.adapter + self.base

    @property
    def share(self):
        r"""trainable / total, the share that PEFT prints (0.0 for a model without parameters)."""
        return self.trainable / max(self.total, 1)

    @property
    def share_of_base(self):
        r"""trainable / base, the share of the model as it was without adapters (0.0 without a base)."""
        return self.trainable / max(self.base, 1)


def trainable_parameters(model):
    r"""Return the list of the parameters with requires_grad, each once: what an optimizer is given.

    Raises TypeError if ``model`` is no nn.Module.
    """
    return [p for p in check_model(model).parameters() if p.requires_grad]


def count_parameters(model):
    r"""Return the ParameterCount of ``model``; a shared or tied parameter counts once, also on the meta device.

    Raises TypeError if ``model`` is no nn.Module.
    """
    own = {p: None for m in check_model(model).modules() if isinstance(m, Adapter) for p in m.parameters(recurse=False)}
    adapter, total = numel(own), numel(model.parameters())
    return ParameterCount(numel(trainable_parameters(model)), adapter, total - adapter)


def numel(parameters):
    r"""Return how many numbers the parameters hold; a lazy one has no size yet and counts as 0."""
    return sum(p.numel() for p in parameters if not is_lazy(p))
