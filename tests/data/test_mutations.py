"""Shards that something happened to: whatever it was, a sample is one that was packed, or the user is told in a line.

The changes are drawn from a seed, several hundred of them: bytes flipped, overwritten, cut out, put in, the end cut
off, pieces moved; in archives with an index, in archives without one, and in the index itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from colatent.data.index import INDEX
from colatent.data.locate import locate
from colatent.errors import UserError
from data.shards_made import archive, opened, packed, text_of, texts

TRIES = 250
SAMPLES = 24


def flip(data: bytearray, rng: np.random.Generator) -> None:
    for _ in range(int(rng.integers(1, 4))):
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    start, size = int(rng.integers(len(data))), int(rng.integers(1, 600))
    data[start : start + size] = rng.bytes(min(size, len(data) - start))


def cut_out(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 2000))]


def put_in(data: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 2000)))


def cut_off(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def move(data: bytearray, rng: np.random.Generator) -> None:
    start, to = (512 * int(rng.integers(len(data) // 512 + 1)) for _ in range(2))
    data[to : to + 1024] = data[start : start + 1024]


CHANGES: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (
    flip,
    overwrite,
    cut_out,
    put_in,
    cut_off,
    move,
)


def changed(path: Path, rng: np.random.Generator) -> bytes:
    """What a file was before something happened to it."""
    before = path.read_bytes()
    data = bytearray(before)
    CHANGES[int(rng.integers(len(CHANGES)))](data, rng)
    path.write_bytes(data)
    return before


def everything(path: Path) -> tuple[list[str], list[str]]:
    """All samples of both splits, and what was told meanwhile."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = [text for split in ("train", "heldout") for text in texts(opened(path, split=split, damaged=0.9))]
    return found, [str(one.message) for one in told]


def test_packed_samples_are_whole_or_replaced_and_never_fewer(tmp_path: Path) -> None:
    folder = packed(tmp_path / "shards", SAMPLES)
    shards, rng = sorted(folder.glob("*.tar")), np.random.default_rng(1)
    every, told = {text_of(number) for number in range(SAMPLES)}, 0
    for _ in range(TRIES):
        path = shards[int(rng.integers(len(shards)))]
        before = changed(path, rng)
        found, lines = everything(folder)
        path.write_bytes(before)
        assert len(found) == SAMPLES
        assert set(found) <= every
        assert (set(found) == every) != bool(lines), lines
        told += bool(lines)
    assert TRIES // 4 < told < TRIES  # most bytes of such an archive are padding


def test_archives_without_an_index_are_read_or_refused_and_never_silently_fewer(tmp_path: Path) -> None:
    path, rng = tmp_path / "some.tar", np.random.default_rng(2)
    archive(path, [(f"{number:02d}.txt", text_of(number).encode()) for number in range(SAMPLES)])
    refused = shorter = 0
    for _ in range(TRIES):
        before = changed(path, rng)
        try:
            found, lines = everything(path)
        except UserError:
            refused += 1
        else:
            if len(found) < SAMPLES:
                shorter += 1
                assert any("lost" in line for line in lines), lines
        path.write_bytes(before)
    assert refused
    assert shorter > TRIES // 10


def test_an_index_holds_or_is_refused(tmp_path: Path) -> None:
    folder, rng = packed(tmp_path / "shards", SAMPLES), np.random.default_rng(3)
    index, whole = folder / INDEX, locate(str(folder))
    refused = 0
    for _ in range(TRIES):
        before = changed(index, rng)
        try:
            assert locate(str(folder)) == whole  # white space round what is sealed is no part of it
        except UserError:
            refused += 1
        index.write_bytes(before)
    assert refused > TRIES * 9 // 10


@pytest.mark.parametrize("seed", range(50))
def test_noise_is_no_archive(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    (tmp_path / "noise.tar").write_bytes(rng.bytes(int(rng.integers(1, 5000))))
    with pytest.raises(UserError, match=r"noise\.tar: is no tar archive"):
        locate(str(tmp_path / "noise.tar"))
