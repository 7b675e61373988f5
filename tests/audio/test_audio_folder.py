"""Folders of recordings: captions from where they are, and what is held out by names alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from audio.sounds import RATE
from colatent.errors import UserError
from colatent.plugins import load_plugins
from colatent.testing import check_dataset
from colatent_audio.datasets import AudioFolder, AudioFolderConfig


def folder(path: Path, *, split: Any = "train", **settings: Any) -> AudioFolder:
    return AudioFolder(AudioFolderConfig(path=str(path), **settings), split=split)


def captions(dataset: AudioFolder) -> list[str]:
    return [dataset.sample(index, np.random.default_rng(0))["text"] for index in range(len(dataset))]


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """Ten recordings of two words by takes, of 100 + take samples."""
    for word in ("yes", "no"):
        (tmp_path / word).mkdir()
        for take in range(5):
            path = tmp_path / word / f"{word}_{take}.wav"
            soundfile.write(path, np.full(100 + take, 0.25), RATE)
            path.with_suffix(".txt").write_text(f"{word}, take {take}\n")
    return tmp_path


def test_the_dataset_keeps_the_contract() -> None:
    results = check_dataset(load_plugins(), "audio-folder")
    assert [(result.name, result.detail) for result in results if result.state == "failed"] == []
    assert "class" in {result.name for result in results if result.state == "passed"}  # its samples need a folder


def test_captions_come_from_files_folders_or_names(spoken: Path) -> None:
    both = [*captions(folder(spoken)), *captions(folder(spoken, split="heldout"))]
    assert sorted(both) == sorted(f"{word}, take {take}" for word in ("yes", "no") for take in range(5))
    assert set(captions(folder(spoken, captions="folders"))) == {"yes", "no"}
    named = folder(spoken, captions="names", name=r"(?P<text>[a-z]+)_\d")
    assert set(captions(named)) == {"yes", "no"}
    assert named.sample(0, np.random.default_rng(0))["audio"].dtype == np.float32


def test_capital_letters_are_read_and_hidden_files_are_not(spoken: Path) -> None:
    (spoken / "yes" / "yes_0.wav").rename(spoken / "yes" / "yes_0.WAV")
    (spoken / "no" / "._no_0.wav").write_bytes(b"what a file system left")
    assert len(folder(spoken)) + len(folder(spoken, split="heldout")) == 10


def test_names_decide_what_is_held_out(spoken: Path) -> None:
    train, heldout = (folder(spoken, split=split, heldout_name=r".*_[01]") for split in ("train", "heldout"))
    assert sorted(captions(heldout)) == ["no, take 0", "no, take 1", "yes, take 0", "yes, take 1"]
    assert len(train) == 6


def test_a_share_is_held_out_whatever_the_place(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    held = captions(folder(spoken, split="heldout", heldout=0.3))
    assert len(held) == 3
    assert set(held).isdisjoint(captions(folder(spoken, heldout=0.3)))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    spoken.rename(elsewhere)
    assert captions(folder(elsewhere, split="heldout", heldout=0.3)) == held


def test_recordings_are_resampled_to_the_rate_that_is_asked_for(spoken: Path) -> None:
    sample = folder(spoken, sample_rate=16_000).sample(0, np.random.default_rng(0))
    assert 200 <= len(sample["audio"]) <= 208


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": ["*.mp3"]}, r"0 files match \*\.mp3; give two at least"),
        ({"heldout_name": "none"}, "0 of 10 recordings match heldout_name 'none'"),
        ({"heldout_name": ".*"}, "10 of 10 recordings match"),
        ({"captions": "names", "name": "(?P<text>yes)_."}, r"no_\d\.wav: its name does not match"),
        ({"captions": "names", "name": "(?P<text>yes)?.*"}, r"no_\d\.wav: its name does not match .* with a text"),
        ({"max_seconds": 0.0126}, r"\.wav: is 0\.0 seconds long, more than max_seconds=0\.0126; cut it"),
    ],
)
def test_mistakes_are_told_with_the_file(spoken: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        folder(spoken, **settings)


def test_a_missing_caption_and_a_missing_folder_are_told(spoken: Path) -> None:
    (spoken / "yes" / "yes_0.txt").unlink()
    (spoken / "no" / "no_0.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"yes_0\.txt: the caption of yes_0\.wav cannot be read \(No such file"):
        folder(spoken, split="heldout", heldout_name="yes_0")
    with pytest.raises(UserError, match=r"no_0\.txt: not UTF-8; convert"):
        folder(spoken, split="heldout", heldout_name="no_0")
    with pytest.raises(UserError, match=r"none: no such folder; give a folder"):
        folder(spoken / "none")
    with pytest.raises(UserError, match=r"no_1\.txt: is not a folder"):
        folder(spoken / "no" / "no_1.txt")


def test_a_mark_of_byte_order_is_no_part_of_a_caption_and_an_empty_one_is_told(spoken: Path) -> None:
    (spoken / "yes" / "yes_0.txt").write_bytes(b"\xef\xbb\xbfyes\r\n")
    (spoken / "no" / "no_0.txt").write_text(" \n")
    assert captions(folder(spoken, split="heldout", heldout_name="yes_0")) == ["yes"]
    with pytest.raises(UserError, match=r"no_0\.txt: the caption of no_0\.wav is empty; write what is said"):
        folder(spoken, split="heldout", heldout_name="no_0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captions": "names"}, "name and captions: names go together"),
        ({"name": "x"}, "name and captions: names go together"),
        ({"captions": "names", "name": "x"}, "needs a group called text"),
        ({"heldout_name": "("}, "is no regular expression"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AudioFolderConfig(path="x", **settings)
