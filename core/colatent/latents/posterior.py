"""What diagonal Gaussian posteriors add to a loss, in closed form: their entropy, and their distance from others.

All are over the latents of a batch that hold data, summed over channels and averaged over latents, in nats. A
deterministic encoder has no entropy; its distance is that of Gaussians of unit variance, half the squared distance of
the latents, because its latents are at unit scale and there is no other width to measure by.

Axes: N latents of a batch, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from colatent.plugins.latents import Encoded

SCALE_RANGE = (0.5, 2.0)
"""Standard deviation over all channels that a prior accepts of its latents."""


def overall_std(std: Sequence[float]) -> float:
    """Root mean square of the channels' standard deviations."""
    return float((sum(value * value for value in std) / max(1, len(std))) ** 0.5)


def expected_log_density(logvar_NC: Tensor) -> Tensor:
    """E log q(z) under q itself, -(1 + ln 2 pi + log variance) / 2 per channel: minus the entropy. (N,)"""
    return -0.5 * (1.0 + math.log(2.0 * math.pi) + logvar_NC).sum(-1)


def divergence(mean_NC: Tensor, logvar_NC: Tensor, other_mean_NC: Tensor, other_logvar_NC: Tensor) -> Tensor:
    """KL(q || other) of diagonal Gaussians. (N,)"""
    squares_NC = (mean_NC - other_mean_NC).square() * torch.exp(-other_logvar_NC)
    log_ratio_NC = logvar_NC - other_logvar_NC
    return 0.5 * (squares_NC + torch.exp(log_ratio_NC) - 1.0 - log_ratio_NC).sum(-1)


def entropy_term(records: Sequence[Encoded]) -> Tensor | None:
    """Mean E log q; None where the encoder is deterministic or no latent holds data."""
    held = _held(records)
    if held is None or held[1] is None:
        return None
    return expected_log_density(held[1]).mean()


def reference_term(records: Sequence[Encoded], references: Sequence[Encoded]) -> Tensor | None:
    """Mean KL(q || q_ref) of the same items' posteriors; None where no latent holds data."""
    held, others = _held(records), _held(references)
    if held is None or others is None:
        return None
    (mean_NC, logvar_NC), (other_NC, other_logvar_NC) = held, others
    unit_NC = torch.zeros_like(mean_NC)
    return divergence(
        mean_NC,
        unit_NC if logvar_NC is None else logvar_NC,
        other_NC,
        unit_NC if other_logvar_NC is None else other_logvar_NC,
    ).mean()


def _held(records: Sequence[Encoded]) -> tuple[Tensor, Tensor | None] | None:
    """Mean and log-variance of the latents that hold data, float32 or wider."""
    chosen_N = torch.cat([record.units_L for record in records]) > 0
    mean_NC = torch.cat([record.mean_LC for record in records])
    chosen_N = chosen_N.to(mean_NC.device)
    if not bool(chosen_N.any()):
        return None
    logvars = [record.logvar_LC for record in records if record.logvar_LC is not None]
    return _wide(mean_NC[chosen_N]), _wide(torch.cat(logvars)[chosen_N]) if logvars else None


def _wide(x_NC: Tensor) -> Tensor:
    return x_NC if x_NC.dtype == torch.float64 else x_NC.float()
