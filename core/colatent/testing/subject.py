"""The codec, dataset or task under test, built as a run would build it, and what most checks look at.

Everything is made when it is first asked for and kept, so that a check may be run by itself. Checks leave it as it is:
one that changes weights or device works on a copy.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from colatent.data.dataset import Sample, Split
from colatent.latents.draws import normal
from colatent.plugins import CodecInfo, DatasetInfo, LatentSpec, PluginSet, TaskInfo
from colatent.plugins.contract import OptionedCodec
from colatent.plugins.latents import Encoded, Latents
from colatent.testing.requiring import SkippedError, check_closed, means

EXAMPLES = 3
PREPARED_FROM = 64
"""Samples that a codec is prepared from."""


@dataclass(kw_only=True)
class Subject:
    """One codec under test."""

    found: PluginSet
    info: CodecInfo

    @cached_property
    def config(self) -> Any:
        """The codec's settings, all at their defaults."""
        return self.found.codec_config(self.info.name)()

    @cached_property
    def spec(self) -> LatentSpec:
        """What the settings say of the latents."""
        spec: LatentSpec = self.config.latent_spec()
        return spec

    @cached_property
    def cls(self) -> type[Any]:
        """The codec's class."""
        return self.found.codec_class(self.info.name)

    @cached_property
    def codec(self) -> Any:
        """The codec that checks share."""
        return self.build()

    @cached_property
    def items(self) -> list[Any]:
        """Some of its example items."""
        items: list[Any] = self.codec.example_batch(EXAMPLES)
        return items

    @cached_property
    def encoded(self) -> list[Encoded]:
        """Their posteriors."""
        records: list[Encoded] = self.codec.encode(self.items)
        return records

    def build(self) -> Any:
        """Another codec of the same settings and assets, with fresh weights."""
        if self._assets is None:
            return self.cls(self.config).eval()
        return self.cls(self.config, self._assets).eval()

    def copy(self) -> Any:
        """Another codec with the weights of the shared one."""
        return deepcopy(self.codec)

    def latents(self) -> list[Latents]:
        """The posterior means of the example items."""
        return means(self.encoded)

    @cached_property
    def _assets(self) -> dict[str, bytes] | None:
        """What a codec that is prepared was built with: made from samples of the first dataset that needs no settings
        and fits."""
        if not hasattr(self.cls, "prepare"):
            return None
        field = self.info.fields[0]
        items: list[Any] = []
        for dataset in self.found.datasets.values():
            if field in dataset.fields and not items:
                items = [sample[field] for sample in samples(self.found, dataset, PREPARED_FROM)]
        assets: dict[str, bytes] = self.cls.prepare(self.config, items)
        return assets


@dataclass(kw_only=True)
class DatasetSubject:
    """One dataset under test."""

    found: PluginSet
    info: DatasetInfo

    @cached_property
    def model(self) -> type[Any]:
        """The model of its settings."""
        return self.found.dataset_config(self.info.name)

    def build(self, split: Split = "train") -> Any:
        """The dataset at its default settings."""
        settings = at_defaults(self.model)
        return self.found.dataset_class(self.info.name)(settings, split=split)


@dataclass(kw_only=True)
class TaskSubject:
    """One task under test."""

    found: PluginSet
    info: TaskInfo

    @cached_property
    def model(self) -> type[Any]:
        """The model of its settings."""
        return self.found.task_config(self.info.name)

    def build(self) -> Any:
        """The task at its default settings."""
        settings = at_defaults(self.model)
        return self.found.task_class(self.info.name)(settings)


def at_defaults(model: type[Any]) -> Any:
    """Settings at their defaults; a check that needs them is skipped where some have none."""
    needed = [name for name, field in model.model_fields.items() if field.is_required()]
    if needed:
        raise SkippedError(f"cannot be built without {', '.join(needed)}")
    return model()


def samples(found: PluginSet, info: DatasetInfo, count: int) -> list[Sample]:
    """The first training samples of a dataset; none where it cannot be built without settings."""
    try:
        dataset = DatasetSubject(found=found, info=info).build()
    except SkippedError:
        return []
    return first_samples(dataset, count)


def first_samples(dataset: Any, count: int, *, seed: int = 0) -> list[Sample]:
    """The first samples of a dataset, each from a generator of its own."""
    return [dataset.sample(index, np.random.default_rng([index, seed])) for index in range(min(count, len(dataset)))]


def drawn(records: list[Encoded]) -> list[Latents]:
    """One posterior sample per record, always the same."""
    noises = [normal(record.mean_LC.shape, "checks", number) for number, record in enumerate(records)]
    pairs = enumerate(zip(records, noises, strict=True))
    return [record.sample(noise.to(record.mean_LC), seed=number) for number, (record, noise) in pairs]


def default_options(codec: Any) -> dict[str, Any]:
    """A codec's options of generation where nobody says otherwise; its model of them is closed, like every config."""
    if not isinstance(codec, OptionedCodec):
        return {}
    model = codec.options_model()
    check_closed(model)
    return model().model_dump()
