"""Trained codecs, configs of priors over them, and caches, small enough to be made inside a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from colatent.config import RunConfig, load
from colatent.data.cache import read_index
from colatent.data.cache_reading import LatentCache
from colatent.data.mixture import Drawn
from colatent.plugins import PluginSet
from colatent.train.encoding import encode
from plugins_for_tests import grid
from plugins_for_tests.grid import CONFIG, NOISE, picture
from plugins_for_tests.runs import TEXT, changed, run

PRIOR = {"steps": 8, "batch": 6, "lr": 3e-3, "warmup": 2, "ema": 0.9, "eval_every": 0, "log_every": 1}
SHORT = {"steps": 2, "batch": 4, "eval_every": 0}


class FixedCaptions(grid.Captions):
    """Pictures that are the same in every epoch."""

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        names = list(grid.PATTERNS)
        name, height, width = names[index % len(names)], 1 + index % 3, 1 + index // 3 % 2
        noise = np.random.default_rng(index).normal(scale=NOISE, size=(2 * height, 2 * width))
        return {"text": f"{name} {height}x{width}", "grid": (picture(name, height, width) + noise).astype(np.float32)}


def words(folder: Path) -> dict[str, Any]:
    """Text alone, whose prompts end anywhere, 150 samples an epoch; the codec is trained in `folder`."""
    numbers = {"window": 48, "top": 199, "heldout_stretches": 2, "stretch": 25}
    tree = changed(TEXT, data__sources__counting__config=numbers)
    codec = run(changed(tree, stages={"codec": SHORT}), folder / "codec")
    return changed(tree, stages={"prior": {**PRIOR, "batch": 12}}, streams__text__weights=str(codec))


def pictures(folder: Path, plugins: PluginSet) -> dict[str, Any]:
    """Text and pictures in both orders, epochs of 10 samples; the codecs are trained in `folder`."""
    small = {"data__sources__paint__config": {"size": 10}, "data__sources__describe__config": {"size": 10}}
    tree = changed(CONFIG, flow={"condition_dropout": 0.3}, **small)
    codecs = run(changed(tree, flow={}, stages={"codec": SHORT}), folder / "codecs", plugins=plugins)
    weights = {f"streams__{name}__weights": str(codecs) for name in tree["streams"]}
    return changed(tree, stages={"prior": PRIOR}, **weights)


def settings(tree: dict[str, Any], folder: Path, *overrides: str) -> RunConfig:
    """The config of a tree, by the door that every config takes."""
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load(path, overrides).config


def made(tree: dict[str, Any], cache: Path, *overrides: str, **how: Any) -> Path:
    """A cache of a tree's sources."""
    cache.parent.mkdir(exist_ok=True)
    assert encode(settings(tree, cache.parent, *overrides), cache, **how) is not None
    return cache


def opened(cache: Path) -> LatentCache:
    """The cache, without the datasets."""
    return LatentCache.open(cache, {})


def drawn(source: str, index: int, epoch: int) -> Drawn:
    """A sample that nobody reads."""
    return Drawn(source=source, key=f"{source}/{index}", epoch=epoch, sample={})


def every_draw(cache: Path) -> dict[tuple[str, str, int, int], tuple[Any, ...]]:
    """All records of a cache as plain values, by source, stream, draw and index."""
    reader, found = opened(cache), {}
    for name, source in read_index(cache).plan.sources.items():
        for stream in source.streams:
            for draw, index in np.ndindex(source.draws, source.samples):
                (record,) = reader.records(stream, [drawn(name, index, draw)])
                tensors = (record.mean_LC, record.logvar_LC, record.positions_LA, record.units_L)
                values = [None if tensor is None else tensor.numpy().tobytes() for tensor in tensors]
                found[name, stream, draw, index] = (*values, record.block_lengths)
    return found
