"""What this package declares. Importing this file must stay cheap: no torch, no data."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, DatasetInfo, TaskInfo, hookimpl


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The codec; configs select it by its name."""
    return [
        CodecInfo(
            name="signal",
            modality="signal",
            axes=1,
            fields=("signal",),
            factory="colatent_signal.codec:SignalCodec",
            config="colatent_signal.config:SignalConfig",
            requires_api="1.0",
            summary="VAE over arrays (length, features)",
        )
    ]


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """The data; leave this out if others bring them."""
    return [
        DatasetInfo(
            name="signal-waves",
            fields=("signal", "text"),
            factory="colatent_signal.data:Waves",
            config="colatent_signal.config:WavesSettings",
            requires_api="1.0",
            summary="slow and quick waves with captions, made up",
        )
    ]


@hookimpl
def colatent_tasks() -> Iterable[TaskInfo]:
    """What judges finished models; leave this out if nothing does."""
    return [
        TaskInfo(
            name="signal-pace",
            factory="colatent_signal.task:Pace",
            config="colatent_signal.config:PaceSettings",
            requires_api="1.1",
            summary="whether waves and captions agree, both ways",
        )
    ]
