"""The image codec: what the engine's contract asks, in terms of the image VAE.

A picture is one block, a latent stands for a square of its pixels, and its position is that square's row and column.
Pictures of several sizes may come in one batch: those of one size go through the network together.

Axes: L latents of one picture, C channels, B pictures of one size, P bands, H and W rows and columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colatent.errors import UserError
from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.items import Shown
from colatent.plugins.records import LatentSpec
from colatent_image.config import ImageConfig, ImageOptions
from colatent_image.files import SUFFIXES, open_image, png_bytes, read_image, write_image
from colatent_image.items import Image, by_size, checked, example, grid_positions, grid_size
from colatent_image.losses import Vgg, picture_losses
from colatent_image.vae import Decoder, Encoder

TOLERANCE = 0.1
"""A pixel counts as reconstructed if no band of it is further off, of values from 0 to 1."""


class ImageCodec(nn.Module):
    """Convolutional or patch VAE over pixels; see `ImageConfig` for its settings."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))
        self._vgg: Vgg | None = None

    # What every codec does.

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[Image], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """Posterior of each picture, whatever their sizes."""
        records: dict[int, Encoded] = {}
        for places, x_BPHW in self._batches(items):
            mean_BHWC, logvar_BHWC = self.encoder(x_BPHW)
            logvar_BLC = (logvar_BHWC + 2 * self.scale_C.log()).flatten(1, 2)
            mean_BLC = ((mean_BHWC - self.shift_C) * self.scale_C).flatten(1, 2)
            positions_LA = grid_positions(*mean_BHWC.shape[1:3])
            units_L = torch.full((len(positions_LA),), self.config.downsample**2)
            for place, mean_LC, logvar_LC in zip(places, mean_BLC, logvar_BLC, strict=True):
                records[place] = Encoded(
                    mean_LC=mean_LC,
                    logvar_LC=logvar_LC,
                    block_lengths=(len(positions_LA),),
                    positions_LA=positions_LA,
                    units_L=units_L,
                )
        return [records[place] for place in range(len(items))]

    def decode(self, latents: Sequence[Latents]) -> list[Image]:
        """Pictures with values from 0 to 1."""
        pixels = self._pixels(latents)
        return [x_PHW.detach().clamp(0, 1).cpu().numpy() for x_PHW in pixels]

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        """The picture, of the size that was asked for."""
        options, side = ImageOptions(**request.options), self.config.downsample
        sizes = {"height": options.height or self.config.height, "width": options.width or self.config.width}
        for name, size in sizes.items():
            if size % side:
                what = f"is {size}, not a multiple of the codec's downsample ({side})"
                raise UserError(what, where=f"option {name}", do=f"give {side}, {2 * side}, {3 * side}, ...")
        if math.prod(sizes.values()) > self.config.max_pixels:
            what = f"are {sizes['height']} x {sizes['width']}, more than max_pixels={self.config.max_pixels:,}"
            raise UserError(what, where="options height and width", do="generate a smaller picture")
        positions_LA = grid_positions(sizes["height"] // side, sizes["width"] // side)
        yield BlockPlan(length=len(positions_LA), positions_LA=positions_LA)

    def finished(self, latents: Latents) -> bool:
        """A picture ends with its one block."""
        return True

    def example_batch(self, n: int) -> list[Image]:
        """Waves in pictures of one to three latents a side."""
        return [example(number, side=self.config.downsample, bands=self.config.bands) for number in range(n)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """See `Codec.set_scale`: z = (raw - shift) * scale."""
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    # What this one also does.

    def lengths(self, items: Sequence[Image]) -> list[int]:
        """See `MeasuredCodec.lengths`."""
        shapes = [checked(item, place, config=self.config).shape for place, item in enumerate(items)]
        return [height * width // self.config.downsample**2 for _, height, width in shapes]

    @classmethod
    def options_model(cls) -> type[ImageOptions]:
        """See `OptionedCodec.options_model`."""
        return ImageOptions

    def losses(
        self, items: Sequence[Image], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The pixel loss and, where they have a weight, the perceptual ones."""
        made = self._pixels(latents)
        pairs = [(torch.stack([made[place] for place in places]), real) for places, real in self._batches(items)]
        if self.config.vgg and self._vgg is None:  # its file must be there in training and at no other time
            self._vgg = Vgg(self.config.vgg_weights or "")
        return picture_losses(pairs, self.config, self._vgg)

    def reconstruction_score(self, items: Sequence[Image], latents: Sequence[Latents]) -> tuple[int, int]:
        """Pixels of which all bands are within `TOLERANCE`, and pixels in all."""
        pairs = list(zip(items, self.decode(latents), strict=True))
        good = sum(int((np.abs(real - made) <= TOLERANCE).all(0).sum()) for real, made in pairs)
        return good, sum(real[0].size for real, _ in pairs)

    def read_item(self, path: Path) -> Image:
        """See `FileCodec.read_item`: a PNG, JPEG, WebP or GIF file; of more than four bands an `.npy` file."""
        return read_image(path, self.config)

    def write_item(self, item: Image, path: Path) -> Path:
        """See `FileCodec.write_item`: a PNG file; of more than four bands an `.npy` file."""
        return write_image(item, path)

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        """See `StoredCodec.suffixes`."""
        return tuple(suffix.removeprefix(".") for suffix in (*SUFFIXES, ".npy"))

    @classmethod
    def open_item(cls, config: ImageConfig, data: bytes, *, name: str) -> Image:
        """See `StoredCodec.open_item`; the same files as `read_item` takes."""
        return open_image(data, config, name=name)

    def show(self, item: Image) -> Shown:
        """See `Showable.show`; of more than four bands the first three."""
        return Shown(media="image/png", data=png_bytes(item))

    # Rooms below the door.

    def _batches(self, items: Sequence[Image]) -> Iterator[tuple[list[int], Tensor]]:
        """Pictures of one size with their places in `items`, (B, P, H, W)."""
        found = [checked(item, place, config=self.config) for place, item in enumerate(items)]
        for places in by_size([item.shape for item in found]):
            yield places, torch.from_numpy(np.stack([found[place] for place in places])).to(self.shift_C.device)

    def _pixels(self, latents: Sequence[Latents]) -> list[Tensor]:
        """What the decoder makes of each record, (P, H, W), not clamped."""
        pictures: dict[int, Tensor] = {}
        sizes = [grid_size(record.positions_LA) for record in latents]
        for places in by_size(sizes):
            z_BLC = torch.stack([latents[place].z_LC for place in places]).to(self.shift_C)
            z_BHWC = (z_BLC / self.scale_C + self.shift_C).unflatten(1, sizes[places[0]])
            pictures |= dict(zip(places, self.decoder(z_BHWC), strict=True))
        return [pictures[place] for place in range(len(latents))]
