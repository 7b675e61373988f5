"""A linear VAE over the patches of a picture: one latent per patch, all of a picture in one block.

Axes: L patches of one picture, C channels, P pixels of a patch, N patches of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colatent.errors import UserError
from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.items import Shown
from colatent.plugins.records import LatentSpec
from plugins_for_tests.grid import PATTERNS, GridConfig, GridOptions, picture


class GridCodec(nn.Module):
    """See `GridConfig`. An item is an array of (height, width) pixels, whole patches a side."""

    shift_C: Tensor
    scale_C: Tensor
    mean_P: Tensor

    def __init__(self, config: GridConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = nn.Linear(config.patch**2, 2 * config.channels)
        self.decoder = nn.Linear(config.channels, config.patch**2)
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))
        if config.centred:
            self.register_buffer("mean_P", torch.zeros(config.patch**2))

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[np.ndarray], *, generator: torch.Generator | None = None) -> list[Encoded]:
        return [self._encode_one(item) for item in items]

    def decode(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        return [self._join(self._pixels(record), *shape_of(record)) for record in latents]

    @classmethod
    def options_model(cls) -> type[GridOptions]:
        return GridOptions

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        options = GridOptions(**request.options)
        positions_LA = positions(options.height, options.width)
        yield BlockPlan(length=len(positions_LA), positions_LA=positions_LA)

    def finished(self, latents: Latents) -> bool:
        return True

    def example_batch(self, n: int) -> list[np.ndarray]:
        names, patch = list(PATTERNS), self.config.patch
        return [picture(names[i % len(names)], 1 + i % 3, 1 + i // 2 % 3, patch=patch) for i in range(n)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    def losses(
        self, items: Sequence[np.ndarray], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.config.centred and self.training:
            self.mean_P.lerp_(torch.cat([self._patches(item) for item in items]).mean(0), 0.1)
        pairs = zip(items, latents, strict=True)
        errors = [(self._pixels(record) - self._patches(item)).square().flatten() for item, record in pairs]
        return {"reconstruction": torch.cat(errors).mean()}

    def reconstruction_score(self, items: Sequence[np.ndarray], latents: Sequence[Latents]) -> tuple[int, int]:
        """Pixels on the right side of grey."""
        pairs = list(zip(items, self.decode(latents), strict=True))
        return sum(int(((a > 0) == (b > 0)).sum()) for a, b in pairs), sum(a.size for a, _ in pairs)

    def read_item(self, path: Path) -> np.ndarray:
        """A picture of whole patches, stored by `write_item`."""
        try:
            return self.open_item(self.config, path.read_bytes(), name=str(path))
        except OSError as error:
            raise UserError("cannot be read", where=str(path), do="give a .npy file") from error

    def write_item(self, item: np.ndarray, path: Path) -> Path:
        path = path.with_name(f"{path.name}.npy")
        np.save(path, item)
        return path

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        return ("npy",)

    @classmethod
    def open_item(cls, config: GridConfig, data: bytes, *, name: str) -> np.ndarray:
        try:
            item = np.lib.format.read_array(BytesIO(data), allow_pickle=False)  # np.load would take a zip too
        except (EOFError, ValueError) as error:
            raise UserError("is no picture that can be read", where=name, do="give a .npy file") from error
        if item.ndim != 2 or not item.size or any(side % config.patch for side in item.shape):
            raise UserError(f"has shape {item.shape}, which is not of whole patches", where=name)
        return np.asarray(item, dtype=np.float32)

    def show(self, item: np.ndarray) -> Shown:
        grey = np.clip((item + 1) * 50, 0, 100)
        cells = (
            f'<rect x="{column}" y="{row}" width="1" height="1" fill="hsl(0 0% {grey[row, column]:.0f}%)"/>'
            for row, column in np.ndindex(item.shape)
        )
        box = f'viewBox="0 0 {item.shape[1]} {item.shape[0]}"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(cells)}</svg>'
        return Shown(media="image/svg+xml", data=svg.encode())

    def _encode_one(self, item: np.ndarray) -> Encoded:
        patches_LP = self._patches(item) - self.mean_P if self.config.centred else self._patches(item)
        mean_LC, logvar_LC = self.encoder(patches_LP).chunk(2, dim=-1)
        height, width = (side // self.config.patch for side in item.shape)
        return Encoded(
            mean_LC=(mean_LC - self.shift_C) * self.scale_C,
            logvar_LC=logvar_LC - 4.0 + 2 * self.scale_C.log(),
            block_lengths=(height * width,),
            positions_LA=positions(height, width),
            units_L=torch.full((height * width,), self.config.patch**2),
        )

    def _patches(self, item: np.ndarray) -> Tensor:
        """(height, width) pixels as (L, P)."""
        side = self.config.patch
        rows = torch.from_numpy(item).to(self.shift_C).unflatten(0, (-1, side)).unflatten(2, (-1, side))
        return rows.transpose(1, 2).flatten(2).flatten(0, 1)

    def _pixels(self, record: Latents) -> Tensor:
        return self.decoder(record.z_LC.to(self.shift_C) / self.scale_C + self.shift_C)

    def _join(self, pixels_LP: Tensor, height: int, width: int) -> np.ndarray:
        side = self.config.patch
        rows = pixels_LP.detach().cpu().view(height, width, side, side).transpose(1, 2)
        return rows.reshape(height * side, width * side).numpy()


def positions(height: int, width: int) -> Tensor:
    """(row, column) of each patch, (L, 2)."""
    return torch.cartesian_prod(torch.arange(height), torch.arange(width)).view(-1, 2).float()


def shape_of(record: Latents) -> tuple[int, int]:
    """Patches down and across, from where they stand."""
    height, width = (int(last) + 1 for last in record.positions_LA.amax(0))
    return height, width
