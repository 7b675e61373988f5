"""A run's numbers and samples where people look: in TensorBoard, and its numbers at W&B where that is asked for."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from colatent.evaluate.page import shown
from colatent.evaluate.sampling import Sampled
from colatent.plugins.items import Shown
from colatent.train.remote import Remote

FOLDER = "tensorboard"


class Board:
    """What one stage shows, in RUN/tensorboard/STAGE. A resumed stage hides what it will write again."""

    def __init__(self, run: Path, stage: str, *, step: int, writes: bool = True, remote: Remote | None = None) -> None:
        """`writes`: off where another process writes the same. `remote`: gets the numbers too."""
        import logging

        from torch.utils.tensorboard.writer import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        folder = str(run / FOLDER / stage)
        self._writer = SummaryWriter(log_dir=folder, purge_step=step + 1) if writes else None
        self._stage, self._remote = stage, remote

    def scalars(self, step: int, values: Mapping[str, float], *, under: str = "") -> None:
        """Write numbers of one step."""
        named = {f"{under}{name}": value for name, value in values.items()}
        if self._remote is not None:
            self._remote.log(self._stage, step, named)
        if self._writer is not None:
            for name, value in named.items():
                self._writer.add_scalar(name, value, step)

    def samples(self, step: int, sampled: Sequence[Sampled]) -> None:
        """Write generated items of one step, as their codecs show them."""
        for some in sampled:
            for number, item in enumerate(some.items):
                self._sample(f"{some.source}/{some.stream}/{number}", shown(some.codecs[some.stream], item), step)

    def _sample(self, name: str, one: Shown, step: int) -> None:
        """Text, PNG and sounds are what TensorBoard can show, the last two as the bytes that they are."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None:
            return
        if one.media == "text/plain":
            self._writer.add_text(name, _verbatim(one.data.decode()), step)
            return
        value: dict[str, Any] = {}
        if one.media == "image/png":
            width, height = struct.unpack(">II", one.data[16:24])  # where its header has them
            value["image"] = Summary.Image(width=width, height=height, encoded_image_string=one.data)
        elif one.media.startswith("audio/"):
            value["audio"] = Summary.Audio(encoded_audio_string=one.data, content_type=one.media)
        if value:
            assert self._writer.file_writer is not None  # it opens with the writer
            self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, **value)]), step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer:
            self._writer.close()


def _verbatim(text: str) -> str:
    """Text that TensorBoard, which takes it for Markdown, shows as it is."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
