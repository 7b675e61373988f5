"""Sources of text: windows that are never empty, drawn from the generator alone, and never from what is held out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from colatent.data.dataset import Dataset
from colatent.errors import UserError
from colatent_text import counting, names
from colatent_text.datasets import (
    Counting,
    CountingConfig,
    TextFiles,
    TextFilesConfig,
    UnicodeNames,
    UnicodeNamesConfig,
)
from colatent_text.items import Text


def draw(dataset: Dataset, index: int = 0, seed: int = 0) -> Text:
    item = dataset.sample(index, np.random.default_rng(seed))["text"]
    assert isinstance(item, Text)
    return item


def text_of(dataset: Dataset, index: int = 0, seed: int = 0) -> str:
    text = draw(dataset, index, seed).text
    assert text
    return text


def files(path: Path, *, split: Any = "train", **settings: Any) -> TextFiles:
    return TextFiles(TextFilesConfig(path=str(path), **settings), split=split)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """4,000 characters, each offset recognisable: '0000,0001,...'."""
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{i:04d}," for i in range(800)))
    return path


def test_a_long_document_keeps_its_tail_out_of_training(book: Path) -> None:
    train, heldout = (files(book, split=split, window=100, heldout=0.1) for split in ("train", "heldout"))
    text = book.read_text()
    assert (len(train), len(heldout)) == (36, 4)
    assert "".join(text_of(heldout, i) for i in range(4)) == text[3600:]
    assert [draw(heldout, i).ends for i in range(4)] == [False, False, False, True]
    windows = [draw(train, seed=seed) for seed in range(400)]
    assert all(window.text and window.text in text[:3600] and not window.ends for window in windows)
    assert {len(window.text or "") for window in windows} >= {100}
    assert any((window.text or "").startswith("0000,") for window in windows)


def test_windows_cover_a_document_evenly(book: Path) -> None:
    train = files(book, window=400)
    counts = np.zeros(3800)
    for seed in range(2000):
        window = text_of(train, seed=seed)
        start = book.read_text().index(window)
        counts[start : start + len(window)] += 1
    assert counts.min() > 0.5 * counts.mean()
    assert counts[:400].mean() < 2.5 * counts.mean()


def test_short_documents_stay_whole_and_end(tmp_path: Path) -> None:
    for i in range(20):
        (tmp_path / f"{i:02d}.md").write_text(f"document {i:02d} " * 10)
    train, heldout = (files(tmp_path, split=split) for split in ("train", "heldout"))
    assert (len(train), len(heldout)) == (19, 1)
    assert draw(heldout) == Text(text="document 19 " * 10, ends=True)
    seen = {draw(train, seed=seed) for seed in range(300)}
    assert all(item.ends for item in seen)
    assert {f"document {i:02d} " * 10 for i in range(19)} <= {item.text for item in seen}


def test_a_single_short_document_is_split(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("0123456789abcdef")
    assert draw(files(path, split="heldout")) == Text(text="f", ends=True)
    assert draw(files(path), seed=1).ends is False
    assert len(files(path)) == 1


def test_folders_are_read_recursively_in_order_and_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_text("x" * 50)
    (tmp_path / "a.txt").write_text("a" * 50)
    (tmp_path / "c.md").write_text("\ufeff" + "c" * 50, encoding="utf-8")
    (tmp_path / "d.py").write_text("d" * 50)
    (tmp_path / "empty.txt").write_text("")
    assert text_of(files(tmp_path, split="heldout")) == "c" * 8
    assert text_of(files(tmp_path, split="heldout", pattern=("*.py", "a*"))) == "d" * 5
    assert {text_of(files(tmp_path, window=1), seed=s) for s in range(50)} == {"a", "x", "c"}


def test_line_ends_and_unicode_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("première\r\nligne 漢字\r\n".encode())
    assert text_of(files(tmp_path / "a.txt"), seed=3).startswith("première\r\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the text is empty"),
        (b"too short", "9 characters of text, fewer than min_chars=16"),
        (b"sixteen bytes of \xff", "not UTF-8 .byte 0xff at offset 17."),
    ],
)
def test_bad_text_is_one_line_with_the_path(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    for where in (path, tmp_path):
        with pytest.raises(UserError, match=message) as caught:
            files(where)
        assert str(caught.value).startswith(str(where))


def test_missing_paths_and_folders_without_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        files(tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"no file matches \*\.txt, \*\.md"):
        files(tmp_path)


def test_names_leave_out_what_is_derived_or_numbered() -> None:
    every = names.load_names()
    assert 25_000 < len(every) < 40_000
    assert len(set(every)) == len(every)
    assert {"LATIN SMALL LETTER A", "SNOWMAN", "VARIATION SELECTOR-1"} & set(every) == {
        "LATIN SMALL LETTER A",
        "SNOWMAN",
    }
    for stem in (
        "CJK UNIFIED IDEOGRAPH-",
        "HANGUL SYLLABLE ",
        "NUSHU CHARACTER-",
        "TANGUT COMP",
        "BRAILLE PATTERN DOTS-",
    ):
        assert not any(name.startswith(stem) for name in every), stem
    assert {"HANGUL CHOSEONG KIYEOK", "BRAILLE PATTERN BLANK"} <= set(every)


def test_split_of_names_is_seeded_disjoint_and_complete() -> None:
    train, heldout = names.split_names(0, 2000)
    assert len(heldout) == 2000
    assert sorted(train + heldout) == sorted(names.load_names())
    assert names.split_names(0, 2000)[1] == heldout != names.split_names(1, 2000)[1]
    with pytest.raises(UserError, match="cannot hold out"):
        names.split_names(0, 10**6)


def test_vocabulary_splits_at_spaces_only() -> None:
    assert names.vocabulary(["HEAVY LEFT-POINTING ANGLE", "LEFT"]) == {"HEAVY", "LEFT-POINTING", "ANGLE", "LEFT"}


def test_no_held_out_name_stands_in_a_training_window() -> None:
    train, heldout = (UnicodeNames(UnicodeNamesConfig(), split=split) for split in ("train", "heldout"))
    train_names, heldout_names = map(set, names.split_names(0, 2000))
    for seed in range(100):
        window = draw(train, seed=seed)
        assert window.text
        assert 1792 <= len(window.text) <= 2048
        assert not window.ends
        assert set(window.text.split("; ")[1:-1]) <= train_names
    for index in (0, 1, 1999):
        assert set(text_of(heldout, index).split("; ")[:-1]) <= heldout_names
    assert len({text_of(heldout, i) for i in range(2000)}) == len(heldout) == 2000


def test_the_share_of_windows_that_begin_with_a_whole_name() -> None:
    known = set(names.split_names(0, 2000)[0])
    for whole in (0.0, 0.5, 1.0):
        train = UnicodeNames(UnicodeNamesConfig(whole=whole, window=200), split="train")
        begins = np.mean([text_of(train, seed=seed).split("; ")[0] in known for seed in range(300)])
        assert abs(begins - whole) < 0.12


def test_numbers_in_words() -> None:
    spelt = {
        0: "zero",
        13: "thirteen",
        20: "twenty",
        41: "forty-one",
        100: "one hundred",
        999: "nine hundred ninety-nine",
    }
    spelt |= {1000: "one thousand", 2013: "two thousand thirteen", 9100: "nine thousand one hundred"}
    assert {n: counting.words(n) for n in spelt} == spelt
    assert len({counting.words(n) for n in range(10_000)}) == 10_000


def test_stretches_are_held_out_above_the_first_hundred_and_never_touch() -> None:
    for seed in range(20):
        ranges = CountingConfig(seed=seed).ranges()
        assert [len(stretch) for stretch in ranges.heldout] == [20] * 5
        assert ranges.trained[0].stop >= 100
        assert sorted(n for run in ranges.trained + ranges.heldout for n in run) == list(range(1000))
        assert all(ranges.trained)
        assert len(ranges.trained) >= 5
    assert CountingConfig(seed=1).ranges() != CountingConfig(seed=0).ranges()
    with pytest.raises(UserError, match="more than half"):
        CountingConfig(heldout_stretches=40).ranges()
    with pytest.raises(ValidationError, match="fewest before most"):
        CountingConfig(series=(5, 4))


def test_no_held_out_number_stands_in_a_training_window() -> None:
    config = CountingConfig(series=(5, 60))
    value = {counting.words(n): n for n in range(1000)}
    trained = {n for run in config.ranges().trained for n in run}
    train = Counting(config, split="train")
    seen: set[int] = set()
    for seed in range(200):
        window = draw(train, seed=seed)
        assert window.text
        assert 1792 <= len(window.text) <= 2048
        assert not window.ends
        for part in window.text.split(counting.END):
            numbers = [value[word] for word in part.split(counting.SEPARATOR)[1:-1]]
            assert numbers == list(range(min(numbers, default=0), max(numbers, default=-1) + 1))
            seen |= set(numbers)
    assert seen <= trained
    assert len(seen) > 0.95 * len(trained)


def test_held_out_counting_holds_only_held_out_numbers() -> None:
    config = CountingConfig(window=300)
    heldout = Counting(config, split="heldout")
    stretches = config.ranges().heldout
    numbers = [n for stretch in stretches for n in stretch]
    assert len(heldout) == len(numbers) == 100
    allowed = {counting.words(n) for n in numbers}
    for index, number in enumerate(numbers):
        text = text_of(heldout, index)
        assert text.startswith(counting.words(number))
        spelt = text.replace(counting.END, counting.SEPARATOR).split(counting.SEPARATOR)
        assert set(spelt[:-1]) <= allowed


def test_series_stop_where_their_length_or_their_run_ends() -> None:
    drawn = counting.random_series((range(0, 50), range(70, 100)), np.random.default_rng(0), lengths=(3, 8))
    for _, text in zip(range(200), drawn, strict=False):
        count = len(text.split(counting.SEPARATOR))
        assert text.endswith(counting.END)
        assert count >= 3 or text.endswith(("forty-nine.\n", "ninety-nine.\n"))
        assert count <= 8


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_sample_depends_on_index_and_generator_alone(book: Path, split: Any) -> None:
    for dataset in (
        files(book, split=split, window=50),
        UnicodeNames(UnicodeNamesConfig(window=200), split=split),
        Counting(CountingConfig(window=200), split=split),
    ):
        assert isinstance(dataset, Dataset)
        assert len(dataset) >= 1
        first = draw(dataset, 2, seed=7)
        draw(dataset, 1, seed=8)
        assert draw(dataset, 2, seed=7) == first
        assert (draw(dataset, 2, seed=9) == first) == (split == "heldout")
