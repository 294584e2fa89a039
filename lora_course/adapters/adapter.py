r"""What every adapter of a linear layer shares: a frozen base, and going into its weight and out again.

Symbols: base an nn.Linear with weight W0 (d, k); ΔW (d, k) what the adapter adds to it.
"""

from contextlib import nullcontext

import torch
from torch import nn

from lora_course.adapters.checks import check_flag, check_linear
from lora_course.adapters.rounding import add_and_report


class Adapter(nn.Module):
    r"""Hold ``base`` and freeze it in place; a subclass adds its factors, ``forward`` and ``delta_weight``.

    The base is shared, not copied: ``adapter.base is base``, with its own hooks and tied weights.

    Attributes:
        base: the frozen nn.Linear.
        merged: True between ``merge`` and ``unmerge``; the forward is then the base's alone.
        tied_to: names of other parameters in the memory of ``base.weight``, as ``inject`` found them.
        kept_weight: None, or the copy of W0 of ``merge(keep_base=True)`` (moves with ``.to``, is not saved).

    A state dict of a merged adapter holds W0 + ΔW as ``base.weight`` and says so by a further key ``merged``;
    loading a state dict that holds ``base.weight`` makes the adapter merged or unmerged as the saved one was.
    """

    merged = False
    tied_to = ()
    check_base = staticmethod(check_linear)  # (name, module): raises unless the module can be a base

    def __init__(self, base):
        self.check_base("base", base)
        super().__init__()
        self.base = base
        self.register_buffer("kept_weight", None, persistent=False)

    def freeze_base(self):
        r"""Change the base in place: freeze it; last step of a constructor, when nothing can fail any more."""
        base, trained = self.base, {}
        for name, p in base._parameters.items():
            if p is not None:
                trained[name] = p.requires_grad
                p.requires_grad = False
        vars(self)["_trained_before"] = trained
        if not base.training:
            self.eval()

    @property
    def in_features(self):
        r"""Number k of inputs of the base."""
        return self.base.in_features

    @property
    def out_features(self):
        r"""Number d of outputs of the base."""
        return self.base.out_features

    @property
    def bias(self):
        r"""The bias of the base, or None."""
        return self.base.bias

    @property
    def weight(self):
        r"""The weight (d, k) that the layer acts with, W0 + ΔW, computed at each reading (differentiable).

        For code that reads a layer's weight instead of calling the layer, as the inference path of
        nn.TransformerEncoderLayer does: it gets the adapted weight. Dropout is not in it.
        """
        W = self.base.weight
        return W if self.merged else (W + self.delta_weight()).to(W.dtype)

    def merge(self, keep_base=False, untie=False):
        r"""Change the base weight in place to W0 + ΔW, so that the forward costs no more than the base's.

        The sum is taken in float32 (float64 for a float64 base) and rounded once to the dtype of the weight.
        keep_base=True keeps a copy of W0 outside of the state dict; from it ``unmerge`` restores W0 bit for bit.
        A weight that is tied to another module (``tied_to``) would change there too, so it is refused;
        untie=True gives this layer a weight of its own, for good, and the twin stays as it was.

        Returns a MergeReport, with the share of ΔW that was lost in rounding.

        Raises:
            RuntimeError: already merged, or tied and not told to untie.
            ValueError: base and adapter on different devices, or a merged weight that is not finite.
        """
        check_flag("keep_base", keep_base)
        check_flag("untie", untie)
        if self.tied_to and not untie:
            raise RuntimeError(
                f"the weight of this layer is tied to {', '.join(self.tied_to)}, which a merge would change "
                "too; pass untie=True to give the layer a weight of its own"
            )
        merged, report = self.merged_weight()
        kept = self.base.weight.detach().clone() if keep_base else None
        if untie:
            self.base.weight, self.tied_to = nn.Parameter(merged, requires_grad=False), ()
        else:
            with torch.no_grad():
                self.base.weight.copy_(merged)
        self.kept_weight, self.merged = kept, True
        return report

    def merged_weight(self):
        r"""Return what ``merge`` would write and report, or raise what it would raise, and change nothing."""
        if self.merged:
            raise RuntimeError("this layer is merged already: merging twice would add ΔW twice (unmerge it first)")
        W = self.base.weight
        elsewhere = [f"{name} on {p.device}" for name, p in self._parameters.items() if p.device != W.device]
        if elsewhere:
            raise ValueError(f"mixed devices: base.weight is on {W.device}, {', '.join(elsewhere)}; move them together")
        with torch.no_grad(), nullcontext() if W.is_meta else torch.autocast(W.device.type, enabled=False):
            return add_and_report(W, self.delta_weight())

    def unmerge(self):
        r"""Change the base weight in place back to W0, bit for bit, from the copy of ``merge(keep_base=True)``.

        Subtracting ΔW again would not give W0 back, since the merge has rounded: without a copy it is refused.

        Raises:
            RuntimeError: not merged, or merged without a copy.
        """
        self.check_can_unmerge()
        with torch.no_grad():
            self.base.weight.copy_(self.kept_weight)
        self.kept_weight, self.merged = None, False

    def check_can_unmerge(self):
        r"""Raise the RuntimeError that ``unmerge`` would raise, if it would, and change nothing."""
        if not self.merged:
            raise RuntimeError("this layer is not merged, so there is nothing to unmerge")
        if self.kept_weight is None:
            raise RuntimeError(
                "cannot unmerge: the merge has rounded W0 + ΔW and kept no copy of W0, so W0 is gone; "
                "merge with keep_base=True, or load the base weights again"
            )

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.merged:
            destination[prefix + "merged"] = torch.tensor(True)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        merged = state_dict.pop(prefix + "merged", None)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "base.weight" in state_dict:
            self.merged, self.kept_weight = bool(merged), None
