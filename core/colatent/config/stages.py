"""Settings of training: how long a stage runs and how it learns, and what stage joint adds to that.

All stages share one model, though not every setting has an effect in each; `colatent.config.regimes` knows which do.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from colatent.config.regimes import check_regime
from colatent.config.settings import Settings, Share


class StageConfig(Settings):
    """One training stage."""

    steps: NonNegativeInt
    """Stage codec may have 0 of them: where all codecs are frozen, it only measures their scale."""
    batch: PositiveInt = 16
    """Sequences (stage codec: samples) per step."""
    budget: PositiveInt | None = None
    """Latents per step, at most, in place of a number of sequences: as many as fit, in their order."""
    accumulate: PositiveInt = 1
    """Passes in which the batch is computed. More need less memory, and give the same gradient of the flow loss."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """What each of several processes holds: all weights (ddp), or a share of the prior's, of their gradients, moments
    and averages (fsdp)."""
    draw: Literal["sample", "step"] = "sample"
    """Whether each sample is drawn from the sources by their weights, or each step: then all its samples are of one
    source, and equally laid out."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the matrices of the prior's layers, AdamW for all else. Both learn at `lr`."""
    lr: PositiveFloat = 1e-3
    warmup: NonNegativeInt = 100
    schedule: Literal["cosine", "constant", "wsd"] = "cosine"
    """After the warm-up. wsd: constant, then a linear decay to `min_lr`."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of a cosine or decay."""
    decay: float = Field(default=0.2, gt=0.0, le=1.0)
    """Schedule wsd: the last share of steps, over which the learning rate falls."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    weight_decay: NonNegativeFloat = 0.01
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    skip: NonNegativeInt = 0
    """Steps whose loss or gradient is not finite that are left out instead of ending the run, at most, in the whole
    stage."""
    ema: Share = 0.999
    """Decay of the exponential moving average of the weights; 0 keeps none."""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: autocast over float32 weights."""
    recompute: bool = False
    """Whether the prior's layers are computed again in the backward pass instead of kept: less memory, same numbers."""
    compile: bool = False
    """Whether what the prior's layers do to each row by itself is compiled by torch.compile: faster, after a start."""
    kl: NonNegativeFloat = 1e-4
    """Stage codec: beta, the weight of KL(q || N(0, I)), summed over channels and averaged over latents."""
    losses: dict[str, NonNegativeFloat] = Field(default={})
    """Stages codec and joint: weights of the codec's losses by name; 1 where not named."""
    log_every: PositiveInt = 10
    eval_every: NonNegativeInt = 500
    """Steps between evaluations on held-out samples; 0 evaluates only before the first and after the last step."""
    sample_every: NonNegativeInt = 0
    """Stages prior and joint: steps between samples, which are also drawn after the last step; 0 draws none."""
    save_every: PositiveInt = 500


class JointConfig(Settings):
    """Stage joint: what trains on vae (codec losses + entropy E log q) + flow L_flow + reference KL(q || q_ref).

    The paper publishes the loss and the regimes, and no weight: the defaults are ours.
    """

    regime: Literal["joint", "fixed", "interval", "scratch", "detached"] = "joint"
    """joint: codec and prior together; fixed: the codec does not train; interval: by turns; scratch: joint from an
    untrained codec; detached: together, but the flow loss does not reach the codec."""
    codec_lr: PositiveFloat = 1.0
    """Learning rate of the codecs over stages.joint.lr. Published: 1; 0.01 was compared."""
    vae: NonNegativeFloat = 1.0
    """Weight of the codec's own losses with the entropy term."""
    flow: PositiveFloat = 1.0
    """Weight of the flow loss."""
    entropy: NonNegativeFloat = 1e-4
    """Beta, the weight of E log q within `vae`, summed over channels and averaged over latents."""
    reference: NonNegativeFloat = 0.0
    """Weight of KL(q || q_ref), summed and averaged alike; q_ref is the codec as it was when the stage began."""
    interval: PositiveInt = 100
    """Regime interval: steps of each turn. The codec's comes first."""
    frozen_tail: Share = 0.1
    """Regime detached: the last share of steps, in which the codec stands still as its average."""

    @model_validator(mode="after")
    def _has_effect(self) -> JointConfig:
        check_regime(self)
        return self

    def tail(self, steps: int) -> int | None:
        """The step from which on the codec stands still, of so many steps in all; None: it trains to the end."""
        if self.regime != "detached" or not self.frozen_tail:
            return None
        return steps - max(1, round(self.frozen_tail * steps))
