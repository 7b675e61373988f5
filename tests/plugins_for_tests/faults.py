"""How a slip is planted: a codec, settings or a dataset of `plugins_for_tests.wave`, right but for one thing.

The slips are in the modules `faults_*`, one class each, whose name says what is wrong. Importing a module notes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from colatent.plugins import CodecInfo, DatasetInfo, PluginSet
from plugins_for_tests.wave import CODEC, DATASET, plugins_with_wave
from plugins_for_tests.wave_codec import WaveCodec


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One slip, the check that must catch it, and what that must say.

    plugins  gives the plugins with the slip
    """

    check: str
    name: str
    says: str
    plugins: Callable[[], PluginSet]

    def __str__(self) -> str:
        return f"{self.check}-{self.name}"


CODEC_FAULTS: list[Fault] = []
DATASET_FAULTS: list[Fault] = []


def breaks(check: str, says: str, *, key: str = "factory", dataset: bool = False) -> Callable[[type], type]:
    """Note the decorated class as a slip: it stands in for what `key` of the declaration names."""

    def noted(cls: type) -> type:
        declared = {key: f"{cls.__module__}:{cls.__name__}"}
        info: Any = replace(DATASET, **declared) if dataset else replace(CODEC, **declared)
        note(check, cls.__name__, says, info)
        return cls

    return noted


def note(check: str, name: str, says: str, info: CodecInfo | DatasetInfo, **rest: Any) -> None:
    """Note a declaration as a slip."""
    dataset = isinstance(info, DatasetInfo)
    some: dict[str, Any] = {"dataset" if dataset else "codec": info} | rest
    fault = Fault(check=check, name=name, says=says, plugins=lambda: plugins_with_wave(**some))
    (DATASET_FAULTS if dataset else CODEC_FAULTS).append(fault)


def changing(**change: Callable[[Any], Any]) -> type:
    """A codec whose records have some fields changed."""

    class Changed(WaveCodec):
        def encode_one(self, item):
            record = super().encode_one(item)
            return replace(record, **{name: how(getattr(record, name)) for name, how in change.items()})

    return Changed
