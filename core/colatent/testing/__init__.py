"""For plugin authors: named checks that a codec, a dataset or a task keeps to the contract.

From a test, `parametrize_with_checks`; from the command line, `colatent plugins validate`; from code, `examine`. All
run the same checks on what a plugin declares, at its default settings, with the codec's own example items: no data, no
network, no training. pytest is imported where the decorator is used and nowhere else.
"""

from __future__ import annotations

from colatent.testing.catalogue import (
    CODEC_CHECKS,
    DATASET_CHECKS,
    TASK_CHECKS,
    check_codec,
    check_dataset,
    check_task,
    examine,
)
from colatent.testing.parametrize import parametrize_with_checks
from colatent.testing.running import Check, Examination, Result

__all__ = [
    "CODEC_CHECKS",
    "DATASET_CHECKS",
    "TASK_CHECKS",
    "Check",
    "Examination",
    "Result",
    "check_codec",
    "check_dataset",
    "check_task",
    "examine",
    "parametrize_with_checks",
]
