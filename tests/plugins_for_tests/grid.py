"""A plugin beside text: small pictures of any shape with their captions, as a third party would declare it.

The seam must not set around text, so this modality differs where it can: two position axes, a block that is the whole
item, shapes that vary from item to item, an end that is known beforehand. A caption says all there is to know of its
picture, so that each can be generated from the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import PositiveInt

from colatent.config.schema import Settings
from colatent.data.dataset import Sample, Split
from colatent.plugins import Candidate, CodecInfo, DatasetInfo, LatentSpec, PluginSet, hookimpl, load_plugins

HERE = "plugins_for_tests.grid"
NOISE = 0.1
"""Standard deviation of the noise on every pixel: without it some channels would never vary."""

PATTERNS = {
    "up": lambda row, column: row % 2,
    "on": lambda row, column: column % 2,
    "by": lambda row, column: (row + column) % 2,
}


class GridConfig(Settings):
    """A linear VAE over square patches."""

    patch: PositiveInt = 2
    """Pixels along a patch's side."""
    channels: PositiveInt = 3
    """Width of a latent, one per patch."""
    centred: bool = False
    """Whether the encoder takes the running mean of all patches off them, which training moves."""

    def latent_spec(self) -> LatentSpec:
        """A block is a whole picture."""
        return LatentSpec(channels=self.channels, block=None, units_per_latent=float(self.patch**2))


class GridOptions(Settings):
    """What to generate."""

    height: PositiveInt = 2
    """Patches down."""
    width: PositiveInt = 2
    """Patches across."""


class CaptionsConfig(Settings):
    """Pictures of 1 to `side` patches a side, with captions."""

    size: PositiveInt = 64
    patch: PositiveInt = 2
    side: PositiveInt = 3


class Captions:
    """`{"text": "up 2x3", "grid": picture}`."""

    def __init__(self, config: CaptionsConfig, *, split: Split) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.size

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        height, width = (int(side) for side in rng.integers(1, self.config.side + 1, size=2))
        name = list(PATTERNS)[int(rng.integers(len(PATTERNS)))]
        noise = rng.normal(scale=NOISE, size=(height * self.config.patch, width * self.config.patch))
        clean = picture(name, height, width, patch=self.config.patch)
        return {"text": f"{name} {height}x{width}", "grid": (clean + noise).astype(np.float32)}


class CamerasConfig(Settings):
    """Bright and dark pictures of `side` patches a side, seen by two cameras."""

    size: PositiveInt = 64
    side: PositiveInt = 2
    names: tuple[str, str] = ("left", "right")
    """Fields of the sample: the picture, and its negative."""


class Cameras:
    """`{"left": picture, "right": its negative}`, each camera with noise of its own; the fields are the config's."""

    def __init__(self, config: CamerasConfig, *, split: Split) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.size

    def fields(self) -> tuple[str, str]:
        return self.config.names

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        clean = plain(bool(rng.integers(2)), self.config.side)
        views = (clean + rng.normal(scale=NOISE, size=clean.shape), rng.normal(scale=NOISE, size=clean.shape) - clean)
        return {name: view.astype(np.float32) for name, view in zip(self.config.names, views, strict=True)}


def picture(name: str, height: int, width: int, *, patch: int = 2) -> np.ndarray:
    """The picture that a caption means: patches of -1 and 1 in a pattern, without noise."""
    row, column = np.indices((height, width))
    bright = np.asarray(PATTERNS[name](row, column), dtype=np.float32) * 2 - 1
    return np.kron(bright, np.ones((patch, patch), dtype=np.float32))


def plain(bright: bool, side: int, *, patch: int = 2) -> np.ndarray:
    """A picture of one brightness, 1 or -1, without noise."""
    return np.full((side * patch, side * patch), 1.0 if bright else -1.0, dtype=np.float32)


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The picture codec."""
    return [
        CodecInfo(
            name="grid",
            modality="picture",
            axes=2,
            fields=("grid",),
            factory="plugins_for_tests.grid_codec:GridCodec",
            config=f"{HERE}:GridConfig",
            summary="Linear VAE over square patches",
        )
    ]


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Pictures with captions, and pictures from two sides."""
    return [
        DatasetInfo(
            name="captions",
            fields=("text", "grid"),
            factory=f"{HERE}:Captions",
            config=f"{HERE}:CaptionsConfig",
            summary="pictures with captions",
        ),
        DatasetInfo(
            name="cameras",
            fields=("left", "right"),
            factory=f"{HERE}:Cameras",
            config=f"{HERE}:CamerasConfig",
            summary="pictures from two sides",
        ),
    ]


def plugins_with_grid() -> PluginSet:
    """The built-in text plugin and this one, by the door that every plugin takes."""
    text = Candidate(name="text", distribution="colatent", version="0", target="colatent_text.plugin")
    return load_plugins([text, Candidate(name="grid", distribution="grids", version="1", target=HERE)])


CONFIG: dict[str, Any] = {
    "name": "pictures",
    "streams": {
        "text": {
            "codec": "text",
            "config": {
                "width": 32,
                "heads": 2,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "block": 4,
                "window": 8,
                "channels": 8,
            },
        },
        "grid": {"codec": "grid"},
    },
    "data": {
        "length": 8,
        "sources": {
            "paint": {"dataset": "captions", "segments": [{"stream": "text"}, {"stream": "grid"}]},
            "describe": {"dataset": "captions", "segments": [{"stream": "grid"}, {"stream": "text"}]},
        },
    },
    "prior": {"layers": 1, "dual_layers": 1, "width": 32, "heads": 2},
    "stages": {
        "codec": {"steps": 30, "batch": 8, "lr": 1e-2, "warmup": 5, "ema": 0.9, "eval_every": 0},
        "prior": {"steps": 30, "batch": 8, "lr": 5e-3, "warmup": 5, "ema": 0.9, "eval_every": 0},
    },
    "sample": {"steps": 8, "max_units": 12},
}
"""Both directions in one run."""
