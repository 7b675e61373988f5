"""A whole run, field by field: its streams, its data, and by name what the modules beside this one describe.

Models are frozen and refuse unknown keys; defaults are the published ones where the paper gives them. A codec's and a
dataset's own settings live in their plugin's model and are nested here as plain mappings, since the core must not know
any modality. Plugins import `Settings`, the base of their own models, from here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from colatent.config.prior import FlowConfig, PriorConfig
from colatent.config.regimes import check_batches, check_cache, check_stages
from colatent.config.sampling import SampleConfig
from colatent.config.settings import Project, RunName, Settings
from colatent.config.stages import JointConfig, StageConfig


class StreamConfig(Settings):
    """One use of a modality in a run."""

    codec: str
    """Name of the codec, as `colatent plugins list` shows it."""
    config: dict[str, Any] = Field(default={})
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
    config: dict[str, Any] = Field(default={})
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
    tasks: dict[str, dict[str, Any]] = Field(default={})
    """Judges of the finished model by name, as `colatent plugins list` shows them, with their own settings."""
    init: str | None = None
    """A run or checkpoint whose weights training starts from."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.out or f"runs/{self.name}")

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
