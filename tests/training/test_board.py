"""What TensorBoard is shown: a stage goes on where it was, and a bad disk costs one line and never the run.

That it shows text, pictures and sounds is held in `test_samples.py`.
"""

from __future__ import annotations

import errno
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from colatent.evaluate.sampling import Sampled
from colatent.train import board
from colatent.train.board import Board
from colatent_image.codec import ImageCodec
from colatent_image.config import ImageConfig


def test_a_stage_that_goes_on_hides_what_it_writes_again(tmp_path: Path) -> None:
    for begun, steps in ((0, range(1, 6)), (3, range(4, 8))):
        with Board(tmp_path, "prior", step=begun) as shown:
            for step in steps:
                shown.scalars(step, {"loss": 10.0 * begun + step}, under="train/")
    found = EventAccumulator(str(tmp_path / "tensorboard" / "prior")).Reload()
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [
        *((step, float(step)) for step in range(1, 4)),
        *((step, 30.0 + step) for step in range(4, 8)),
    ]


def test_a_stage_that_begins_again_hides_all_that_it_wrote(tmp_path: Path) -> None:
    for number in (1.0, 2.0):
        with Board(tmp_path, "prior", step=0) as shown:
            for step in range(3):
                shown.scalars(step, {"loss": 10 * number + step})
    found = EventAccumulator(str(tmp_path / "tensorboard" / "prior")).Reload()
    assert [(one.step, one.value) for one in found.Scalars("loss")] == [(0, 20.0), (1, 21.0), (2, 22.0)]


def test_what_does_not_write_leaves_nothing(tmp_path: Path) -> None:
    with Board(tmp_path, "prior", step=0, writes=False) as shown:
        shown.scalars(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def full_at_once(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setattr(board, "open", lambda *_, **__: io.FileIO("/dev/full", "wb"), raising=False)


def full_later(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    class Full(io.FileIO):
        def write(self, data) -> int:
            return super().write(data if self.tell() < 200 else bytes(data)[:3])

    monkeypatch.setattr(board, "open", lambda path, *_, **__: Full(path, "xb"), raising=False)


def full_in_the_end(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    class Full(io.FileIO):
        def close(self) -> None:
            if not self.closed:
                super().close()
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(board, "open", lambda path, *_, **__: Full(path, "xb"), raising=False)


def no_folder(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    (run / "tensorboard").write_text("in its place")


@pytest.mark.parametrize("spoil", [full_at_once, full_later, full_in_the_end, no_folder])
def test_a_bad_disk_is_one_warning(spoil: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, tmp_path)
    codec = ImageCodec(ImageConfig(bands=1, height=16, width=24))
    items = codec.example_batch(1)
    some = Sampled(codecs={"image": codec}, source="all", stream="image", items=items, given=[[]])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with Board(tmp_path, "prior", step=0) as shown:
            for step in range(20):
                shown.scalars(step, {"loss": 1.0})
                shown.samples(step, [some])
    (line,) = (str(one.message) for one in told)
    assert line.startswith(f"{tmp_path}/tensorboard/prior: cannot be written (")
    assert line.endswith("): the run goes on without TensorBoard")
