"""A model's weights in another form, where the machine multiplies by that form faster; torch's own products do it.

Only the linear layers of the decoder's layers change: embeddings, norms and the head stay, and so do experts that a
model keeps in one tensor. Measured by `python -m benchmarks.weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from farspan.errors import OptionError, did_you_mean

FEW = 4  # rows up to which codes are multiplied as they are; more are cheaper with the codes turned back once
BLOCK = 16  # torch's product of bfloat16 and codes takes so many channels at a time and has no way with a rest


class Int8Linear(nn.Module):
    """A linear layer in 8 bits: codes [out, in] int8 and a scale for each output channel [out], symmetric.

    Half the bytes of bfloat16, so a token's products take about half the time; each weight is off by at most half a
    step, 1/254 of its channel's largest. Few rows are multiplied by the codes, many by the codes turned back.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        largest = weight.float().abs().amax(1).clamp_min(1e-12)
        scale = (largest / 127).to(weight.dtype)  # rounded first, so that codes make up for it
        codes = (weight.float() / scale.float()[:, None]).round().clamp(-127, 127)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.codes, self.scale = nn.Buffer(codes.to(torch.int8)), nn.Buffer(scale)
        self.bias = linear.bias
        self._by_codes = weight.device.type == "cpu" and self.in_features % BLOCK == 0

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) <= FEW and self._by_codes:
            out = torch.ops.aten._weight_int8pack_mm(rows, self.codes, self.scale)
        else:
            out = functional.linear(rows, self.codes.to(x.dtype)) * self.scale
        out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], self.out_features)


class PackedLinear(nn.Module):
    """A linear layer as it was, its weights laid out once in the blocks that oneDNN multiplies; on CPU, in 16 bits.

    torch lays them out anew for every product otherwise. The same numbers; sums may be taken in another order.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.blocks = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), 1)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(x, self.blocks, self.bias, "none", [], "")


FORMS: Mapping[str, Callable[[nn.Linear], nn.Module]] = {"int8": Int8Linear, "packed": PackedLinear}


def can_pack() -> bool:
    """Whether this build of torch has oneDNN, and this processor multiplies bfloat16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_form(name: str | None) -> None:
    """Raise OptionError unless `name` is a form of weights that can be had here."""
    if name is None:
        return
    if name not in FORMS:
        raise OptionError(f"weights {name!r} are unknown; allowed: {', '.join(FORMS)}.{did_you_mean(name, FORMS)}")
    if name == "packed" and not can_pack():
        raise OptionError("weights 'packed' need a processor that multiplies bfloat16 (AVX-512 or AMX); leave them out")


@torch.no_grad()
def transform(layers: Iterable[nn.Module], name: str) -> None:
    """Give every linear layer within `layers` that form, in place; one at a time, so that little more is held.

    Raises OptionError where there are none, where they lie on a device that a form does not know, or were put there
    piece by piece.
    """
    found = [(parent, key, child) for layer in layers for parent in layer.modules() for key, child in _linear(parent)]
    if not found:
        raise OptionError(f"weights {name!r} are for linear layers (torch.nn.Linear), and this model has none")
    if any(child.weight.is_meta or hasattr(child, "_hf_hook") for _, _, child in found):
        raise OptionError(f"weights {name!r} need a model that is loaded whole, without device_map")
    unfit = next((w for _, _, child in found if (w := child.weight).device.type != "cpu" or w.itemsize != 2), None)
    if name == "packed" and unfit is not None:
        raise OptionError(f"weights 'packed' are bfloat16 on the CPU; these are {unfit.dtype} on {unfit.device.type}")
    for parent, key, child in found:
        setattr(parent, key, FORMS[name](child))


def _linear(parent: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(key, child) for key, child in parent.named_children() if type(child) is nn.Linear]
