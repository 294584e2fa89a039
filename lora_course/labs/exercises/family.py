r"""Reference answers of chapter 11: each function returns None for a right answer, else what is probably wrong."""

import numpy as np

from lora_course.labs.exercises._compare import first_match, rounded_match
from lora_course.theory import QWEN3_0_6B, QWEN3_32B, linear_parameters, scale_bits


def exponents(answer) -> str | None:
    r"""Powers of r in the first drop for s = alpha / r^(3/4): SGD s² r, so -1/2; Adam s r, so 1/4."""
    try:
        sgd, adam = answer
    except (TypeError, ValueError):
        raise TypeError(f"the answer should be two numbers, (SGD, Adam), but it is {answer!r}") from None
    mistakes = [
        (1 / 4, "That is Adam's. Give SGD's first; its drop has s squared."),
        (1 / 2, "The sign: s² r = α² r^(-3/2 + 1)."),
        (-3 / 2, "That is s² alone. There are r columns besides: s² r."),
        (-3 / 4, "That is s. For SGD the drop goes like s² r."),
        (-1, "That is α/r. Here s = α / r^(3/4)."),
        (0, "That is α/√r. Here s = α / r^(3/4)."),
    ]
    wrong = first_match(sgd, -1 / 2, mistakes, "For SGD the drop goes like s² r: put s = α r^(-3/4) in.")
    if wrong:
        return wrong
    mistakes = [
        (-1 / 2, "That is SGD's again. With sign steps s comes once: s r."),
        (-3 / 4, "That is s alone. There are r columns of B, and each contributes: s r."),
        (1 / 2, "That is α/√r with Adam. Here s = α / r^(3/4)."),
        (-1 / 4, "The sign: s r = α r^(-3/4 + 1)."),
    ]
    return first_match(adam, 1 / 4, mistakes, "For Adam the drop goes like s r: put s = α r^(-3/4) in.")


def transfer(answer) -> str | None:
    r"""Factor of the learning rate from r = 8 to 32 under Adam with alpha/√r: the drop goes like η √r, so 1/2."""
    mistakes = [
        (2.0, "Upside down: with rsLoRA and Adam a larger rank makes the step larger, so the rate has to fall."),
        (1.0, "That is right for α/r under Adam. With α/√r the drop still grows like √r."),
        (1 / 4, "That would be for a drop like η r. With s = α/√r it is η √r."),
        (4.0, "That is the ratio of the ranks. The drop goes like η √r."),
        (32**-0.5, "Compare with r = 8, not with r = 1: √(8/32)."),
        (1 / 16, "The drop goes like √r, not like r²."),
    ]
    return rounded_match(answer, 1 / 2, mistakes, "η √r has to stay the same: the factor is √(8/32).")


def base_bytes(answer) -> str | None:
    r"""Gigabytes of the linear maps of Qwen3-32B in NF4 with double quantization: 4.127 bits a weight, 16.1 GB."""
    n = linear_parameters(QWEN3_32B)
    right = n * (4 + scale_bits()) / 8 / 1e9
    mistakes = [
        (n * 4 / 8 / 1e9, "The scales are missing: 0.127 bits a weight."),
        (n * 4.5 / 8 / 1e9, "That is with one float32 scale for 64 weights. Quantized again, scales take 0.127 bits."),
        (n * (4 + scale_bits()) / 1e9, "These are gigabits: divide by 8."),
        (n * (4 + scale_bits()) / 8, "These are bytes: divide by 10⁹."),
        (n * (4 + scale_bits()) / 8 / 2**30, "That is in GiB (2³⁰ bytes). Asked are 10⁹ bytes."),
        (n * 2 / 1e9, "That is bfloat16."),
        (n * (4 + 8 / 64) / 8 / 1e9, "Almost: the scales of the scales are missing, 32 bits for 64 · 256 weights."),
    ]
    return first_match(answer, right, mistakes, "Weights times 4.127 bits, over 8, over 10⁹.", rtol=4e-4)


def vera(answer) -> str | None:
    r"""Numbers that VeRA with r = 256 trains on q and v of Qwen3-0.6B: 28 (2048 + 256 + 1024 + 256)."""
    layers, r, shapes = QWEN3_0_6B.layers, 256, QWEN3_0_6B.linears()
    outputs, inputs = (sum(shapes[name][i] for name in ("q_proj", "v_proj")) for i in (0, 1))
    right = layers * (outputs + 2 * r)
    mistakes = [
        (outputs + 2 * r, "That is one layer. There are 28."),
        (layers * (outputs + r), "λ_d is there in each adapted weight, so r counts twice in a layer."),
        (layers * outputs, "That is λ_b alone. λ_d has r entries for each adapted weight."),
        (layers * 2 * r, "That is λ_d alone. λ_b has one entry for each output."),
        (layers * (inputs + 2 * r), "λ_b scales outputs: take the outputs of q and v, not their inputs."),
        (layers * r * (outputs + inputs), "That is LoRA of this rank. VeRA's pair is frozen."),
        (layers * (outputs + 2 * r) + r * (2048 + 1024), "The shared random pair is not trained."),
        (layers * (outputs + inputs), "λ_d has r entries, not one for each input."),
    ]
    return first_match(answer, right, mistakes, "In each of 28 layers: the outputs and r, for q and for v.")


def fair(answer):
    r"""A function of (valid, test), both (seeds, rates), that chooses by valid and reports test; `...` for `...`."""
    if not callable(answer):
        return f"fair should be a function of valid and test, but it is {answer!r}."
    valid = np.array([[0.1, 0.7, 0.8, 0.2], [0.3, 0.9, 0.6, 0.2], [0.2, 0.6, 0.65, 0.95]])
    test = np.array([[0.25, 0.5, 0.9, 0.1], [0.1, 0.7, 0.8, 0.3], [0.4, 0.55, 0.6, 0.2]])
    returned = answer(valid.copy(), test.copy())
    if returned is ...:
        return ...
    j = valid.mean(0).argmax()
    mistakes = [
        (test.mean(0).max(), "You choose by test. Then the best of many noisy numbers is reported: too good."),
        (valid[:, j].mean(), "You report valid. It took part in the choice, so it looks too good; report test."),
        (
            np.mean([test[i, valid[i].argmax()] for i in range(len(test))]),
            "You choose a rate for each seed. One rate for all seeds: take the mean over the seeds first.",
        ),
        (test[:, np.unravel_index(valid.argmax(), valid.shape)[1]].mean(), "You take the single best run: mean first."),
        (test[:, np.argmin(valid.mean(0))].mean(), "argmin? These are accuracies: the larger, the better."),
        (test[valid.mean(1).argmax()].mean(), "The axes are exchanged: seeds are the rows, rates the columns."),
        (test.mean(0)[valid.max(0).argmax()], "You rank rates by their best seed. Take the mean over the seeds."),
        (test[:, j].max(), "You report the best seed. Report the mean over the seeds."),
        (test[:, j].sum(), "You add up. Take the mean over the seeds."),
    ]
    return first_match(
        returned, test[:, j].mean(), mistakes, "valid.mean(0).argmax() chooses; then the mean of test there."
    )
