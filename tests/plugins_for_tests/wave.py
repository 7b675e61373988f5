"""A codec that can do all that the contract knows of, as small as that may be: what the checks of the kit are tried on.

Items are curves of any length, two numbers to a latent and two latents to a block, so that a curve may end inside a
block and inside a latent. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from colatent.config.schema import Settings
from colatent.data.dataset import Sample, Split
from colatent.plugins import Candidate, CodecInfo, DatasetInfo, LatentSpec, PluginSet, hookimpl, load_plugins
from colatent.plugins.registry import Registry, read_registry

CODEC = CodecInfo(
    name="wave",
    modality="curve",
    axes=1,
    fields=("wave",),
    factory="plugins_for_tests.wave_codec:WaveCodec",
    config="plugins_for_tests.wave:WaveConfig",
    summary="Linear VAE over pairs of numbers",
)
DATASET = DatasetInfo(
    name="waves",
    fields=("wave",),
    factory="plugins_for_tests.wave:Waves",
    config="plugins_for_tests.wave:WavesConfig",
    summary="noise",
)


class WaveConfig(Settings):
    """A linear VAE over pairs of numbers."""

    channels: PositiveInt = 3

    def latent_spec(self) -> LatentSpec:
        return LatentSpec(channels=self.channels, block=2, units_per_latent=2.0)


class WaveOptions(Settings):
    """What to generate."""

    gain: PositiveFloat = 1.0


class WavesConfig(Settings):
    """Curves of noise."""

    size: PositiveInt = 8


class Waves:
    """`{"wave": curve}`."""

    def __init__(self, config: WavesConfig, *, split: Split) -> None:
        self.config, self.split = config, split

    def __len__(self) -> int:
        return self.config.size

    def facts(self) -> dict[str, dict[str, float]]:
        return {"wave": {"pace": 1.0}}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        return {"wave": rng.uniform(-1, 1, size=(3 if self.split == "train" else 4) + index).astype(np.float32)}


class WavePlugin:
    """Declares one codec and one dataset, given as records."""

    def __init__(self, codec: CodecInfo, dataset: DatasetInfo) -> None:
        self.codec, self.dataset = codec, dataset

    @hookimpl
    def colatent_codecs(self) -> list[CodecInfo]:
        return [self.codec]

    @hookimpl
    def colatent_datasets(self) -> list[DatasetInfo]:
        return [self.dataset]


def plugins_with_wave(
    *, codec: CodecInfo = CODEC, dataset: DatasetInfo = DATASET, registry: Registry | None = None
) -> PluginSet:
    """The plugin alone, by the door that every plugin takes."""
    target: Any = WavePlugin(codec, dataset)
    candidate = Candidate(name="curves", distribution="curves-dist", version="1", target=target)
    return load_plugins([candidate], registry=registry or read_registry())
