"""What the audio plugin declares. Importing this file imports neither torch nor torchaudio."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, hookimpl


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
