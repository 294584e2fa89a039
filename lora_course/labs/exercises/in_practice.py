r"""Reference answers of chapter 13: each function returns None for a right answer, else what is probably wrong."""

import math

import torch
from torch import nn

from lora_course.adapters.targets import matched_names
from lora_course.labs.exercises._compare import first_match, rounded_match
from lora_course.theory import QWEN3_0_6B, lora_parameters

LAYERS = 4
NAMES = [
    f"model.layers.{i}.{part}"
    for i in range(LAYERS)
    for part in [*(f"self_attn.{p}_proj" for p in "qkvo"), *(f"mlp.{p}_proj" for p in ("gate", "up", "down"))]
]
INSIDE = ("", ".self_attn", ".mlp", ".mlp.act_fn")  # beside the linear layers; inject refuses these
OTHERS = ["", "model", *(f"model.layers.{i}{part}" for i in range(LAYERS) for part in INSIDE)]
WANTED = {name for name in NAMES if ".mlp." in name and name.split(".")[2] in "23"}
GIGABYTES, TASKS = 24e9, lora_parameters(QWEN3_0_6B, ["q_proj", "k_proj", "v_proj", "o_proj"], 8)


def count(answer) -> str | None:
    r"""Trained parameters of r = 16 on q_proj and v_proj of Qwen3-0.6B: 28 · 16 · (2048 + 1024 + 1024 + 1024)."""
    right = lora_parameters(QWEN3_0_6B, ["q_proj", "v_proj"], 16)
    mistakes = [
        (right // 28, "That is one layer. There are 28."),
        (right // 2, "That is r = 8. Asked is r = 16."),
        (right * 2, "You counted k_proj and o_proj as well. Asked are q_proj and v_proj."),
        (28 * 16 * 4 * 1024, "You took both as 1024 × 1024. q_proj has 16 heads of 128, so 2048 outputs."),
        (28 * 16 * 2 * 3072, "You took both as 2048 × 1024. v_proj has 8 heads of 128, so 1024 outputs."),
        (28 * (2048 * 1024 + 1024 * 1024), "Those are the weights themselves. An adapter has r (d + k)."),
        (28 * 16 * (2048 + 1024), "You counted B only. A has r rows of k numbers, too."),
    ]
    return first_match(answer, right, mistakes, "Add r (d + k) for a 2048 × 1024 and a 1024 × 1024 layer, times 28.")


def targets(answer) -> str | None:
    r"""A value of target_modules that means the MLP of the layers 2 and 3 of a Qwen3 with layers 0 to 3."""
    named = [(name, nn.Module()) for name in OTHERS] + [(name, nn.Linear(1, 1, device="meta")) for name in NAMES]
    found = set(matched_names(answer, named))
    if found == WANTED:
        return None
    if refused := sorted(found.intersection(OTHERS)):
        return f"It takes {refused[0] or 'the model itself'}, which is no linear layer: inject would refuse."
    missed, extra = sorted(WANTED - found), sorted(found - WANTED)
    if missed:
        return f"It misses {missed[0]}" + (f" and {len(missed) - 1} more." if missed[1:] else ".")
    if any("self_attn" in name for name in extra):
        return f"It also takes {extra[0]}, which is attention."
    return f"It also takes {extra[0]}, which is in a layer before the last two."


def reader(answer) -> str | None:
    r"""By what ΔW is multiplied if a file with r = 32, alpha = 16, use_rslora is read without use_rslora: 1/√32."""
    mistakes = [
        (math.sqrt(32), "Upside down: the reader's scaling goes on top, the right one below."),
        (0.5, "That is the reader's scaling, α/r. Divide it by the right one, α/√r."),
        (16 / math.sqrt(32), "That is the right scaling, α/√r. Asked is what the reader makes of it, relative to it."),
        (1 / 32, "rsLoRA divides by √r, not by 1: the factor is (α/r) / (α/√r)."),
        (1, "The two scalings differ unless r = 1."),
        (math.sqrt(2) / 16, "√r is √32, and α cancels."),
    ]
    return rounded_match(answer, 1 / math.sqrt(32), mistakes, "Divide the reader's scaling α/r by the right one, α/√r.")


def rewrite(answer):
    r"""A function (B, alpha, r) -> B' such that alpha · B' A = (alpha / r) · B A; `...` if it still returns `...`."""
    if not callable(answer):
        return f"rewrite should be a function of B, alpha and r, but it is {answer!r}."
    B, alpha, r = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), 6.0, 3
    given = B.clone()
    returned = answer(given, alpha, r)
    if returned is ...:
        return ...
    if not torch.equal(given, B):
        return "It changes B itself. The file that B comes from is still used by others; return a new tensor."
    mistakes = [
        (B, "That is B as it was: this reader would apply α instead of α/r, r times too much."),
        (B * r, "The wrong way: the reader multiplies by too much, so B' must be smaller."),
        (B / alpha, "Then the reader computes B A without any scaling. It should be (α/r) B A."),
        (B * alpha / r, "That is right for a reader that multiplies by nothing. This one multiplies by α."),
        (B / math.sqrt(r), "Dividing by √r is for both factors, or for rsLoRA. Here B alone makes up for r."),
    ]
    return _first_tensor(returned, B / r, mistakes, "α B' A = (α/r) B A for every A: solve for B'.")


def combine(answer):
    r"""A function (A1, B1, s1, A2, B2, s2) -> (A, B) with B A = s1 B1 A1 + s2 B2 A2; `...` if it returns `...`."""
    if not callable(answer):
        return f"combine should be a function of A1, B1, s1, A2, B2 and s2, but it is {answer!r}."
    source = torch.Generator().manual_seed(0)
    A1, B1, A2, B2 = (torch.randn(*shape, generator=source) for shape in [(2, 6), (5, 2), (3, 6), (5, 3)])
    s1, s2 = 2.0, 0.5
    returned = answer(A1.clone(), B1.clone(), s1, A2.clone(), B2.clone(), s2)
    if returned is ... or (isinstance(returned, tuple) and ... in [part for part in returned if part is ...]):
        return ...
    try:
        A, B = returned
        delta = B @ A
    except (TypeError, ValueError, RuntimeError) as error:
        return f"It should return a pair (A, B) whose product B A exists ({error})."
    right = s1 * B1 @ A1 + s2 * B2 @ A2
    mistakes = [
        (B1 @ A1 + B2 @ A2, "The scalings are missing: each adapter has its own."),
        (s1**2 * B1 @ A1 + s2**2 * B2 @ A2, "Each scaling is in both A and B, so it counts twice."),
        (right / 2, "That is the mean of the two. Asked is the sum."),
        (s2 * B1 @ A1 + s1 * B2 @ A2, "The scalings are exchanged."),
        (s1 * B1 @ A1, "The second adapter is missing."),
    ]
    return _first_tensor(delta, right, mistakes, "Stack the rows of A1 and A2, and the columns of s1·B1 and s2·B2.")


def serve(answer) -> str | None:
    r"""(models merged, adapters over one base) of Qwen3-0.6B that fit in 24 GB at 2 bytes a number: (20, 4971)."""
    try:
        merged, shared = answer
    except (TypeError, ValueError):
        raise TypeError(f"the answer should be two numbers, (merged, shared), but it is {answer!r}") from None
    base = QWEN3_0_6B.base_parameters()
    mistakes = [
        (GIGABYTES / (2 * base), "A whole number of models, please: the last one does not fit."),
        (21, "Rounded up: the 21st copy does not fit."),
        (10, "That is 4 bytes a number. bfloat16 has 2."),
        (40, "That is 1 byte a number. bfloat16 has 2."),
    ]
    wrong = first_match(merged, int(GIGABYTES / (2 * base)), mistakes, "Divide 24 GB by 2 bytes times 596,049,920.")
    if wrong:
        return wrong
    left, one = GIGABYTES - 2 * base, 2 * TASKS
    mistakes = [
        (int(GIGABYTES / one), "The base has to be there as well, once."),
        (left / one, "A whole number of adapters, please."),
        (math.ceil(left / one), "Rounded up: the last one does not fit."),
        (int(left / one / 2), "That is 4 bytes for each number of an adapter. Take 2."),
    ]
    return first_match(
        shared, int(left / one), mistakes, "Take the base off 24 GB once; an adapter has 2,293,760 numbers."
    )


def _first_tensor(got, right, mistakes, otherwise):
    """The message of the first mistake that ``got`` is, or None if it is right within float32."""
    got = torch.as_tensor(got)
    if got.shape != right.shape:
        return f"The shape is {tuple(got.shape)}; it should be {tuple(right.shape)}."

    def near(other):
        return torch.allclose(got.to(right.dtype), other, rtol=1e-4, atol=1e-5)

    return None if near(right) else next((message for wrong, message in mistakes if near(wrong)), otherwise)
