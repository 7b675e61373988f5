"""Slips in declarations, settings and datasets."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, field_serializer

from colatent.plugins import LatentSpec
from colatent.plugins.registry import CodecEntry, DatasetEntry, read_registry
from plugins_for_tests.faults import breaks, note
from plugins_for_tests.wave import CODEC, DATASET, WaveConfig, Waves, WavesConfig

for _kind in (CODEC, DATASET):
    note("metadata", "no-summary", "summary is empty", replace(_kind, summary=" "))
    note("metadata", "long-summary", "longer than", replace(_kind, summary="long " * 30))
    note("metadata", "double-field", "one twice", replace(_kind, fields=("wave", "wave")))

_listed = CodecEntry(distribution="curves-dist", modality="curve", axes=2, fields=("wave",))
note(
    "metadata",
    "registry",
    "axes is 1, registry.toml says 2",
    CODEC,
    registry=replace(read_registry(), codecs={"wave": _listed}),
)
note("positions", "axes", "has shape (2, 1), not (2, 2)", replace(CODEC, axes=2))
_listed_data = DatasetEntry(distribution="curves-dist", fields=("curve",))
note(
    "metadata",
    "registry",
    "registry.toml says",
    DATASET,
    registry=replace(read_registry(), datasets={"waves": _listed_data}),
)


# Settings.


@breaks("config", "Field required", key="config")
class NoDefault(WaveConfig):
    depth: int


@breaks("config", "unknown keys are accepted", key="config")
class OpenSettings(WaveConfig):
    model_config = ConfigDict(extra="ignore")


@breaks("config", "settings can be changed", key="config")
class ChangeableSettings(WaveConfig):
    model_config = ConfigDict(frozen=False)


@breaks("light", "imports torch", key="config")
class HeavySettings(WaveConfig):
    """This module imports torch."""


@breaks("config-round-trip", "width is another one after JSON", key="config")
class RoundedSettings(WaveConfig):
    width: float = 0.25

    @field_serializer("width")
    def _written(self, value: float) -> float:
        return round(value, 1)


@breaks("latent-spec", "not LatentSpec", key="config")
class PlainSpec(WaveConfig):
    def latent_spec(self) -> Any:
        return {"channels": self.channels}


@breaks("latent-spec", "channels is 0", key="config")
class NoChannels(WaveConfig):
    def latent_spec(self) -> LatentSpec:
        return LatentSpec(channels=0, block=2, units_per_latent=2.0)


@breaks("latent-spec", "block is 0", key="config")
class NoBlock(WaveConfig):
    def latent_spec(self) -> LatentSpec:
        return LatentSpec(channels=3, block=0, units_per_latent=2.0)


@breaks("units", "units per latent on average, latent_spec() says 8", key="config")
class OtherRate(WaveConfig):
    def latent_spec(self) -> LatentSpec:
        return LatentSpec(channels=3, block=2, units_per_latent=8.0)


# Datasets.


@breaks("config", "unknown keys are accepted", key="config", dataset=True)
class OpenWaves(WavesConfig):
    model_config = ConfigDict(extra="ignore")


@breaks("config-round-trip", "is another one after JSON", key="config", dataset=True)
class RoundedWaves(WavesConfig):
    share: float = 0.25

    @field_serializer("share")
    def _written(self, value: float) -> float:
        return round(value, 1)


@breaks("class", "lacks sample", dataset=True)
class NoSamples(Waves):
    sample = None


@breaks("samples", "lacks the declared wave", dataset=True)
class OtherField(Waves):
    def sample(self, index, rng):
        return {"curve": np.zeros(2)}


@breaks("samples", "has text too, which `fields` of the declaration leaves out", dataset=True)
class MoreThanDeclared(Waves):
    def sample(self, index, rng):
        return {**super().sample(index, rng), "text": "a wave"}


@breaks("split", "`split` has no effect", dataset=True)
class OneSplit(Waves):
    def __init__(self, config, *, split):
        super().__init__(config, split="train")

    def sample(self, index, rng):
        return super().sample(index, np.random.default_rng(index))


@breaks("samples", "changes for the same generator", dataset=True)
class RandomWaves(Waves):
    def sample(self, index, rng):
        return {"wave": torch.rand(4).numpy()}


@breaks("samples", "facts() speaks of wvae, which no sample has", dataset=True)
class OtherFacts(Waves):
    def facts(self):
        return {"wvae": {"pace": 1.0}}


@breaks("samples", "has no samples", dataset=True)
class Empty(Waves):
    def __len__(self):
        return 0


@breaks("pickling", "cannot pickle", dataset=True)
class HoldsALock(Waves):
    def __init__(self, config, *, split) -> None:
        super().__init__(config, split=split)
        self.lock = threading.Lock()
