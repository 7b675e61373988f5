"""The straight path between data and noise, and the one convention of time.

Time runs from t = 0 (clean) to t = 1 (noise). Other code in the field runs the other way; this is the only place that
decides, and the tests hold both ends.
"""

from __future__ import annotations

from torch import Tensor


def interpolate(z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
    """z_t = (1 - t) z0 + t z1; `t` broadcasts over the channels."""
    return z0 + t * (z1 - z0)


def target_velocity(z0: Tensor, z1: Tensor) -> Tensor:
    """dz_t / dt = z1 - z0, the same at every t."""
    return z1 - z0
