r"""What an injection did, to be read: names and counts, and three things that surprise.

Symbols: r rank, alpha scale, d outputs and k inputs of a layer.
"""

import textwrap
from dataclasses import dataclass

from lora_course.adapters.counting import ParameterCount


@dataclass(frozen=True, repr=False)
class InjectionReport:
    r"""What ``inject`` did.

    adapted: names of the layers that became LoRALinear, each layer once.
    r, alpha, scaling: of each of them.
    parameters: the ParameterCount of the model, adapters included.
    above_full_rank: names of the layers with r > min(d, k), where r - min(d, k) columns of B are of no use.
    used_twice: {name: other names of the same layer}; it was wrapped once, under all names.
    tied: {name: parameters in the memory of its weight}; these layers refuse ``merge`` without untie=True.
    """

    adapted: tuple[str, ...]
    r: int
    alpha: float
    scaling: float
    parameters: ParameterCount
    above_full_rank: tuple[str, ...]
    used_twice: dict[str, tuple[str, ...]]
    tied: dict[str, tuple[str, ...]]

    @property
    def trainable(self):
        r"""Number of trainable parameters."""
        return self.parameters.trainable

    @property
    def total(self):
        r"""Number of all parameters, adapters included."""
        return self.parameters.total

    def __repr__(self):
        n = len(self.adapted)
        lines = [
            f"LoRA in {n} layer{'s' if n > 1 else ''}, "
            f"r = {self.r}, alpha = {self.alpha}, scaling = {self.scaling:.4g}",
            f"  trainable: {self.trainable:,} of {self.total:,} parameters ({self.parameters.share:.4%})",
            f"  layers: {_brief(self.adapted)}",
        ]
        if self.above_full_rank:
            lines.append(f"  r above min(d, k), so more parameters than rank: {_brief(self.above_full_rank)}")
        lines += [f"  used twice, wrapped once: {name} = {' = '.join(more)}" for name, more in self.used_twice.items()]
        lines += [
            f"  tied: {name} shares its weight with {', '.join(twins)}; merge needs untie=True"
            for name, twins in self.tied.items()
        ]
        return "\n".join(_short_lines(line) for line in lines)


def _short_lines(line):
    # no wider than the page of a notebook
    return textwrap.fill(line, 79, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _brief(names):
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])}, …, {names[-1]}"
