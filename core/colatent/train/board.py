"""A run's scalars for TensorBoard, beside metrics.jsonl: the same numbers for people who look there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

FOLDER = "tensorboard"


class Board:
    """Scalars of one stage in RUN/tensorboard/STAGE. A resumed stage hides what it will write again."""

    def __init__(self, run: Path, stage: str, *, step: int, writes: bool = True) -> None:
        """`writes`: off where another process writes the same."""
        import logging

        from torch.utils.tensorboard.writer import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        folder = str(run / FOLDER / stage)
        self._writer = SummaryWriter(log_dir=folder, purge_step=step + 1) if writes else None

    def scalars(self, step: int, values: Mapping[str, float], *, under: str = "") -> None:
        """Write numbers of one step."""
        if self._writer is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{under}{name}", value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            self._writer.close()
