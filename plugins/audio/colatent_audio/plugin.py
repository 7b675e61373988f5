"""What the audio plugin declares. Importing this file imports neither torch nor torchaudio."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, DatasetInfo, hookimpl


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The audio VAE."""
    return [
        CodecInfo(
            name="audio",
            modality="audio",
            axes=1,
            fields=("audio",),
            factory="colatent_audio.codec:AudioCodec",
            config="colatent_audio.config:AudioConfig",
            requires_api="1.0",
            summary="VAE over spectral frames, mel or linear, with a way back to sound",
        )
    ]


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Folders of recordings."""
    return [
        DatasetInfo(
            name="audio-folder",
            fields=("audio", "text"),
            factory="colatent_audio.datasets:AudioFolder",
            config="colatent_audio.datasets:AudioFolderConfig",
            requires_api="1.0",
            summary="WAV and FLAC files in a folder, captioned by text files or names",
        )
    ]
