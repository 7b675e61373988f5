"""What the gallery declares: data with checkable answers, and judges of what a mixed prior makes of them.

Importing this file imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import DatasetInfo, TaskInfo, hookimpl


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Datasets of several modalities at once."""
    return [
        DatasetInfo(
            name="digits",
            fields=("text", "image", "audio"),
            factory="colatent_gallery.digits.dataset:Digits",
            config="colatent_gallery.digits.settings:DigitsConfig",
            summary="digits as captions, handwritten scans and telephone tones",
        )
    ]


@hookimpl
def colatent_tasks() -> Iterable[TaskInfo]:
    """Judges that share nothing with the models that they judge."""
    return [
        TaskInfo(
            name="digits",
            factory="colatent_gallery.digits.task:DigitsTask",
            config="colatent_gallery.digits.settings:DigitsTaskConfig",
            summary="whether digits survive the way from each modality to another",
            demo="colatent_gallery.digits:digits.yaml",
        )
    ]
