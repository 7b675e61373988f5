"""What the gallery declares: data with checkable answers, and judges of what a mixed prior makes of them.

Importing this file imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from collections.abc import Iterable

from colatent.plugins import DatasetInfo, hookimpl


@hookimpl
def colatent_datasets() -> Iterable[DatasetInfo]:
    """Datasets of several modalities at once."""
    return []
