r"""The classroom demo of source text 003, rebuilt (`python -m lora_course.rank_demo`), and what its curve really is.

Symbols: W0 (d, d) with entries from N(0, 1), d the hidden size; A (r, d), B (d, r) from N(0, 1);
ΔW = (α/r) B A; W = W0 + ΔW; σ_i the singular values of W0; ‖·‖ the Frobenius norm.
"""

import argparse
import numbers
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lora_course import theory

LARGEST = 8192  # a float64 matrix of this size holds half a gigabyte, and its SVD takes many minutes


@dataclass(frozen=True)
class LoraConfig:
    r"""What the demo draws: d = hidden_size, the ranks r, the scale α, and the seed of all random numbers.

    Raises TypeError for a wrong type; ValueError unless 1 <= hidden_size <= 8192, each rank is in 1..hidden_size
    and named once, alpha > 0 (1e-30 to 1e30) and seed >= 0.
    """

    hidden_size: int = 512
    rank_candidates: tuple[int, ...] = (2, 4, 8, 16, 32)
    alpha: float = 16.0
    seed: int = 0

    def __post_init__(self):
        d, ranks = _checked("hidden_size", self.hidden_size, 1, LARGEST), self.rank_candidates
        if not isinstance(ranks, (list, tuple, range)):
            raise TypeError(f"rank_candidates must be a list or tuple of whole numbers, got {ranks!r}")
        ranks = tuple(_checked("each of rank_candidates", r, 1, d) for r in ranks)
        if not ranks or len(set(ranks)) < len(ranks):
            raise ValueError(f"rank_candidates must name at least one rank, and each once, got {ranks}")
        object.__setattr__(self, "rank_candidates", ranks)
        _checked("alpha", self.alpha, 1e-30, 1e30, numbers.Real)
        _checked("seed", self.seed, 0, 2**63)


def _checked(name, value, low, high, kind=numbers.Integral):
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{name} must be a {'whole' if kind is numbers.Integral else 'real'} number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low:g} and {high:g}, got {value}")
    return value


class RankRow(NamedTuple):
    r"""One rank r: ‖W0 - W‖, ‖ΔW‖, the line αd/√r, ‖BA‖ without α/r, and the least ‖W0 - M‖ over M of rank r."""

    r: int
    error: float
    delta_norm: float
    line: float
    product_norm: float
    svd_error: float


def simulate_lora(config, folder="."):
    r"""Draw W0 and for each rank A and B, print the errors, save three pictures, return a list of RankRows.

    Nothing is trained. Written into ``folder``: lora_rank_error.png (all columns but the first over r),
    lora_spectrum.png (the σ_i) and lora_heatmaps.png (corners of W0, ΔW and W). Each entry of BA has variance r,
    so E‖ΔW‖² = (α/r)² d² r = (αd)²/r. Raises TypeError for another ``config``, OSError if a file cannot be written.
    """
    if not isinstance(config, LoraConfig):
        raise TypeError(f"config must be a LoraConfig, got {config!r}")
    folder, d, alpha = Path(folder), config.hidden_size, config.alpha
    if not folder.is_dir():
        raise NotADirectoryError(f"folder must be a directory that exists, got {str(folder)!r}")
    W0, rows, deltas = np.random.default_rng([config.seed, 0]).standard_normal((d, d)), [], {}
    sigma, size = theory.singular_values(W0), np.linalg.norm(W0)
    print(f"W0 is {d} x {d} with entries from N(0, 1), alpha = {alpha:g}, seed = {config.seed}\n")
    print("    r  alpha/r   error ‖W0-W‖        ‖ΔW‖        αd/√r   ‖BA‖ alone   best of rank r by SVD")
    for r in config.rank_candidates:
        generator = np.random.default_rng([config.seed, r])  # each rank its own: the others do not change it
        A, B = generator.standard_normal((r, d)), generator.standard_normal((d, r))
        deltas[r] = alpha / r * B @ A
        W = W0 + deltas[r]
        error, delta, product = (float(np.linalg.norm(M)) for M in (W0 - W, deltas[r], B @ A))
        best = float(np.sqrt((sigma[r:] ** 2).sum()))
        rows.append(RankRow(r, error, delta, alpha * d / r**0.5, product, best))
        print(f"{r:>5}{alpha / r:>9.4g}{error:>15.1f}{delta:>12.1f}{rows[-1].line:>13.1f}{product:>13.1f}", end="")
        print(f"{best:>14.1f} ({best / size:.1%} of ‖W0‖)")
    print(_WHAT_IT_IS)
    for name, picture in _pictures(rows, sigma, W0, deltas[max(deltas)]).items():
        picture.savefig(folder / name, dpi=160, facecolor="white", bbox_inches="tight")
        print(f"saved {folder / name}")
    return rows


