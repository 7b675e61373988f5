"""Classifier-free guidance."""

from __future__ import annotations

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: Tensor | float) -> Tensor:
    """u + s (c - u); s = 1 is no guidance. `scale` broadcasts."""
    return unconditional + scale * (conditional - unconditional)
