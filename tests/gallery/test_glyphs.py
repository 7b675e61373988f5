"""The glyphs: real characters whole in their pictures, and held-out combinations of which nothing else is new."""

from __future__ import annotations

import pickle
import unicodedata

import numpy as np
import pytest

from colatent.errors import UserError
from colatent_gallery.glyphs.dataset import Glyphs, moved
from colatent_gallery.glyphs.faces import BASELINE, SIDE, load_alphabet
from colatent_gallery.glyphs.settings import GlyphsConfig
from colatent_gallery.glyphs.split import parts, split_glyphs


def picture_of(name: str) -> np.ndarray:
    alphabet = load_alphabet()
    return alphabet.pictures_NHW[alphabet.names.index(name)]


def test_each_name_is_there_once_with_ink_of_its_own():
    alphabet = load_alphabet()
    assert len(set(alphabet.names)) == len(alphabet.names) > 1500
    assert alphabet.pictures_NHW.shape == (len(alphabet.names), SIDE, SIDE)
    assert alphabet.pictures_NHW.dtype == np.float32
    assert alphabet.pictures_NHW.min() == 0
    assert alphabet.pictures_NHW.max() == 1
    assert alphabet.pictures_NHW.max((1, 2)).min() > 0.5
    # A font draws all characters that it lacks alike: no picture is that of many unrelated names.
    assert np.bincount(alphabet.classes_N).max() <= 5
    assert all(unicodedata.category(unicodedata.lookup(name))[0] in "LNPS" for name in alphabet.names)


def test_glyphs_stand_on_the_baseline_and_fit(monkeypatch):
    assert not picture_of("LATIN CAPITAL LETTER E")[BASELINE:].any()
    assert picture_of("LATIN CAPITAL LETTER E")[BASELINE - 1].max() == 1
    from colatent_gallery.glyphs import faces

    ink = load_alphabet().pictures_NHW.sum((1, 2))
    monkeypatch.setattr(faces, "SIDE", 2 * SIDE)
    monkeypatch.setattr(faces, "BASELINE", BASELINE + SIDE // 2)
    roomy = faces.load_alphabet.__wrapped__()
    np.testing.assert_allclose(roomy.pictures_NHW.sum((1, 2)), ink, rtol=1e-5)


def test_an_accented_letter_is_the_letter_and_its_accent():
    plain, accented = picture_of("LATIN CAPITAL LETTER E"), picture_of("LATIN CAPITAL LETTER E WITH ACUTE")
    np.testing.assert_array_equal(accented[7:], plain[7:])
    assert accented[:7].any()
    assert not plain[:7].any()


def test_names_with_one_picture_are_one_class():
    alphabet = load_alphabet()
    of = dict(zip(alphabet.names, alphabet.classes_N.tolist(), strict=True))
    assert of["LATIN CAPITAL LETTER A"] == of["GREEK CAPITAL LETTER ALPHA"] == of["CYRILLIC CAPITAL LETTER A"]
    assert of["LATIN CAPITAL LETTER A"] != of["LATIN SMALL LETTER A"]
    for number in range(len(set(of.values()))):
        same = alphabet.pictures_NHW[alphabet.classes_N == number]
        assert (same == same[0]).all()
    distinct = np.unique(alphabet.pictures_NHW.reshape(len(alphabet.names), -1), axis=0)
    assert len(distinct) == len(set(of.values())) < len(alphabet.names)


@pytest.mark.parametrize(("share", "seed"), [(0.1, 0), (0.1, 1), (0.4, 0)])
def test_of_a_held_out_combination_letter_and_mark_are_in_training_and_its_picture_is_not(share, seed):
    alphabet = load_alphabet()
    train, heldout = split_glyphs(share, seed)
    assert sorted([*train, *heldout]) == list(range(len(alphabet.names)))
    combinations = [name for name in alphabet.names if parts(name)[1]]
    assert len(heldout) == round(share * len(combinations)) >= 100
    letters = {parts(alphabet.names[number])[0] for number in train}
    marks = {parts(alphabet.names[number])[1] for number in train}
    seen = set(alphabet.classes_N[list(train)].tolist())
    for number in heldout:
        letter, mark = parts(alphabet.names[number])
        assert mark
        assert letter in letters
        assert mark in marks
        assert alphabet.classes_N[number] not in seen


def test_a_combination_is_a_letter_with_a_mark():
    assert parts("LATIN CAPITAL LETTER E WITH ACUTE") == ("LATIN CAPITAL LETTER E", "ACUTE")
    assert parts("GREEK SMALL LETTER ALPHA WITH PSILI AND VARIA") == ("GREEK SMALL LETTER ALPHA", "PSILI AND VARIA")
    assert parts("LEFTWARDS ARROW WITH STROKE") == ("LEFTWARDS ARROW WITH STROKE", "")


@pytest.mark.parametrize("share", [0.999, 1e-6])
def test_a_share_that_cannot_be_held_out_is_refused(share):
    with pytest.raises(UserError, match="cannot hold out"):
        Glyphs(GlyphsConfig(heldout=share), split="train")


def test_samples_are_name_and_picture_and_the_dataset_is_light_to_pickle():
    train, heldout = (Glyphs(GlyphsConfig(), split=split) for split in ("train", "heldout"))
    names = {one.sample(i, np.random.default_rng(0))["text"] for one in (train, heldout) for i in range(len(one))}
    assert names == set(load_alphabet().names)
    sample = train.sample(5, np.random.default_rng(0))
    assert sample["image"].shape == (1, SIDE, SIDE)
    np.testing.assert_array_equal(sample["image"][0], picture_of(sample["text"]))
    assert len(pickle.dumps(train)) < 20_000


def test_a_shift_moves_training_pictures_only():
    config = GlyphsConfig(shift=1)
    train, heldout = (Glyphs(config, split=split) for split in ("train", "heldout"))
    for one, moves in ((train, True), (heldout, False)):
        samples = [one.sample(3, np.random.default_rng(seed)) for seed in range(120)]
        pictures = {sample["image"].tobytes() for sample in samples}
        assert len(pictures) == (9 if moves else 1)
    plain = np.zeros((SIDE, SIDE), dtype=np.float32)
    plain[4, 5] = 1
    assert moved(plain, 2, -1)[6, 4] == 1
    assert moved(plain, 0, 0)[4, 5] == 1
    assert not moved(plain, -5, 0).any()
