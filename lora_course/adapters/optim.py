r"""LoRA+: B learns faster than A. It is no new optimizer, only parameter groups for any of torch's.

Symbols: lr the learning rate η_A of A; ratio λ = η_B / η_A.
"""

import math
import numbers

from lora_course.adapters.adapter import Adapter
from lora_course.adapters.checks import check_model


def loraplus_groups(model, lr, ratio=16.0, weight_decay=0.0):
    r"""Return parameter groups, ``torch.optim.AdamW(loraplus_groups(model, 2e-4))``: A at lr, B at lr · ratio.

    Every other trainable parameter (head, bias, norm, DoRA's magnitude) is at lr, in a group of its own. Groups
    carry a "name": "lora_A", "lora_B", "other"; empty ones are left out. weight_decay holds for all of them but
    for trainable parameters with one axis (biases, norms, magnitudes: group "vectors"), which get none.

    PEFT (``create_loraplus_optimizer``) has A and B as here, but gives every parameter with one axis lr · ratio,
    DoRA's magnitudes, VeRA's vectors and trained biases too (decay: none for biases and norms), and the factors of
    an embedding a rate of their own, 1e-6.

    Source: Hayou, Ghosh and Yu (2024), LoRA+, Section 4 (Theorem 1): η_B / η_A has to grow with the width. In their
    Section 5.3 the best ratio is about 2⁴ for RoBERTa where A starts at 0, 2² to 2³ where B does (as here), and
    2 to 2² for Llama: the default of 16 is a choice to be swept, not a constant of the method.

    Raises:
        TypeError: model is no nn.Module; lr, ratio or weight_decay is no real number.
        ValueError: lr or ratio not positive and finite, weight_decay negative; no adapter that is trained.
    """
    check_model(model)
    for name, value, least in (("lr", lr, "above"), ("ratio", ratio, "above"), ("weight_decay", weight_decay, "at")):
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
        if not (math.isfinite(value) and (value > 0 or (least == "at" and value == 0))):
            wanted = "positive" if least == "above" else "at least 0"
            raise ValueError(f"{name} must be {wanted} and finite, got {value!r}")
    role = {}
    for module in model.modules():
        if isinstance(module, Adapter):
            role |= {id(p): key for key, p in module._parameters.items() if key in ("lora_A", "lora_B")}
    groups = {key: [] for key in ("lora_A", "lora_B", "other", "vectors")}
    for p in model.parameters():
        if p.requires_grad:
            groups[role.get(id(p), "vectors" if p.ndim == 1 else "other")].append(p)
    if not (groups["lora_A"] or groups["lora_B"]):
        raise ValueError("model has no trained lora_A or lora_B: inject adapters first")
    return [
        {
            "name": key,
            "params": params,
            "lr": lr * ratio if key == "lora_B" else lr,
            "weight_decay": 0.0 if key == "vectors" else weight_decay,
        }
        for key, params in groups.items()
        if params
    ]
