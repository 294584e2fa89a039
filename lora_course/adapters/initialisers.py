r"""How the two factors start: a random A and B = 0, so that ΔW = scaling · B A = 0 and the model is unchanged.

Symbols: W (d, k) the base weight; A (r, k) and B (d, r) the factors; every function is ``start(W, r, generator)``.
"""

import math

import torch

from lora_course.adapters.checks import HALF


def factor_dtype(dtype):
    r"""Return the dtype of the factors over a base of ``dtype``: float32 over half precision (as in PEFT), else the same."""
    return torch.float32 if dtype in HALF else dtype


def _empty(W, *shape, generator=None):
    on_other_device = generator is not None and not W.is_meta
    return torch.empty(
        shape, dtype=factor_dtype(W.dtype), device=generator.device if on_other_device else W.device
    )


def _zeros(W, r):
    return torch.zeros(W.shape[0], r, dtype=factor_dtype(W.dtype), device=W.device)


def kaiming(W, r, generator=None):
    r"""Return A with entries from U(-1/√k, 1/√k), each of variance 1/(3k), and B = 0.

    This is PEFT's default (``init_lora_weights=True``) and loralib's: ``kaiming_uniform_(A, a=√5)``, the start that
    nn.Linear gives its own weight. It is not the LoRA paper's Gaussian.
    """
    bound = 1 / math.sqrt(W.shape[1])
    A = _empty(W, r, W.shape[1], generator=generator)
    if not A.is_meta:  # a meta tensor holds no numbers, and must not use up the generator
        A.uniform_(-bound, bound, generator=generator)
    return A.to(W.device), _zeros(W, r)


def gaussian(W, r, generator=None):
    r"""Return A with entries from N(0, 1/r²), i.e. standard deviation 1/r, and B = 0.

    The paper (Hu et al., 2021, Section 4.1) says "random Gaussian" for A and zero for B, and names no variance.
    The standard deviation 1/r is the choice of PEFT's ``init_lora_weights="gaussian"``, taken over here: it depends
    on r and not, as Kaiming's does, on the number k of inputs.
    """
    A = _empty(W, r, W.shape[1], generator=generator)
    if not A.is_meta:
        A.normal_(0, 1 / r, generator=generator)
    return A.to(W.device), _zeros(W, r)


INITIALISERS = {"kaiming": kaiming, "gaussian": gaussian}
