"""The digits' material and its judges: what the dataset promises, and judges that are right on real things alone."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent.plugins import load_plugins
from colatent.testing import check_dataset, check_task
from colatent_gallery.digits.captions import TEMPLATES, WORDS, caption, read_digit
from colatent_gallery.digits.classifier import ScanJudge
from colatent_gallery.digits.dataset import Digit, Digits
from colatent_gallery.digits.detector import detect, goertzel
from colatent_gallery.digits.likeness import likeness, nearest, spread
from colatent_gallery.digits.scans import _all_scans, load_scans, moved_by, vary
from colatent_gallery.digits.settings import DigitsConfig
from colatent_gallery.digits.tones import COLUMNS, ROWS, Line, frequencies, tone
from colatent_gallery.scores import confusion, hits

LINE = DigitsConfig().line()


def test_the_plugin_keeps_the_contract() -> None:
    found = load_plugins()
    results = check_dataset(found, "digits") + check_task(found, "digits")
    assert [(result.name, result.detail) for result in results if result.state != "passed"] == []


# Captions.


def test_every_wording_names_every_digit() -> None:
    assert len(set(TEMPLATES)) >= 20
    for template in TEMPLATES:
        assert [read_digit(template.format(word)) for word in WORDS] == list(range(10))


def test_wordings_do_not_tell_the_digit() -> None:
    rng = np.random.default_rng(0)
    for digit, word in enumerate(WORDS):
        drawn = {re.sub(rf"\b{word}\b", "{}", caption(digit, rng)) for _ in range(600)}
        assert drawn == set(TEMPLATES)


@pytest.mark.parametrize(
    ("text", "digit"),
    [
        ("Press SEVEN!", 7),
        ("the figure 7", 7),
        ("seven, I said seven", 7),
        ("7, that is seven", 7),
        ("seven or eight", None),
        ("the figure", None),
        ("", None),
        ("17", None),
        ("seventeen", None),
        ("someone", None),
    ],
)
def test_the_reader_takes_exactly_one_digit(text: str, digit: int | None) -> None:
    assert read_digit(text) == digit


# Scans.


def test_the_split_is_fixed_stratified_and_whole() -> None:
    training, test = load_scans(heldout=0.2, seed=0)
    images, digits = _all_scans()
    assert len(training.digits) + len(test.digits) == len(digits) == 1797
    for digit in range(10):
        assert (test.digits == digit).sum() == round(0.2 * int((digits == digit).sum()))
    assert training.images.shape[1:] == (1, 8, 8)
    assert training.images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)
    again = load_scans(heldout=0.2, seed=0)[1]
    assert np.array_equal(again.images, test.images)
    assert not np.array_equal(load_scans(heldout=0.2, seed=1)[1].digits[:50], test.digits[:50])


def test_a_scan_moves_by_parts_of_a_pixel() -> None:
    image = np.zeros((1, 8, 8))
    image[0, 3, 3] = 1.0
    assert np.array_equal(moved_by(image, 0.0, axis=1), image)
    assert np.array_equal(moved_by(image, 1.0, axis=1), np.roll(image, 1, axis=1))
    assert np.array_equal(moved_by(image, -2.0, axis=2), np.roll(image, -2, axis=2))
    half = moved_by(image, 0.25, axis=2)
    assert (half[0, 3, 3], half[0, 3, 4], half.sum()) == (0.75, 0.25, 1.0)
    assert moved_by(image, -6.0, axis=1).sum() == 0.0


def test_training_scans_vary_and_held_out_ones_do_not() -> None:
    training, test = (Digits(DigitsConfig(varied=1.0), split=split) for split in ("train", "heldout"))
    scans = load_scans(heldout=0.2, seed=0)
    first, second = (training.sample(5, np.random.default_rng(seed))["image"] for seed in (0, 1))
    assert not np.array_equal(first, second)
    assert np.linalg.norm(first - scans[0].images[5]) < np.linalg.norm(scans[0].images[5])
    assert np.array_equal(test.sample(5, np.random.default_rng(0))["image"], scans[1].images[5])
    assert np.array_equal(vary(scans[0].images[5], np.random.default_rng(0), shift=0, gain=0), scans[0].images[5])


def test_a_sample_is_of_one_digit_and_a_function_of_its_generator() -> None:
    dataset, judge = Digits(DigitsConfig(), split="heldout"), ScanJudge(load_scans(heldout=0.2, seed=0)[0])
    for index in range(20):
        sample, again = (dataset.sample(index, generator("test", index)) for _ in range(2))
        assert read_digit(sample["text"]) == detect(sample["audio"], rate=8000) == judge.read(sample["image"][None])[0]
        assert sample["text"] == again["text"]
        assert np.array_equal(sample["audio"], again["audio"])


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    _all_scans.cache_clear()
    with pytest.raises(UserError, match=r'needs scikit-learn.*; pip install "colatent\[gallery\]"'):
        Digits(DigitsConfig(), split="train")


# Tones.


def test_a_tone_keeps_within_its_line() -> None:
    for number in range(100):
        heard = tone(number % 10, np.random.default_rng(number), line=LINE)
        assert heard.dtype == np.float32
        assert 0.12 * 8000 - 1 <= len(heard) <= 0.3 * 8000 + 1
        assert 10 ** (-20 / 20) - 1e-4 <= np.abs(heard).max() <= 1.0


def test_a_tone_has_its_two_frequencies() -> None:
    line = Line(rate=8000, seconds=(0.3, 0.3), level=(0, 0), twist=0, snr=(40, 40))
    for digit in range(10):
        power = np.abs(np.fft.rfft(tone(digit, np.random.default_rng(digit), line=line) * np.hanning(2400))) ** 2
        hertz = np.fft.rfftfreq(2400, 1 / 8000)
        low, high = (hertz[band][power[band].argmax()] for band in (hertz < 1075, hertz > 1075))
        assert np.allclose((low, high), frequencies(digit), atol=3.4)  # the width of a bin


def test_noise_is_as_loud_as_said() -> None:
    line = Line(rate=8000, seconds=(2.0, 2.0), level=(0, 0), twist=0, snr=(20, 20))
    heard = tone(5, np.random.default_rng(0), line=line).astype(float)
    angles = 2 * np.pi * np.outer(np.arange(len(heard)) / 8000, frequencies(5))
    basis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    clean = basis @ np.linalg.lstsq(basis, heard, rcond=None)[0]
    assert 10 * np.log10(clean.var() / (heard - clean).var()) == pytest.approx(20, abs=0.3)


def test_goertzel_is_a_bin_of_the_fourier_transform() -> None:
    frames_FN = np.random.default_rng(0).normal(size=(7, 205))
    power_FK = np.abs(np.fft.rfft(frames_FN)) ** 2
    bins = [1, 18, 31, 100]
    assert np.allclose(goertzel(frames_FN, [k * 8000 / 205 for k in bins], rate=8000), power_FK[:, bins])


def test_the_detector_knows_every_real_tone() -> None:
    for number in range(500):
        rng = np.random.default_rng(number)
        assert detect(tone(number % 10, rng, line=LINE), rate=8000) == number % 10


def test_the_detector_refuses_what_is_no_digit() -> None:
    rng, time = np.random.default_rng(0), np.arange(2000) / 8000
    star = np.sin(2 * np.pi * ROWS[3] * time) + np.sin(2 * np.pi * COLUMNS[0] * time)
    refused = [rng.normal(size=2000), np.zeros(2000), np.zeros(0), np.full(2000, np.nan), star]
    refused += [np.sin(2 * np.pi * 697 * time), np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 880 * time)]
    assert [detect(sound, rate=8000) for sound in refused] == [None] * len(refused)
    assert detect(tone(3, rng, line=LINE)[:150], rate=8000) is None  # shorter than a frame


# Judges.


def test_the_classifier_reads_held_out_scans() -> None:
    training, test = load_scans(heldout=0.2, seed=0)
    assert hits(list(test.digits), ScanJudge(training).read(test.images)) > 0.98 * len(test.digits)


def test_variety_and_copies_are_measured() -> None:
    training, test = load_scans(heldout=0.2, seed=0)
    sevens = test.images[test.digits == 7]
    assert spread(np.repeat(sevens[:1], 4, axis=0)) == 0.0
    assert spread(np.array([[0.0, 0.0], [3.0, 4.0]])) == 5.0
    alike = likeness(test.images, test.digits, training=training, test=test)
    assert sorted(alike.variety) == list(range(10))
    assert all(0.85 < ratio < 1.15 for ratio in (alike.overall, *alike.variety.values()))
    assert np.array_equal(alike.nearest_generated, alike.nearest_real)
    blurred = likeness(test.images / 2, test.digits, training=training, test=test)
    assert blurred.overall == pytest.approx(alike.overall / 2)
    assert nearest(training.images[:9], training.images).max() == 0.0
    assert np.median(nearest(test.images, training.images)) > 0.5


def test_scores() -> None:
    assert hits([1, 2, 3, 4], [1, 2, 3, None]) == 3
    assert confusion([0, 1, 1], [0, None, 0], classes=2) == [[1, 0, 0], [1, 0, 1]]


def test_a_tone_is_made_when_it_is_asked_for_and_is_the_same_then() -> None:
    dataset = Digits(DigitsConfig(), split="train")
    sample, whole = dataset.sample(5, generator("test", 5)), dict(dataset.sample(5, generator("test", 5)))
    assert isinstance(sample, Digit)
    assert np.array_equal(sample["audio"], whole["audio"])
    assert sample["audio"] is sample["audio"]
    assert sample["text"] == whole["text"]
    assert list(sample) == ["text", "image", "audio"]
    with pytest.raises(KeyError):
        sample["video"]
