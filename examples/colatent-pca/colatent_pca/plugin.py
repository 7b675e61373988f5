"""What this package declares. Importing this file must stay cheap: neither torch nor scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import CodecInfo, DatasetInfo, hookimpl


@hookimpl
def colatent_codecs() -> Iterable[CodecInfo]:
    """The wrapped PCA."""
    return [
        CodecInfo(
            name="pca",
            modality="vector",
            axes=1,
            fields=("vector",),
            factory="colatent_pca.codec:PCACodec",
            config="colatent_pca.config:PCAConfig",
            requires_api="1.0",
            summary="principal components of a vector, fitted and not trained",
        )
    ]


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Vectors to try it on."""
    return [
        DatasetInfo(
            name="digit-vectors",
            fields=("vector",),
            factory="colatent_pca.data:DigitVectors",
            config="colatent_pca.config:DigitVectorsConfig",
            requires_api="1.0",
            summary="scikit-learn's 1,797 scanned digits as vectors of 64 numbers",
        )
    ]