_WHAT_IT_IS = """
What the error is: ‖W0 - W‖ = ‖W0 - (W0 + ΔW)‖ = ‖ΔW‖. W0 cancels, so nothing is reconstructed, and any other W0
gives the same curve. It falls only because of the factor α/r: ‖BA‖ alone grows like d√r, and α/r times that is
αd/√r. So it shows a smaller perturbation at a larger rank, not more expressive power; and as nothing is trained, it
says nothing of what an adapter can learn. The last column is the true optimum for "W0 by rank r" (Eckart and Young):
it does fall with r, but hardly, for a random W0 has no small rank. Nor does LoRA approximate W0: it learns ΔW.
"""


def _pictures(rows, sigma, W0, delta):
    """Return {file name: figure}; matplotlib without pyplot needs no display."""
    from lora_course.book import BLUE, DIVERGING, GRAY, GREEN, ORANGE, canvas, stroke

    rows, n = sorted(rows), min(64, len(W0))
    ranks = [row.r for row in rows]
    errors, ax = canvas("wide", xlabel="rank r", ylabel="Frobenius norm", xscale="log", yscale="log", xticks=ranks)
    ax.plot(ranks, [row.error for row in rows], **stroke(BLUE, marker=True), label="“error” ‖W0 − W‖ = ‖ΔW‖")
    ax.plot(ranks, [row.line for row in rows], **stroke(GRAY), label="αd/√r")
    ax.plot(ranks, [row.product_norm for row in rows], **stroke(GREEN), label="‖BA‖, without α/r")
    ax.plot(ranks, [row.svd_error for row in rows], **stroke(ORANGE, marker=True), label="best of rank r (SVD)")
    ax.set_title("The “error” is the size of ΔW; α/r alone makes it fall")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    spectrum, ax = canvas("wide", xlabel="index i", ylabel="σᵢ of W0", ylim=(0, 1.05 * sigma[0]))
    ax.plot(range(1, len(sigma) + 1), sigma, **stroke(BLUE))
    ax.axvline(ranks[-1], **stroke(GRAY), label=f"largest rank, {ranks[-1]}")
    ax.set_title("A random W0 has no small rank: its spectrum falls slowly")
    ax.legend(loc="upper right")
    maps, axes = canvas("wide", 1, 3, xticks=[], yticks=[])
    limit = np.abs(W0 + delta)[:n, :n].max()
    for ax, (name, M) in zip(axes, {"W0": W0, "ΔW": delta, "W": W0 + delta}.items(), strict=True):
        image = ax.imshow(M[:n, :n], cmap=DIVERGING, vmin=-limit, vmax=limit)
        ax.set_title(f"{name}, sd {M.std():.2g}")
    maps.colorbar(image, ax=list(axes), shrink=0.5)
    maps.suptitle(f"First {n} rows and columns, r = {ranks[-1]}, one scale of color", y=0.86)
    return {"lora_rank_error.png": errors, "lora_spectrum.png": spectrum, "lora_heatmaps.png": maps}


_LAYER = """\
import torch
from torch import nn


class LoRALinear(nn.Module):
    def __init__(self, in_features, out_features, r=8, alpha=16.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / in_features**0.5, requires_grad=False)
        self.lora_a = nn.Parameter(torch.randn(r, in_features) / in_features**0.5)
        self.lora_b = nn.Parameter(torch.zeros(out_features, r))  # 0, so that the start is W0
        self.scaling = alpha / r

    def forward(self, x):
        base = x @ self.weight.T  # W0, frozen
        lora_update = (x @ self.lora_a.T) @ self.lora_b.T * self.scaling
        return base + lora_update


layer = LoRALinear(in_features=64, out_features=32)
y = layer(torch.randn(5, 64))
"""


def pseudo_code():
    r"""Print a minimal LoRA linear layer: code that runs as it stands, given torch."""
    print(_LAYER)


def main(arguments=None):
    r"""Run the demo with options from the command line; return 0, or 2 after an error that says what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m lora_course.rank_demo", description=__doc__.split("\n")[0])
    parser.formatter_class, default = argparse.ArgumentDefaultsHelpFormatter, LoraConfig()
    parser.add_argument("--hidden-size", type=int, default=default.hidden_size, help="d of W0 (d, d)")
    parser.add_argument("--ranks", type=int, nargs="+", default=default.rank_candidates, help="values of r")
    parser.add_argument("--alpha", type=float, default=default.alpha, help="in ΔW = (alpha / r) B A")
    parser.add_argument("--seed", type=int, default=default.seed, help="of all random numbers")
    parser.add_argument("--folder", default=".", help="where the pictures go; it must exist")
    options = parser.parse_args(arguments)
    try:
        simulate_lora(LoraConfig(options.hidden_size, options.ranks, options.alpha, options.seed), options.folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print("\nA minimal LoRA linear layer; this code runs:\n")
    pseudo_code()
    return 0


if __name__ == "__main__":
    sys.exit(main())
