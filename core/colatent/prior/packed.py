"""Linear layers whose bfloat16 matrix lies in the order in which a CPU multiplies it, for networks that do not train.

PyTorch brings a matrix into that order (oneDNN's) again at every product, which for the few rows of a block takes up to
half of the product's time. Here it is kept. Beside it stays the matrix as it was, and decides: where it has changed
since, it is packed again (a change through `.data` or NumPy leaves no trace, and is not seen). Rows come out the same
to the bit.

The operators are those that `torch.compile` uses on a CPU; where PyTorch has none, layers stay as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from colatent.prior.layer import GeluLinear


def pack(network: nn.Module) -> None:
    """Turn a network's linear layers into such as keep their matrix packed, in place. Only where `packing`."""
    for module in network.modules():
        packed = PACKED.get(type(module))
        weight = None if packed is None else module._parameters.get("weight")  # or else made anew whenever asked for
        if packed is not None and weight is not None and weight.numel():
            module.__class__ = packed


def packing(device: torch.device) -> bool:
    """Whether this device and this PyTorch multiply packed matrices."""
    return device.type == "cpu" and _cpu_packs()


@cache
def _cpu_packs() -> bool:
    mkldnn = torch.ops.mkldnn
    has_operators = all(hasattr(mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight"))
    is_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return bool(has_operators and is_x86 and torch.backends.mkldnn.enabled and mkldnn._is_mkldnn_bf16_supported())


class _Kept:
    """A packed matrix, and of which one. A copy of a layer packs its own."""

    def __init__(self) -> None:
        self._packed: Tensor | None = None
        self._matrix: Tensor | None = None  # kept: no other can come to lie where it does
        self._version = 0

    def of(self, weight: Tensor) -> Tensor:
        """The matrix, packed."""
        same = self._matrix is not None and self._matrix.data_ptr() == weight.data_ptr()
        if self._packed is None or not same or self._version != weight._version:
            self._matrix, self._version = weight.detach(), weight._version
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._matrix, None)
        return self._packed

    def __getstate__(self) -> dict[str, Any]:
        return vars(_Kept())


class PackedLinear(nn.Linear):
    """`nn.Linear` over a packed matrix. With a gradient, and where it cannot be so, it is an `nn.Linear`."""

    _then = ("none", "")
    """What is done to the product before it is rounded: oneDNN's name of it, and of its variant."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs), in bfloat16."""
        if not self._packs(x):
            self.__dict__.pop("_kept", None)
            return self._plain(x)
        kept = self.__dict__.setdefault("_kept", _Kept())
        name, variant = self._then
        given = x.to(torch.bfloat16), kept.of(self.weight), self.bias
        return torch.ops.mkldnn._linear_pointwise(*given, name, [], variant)

    def _packs(self, x: Tensor) -> bool:
        """Whether the operator does it: plain rows, not derived, transformed or traced, over a matrix that counts its
        changes, on a machine that has it, which a copy from elsewhere may not be on."""
        transformed = forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
        if torch.is_grad_enabled() or transformed or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return False
        plain = type(x) is Tensor and not x.is_nested and x.layout == torch.strided and x.dim() > 1
        if not plain or x.shape[-1] != self.in_features or not packing(x.device):
            return False
        cast = x.dtype == torch.float32 and torch.is_autocast_enabled("cpu")
        counted = self.weight.dtype == torch.bfloat16 and not self.weight.is_inference()
        return counted and (x.dtype == torch.bfloat16 or cast)

    def _plain(self, x: Tensor) -> Tensor:
        return nn.Linear.forward(self, x)


class PackedGelu(PackedLinear, GeluLinear):
    """`GeluLinear` over a packed matrix; GELU is rounded once, and not its argument before."""

    _then = ("gelu", "tanh")

    def _plain(self, x: Tensor) -> Tensor:
        return GeluLinear.forward(self, x)


def packed_flops(
    x_shape: torch.Size, weight_shape: torch.Size, *rest: object, out_shape: torch.Size, **more: object
) -> int:
    """FLOPs of a product with a packed matrix, as torch's counter asks for them."""
    return 2 * weight_shape.numel() * (out_shape.numel() // weight_shape[0])


def counted_too() -> dict[Any, Any]:
    """The operator and its FLOPs, for torch's counter, which does not know it."""
    return {torch.ops.mkldnn._linear_pointwise: packed_flops} if packing(torch.device("cpu")) else {}


PACKED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: PackedLinear, GeluLinear: PackedGelu}
"""What becomes what; a class derived from one of them computes as it likes, and stays."""
