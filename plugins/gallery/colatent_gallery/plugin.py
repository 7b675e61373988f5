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
        ),
        DatasetInfo(
            name="glyphs",
            fields=("text", "image"),
            factory="colatent_gallery.glyphs.dataset:Glyphs",
            config="colatent_gallery.glyphs.settings:GlyphsConfig",
            summary="Unicode names of characters and their pictures",
        ),
        DatasetInfo(
            name="spoken-digits",
            fields=("audio", "text"),
            factory="colatent_gallery.speech.dataset:SpokenDigits",
            config="colatent_gallery.speech.settings:SpokenDigitsConfig",
            summary="recordings of digits that people speak, with captions",
        ),
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
        ),
        TaskInfo(
            name="glyphs",
            factory="colatent_gallery.glyphs.task:GlyphsTask",
            config="colatent_gallery.glyphs.settings:GlyphsTaskConfig",
            summary="whether names are drawn and pictures named, seen ones and new combinations",
        ),
        TaskInfo(
            name="spoken-digits",
            factory="colatent_gallery.speech.task:SpokenDigitsTask",
            config="colatent_gallery.speech.settings:SpokenDigitsTaskConfig",
            summary="whether spoken digits survive their codec, and the way to text and back",
        ),
    ]
