"""The checks of a dataset: it resolves, and where it needs no settings its samples keep to the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from colatent.data.dataset import Sample
from colatent.plugins import DatasetInfo, PluginSet
from colatent.testing.running import Check, SkippedError, check_closed, require, same


@dataclass(frozen=True, kw_only=True)
class DatasetSubject:
    """One dataset under test."""

    found: PluginSet
    info: DatasetInfo


def samples(found: PluginSet, info: DatasetInfo, count: int) -> list[Sample]:
    """The first training samples of a dataset; none where it cannot be built without settings."""
    model = found.dataset_config(info.name)
    if any(field.is_required() for field in model.model_fields.values()):
        return []
    dataset: Any = found.dataset_class(info.name)(model(), split="train")
    return [dataset.sample(index, np.random.default_rng(index)) for index in range(min(count, len(dataset)))]


def _config(subject: DatasetSubject) -> None:
    check_closed(subject.found.dataset_config(subject.info.name))


def _class(subject: DatasetSubject) -> None:
    built = subject.found.dataset_class(subject.info.name)
    missing = [name for name in ("__len__", "sample") if not callable(getattr(built, name, None))]
    require(not missing, f"lacks {', '.join(missing)}")


def _samples(subject: DatasetSubject) -> None:
    first, again = (samples(subject.found, subject.info, 3) for _ in range(2))
    if not first:
        raise SkippedError("cannot be built without settings")
    for one, other in zip(first, again, strict=True):
        missing = [name for name in subject.info.fields if name not in one]
        require(not missing, f"a sample lacks the declared {', '.join(missing)}")
        require(
            all(same(one[name], other[name]) for name in subject.info.fields), "a sample changes for the same generator"
        )


DATASET_CHECKS: tuple[Check[DatasetSubject], ...] = (
    Check(name="config", contract="The config is a frozen and closed pydantic model.", run=_config, vital=True),
    Check(name="class", contract="The class has a length and numbered samples.", run=_class, vital=True),
    Check(name="samples", contract="Samples have the declared fields and repeat exactly.", run=_samples),
)
