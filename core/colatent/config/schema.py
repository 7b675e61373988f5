"""Every setting of a run, field by field: what it means, its unit and its default.

Models are frozen and refuse unknown keys; defaults are the published ones where the paper gives them. A codec's and a
dataset's own settings live in their plugin's model and are nested here as plain mappings, since the core must not know
any modality.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from pydantic_core import PydanticCustomError

from colatent.config.regimes import check_batches, check_cache, check_regime, check_stages

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SolverName = Literal["euler", "midpoint", "heun", "ab2"]


def _in_order(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the smaller of the two must stand first")
    return interval


Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_in_order)]


def _of_form(pattern: str, form: str) -> AfterValidator:
    """Text of a pattern, for which a refusal has words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("text_form", "Input should be {form}", {"form": form})
        return text

    return AfterValidator(check)


RunName = Annotated[
    str, _of_form(r"\w[\w.-]*", "letters, digits, '_', '.' and '-', beginning with a letter, a digit or '_'")
]
Project = Annotated[str, _of_form(r"[^/]+(/[^/]+)?", "PROJECT or ENTITY/PROJECT")]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StreamConfig(Settings):
    """One use of a modality in a run."""

    codec: str
    """Name of the codec, as `colatent plugins list` shows it."""
    config: dict[str, Any] = {}
    """The codec's own settings."""
    field: str | None = None
    """Field of a sample that holds the stream's item. Default: the first that the codec reads."""
    weights: str | None = None
    """A run or checkpoint whose trained codec of the same stream is used instead of training one."""


class SegmentConfig(Settings):
    """One part of a training sequence."""

    stream: str
    role: Literal["given", "generated"] = "generated"
    """Given segments carry no loss: they are only looked at."""
    same_group: bool = False
    """Whether this segment and the one before it see each other (an instruction and its picture)."""


class SourceConfig(Settings):
    """One source of samples in the mixture."""

    dataset: str
    """Name of the dataset, as `colatent plugins list` shows it."""
    weight: PositiveFloat = 1.0
    """Share of samples drawn from this source, relative to the other sources."""
    config: dict[str, Any] = {}
    """The dataset's own settings."""
    segments: tuple[SegmentConfig, ...] | None = None
    """Order of streams in a sequence. Default: every stream whose field the samples have, all generated."""
    batch: PositiveInt | None = None
    """Sequences of a step that is drawn whole from this source (`draw: step`). Default: the stage's batch."""


class DataConfig(Settings):
    """Where training samples come from."""

    path: str | None = None
    """A file or folder, for the sources that refer to it as ${data.path}."""
    length: PositiveInt = 128
    """Latents of one item in a training sequence, at most; longer items are cut where the codec can cut them."""
    workers: NonNegativeInt = 0
    """Processes that read samples ahead of the training; the samples are the same for any number."""
    cache: str | None = None
    """A latent cache of these sources by `colatent encode`: stage prior takes latents from there."""
    sources: dict[str, SourceConfig] = Field(min_length=1)


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
    times: dict[str, TimeLawConfig] = {}
    """Time laws of single streams, where they differ from `time`."""
    weights: dict[str, NonNegativeFloat] = {}
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
    losses: dict[str, NonNegativeFloat] = {}
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


class StreamSampleConfig(Settings):
    """How items of one stream are generated, where that differs."""

    steps: PositiveInt | None = None
    solver: SolverName | None = None
    shift: PositiveFloat | None = None
    guidance: NonNegativeFloat | None = None
    guidance_interval: Interval | None = None
    guidance_rescale: Fraction | None = None
    unconditional: Literal["auto", "alone", "condition"] | None = None
    max_units: PositiveInt | None = None


class SampleConfig(Settings):
    """How a trained model generates, unless the call says otherwise."""

    steps: PositiveInt = 16
    solver: SolverName = "ab2"
    shift: PositiveFloat = 1.0
    """How the steps are spread over t (1 noise, 0 clean): 1 equally, as published; above 1 they are short near the
    noise, below 1 near the data. logit(t) grows by ln(shift)."""
    guidance: NonNegativeFloat = 1.0
    """Scale s of classifier-free guidance u + s (c - u); 1 is off."""
    guidance_interval: Interval = (0.0, 1.0)
    """The least and the largest t at which there is guidance. Elsewhere its second branch is not computed."""
    guidance_rescale: Fraction = 0.0
    """How far the spread of the guided estimate is taken back to that of the conditional one: 0 not, 1 all the way."""
    unconditional: Literal["auto", "alone", "condition"] = "auto"
    """What u sees. alone: the block by itself; condition: the item's own earlier blocks, and nothing that is given.
    auto: condition where items are given, else alone."""
    max_units: PositiveInt = 128
    """Data units (tokens, ...) to generate where an item does not end before."""
    options: dict[str, dict[str, Any]] = {}
    """Options of the codecs' generation by stream (text: temperature, top_k, ...)."""
    streams: dict[str, StreamSampleConfig] = {}
    """The settings above for items of single streams."""

    def of(self, stream: str | None) -> SampleConfig:
        """The settings for items of one stream."""
        own = None if stream is None else self.streams.get(stream)
        return self if own is None else self.model_copy(update=own.model_dump(exclude_none=True))


class MetricsConfig(Settings):
    """Where numbers go beside the run folder."""

    wandb: Project | None = None
    """Project, or ENTITY/PROJECT, at Weights & Biases."""


class RunConfig(Settings):
    """A whole run."""

    name: RunName
    """Letters, digits, `_`, `.` and `-`."""
    out: str | None = Field(default=None, min_length=1)
    """Run folder. Default: runs/NAME."""
    seed: NonNegativeInt = 0
    device: str = "auto"
    """auto: CUDA where there is one, else the CPU."""
    streams: dict[str, StreamConfig] = Field(min_length=1)
    data: DataConfig
    prior: PriorConfig = PriorConfig()
    flow: FlowConfig = FlowConfig()
    joint: JointConfig = JointConfig()
    stages: dict[Literal["codec", "prior", "joint"], StageConfig] = Field(min_length=1)
    """Stages in order: codec trains the codecs, prior the DiT over frozen codecs, joint both as `joint` says."""
    sample: SampleConfig = SampleConfig()
    metrics: MetricsConfig = MetricsConfig()
    tasks: dict[str, dict[str, Any]] = {}
    """Judges of the finished model by name, as `colatent plugins list` shows them, with their own settings."""
    init: str | None = None
    """A run or checkpoint whose weights training starts from."""

    @model_validator(mode="after")
    def _plain_names(self) -> RunConfig:
        for name in self.streams:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in ("shared", "ema"):
                raise ValueError(f"stream {name!r} must be of letters, digits, '-' and '_', and not 'shared' or 'ema'")
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> RunConfig:
        check_stages(self.stages, self.joint)
        check_batches(self.stages, self.data.sources)
        check_cache(self.stages, self.data.cache)
        return self
