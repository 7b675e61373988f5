"""Spoken digits: what the archive's reader takes and refuses, what the dataset promises, and a judge that is right on
real recordings alone."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent.plugins import load_plugins
from colatent.testing import check_dataset, check_task
from colatent_gallery.digits.captions import SPOKEN, WORDS, read_digit
from colatent_gallery.scores import hits
from colatent_gallery.speech.classifier import VoiceJudge, features_of
from colatent_gallery.speech.dataset import SpokenDigits
from colatent_gallery.speech.recordings import MOST_BYTES, load_recordings
from colatent_gallery.speech.settings import SpokenDigitsConfig
from colatent_gallery.speech.varying import Variation, at_speed, vary
from plugins_for_tests.speech_stub import SPEAKERS, takes, voice, wav, write_archive

REAL = Path(__file__).parents[3] / "shared" / "data" / "spoken_digits.tar.gz"
present = pytest.mark.skipif(not REAL.is_file(), reason="needs ../shared/data/spoken_digits.tar.gz")

HOW = Variation(share=1.0, speed=0.08, gain=6.0, lead=0.03, snr=(30.0, 60.0))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("speech") / "spoken.tar.gz", takes(4))


def test_the_plugin_keeps_the_contract() -> None:
    found = load_plugins()
    results = check_dataset(found, "spoken-digits") + check_task(found, "spoken-digits")
    assert [(one.name, one.detail) for one in results if one.state == "failed"] == []
    assert any(one.state == "passed" for one in results)


# The archive.


def test_takes_are_split_by_their_number_and_come_in_rounds(archive: Path) -> None:
    training, test = load_recordings(str(archive), heldout=1)
    assert (len(training), len(test)) == (60, 20)
    assert {one.number for one in test} == {0}
    assert {one.number for one in training} == {1, 2, 3}
    assert {one.speaker for one in test} == set(SPEAKERS)
    for start in range(0, 20, 10):
        assert [one.digit for one in test[start : start + 10]] == list(range(10))
    expected = voice(7, generator("voice", 7, "bob", 0))
    found = next(one.sound for one in test if (one.digit, one.speaker) == (7, "bob"))
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 2**-15


def test_other_members_are_left_alone(tmp_path: Path) -> None:
    sound = wav(np.ones(800, dtype=np.float32) * 0.1)
    members = {"../../7_eve_0.wav": sound, "/7_eve_1.wav": sound, "README.md": b"# Digits", "x_eve_2.wav": sound}
    path = write_archive(tmp_path / "a.tar.gz", members, links={"8_eve_0.wav": "/etc/passwd"})
    training, test = load_recordings(str(path), heldout=1)
    assert [(one.digit, one.number) for one in (*test, *training)] == [(7, 0), (7, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_an_archive_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    def told(path: Path, *, heldout: int = 1) -> str:
        with pytest.raises(UserError) as error:
            load_recordings(str(path), heldout=heldout)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert re.search(r"none\.tar\.gz: no such file; give the archive of", told(tmp_path / "none.tar.gz"))
    assert "is a folder" in told(tmp_path)
    (tmp_path / "text.tar.gz").write_text("seven")
    assert "is no whole tar archive" in told(tmp_path / "text.tar.gz")
    whole = write_archive(tmp_path / "whole.tar.gz", takes(2))
    (tmp_path / "cut.tar.gz").write_bytes(whole.read_bytes()[:3000])
    assert "is no whole tar archive" in told(tmp_path / "cut.tar.gz")
    assert "holds no recordings named" in told(write_archive(tmp_path / "empty.tar.gz", {"a.txt": b"a"}))
    assert "40 of 40 recordings are takes below 9" in told(whole, heldout=9)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"RIFF", "cannot be read as sound"),
        (wav(np.zeros(800, dtype=np.float32), rate=16_000), "has 800 samples, 1 channels, 16000 samples a second"),
        (wav(np.zeros((800, 2), dtype=np.float32)), "2 channels"),
        (wav(np.zeros(0, dtype=np.float32)), "has 0 samples"),
        (wav(np.zeros(250_000, dtype=np.float32)), "has 250000 samples"),
        (b"0" * (MOST_BYTES + 1), f"is {MOST_BYTES + 1} bytes long"),
    ],
)
def test_a_member_that_cannot_be_used_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    path = write_archive(tmp_path / "a.tar.gz", {"7_eve_0.wav": data})
    with pytest.raises(UserError, match=rf"a\.tar\.gz: 7_eve_0\.wav: .*{re.escape(what)}"):
        load_recordings(str(path), heldout=1)


def test_another_archive_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", takes(2))
    assert len(load_recordings(str(path), heldout=1)[0]) == 20
    write_archive(path, takes(3))
    os.utime(path, ns=(1, 1))
    assert len(load_recordings(str(path), heldout=1)[0]) == 40


# The dataset.


def test_captions_name_what_is_heard_and_nothing_else() -> None:
    assert len(set(SPOKEN)) >= 10
    for template in SPOKEN:
        assert [read_digit(template.format(word)) for word in WORDS] == list(range(10))


def test_samples_are_functions_of_their_generator_and_held_out_ones_are_as_recorded(archive: Path) -> None:
    config = SpokenDigitsConfig(path=str(archive), heldout=1, varied=1.0)
    training, test = (SpokenDigits(config, split=split) for split in ("train", "heldout"))
    assert (len(training), len(test)) == (60, 20)
    first, again, other = (training.sample(3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first["audio"], again["audio"])
    assert first["text"] == again["text"]
    assert not np.array_equal(first["audio"], other["audio"])
    recordings = load_recordings(str(archive), heldout=1)
    assert np.array_equal(test.sample(3, np.random.default_rng(0))["audio"], recordings[1][3].sound)
    plain = SpokenDigits(config.model_copy(update={"varied": 0.0}), split="train")
    assert np.array_equal(plain.sample(3, np.random.default_rng(0))["audio"], recordings[0][3].sound)
    for index in range(20):
        assert read_digit(test.sample(index, np.random.default_rng(index))["text"]) == index % 10


def test_a_faster_voice_is_higher_and_shorter() -> None:
    sound = np.sin(2 * np.pi * 500 * np.arange(4000) / 8000)
    quick = at_speed(sound, 1.25)
    assert len(quick) == 3200
    assert np.allclose(quick, np.sin(2 * np.pi * 625 * np.arange(3200) / 8000), atol=1e-9)
    assert np.allclose(at_speed(sound, 1.0), sound)


def test_variation_keeps_within_its_bounds() -> None:
    sound = (0.5 * np.sin(2 * np.pi * 500 * np.arange(4000) / 8000)).astype(np.float32)
    for seed in range(50):
        varied = vary(sound, np.random.default_rng(seed), how=HOW, rate=8000)
        assert varied.dtype == np.float32
        assert 4000 / 1.08 - 1 <= len(varied) <= 4000 / 0.92 + 481
        assert 0.5 * 10 ** (-6 / 20) * 0.95 < np.abs(varied).max() <= 1.0
    loud = vary(2 * sound, np.random.default_rng(0), how=HOW, rate=8000)
    assert np.abs(loud).max() <= 1.0


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"snr goes from 60.0 to 30.0"):
        SpokenDigitsConfig(path="a", snr=(60.0, 30.0))


# The judge.


def test_the_judge_tells_voices_it_was_not_fitted_on(archive: Path) -> None:
    training, test = load_recordings(str(archive), heldout=1)
    judge = VoiceJudge(training)
    assert hits([one.digit for one in test], judge.hear([one.sound for one in test])) == 20


def test_the_judge_refuses_what_is_no_voice(archive: Path) -> None:
    judge = VoiceJudge(load_recordings(str(archive), heldout=1)[0])
    nothing = [np.zeros(4000), np.zeros(0), np.full(4000, np.nan), voice(7, np.random.default_rng(0))[:399]]
    assert judge.hear(nothing) == [None] * 4


def test_features_do_not_hang_on_length_alone() -> None:
    assert all(features_of(np.ones(count, dtype=np.float32)).shape == (140,) for count in (400, 4000, 40_000))


def test_a_missing_library_is_one_line(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(UserError, match=r'needs scikit-learn.*; pip install "colatent\[gallery\]"'):
        VoiceJudge(load_recordings(str(archive), heldout=1)[0])


@present
def test_the_judge_knows_real_recordings() -> None:
    training, test = load_recordings(str(REAL), heldout=5)
    assert (len(training), len(test)) == (1800, 200)
    assert all([one.digit for one in test[start : start + 10]] == list(range(10)) for start in range(0, 200, 10))
    judged = VoiceJudge(training).hear([one.sound for one in test])
    assert hits([one.digit for one in test], judged) >= 196
