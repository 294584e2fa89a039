r"""How the two factors start: a random A and B = 0, so that ΔW = scaling · B A = 0: the model is unchanged.

Symbols: W (d, k) the base weight; A (r, k), B (d, r) the factors; each function is ``start(W, r, generator)``.
"""

import math

import torch

from lora_course.adapters.checks import HALF


def factor_dtype(dtype):
    r"""Return the dtype of the factors: that of the base, but float32 over half precision, as in PEFT."""
    return torch.float32 if dtype in HALF else dtype


def _start(W, r, generator, fill):
    """Return A, filled on the generator's device by ``fill(A)``, and B = 0, both on W's device."""
    d, k = W.shape
    dtype, device = factor_dtype(W.dtype), W.device
    A = torch.empty(r, k, dtype=dtype, device=device if W.is_meta else generator.device)
    if not W.is_meta:  # a meta tensor holds no numbers, and must not use up the generator
        fill(A)
    return A if A.device == device else A.to(device), torch.zeros(d, r, dtype=dtype, device=device)


def kaiming(W, r, generator):
    r"""Return A with entries from U(-1/√k, 1/√k), each of variance 1/(3k), and B = 0.

    This is PEFT's default (``init_lora_weights=True``) and loralib's: ``kaiming_uniform_(A, a=√5)``, the start
    that nn.Linear gives its own weight. It is not the LoRA paper's Gaussian.
    """
    bound = 1 / math.sqrt(W.shape[1])
    return _start(W, r, generator, lambda A: A.uniform_(-bound, bound, generator=generator))


def gaussian(W, r, generator):
    r"""Return A with entries from N(0, 1/r²), i.e. standard deviation 1/r, and B = 0.

    The paper (Hu et al., 2022, Section 4.1) says "random Gaussian" for A and zero for B and names no variance.
    The standard deviation 1/r is the choice of PEFT's ``init_lora_weights="gaussian"``, taken over here: it
    depends on r and not, as Kaiming's does, on the number k of inputs.
    """
    return _start(W, r, generator, lambda A: A.normal_(0, 1 / r, generator=generator))


INITIALISERS = {"kaiming": kaiming, "gaussian": gaussian}
