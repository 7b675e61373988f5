"""Shards that something happened to: whatever it was, a sample is one that was packed, or the user is told in a line.

Bytes are flipped, overwritten, cut out, put in, the end is cut off, pieces are moved; in archives with an index, in
archives without one, and in the index itself.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import properties
from colatent.data.index import INDEX
from colatent.data.locate import locate
from data.shards_made import archive, opened, packed, text_of, texts
from properties import attempt, changed, tries

TRIES, NOISE = 250, 50
SAMPLES = 24


def everything(path: Path) -> tuple[list[str], list[str]]:
    """All samples of both splits, and what was told meanwhile."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = [text for split in ("train", "heldout") for text in texts(opened(path, split=split, damaged=0.9))]
    return found, [str(one.message) for one in told]


def test_packed_samples_are_whole_or_replaced_and_never_fewer(tmp_path: Path) -> None:
    folder = packed(tmp_path / "shards", SAMPLES)
    shards = {path: path.read_bytes() for path in sorted(folder.glob("*.tar"))}
    every, told = {text_of(number) for number in range(SAMPLES)}, []

    @tries(TRIES)
    @given(st.data())
    def holds(some: st.DataObject) -> None:
        path = some.draw(st.sampled_from(sorted(shards)))
        path.write_bytes(some.draw(changed(shards[path])))
        found, lines = attempt(lambda: everything(folder))
        path.write_bytes(shards[path])
        assert len(found) == SAMPLES
        assert set(found) <= every
        assert (set(found) == every) != bool(lines), lines
        assert not any("\n" in line for line in lines), lines
        told.append(bool(lines))

    holds()
    assert TRIES // 4 < sum(told) < len(told)  # most bytes of such an archive are padding


def test_archives_without_an_index_are_read_or_refused_and_never_silently_fewer(tmp_path: Path) -> None:
    path, ends = tmp_path / "some.tar", []
    members = [(f"{number:02d}.txt", text_of(number).encode()) for number in range(SAMPLES)]
    whole = archive(path, members).read_bytes()

    @tries(TRIES)
    @given(st.data())
    def holds(some: st.DataObject) -> None:
        path.write_bytes(some.draw(changed(whole)))
        read = attempt(lambda: everything(path))
        if isinstance(read, str):
            ends.append("refused")
            return
        found, lines = read
        assert len(found) >= SAMPLES or any("lost" in line for line in lines), lines
        ends.append("shorter" if len(found) < SAMPLES else "whole")

    holds()
    assert ends.count("refused")
    assert ends.count("shorter") > TRIES // 10


def test_an_index_holds_or_is_refused(tmp_path: Path) -> None:
    folder = packed(tmp_path / "shards", SAMPLES)
    index, whole, refused = folder / INDEX, locate(str(folder)), []
    written = index.read_bytes()

    @tries(TRIES)
    @given(st.data())
    def holds(some: st.DataObject) -> None:
        index.write_bytes(some.draw(changed(written)))
        read = attempt(lambda: locate(str(folder)))
        if isinstance(read, str):
            refused.append(read)
        else:
            assert read == whole  # white space round what is sealed is no part of it

    holds()
    assert len(refused) > TRIES * 3 // 4


def test_what_has_no_end_or_another_error_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(properties, "LONGEST", 0.05)
    with pytest.raises(AssertionError, match="no end after"):
        attempt(lambda: time.sleep(20))
    with pytest.raises(ZeroDivisionError):
        attempt(lambda: 1 // 0)


def test_noise_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "noise.tar"

    @tries(NOISE)
    @given(st.binary(min_size=1, max_size=5000))
    def holds(data: bytes) -> None:
        path.write_bytes(data)
        assert "noise.tar: is no tar archive" in str(attempt(lambda: locate(str(path))))

    holds()
