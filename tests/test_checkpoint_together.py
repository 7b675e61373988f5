"""Checkpoints that several processes write: whole for every reader, cut anew for any number of them, and never half.

Threads stand for the processes; those of the training are tested with it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from colatent.checkpoint import newest, write
from colatent.checkpoint.folder import Checkpoint
from colatent.checkpoint.together import write_together
from colatent.errors import UserError

ROWS_RC = torch.arange(35.0).view(7, 5)
VALUES = {"rows": ROWS_RC, "few": torch.arange(4).view(2, 2), "one": torch.tensor(3.0)}


class GoneError(RuntimeError):
    """A process was lost."""


class Thread:
    """One of several threads that write together."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, board: list[str]) -> None:
        self.rank, self.size, self._barrier, self._board = rank, size, barrier, board

    def gather(self, text: str) -> list[str]:
        self._board[self.rank] = text
        self._wait()
        found = list(self._board)
        self._wait()
        return found

    @contextmanager
    def together(self) -> Iterator[None]:
        refused = None
        try:
            yield
        except UserError as error:
            refused = error
        said = next(filter(None, self.gather(refused.what if refused else "")), None)
        if said:
            raise refused or UserError(said)

    def _wait(self) -> None:
        try:
            self._barrier.wait(timeout=30)
        except threading.BrokenBarrierError as error:
            raise GoneError from error


def cut(rank: int, size: int) -> dict[str, torch.Tensor]:
    """Rows as FSDP2 deals them out, the last shares short or empty; what has no rows is the first one's."""
    found = {name: value.split(-(-len(value) // size)) for name, value in VALUES.items() if value.ndim}
    own = {name: pieces[rank] for name, pieces in found.items() if rank < len(pieces)}
    return own | ({"one": VALUES["one"]} if rank == 0 else {})


def saved(folder: Path, *, step: int, size: int, dies: int | None = None) -> list[BaseException | None]:
    """Save by so many threads; gives what each ended with."""
    barrier, board, ends = threading.Barrier(size), [""] * size, list[BaseException | None]([None] * size)

    def work(rank: int) -> None:
        peers = Thread(rank, size, barrier, board)
        rest: dict[str, Any] = {"documents": {"state": {"step": step}}, "files": {}, "fingerprint": "", "versions": {}}
        try:
            if rank == dies:
                peers.gather("")  # to the end of what the first one writes, and no further
                barrier.abort()
                return
            tensors = {"codec.text": {"a": torch.ones(2)}} if rank == 0 else {}
            shares = {"prior": cut(rank, size)}
            write_together(folder, peers=peers, step=step, shares=shares, tensors=tensors, **rest)
        except BaseException as error:
            ends[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ends


def read(folder: Path, step: int) -> Checkpoint:
    found = newest(folder)
    assert found is not None
    assert found.step == step
    return found


@pytest.mark.parametrize("size", [2, 3, 5])
def test_what_several_wrote_is_whole_to_a_reader_and_cut_anew_for_any_number(size: int, tmp_path: Path) -> None:
    assert saved(tmp_path, step=1, size=size) == [None] * size
    checkpoint = read(tmp_path, 1)
    assert len(checkpoint.groups()["prior"]) == size
    assert checkpoint.has("prior")
    assert not checkpoint.has("prior.ema")
    assert set(checkpoint.tensors("codec.text")) == {"a"}
    whole, rows = checkpoint.tensors("prior"), checkpoint.rows("prior")
    assert whole.keys() == rows.keys() == VALUES.keys()
    for name, value in VALUES.items():
        assert torch.equal(whole[name], value)
        assert (rows.shape(name), rows[name].dtype) == (value.shape, value.dtype)
    for start in range(8):
        for stop in range(start, 8):
            assert torch.equal(rows.rows("rows", start, stop), ROWS_RC[start:stop])


def test_one_that_cannot_write_its_share_refuses_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert saved(tmp_path, step=1, size=3) == [None] * 3
    write_chunks = write.write_chunks

    def full(path: Path, chunks: Any) -> Any:
        if "shard-0001" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_chunks(path, chunks)

    monkeypatch.setattr(write, "write_chunks", full)
    ends = saved(tmp_path, step=2, size=3)
    assert {getattr(end, "what", None) for end in ends} == {"cannot save a checkpoint: No space left on device"}
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    read(tmp_path, 1)


def test_one_that_dies_while_all_write_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    assert saved(tmp_path, step=1, size=3) == [None] * 3
    ends = saved(tmp_path, step=2, size=3, dies=2)
    assert [type(end) for end in ends[:2]] == [GoneError, GoneError]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    read(tmp_path, 1)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\7")])
def test_a_share_that_is_missing_or_damaged_is_named_and_the_one_before_is_taken(damage: Any, tmp_path: Path) -> None:
    for step in (1, 2):
        assert saved(tmp_path, step=step, size=2) == [None] * 2
    damage(tmp_path / "step-00000002" / "prior.shard-0001-of-0002.safetensors")
    told: list[str] = []
    found = newest(tmp_path, on_skip=lambda path, reason: told.append(reason))
    assert found is not None
    assert found.step == 1
    (reason,) = told
    assert "step-00000002/prior.shard-0001-of-0002.safetensors" in reason
