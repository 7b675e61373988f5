"""The wrapped encoder does what scikit-learn's does, and gives components in its order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from colatent.errors import UserError
from colatent_pca.codec import PCACodec
from colatent_pca.config import DigitVectorsConfig, PCAConfig
from colatent_pca.data import DigitVectors


@pytest.fixture(scope="module")
def vectors() -> list[np.ndarray]:
    dataset = DigitVectors(DigitVectorsConfig(), split="train")
    return [dataset.sample(index, np.random.default_rng(0))["vector"] for index in range(200)]


def test_more_components_miss_less_and_all_miss_nothing(vectors) -> None:
    missed = []
    for channels in (4, 16, 64):
        config = PCAConfig(channels=channels)
        codec = PCACodec(config, PCACodec.prepare(config, vectors))
        again = codec.decode([record.sample(None) for record in codec.encode(vectors)])
        missed.append(float(np.square(np.array(again) - np.array(vectors)).mean()))
    assert missed[0] > 2 * missed[1]
    assert missed[2] < 1e-10


def test_a_codec_from_its_assets_is_the_same(vectors) -> None:
    config = PCAConfig()
    codec = PCACodec(config, PCACodec.prepare(config, vectors))
    again = PCACodec(config, codec.assets())
    for one, other in zip(codec.encode(vectors[:3]), again.encode(vectors[:3]), strict=True):
        assert torch.equal(one.mean_LC, other.mean_LC)


def test_what_does_not_fit_is_told_in_one_line(vectors) -> None:
    with pytest.raises(UserError, match=r"^3 vectors cannot give 16 components; give more data or fewer channels$"):
        PCACodec.prepare(PCAConfig(), vectors[:3])
    with pytest.raises(UserError, match=r"^an item has shape \(64,\), not \(10,\); set features"):
        PCACodec.prepare(PCAConfig(features=10, channels=2), vectors)


def test_no_digit_is_both_trained_on_and_held_out() -> None:
    splits = [DigitVectors(DigitVectorsConfig(), split=split) for split in ("train", "heldout")]
    assert [len(each) for each in splits] == [1437, 360]
    seen = [{each.sample(i, np.random.default_rng(0))["vector"].tobytes() for i in range(len(each))} for each in splits]
    assert not seen[0] & seen[1]
