"""What this package declares. Importing this file must stay cheap: no torch, no data."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, DatasetInfo, hookimpl


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The drawing codec."""
    return [
        CodecInfo(
            name="strokes",
            modality="strokes",
            axes=1,
            fields=("strokes",),
            factory="colatent_strokes.codec:StrokesCodec",
            config="colatent_strokes.config:StrokesConfig",
            requires_api="1.0",
            summary="VAE over groups of pen points",
        )
    ]


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Drawings with captions."""
    return [
        DatasetInfo(
            name="drawn-shapes",
            fields=("text", "strokes"),
            factory="colatent_strokes.drawings:DrawnShapes",
            config="colatent_strokes.config:DrawnShapesConfig",
            requires_api="1.0",
            summary="ten shapes drawn with a pen, in words and strokes",
        )
    ]
