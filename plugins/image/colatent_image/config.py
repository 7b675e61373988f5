"""Settings of the image codec and of how pictures are brought to a size, with what each means and its default.

Torch-free: `latent_spec()` tells the engine the shape of the latents before anything heavy is imported. What the codec
and the folder of images must agree on stands once, in `Framing`, from which both settings descend.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from colatent.config.schema import Settings
from colatent.plugins.records import LatentSpec


class Framing(Settings):
    """How a picture becomes an array of a size that the codec takes."""

    bands: PositiveInt = 3
    """Values of a pixel: 1 grey, 2 grey and alpha, 3 red, green and blue, 4 those and alpha, more: what you like."""
    height: PositiveInt = 64
    """Pixels down, of pictures from files and of generated ones."""
    width: PositiveInt = 64
    """Pixels across."""
    downsample: PositiveInt = 8
    """Pixels along the side of the square that becomes one latent."""
    fit: Literal["crop", "keep"] = "crop"
    """How a file is brought to a size: scaled to cover height x width and cropped round its centre, or kept at its own
    size with each side rounded to whole latents, scaled down if it has more than height x width pixels."""
    max_pixels: PositiveInt = Field(default=2**25, le=2**27)
    """A file with more pixels is refused before it is decoded."""

    @model_validator(mode="after")
    def _whole_latents(self) -> Framing:
        for name, side in (("height", self.height), ("width", self.width)):
            if side % self.downsample:
                raise ValueError(f"{name} {side} must be a multiple of downsample ({self.downsample})")
        return self


class ImageConfig(Framing):
    """The image VAE."""

    channels: PositiveInt = 16
    """Width of a latent."""
    kind: Literal["conv", "patch"] = "conv"
    """Convolutions that halve the picture step by step, or one linear map of each square and a network over those."""
    features: PositiveInt = 64
    """Width of the network at the rate of latents; halved at each doubling of the picture, down to 16."""
    depth: PositiveInt = 2
    """Residual blocks at each rate, in encoder and decoder alike."""
    mean_norm: bool = True
    """Whether the posterior's mean is normalised over its channels, without gain."""
    log_snr: float | None = 4.5
    """Log signal-to-noise ratio of a fixed posterior, ln(1 / sigma^2); None learns sigma under the weight of the KL.
    The paper's learned value is about 4.5 (sigma 0.1)."""
    pixel_loss: Literal["mse", "l1"] = "mse"
    """Squared or absolute difference, averaged over pixels and bands."""
    pyramid: NonNegativeFloat = 0.0
    """Weight of the absolute difference of Laplacian pyramids, which asks for detail at each scale; 0: none."""
    vgg: NonNegativeFloat = 0.0
    """Weight of the squared difference of VGG16's features; 0: none."""
    vgg_weights: str | None = None
    """A safetensors file with the state dict of torchvision's vgg16; read in training, never fetched."""

    @model_validator(mode="after")
    def _fits(self) -> ImageConfig:
        if self.kind == "conv" and self.downsample & (self.downsample - 1):
            raise ValueError(f"downsample {self.downsample} must be a power of two where kind is conv")
        if self.mean_norm and self.channels < 3:
            raise ValueError(f"mean_norm leaves no freedom to {self.channels} channels: give 3 or more, or turn it off")
        return self

    @model_validator(mode="after")
    def _vgg_fits(self) -> ImageConfig:
        if bool(self.vgg) != (self.vgg_weights is not None):
            raise ValueError("vgg and vgg_weights go together: give both or neither")
        if self.vgg and (self.bands not in (1, 3) or self.downsample < 4):
            raise ValueError(
                "vgg sees pictures of 1 or 3 bands that are at least 4 pixels a side: raise downsample to 4"
            )
        return self

    def latent_spec(self) -> LatentSpec:
        """A block is a whole picture; a unit is a pixel."""
        return LatentSpec(channels=self.channels, block=None, units_per_latent=float(self.downsample**2))


class ImageOptions(Settings):
    """What to generate."""

    height: PositiveInt | None = None
    """Pixels down, a multiple of the codec's downsample. Default: the codec's height."""
    width: PositiveInt | None = None
    """Pixels across. Default: the codec's width."""
