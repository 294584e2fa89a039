r"""Adding ΔW to a weight of few bits: the sum in float32, and how much of ΔW its rounding loses.

Symbols: W (d, k) the weight; ΔW (d, k) the update; W' the rounded sum; all norms are Frobenius norms.
"""

from dataclasses import dataclass

import torch

_NAN = float("nan")


@dataclass(frozen=True, repr=False)
class MergeReport:
    r"""What a merge did to a weight.

    dtype: of the merged weight.
    delta_norm: ‖ΔW‖.
    lost: ‖(W' - W) - ΔW‖ / ‖ΔW‖, the share of the update that rounding W + ΔW to ``dtype`` lost
        (0.0 for ΔW = 0; above 1 is possible: rounding can move the weight by more than the update itself).
    unchanged: the share of the entries with ΔW ≠ 0 whose weight is exactly what it was before.
    On the meta device the last three are NaN.
    """

    dtype: torch.dtype
    delta_norm: float
    lost: float
    unchanged: float

    def __repr__(self):
        return (
            f"MergeReport(dtype={self.dtype}, delta_norm={self.delta_norm:.4g}, "
            f"lost={self.lost:.3g}, unchanged={self.unchanged:.3g})"
        )


def add_and_report(W, delta):
    r"""Return W' = W + ΔW, rounded once from float32 (or wider) to W's dtype, and the MergeReport.

    W stays as it is. Raises ValueError if W' is not finite (an overflow of float16, or a NaN in an adapter).
    """
    wide = torch.promote_types(torch.promote_types(W.dtype, delta.dtype), torch.float32)
    before, delta = W.to(wide), delta.to(wide)
    merged = (before + delta).to(W.dtype)
    if W.is_meta:
        return merged, MergeReport(W.dtype, _NAN, _NAN, _NAN)
    if not torch.isfinite(merged).all():
        raise ValueError(
            f"W + ΔW is not finite in {W.dtype}, the largest entry being "
            f"{(before + delta).abs().max().item():.3g}; nothing was merged"
        )
    norm = torch.linalg.vector_norm(delta).item()
    lost = torch.linalg.vector_norm((merged.to(wide) - before) - delta).item()
    touched = delta != 0
    still = (touched & (merged == W)).sum().item() / max(touched.sum().item(), 1)
    return merged, MergeReport(W.dtype, norm, lost / norm if norm else 0.0, still)
