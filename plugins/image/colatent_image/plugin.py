"""What the image plugin declares. Importing this file imports neither torch nor torchvision."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, DatasetInfo, hookimpl


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


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """A folder of pictures."""
    return [
        DatasetInfo(
            name="image-folder",
            fields=("image", "text"),
            factory="colatent_image.datasets:ImageFolder",
            config="colatent_image.datasets:ImageFolderConfig",
            summary="pictures of a folder, with the folders' names or text files as captions",
        )
    ]
