r"""LoRA and its family as nn.Modules, for any nn.Module of yours.

    report = inject(model, ["q_proj", "v_proj"], r=8, alpha=16)
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=2e-4)
    ...                                     # train
    merge_all(model, keep_base=True)        # W0 + ΔW in the base weights: no cost at inference
    unmerge_all(model)                      # W0 again, bit for bit
    remove(model)                           # the model as it was

Symbols: W0 (d, k) a frozen weight; A (r, k), B (d, r) the factors; ΔW = scaling · B A; scaling = alpha / r.
"""

from lora_course.adapters.counting import ParameterCount, count_parameters, trainable_parameters
from lora_course.adapters.inject import inject, remove
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.merging import merge_all, unmerge_all
from lora_course.adapters.report import InjectionReport
from lora_course.adapters.rounding import MergeReport

__all__ = [
    "LoRALinear",
    "inject",
    "InjectionReport",
    "trainable_parameters",
    "count_parameters",
    "ParameterCount",
    "merge_all",
    "MergeReport",
    "unmerge_all",
    "remove",
]
