"""The glyph judge: right on what is right, wrong on what is wrong, and blind to nothing in between."""

from __future__ import annotations

import numpy as np
import pytest

from colatent_gallery.glyphs.faces import Alphabet, load_alphabet
from colatent_gallery.glyphs.judge import class_of, class_pictures, named_right, nearest_classes, strict_cap


def test_every_true_picture_is_nearest_to_itself_and_survives_little_noise():
    alphabet = load_alphabet()
    nearest = nearest_classes(alphabet.pictures_NHW, alphabet)
    np.testing.assert_array_equal(nearest[:, 0], alphabet.classes_N)
    assert nearest.shape == (len(alphabet.names), 5)
    noise = np.random.default_rng(0).normal(scale=0.05, size=alphabet.pictures_NHW.shape)
    noisy = nearest_classes(alphabet.pictures_NHW + noise, alphabet)
    assert (noisy[:, 0] == alphabet.classes_N).mean() > 0.97


def test_nearest_is_by_squared_difference():
    alphabet = load_alphabet()
    some = np.random.default_rng(1).uniform(size=(3, 32, 32)).astype(np.float32)
    distance = ((some[:, None] - class_pictures(alphabet)[None]) ** 2).sum((2, 3))
    np.testing.assert_array_equal(nearest_classes(some, alphabet, count=3), np.argsort(distance, 1)[:, :3])


def test_any_name_of_a_class_is_right_and_no_other():
    alphabet = load_alphabet()
    true = class_of("LATIN CAPITAL LETTER A", alphabet)
    assert true is not None
    assert named_right(["GREEK CAPITAL LETTER ALPHA"], true, alphabet)
    assert named_right(["nothing", "LATIN CAPITAL LETTER A"], true, alphabet)
    assert not named_right(
        ["LATIN SMALL LETTER A", "latin capital letter a", "LATIN CAPITAL LETTER A "], true, alphabet
    )
    assert class_of("LATIN CAPITAL LETTER OF NO KIND", alphabet) is None


def test_the_cap_is_one_name_of_each_class():
    alphabet = Alphabet(
        names=("a", "b", "c", "d"), pictures_NHW=np.zeros((4, 2, 2), np.float32), classes_N=np.array([0, 1, 0, 2])
    )
    assert strict_cap(alphabet) == pytest.approx(3 / 4)
