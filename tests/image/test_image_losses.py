"""Perceptual losses against closed forms and a slow reference, and VGG16's weights from a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from colatent.errors import UserError
from colatent_image.codec import ImageCodec
from colatent_image.config import ImageConfig
from colatent_image.losses import LEVELS, MEAN, STAGES, STD, Vgg, laplacian, pyramid_distances

SETTINGS: dict[str, Any] = {"height": 8, "width": 8, "downsample": 4, "features": 16, "depth": 1, "channels": 8}


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    """A VGG16 of random weights, as far as its third stage."""
    torch.manual_seed(0)
    return make_layers(cfgs["D"][:9], batch_norm=False).requires_grad_(False)


@pytest.fixture(scope="module")
def weights(network: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tensors as torchvision names them, beside one that is not wanted."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    tensors = {f"features.{name}": tensor for name, tensor in network.state_dict().items()}
    save_file(tensors | {"classifier.0.bias": torch.zeros(4)}, path)
    return path


@pytest.mark.parametrize("size", [(32, 32), (8, 20), (5, 7), (1, 4)])
def test_a_pyramid_adds_up_to_its_picture(size: tuple[int, int]) -> None:
    x_BPHW = pictures(2, 3, *size)
    *details, built_BPHW = laplacian(x_BPHW)
    for detail in reversed(details):
        built_BPHW = detail + F.interpolate(built_BPHW, size=detail.shape[-2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(built_BPHW, x_BPHW)
    assert len(details) == min(LEVELS - 1, int(np.ceil(np.log2(min(size)))))


def test_a_pyramid_sees_a_shift_of_brightness_once_and_a_fine_pattern_at_its_finest_scale() -> None:
    grey = torch.full((1, 1, 16, 16), 0.5)
    assert pyramid_distances(grey + 0.2, grey).item() == pytest.approx(0.2)
    row, column = np.indices((16, 16))
    checks = torch.from_numpy((row + column) % 2 - 0.5).float()[None, None]
    assert pyramid_distances(grey + 0.2 * checks, grey).item() == pytest.approx(0.1)


def test_vgg_distances_are_those_of_a_slow_reference(network: nn.Sequential, weights: Path) -> None:
    made, real = pictures(2, 3, 12, 8), pictures(2, 3, 12, 8, seed=1)
    found = Vgg(str(weights)).distances(made, real)
    for one, other, distance in zip(made, real, found, strict=True):
        expected = 0.0
        for stage in STAGES:
            a, b = (_unit(network[: stage + 1](_standard(x)[None])[0]) for x in (one, other))
            expected += float(((a - b) ** 2).sum(0).mean())
        assert distance.item() == pytest.approx(expected, rel=1e-4)


def _standard(x_PHW: Tensor) -> Tensor:
    return torch.stack([(band - mean) / std for band, mean, std in zip(x_PHW, MEAN, STD, strict=True)])


def _unit(features: Tensor) -> Tensor:
    return features / features.square().sum(0, keepdim=True).sqrt()


def test_grey_pictures_are_seen_in_three_equal_bands(weights: Path) -> None:
    vgg, made, real = Vgg(str(weights)), pictures(1, 1, 8, 8), pictures(1, 1, 8, 8, seed=1)
    torch.testing.assert_close(
        vgg.distances(made, real), vgg.distances(made.repeat(1, 3, 1, 1), real.repeat(1, 3, 1, 1))
    )


def test_perceptual_losses_are_weighted_told_by_name_and_reach_the_codec(weights: Path) -> None:
    items = [pictures(3, 8, 8, seed=seed).numpy() for seed in range(2)] + [pictures(3, 4, 8).numpy()]
    found = {}
    for scale in (1.0, 3.0):
        torch.manual_seed(0)
        codec = ImageCodec(ImageConfig(**SETTINGS, pyramid=0.5 * scale, vgg=0.1 * scale, vgg_weights=str(weights)))
        latents = [record.sample(None) for record in codec.encode(items)]
        found[scale] = codec.losses(items, latents, generator=torch.Generator())
    assert list(found[1.0]) == ["reconstruction", "pyramid", "vgg"]
    for name, factor in (("reconstruction", 1), ("pyramid", 3), ("vgg", 3)):
        assert found[3.0][name].item() == pytest.approx(factor * found[1.0][name].item(), rel=1e-5)
    for name in ("pyramid", "vgg"):
        codec.zero_grad()
        found[3.0][name].backward(retain_graph=True)
        assert codec.decoder.trunk[0].weight.grad.abs().max() > 0  # type: ignore[operator, union-attr]


def test_the_network_is_no_part_of_the_codec_and_its_file_is_read_in_training_alone(weights: Path) -> None:
    plain, seeing = ImageConfig(**SETTINGS), ImageConfig(**SETTINGS, vgg=0.1, vgg_weights="gone.safetensors")
    codec = ImageCodec(seeing)
    assert codec.state_dict().keys() == ImageCodec(plain).state_dict().keys()
    items = codec.example_batch(1)
    latents = [record.sample(None) for record in codec.encode(items)]
    with pytest.raises(UserError, match=r"vgg_weights \(gone.safetensors\): no such file; name a safetensors file"):
        codec.losses(items, latents, generator=torch.Generator())


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    other, broken = tmp_path / "other.safetensors", tmp_path / "broken.safetensors"
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(3)}, other)
    broken.write_bytes(b"not tensors")
    with pytest.raises(UserError, match=r"vgg_weights \(.*other.safetensors\): has no tensor features.0.bias of shape"):
        Vgg(str(other))
    with pytest.raises(UserError, match=r"broken.safetensors: cannot be read"):
        Vgg(str(broken))
