r"""What the fast PiSSA start saves against the exact one, and what it misses, on one 4096 x 4096 weight.

The spectrum of the weight falls about as i^-1/2, as trained weights do roughly: Gaussian rows with column scales
i^-1/2. One run of the exact SVD, for it takes long; CPU seconds, one BLAS thread.
"""

import time

import torch
from torch import nn

from lora_course.adapters import LoRALinear
from lora_course.adapters.origin import start, undo_start

SIZE, RANK, NITER = 4096, 16, 4


def _seconds(work):
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(size=SIZE, r=RANK, niter=NITER):
    """Return seconds of the fast and of the exact start, sines of the largest angle, and relative excess error.

    The second sine is that of ``torch.svd_lowrank`` as PEFT calls it for "pissa_niter_4": a sketch of r columns.
    """
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(size, size, bias=False, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        base.weight.normal_(generator=generator).mul_(torch.arange(1, size + 1) ** -0.5)
    layer = LoRALinear(base, r, 2 * r, generator=generator)
    W = base.weight.clone()
    fast = _seconds(lambda: start(layer, "pissa", niter=niter))
    U_fast, left_fast = torch.linalg.qr(layer.lora_B.detach()).Q, base.weight.norm()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        U_peft = torch.svd_lowrank(W, r, niter=niter)[0]
    undo_start(layer)
    assert torch.equal(base.weight, W)
    exact = _seconds(lambda: start(layer, "pissa"))
    U, left = torch.linalg.qr(layer.lora_B.detach()).Q, base.weight.norm()
    sines = [torch.linalg.matrix_norm(U - V @ (V.T @ U), 2).item() for V in (U_fast, U_peft)]
    return fast, exact, *sines, (left_fast / left - 1).item()


def run():
    """Return the rows (name, value, target, what)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fast, exact, sine, sine_peft, excess = measure()
    finally:
        torch.set_num_threads(threads)
    which = f"PiSSA r = {RANK}, niter = {NITER}, {SIZE} x {SIZE}"
    return [
        ("fast PiSSA, seconds", fast / exact, 0.05, f"{which}, / exact SVD ({fast:.2f} s / {exact:.1f} s)"),
        ("fast PiSSA, subspace", sine, 0.1, "sine of the largest angle to the exact first r left singular vectors"),
        ("fast PiSSA, subspace / PEFT", sine / sine_peft, 0.5, f"the same, / PEFT's fast PiSSA ({sine_peft:.2f})"),
        ("fast PiSSA, excess", excess, 0.001, "‖W'‖ above that of the exact start, relative"),
    ]


if __name__ == "__main__":
    for name, value, target, what in run():
        print(f"{name:<28} {value:>10.6f} {target:>7g}  {what}", flush=True)
