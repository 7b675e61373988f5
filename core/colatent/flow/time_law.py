"""How noise levels are drawn in training.

t = sigmoid(loc + scale n) with n ~ N(0, 1); the best loc grows with the width of the latent (wider latents stay
readable under more noise), which the paper's figures follow as 1 + ln(C / 16) / 2.
"""

from __future__ import annotations

import math

import numpy as np

from colatent.config.prior import TimeLawConfig


def width_law(channels: int) -> float:
    """The loc for latents of this width: 1.0 at 16 channels, 1.7 at 64, 2.0 at 128."""
    return 1.0 + 0.5 * math.log(channels / 16)


def draw_times(law: TimeLawConfig, channels: int, count: int, rng: np.random.Generator) -> tuple[float, ...]:
    """`count` noise levels in (0, 1)."""
    if law.kind == "uniform":
        return tuple(rng.uniform(size=count).tolist())
    loc = width_law(channels) if law.loc is None else law.loc
    return tuple((1.0 / (1.0 + np.exp(-(loc + law.scale * rng.standard_normal(count))))).tolist())
