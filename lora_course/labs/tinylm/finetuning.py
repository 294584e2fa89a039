r"""Adapting the language model to another text, full or with LoRA: one setting of a sweep.

A point is {"text", "targets", "r", "alpha", "lr", "seed"}. text: "source" (Python source, a near shift) or "names"
(Unicode's character names, a far one). targets: "attention", "mlp" or "all" (both) with LoRA of rank r and scaling
alpha / r, or "full" (every parameter of the model is trained; r and alpha are None). With LoRA a point may also have
"start": None (that of `inject`) or a name that `start_all` takes.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from lora_course.adapters import inject, start_all, trainable_parameters, weight_gradients
from lora_course.adapters.starts import STARTS
from lora_course.labs._checks import at_least, choice, generator, positive
from lora_course.labs.text import Corpus, character_names, source_code
from lora_course.labs.tinylm.measure import bits_per_byte, windows
from lora_course.labs.tinylm.model import TinyLM
from lora_course.labs.tinylm.weights import held_out_english, load

_ATTENTION, _MLP = ["q_proj", "k_proj", "v_proj", "o_proj"], ["up_proj", "down_proj"]
TEXTS = {"source": partial(source_code, quick=True), "names": character_names}
TARGETS = {"attention": _ATTENTION, "mlp": _MLP, "all": _ATTENTION + _MLP}
KEYS = {"text", "targets", "r", "alpha", "lr", "seed"}
BATCH = 8  # windows of 128 bytes in a step
GRADIENT_BATCH = 32  # windows in the gradient that the start "lora_ga" is made of
MEASURED = 8192  # bytes of held-out text in a measurement: it takes a third of a second


@dataclass(frozen=True)
class Run:
    r"""What a fine-tuning gave: the loss of each step in nats, and held-out bits per byte after some steps.

    `curve` is a list of (step, new_bpb, old_bpb): the point's text, and the docstrings of pretraining.
    """

    point: dict
    losses: list[float]
    curve: list[tuple[int, float, float]]
    model: TinyLM
    trained: int  # number of parameters that were trained


def finetune(point: dict, evaluate_at: tuple[int, ...] = (10, 25, 50, 100)) -> Run:
    r"""Train a fresh copy of the pretrained model on the point's text with Adam, up to the last of `evaluate_at`.

    The learning rate is constant, so that a short run is the beginning of a long one. Batches and the start of A
    come from the point's seed. Raises `ValueError` if the point has other keys than those of the module, an unknown
    text, targets or start, r or alpha missing or (for "full") given, or steps that do not increase from 1 on;
    `TypeError` or `ValueError` unless r, alpha and lr are positive and the seed is an int, not negative.
    """
    _check(point, evaluate_at)
    model, text = load(), corpus(point["text"])
    if point["targets"] != "full":
        inject(model, TARGETS[point["targets"]], r=point["r"], alpha=point["alpha"], generator=point["seed"])
        _start(model, point, text)
    parameters = list(trainable_parameters(model))
    optimizer = torch.optim.Adam(parameters, lr=point["lr"])
    source, losses, curve = generator(point["seed"]), [], []
    for step in range(1, evaluate_at[-1] + 1):
        rows = windows(text.train, BATCH, model.shape.context, source)
        loss = _loss(model, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step in evaluate_at:
            curve.append((step, *held_out_bits(model, point["text"])))
    return Run(dict(point), losses, curve, model, sum(p.numel() for p in parameters))


def corpus(name: str) -> Corpus:
    r"""The text to adapt to: "source" or "names"; raises `ValueError` for another."""
    if name not in TEXTS:
        raise ValueError(f"text={name!r} must be one of {list(TEXTS)}")
    return TEXTS[name]()


def held_out_bits(model: TinyLM, text: str) -> tuple[float, float]:
    r"""Bits per byte of `model` on the held-out side of a text and on held-out docstrings, 8 KB of each."""
    new, old = corpus(text).test, held_out_english(quick=True)
    return bits_per_byte(model, new[:MEASURED]), bits_per_byte(model, old[:MEASURED])


def _loss(model, rows):
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def _start(model, point, text):
    """Start the adapters as the point says; the gradient for "lora_ga" comes from other batches than training's."""
    name = point.get("start")
    if name == "lora_ga":
        rows = windows(text.train, GRADIENT_BATCH, model.shape.context, generator(point["seed"], stream=1))
        start_all(model, name, gradients=weight_gradients(model, lambda model: _loss(model, rows)))
    elif name is not None:
        start_all(model, name, generator=point["seed"])


def _check(point, evaluate_at):
    if point.get("start") is not None:
        choice("start", point["start"], STARTS)
        if point.get("targets") == "full":
            raise ValueError(f"start={point['start']!r}: only adapters have a start, and targets='full' has none")
    if set(point) - {"start"} != KEYS:
        raise ValueError(f"point={point!r} must have the keys {sorted(KEYS)}")
    corpus(point["text"])
    if point["targets"] not in {*TARGETS, "full"}:
        raise ValueError(f"targets={point['targets']!r} must be one of {[*TARGETS, 'full']}")
    given = [point["r"] is not None, point["alpha"] is not None]
    if any(given) if point["targets"] == "full" else not all(given):
        raise ValueError(f"r={point['r']!r}, alpha={point['alpha']!r}: give both for LoRA, and None for 'full'")
    positive("lr", point["lr"])
    at_least("seed", point["seed"], 0)
    if not evaluate_at or any(b <= a for a, b in zip((0, *evaluate_at), evaluate_at, strict=False)):
        raise ValueError(f"evaluate_at={evaluate_at!r} must name increasing steps, the first at least 1")
