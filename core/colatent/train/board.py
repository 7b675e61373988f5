"""A run's numbers and samples where people look: in TensorBoard, and its numbers at W&B where that is asked for.

The files are written here: TensorBoard's own writer leaves that to a thread, whose errors come late and as tracebacks.
They are there to be looked at, so a disk that fails costs a warning and what they would have shown, never the run.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
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
        self._folder, self._stage, self._remote = run / FOLDER / stage, stage, remote
        self._events: _Events | None = None
        if writes:
            with self._spared():
                # Of step 0 there is one evaluation, which a stage that has no checkpoint does again.
                self._events = _Events(self._folder, purge=step + 1 if step else 0)

    def scalars(self, step: int, values: Mapping[str, float], *, under: str = "") -> None:
        """Write numbers of one step."""
        named = {f"{under}{name}": value for name, value in values.items()}
        if self._remote is not None:
            self._remote.log(self._stage, step, named)
        for name, value in named.items():
            self._add(step, tag=name, simple_value=value)

    def samples(self, step: int, sampled: Sequence[Sampled]) -> None:
        """Write generated items of one step, as their codecs show them."""
        for some in sampled:
            for number, item in enumerate(some.items):
                self._sample(f"{some.source}/{some.stream}/{number}", shown(some.codecs[some.stream], item), step)

    def _sample(self, name: str, one: Shown, step: int) -> None:
        """Text, PNG and sounds are what TensorBoard can show, the last two as the bytes that they are."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard.summary import text

        if one.media == "text/plain":
            (value,) = text(name, _verbatim(one.data.decode())).value
            self._add(step, tag=value.tag, metadata=value.metadata, tensor=value.tensor)
        elif one.media == "image/png":
            width, height = struct.unpack(">II", one.data[16:24])  # where its header has them
            self._add(step, tag=name, image=Summary.Image(width=width, height=height, encoded_image_string=one.data))
        elif one.media.startswith("audio/"):
            self._add(step, tag=name, audio=Summary.Audio(encoded_audio_string=one.data, content_type=one.media))

    def _add(self, step: int, **value: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._events is not None:
            with self._spared():
                self._events.add(step, summary=Summary(value=[Summary.Value(**value)]))

    @contextmanager
    def _spared(self) -> Iterator[None]:
        """What the disk refuses inside is told, and is the last that TensorBoard gets of this stage."""
        try:
            yield
        except OSError as error:
            with suppress(OSError):
                self._close()
            what = f"{self._folder}: cannot be written ({error.strerror or error})"
            warnings.warn(f"{what}: the run goes on without TensorBoard", stacklevel=4)

    def _close(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._spared():
            self._close()


class _Events:
    """A file of events as TensorBoard reads them, each handed to the system whole when `add` returns."""

    def __init__(self, folder: Path, *, purge: int) -> None:
        """`purge`: the step from which on earlier files of the folder no longer count."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names, so those are times.
        path = folder / f"events.out.tfevents.{time.time_ns():019d}.{os.getpid()}"
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 (kept open for the whole stage)
        try:
            self.add(purge, file_version="brain.Event:2")
            self.add(purge, session_log=SessionLog(status=SessionLog.START))
        except BaseException:
            self.close()
            raise

    def add(self, step: int, **what: Any) -> None:
        """Write one event."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), step=step, **what).SerializeToString())
        if self._file.write(record.getvalue()) < len(record.getvalue()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _verbatim(text: str) -> str:
    """Text that TensorBoard, which takes it for Markdown, shows as it is."""
    return "\n".join(f"    {line}" for line in text.split("\n"))
