"""What the core itself declares: the one dataset that knows no modality. Importing this file imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import DatasetInfo, hookimpl


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Shards."""
    return [
        DatasetInfo(
            name="shards",
            fields=("*",),
            factory="colatent.data.shards:Shards",
            config="colatent.data.shards:ShardsConfig",
            summary="files in WebDataset tar archives, opened by the codecs that read them",
        )
    ]
