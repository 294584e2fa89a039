r"""LoRA and its family as nn.Modules, for any nn.Module of yours.

    report = inject(model, ["q_proj", "v_proj"], r=8, alpha=16)
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=2e-4)
    ...                                     # train
    merge_all(model, keep_base=True)        # W0 + ΔW in the base weights: no cost at inference
    unmerge_all(model)                      # W0 again, bit for bit
    remove(model)                           # the model as it was

Symbols: W0 (d, k) a frozen weight; A (r, k), B (d, r) the factors; ΔW = scaling · B A; scaling = alpha / r.
"""

from lora_course.adapters.adalora import SVDLinear, orthogonality_penalty
from lora_course.adapters.conv import LoRAConv2d
from lora_course.adapters.counting import ParameterCount, count_parameters, trainable_parameters
from lora_course.adapters.dora import DoRALinear
from lora_course.adapters.files import load_adapter, save_adapter
from lora_course.adapters.inject import inject, remove
from lora_course.adapters.layer import LoRALinear
from lora_course.adapters.merging import merge_all, unmerge_all
from lora_course.adapters.nf4 import NF4Linear, QLoRALinear, dequantize_nf4, quantize_nf4
from lora_course.adapters.optim import loraplus_groups
from lora_course.adapters.origin import PlainFactors, plain_factors, start, start_all, undo_start, weight_gradients
from lora_course.adapters.pair import AdapterFileError
from lora_course.adapters.preconditioned import PreconditionedSGD
from lora_course.adapters.rank_allocation import RankAllocator
from lora_course.adapters.report import InjectionReport
from lora_course.adapters.rounding import MergeReport
from lora_course.adapters.vera import VeRALinear, VeRAProjection, inject_vera

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
    "save_adapter",
    "load_adapter",
    "AdapterFileError",
    "start",
    "start_all",
    "undo_start",
    "plain_factors",
    "PlainFactors",
    "weight_gradients",
    "loraplus_groups",
    "SVDLinear",
    "orthogonality_penalty",
    "RankAllocator",
    "DoRALinear",
    "VeRAProjection",
    "VeRALinear",
    "inject_vera",
    "NF4Linear",
    "QLoRALinear",
    "quantize_nf4",
    "dequantize_nf4",
    "LoRAConv2d",
    "PreconditionedSGD",
]
