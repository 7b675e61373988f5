"""Settings of the prior: its shape, and the flow-matching objective that it is trained with.

The two stand apart in a run, since trained weights depend on the shape alone: another run may have another objective.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from colatent.config.settings import Settings


class PriorConfig(Settings):
    """The block-causal DiT."""

    layers: NonNegativeInt = 6
    """Layers whose parameters all streams share."""
    dual_layers: NonNegativeInt = 0
    """Layers before them with parameters per stream and joint attention."""
    width: PositiveInt = 256
    heads: PositiveInt = 4
    rope_dim: PositiveInt | None = None
    """Rotary channels of a head, even. Default: three quarters of the head, as published (96 of 128)."""
    rope_theta: PositiveFloat = 10_000.0
    mlp_ratio: PositiveInt = 4
    norm_eps: PositiveFloat = 1e-5
    qk_bias: bool = False
    """Whether the projections to queries, keys and values, and that of attention's output, have a bias."""

    @model_validator(mode="after")
    def _fits(self) -> PriorConfig:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 2 x heads ({self.heads})")
        head = self.width // self.heads
        if self.rope_dim is not None and (self.rope_dim % 2 or self.rope_dim > head):
            raise ValueError(f"rope_dim {self.rope_dim} must be even and at most a head's {head} channels")
        if not self.layers + self.dual_layers:
            raise ValueError("layers and dual_layers are both 0: no latent would see another")
        return self


class TimeLawConfig(Settings):
    """How the noise level of a training block is drawn (t = 0 clean, t = 1 noise)."""

    kind: Literal["logit_normal", "uniform"] = "logit_normal"
    loc: float | None = None
    """Mean of logit(t). Default: the width law 1 + ln(C / 16) / 2."""
    scale: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _has_effect(self) -> TimeLawConfig:
        if self.kind == "uniform" and (self.loc is not None or self.scale != 1.0):
            raise ValueError("a uniform law has no loc and no scale: leave them out")
        return self


class FlowConfig(Settings):
    """The flow-matching objective."""

    time: TimeLawConfig = TimeLawConfig()
    times: dict[str, TimeLawConfig] = Field(default={})
    """Time laws of single streams, where they differ from `time`."""
    weights: dict[str, NonNegativeFloat] = Field(default={})
    """Weight of a stream's loss; 1 where not named."""
    padding: NonNegativeFloat = 0.0
    """Weight, beside 1 for a latent that holds data, of the padding behind an item's end in its last block. At 0
    nothing teaches what stands there, though the block's other latents look at it."""
    ragged: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of training blocks that begin with some clean latents of a block cut short, as a prompt leaves them."""
    history_dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of noisy blocks that see only themselves, the layout of guidance's unconditional branch `alone`."""
    condition_dropout: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of sequences of which one generated item is kept without what comes before it, the layout of guidance's
    unconditional branch `condition`."""
