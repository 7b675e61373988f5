"""What the image plugin declares. Importing this file imports neither torch nor torchvision."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, hookimpl


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The image VAE."""
    return []
