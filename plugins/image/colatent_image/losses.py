"""How pictures are compared in training: by pixels, by detail at several scales, by features of a trained network.

The last reads the weights of torchvision's VGG16 from a file that the user names; they are no part of the codec, so
that a trained codec does not need the file.

Axes: B pictures of one size, P bands, H and W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from colatent.checkpoint.tensors import read_safetensors
from colatent.errors import UserError
from colatent_image.config import ImageConfig

Distances = Callable[[Tensor, Tensor], Tensor]
"""Of pictures (B, P, H, W) as they were made and as they are: (B,)."""

LEVELS = 4
"""Scales of the pyramid at most; a picture of fewer than 2 pixels a side has no further one."""
STAGES = (3, 8, 15)
"""Where VGG16 is looked at: after the last layer of each of its first three stages."""
VGG_LAYERS = cfgs["D"][:9]
"""Its layers up to there: widths of convolutions, and "M" for pooling."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What VGG16 was trained with: mean and standard deviation of red, green and blue."""


def picture_losses(pairs: Sequence[tuple[Tensor, Tensor]], config: ImageConfig, vgg: Vgg | None) -> dict[str, Tensor]:
    """Losses by name over batches (made, real) of pictures; a pixel counts alike whatever the size of its picture."""
    terms: dict[str, tuple[float, Distances]] = {"reconstruction": (1.0, pixel_distances(config))}
    if config.pyramid:
        terms["pyramid"] = config.pyramid, pyramid_distances
    if vgg is not None:
        terms["vgg"] = config.vgg, vgg.distances
    pixels = sum(real[:, 0].numel() for _, real in pairs)
    return {
        name: weight * torch.stack([of(made, real).sum() * real[0, 0].numel() for made, real in pairs]).sum() / pixels
        for name, (weight, of) in terms.items()
    }


def pixel_distances(config: ImageConfig) -> Distances:
    """Mean squared or absolute difference over pixels and bands."""
    compare = F.mse_loss if config.pixel_loss == "mse" else F.l1_loss
    return lambda made, real: compare(made, real, reduction="none").flatten(1).mean(1)


def pyramid_distances(made_BPHW: Tensor, real_BPHW: Tensor) -> Tensor:
    """Mean absolute difference of Laplacian pyramids, summed over scales, (B,)."""
    pairs = zip(laplacian(made_BPHW), laplacian(real_BPHW), strict=True)
    return torch.stack([(made - real).abs().flatten(1).mean(1) for made, real in pairs]).sum(0)


def laplacian(x_BPHW: Tensor) -> Iterator[Tensor]:
    """What each scale adds to the next coarser one, the finest first, and the coarsest itself."""
    for _ in range(LEVELS - 1):
        if min(x_BPHW.shape[-2:]) < 2:
            break
        coarse = F.avg_pool2d(x_BPHW, 2, ceil_mode=True)
        yield x_BPHW - F.interpolate(coarse, size=x_BPHW.shape[-2:], mode="bilinear", align_corners=False)
        x_BPHW = coarse
    yield x_BPHW


class Vgg:
    """The first three stages of VGG16, frozen. Not an `nn.Module`: it is no part of the codec that uses it."""

    def __init__(self, path: str) -> None:
        self.layers = make_layers(VGG_LAYERS, batch_norm=False).eval().requires_grad_(False)
        self.layers.load_state_dict(_vgg_weights(path, self.layers))

    def distances(self, made_BPHW: Tensor, real_BPHW: Tensor) -> Tensor:
        """Mean squared difference of features that are normalised over their channels, summed over stages, (B,)."""
        self.layers.to(made_BPHW.device)
        with torch.no_grad():
            real = list(self._features(real_BPHW))
        pairs = zip(self._features(made_BPHW), real, strict=True)
        return torch.stack([(one - other).square().sum(1).flatten(1).mean(1) for one, other in pairs]).sum(0)

    def _features(self, x_BPHW: Tensor) -> Iterator[Tensor]:
        mean, std = (x_BPHW.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        x = (x_BPHW.expand(-1, 3, -1, -1) - mean) / std
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in STAGES:
                yield F.normalize(x, dim=1, eps=1e-6)


def _vgg_weights(path: str, layers: nn.Module) -> dict[str, Tensor]:
    """The tensors of these layers among those of a VGG16 as torchvision names them."""
    if not Path(path).is_file():
        do = "name a safetensors file with the state dict of torchvision's vgg16"
        raise UserError("no such file", where=f"vgg_weights ({path})", do=do)
    stored, wanted = read_safetensors(Path(path)), layers.state_dict()
    found = {name: stored.get(f"features.{name}") for name in wanted}
    wrong = [name for name, tensor in found.items() if tensor is None or tensor.shape != wanted[name].shape]
    if wrong:
        what = f"has no tensor features.{wrong[0]} of shape {tuple(wanted[wrong[0]].shape)}"
        raise UserError(what, where=f"vgg_weights ({path})", do="store torchvision's vgg16, its names unchanged")
    return {name: tensor.float() for name, tensor in found.items() if tensor is not None}
