"""What the image plugin declares. Importing this file imports neither torch nor torchvision."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, hookimpl


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The image VAE."""
    return [
        CodecInfo(
            name="image",
            modality="image",
            axes=2,
            fields=("image",),
            factory="colatent_image.codec:ImageCodec",
            config="colatent_image.config:ImageConfig",
            requires_api="1.0",
            summary="Convolutional or patch VAE over pixels, one block per picture",
        )
    ]
