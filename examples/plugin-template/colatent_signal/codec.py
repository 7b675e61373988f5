"""A small VAE: every vector of an array becomes one latent, and all of an array is one block.

The engine calls nothing but the methods below; it never looks into an item.

Axes: L latents of one item, C channels, F features, A position axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from colatent.errors import UserError
from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.items import Shown
from colatent.plugins.records import LatentSpec
from colatent_signal.config import SignalConfig, SignalOptions

AXES = 1


class SignalCodec(nn.Module):
    """See `SignalConfig`. An item is a float32 array (length, features)."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: SignalConfig) -> None:
        super().__init__()
        self.config = config
        # Yours: the network. A frozen encoder sits here too; then `losses` and `reconstruction_score` are left out.
        self.encoder = _network(config.features, config.width, 2 * config.channels)
        self.decoder = _network(config.channels, config.width, config.features)
        # The scale is part of the weights: see set_scale.
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))

    # What every codec does.

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[np.ndarray], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """The posterior of each item. An item's latents must not depend on the others in the batch."""
        return [self._encode_one(self._checked(item)) for item in items]

    def decode(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        """One item per record; its positions say what shape it has."""
        return [self._decode_one(record) for record in latents]

    @classmethod
    def options_model(cls) -> type[SignalOptions]:
        """What a user may say of an item that is to be generated."""
        return SignalOptions

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        """The blocks to generate: here one, of the shape that was asked for."""
        positions_LA = _positions(SignalOptions(**request.options).shape)
        yield BlockPlan(length=len(positions_LA), positions_LA=positions_LA)

    def finished(self, latents: Latents) -> bool:
        """Whether the item has ended: after its one block."""
        return True

    def example_batch(self, n: int) -> list[np.ndarray]:
        """Tiny items for the checks: offline, always the same, of several shapes."""
        shapes = [(1 + number % 3,) * AXES for number in range(n)]
        return [_made_up((*shape, self.config.features)) for shape in shapes]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Stage codec ends with this: it has measured the latents, and `encode` gives unit scale from now on."""
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    # What makes it trainable. The engine draws the latents from the posterior and adds the KL.

    def losses(
        self, items: Sequence[np.ndarray], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Yours: any number of losses by name, each a mean per number."""
        return {"reconstruction": torch.cat([miss.square() for miss in self._misses(items, latents)]).mean()}

    def reconstruction_score(self, items: Sequence[np.ndarray], latents: Sequence[Latents]) -> tuple[int, int]:
        """Numbers that come back right, and numbers in all: as many as `encode` counted in `units_L`."""
        missed = torch.cat(self._misses(items, latents)).abs()
        return int((missed <= self.config.tolerance).sum()), len(missed)

    # What a user sees of an item: files for `colatent generate`, pictures for reports. Leave out what does not fit.

    def read_item(self, path: Path) -> np.ndarray:
        """Yours: the file format of your modality, here .npy."""
        try:
            item = np.load(path, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise UserError("is no .npy file of numbers", where=str(path), do="write one with numpy.save") from error
        return self._checked(item, where=str(path))

    def write_item(self, item: np.ndarray, path: Path) -> Path:
        """Adds the suffix itself."""
        path = path.with_name(f"{path.name}.npy")
        np.save(path, item)
        return path

    def show(self, item: np.ndarray) -> Shown:
        """Yours: whatever a browser shows, here a line for each feature."""
        lines = item.reshape(-1, self.config.features).T
        drawn = [" ".join(f"{x},{10 - 8 * y:.2f}" for x, y in enumerate(line)) for line in lines.tolist()]
        paths = "".join(f'<polyline points="{points}"/>' for points in drawn)
        frame = f'viewBox="0 0 {max(1, lines.shape[1])} 20" fill="none" stroke="black" stroke-width=".3"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>{paths}</svg>'
        return Shown(media="image/svg+xml", data=svg.encode())

    # Rooms below the door.

    def _encode_one(self, item: np.ndarray) -> Encoded:
        mean_LC, logvar_LC = self.encoder(self._vectors(item)).chunk(2, dim=-1)
        length = len(mean_LC)
        return Encoded(
            # Posterior at unit scale; begins narrow, since a wide one hides the data.
            mean_LC=(mean_LC - self.shift_C) * self.scale_C,
            logvar_LC=logvar_LC - 4.0 + 2 * self.scale_C.log(),
            block_lengths=(length,) if length else (),
            positions_LA=_positions(item.shape[:-1]),
            units_L=torch.full((length,), self.config.features),
        )

    def _decode_one(self, record: Latents) -> np.ndarray:
        sides = (record.positions_LA.amax(0) + 1).long().tolist() if len(record.z_LC) else [0] * AXES
        return self._numbers(record).detach().float().cpu().numpy().reshape(*sides, self.config.features)

    def _misses(self, items: Sequence[np.ndarray], latents: Sequence[Latents]) -> list[Tensor]:
        """What is missing to each number of each item."""
        pairs = zip(items, latents, strict=True)
        return [(self._numbers(record) - self._vectors(item)).flatten() for item, record in pairs]

    def _numbers(self, record: Latents) -> Tensor:
        """(L, F) numbers that latents decode to."""
        return self.decoder(record.z_LC.to(self.shift_C) / self.scale_C + self.shift_C)

    def _vectors(self, item: np.ndarray) -> Tensor:
        """(L, F) numbers of an item, where the weights are."""
        return torch.from_numpy(np.ascontiguousarray(item)).to(self.shift_C).reshape(-1, self.config.features)

    def _checked(self, item: np.ndarray, *, where: str | None = None) -> np.ndarray:
        """Users bring items of all kinds: a `UserError` says what is wrong in one line."""
        if item.ndim != AXES + 1 or item.shape[-1] != self.config.features:
            what = f"an item has shape {item.shape}, not (length, features) with {self.config.features} features"
            raise UserError(what, where=where, do="set features of the codec, or bring the data into this shape")
        return item


def _network(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, outputs))


def _positions(sides: Sequence[int]) -> Tensor:
    """Where each latent stands, (L, A), counted from the item's start."""
    return torch.from_numpy(np.indices(sides).reshape(AXES, -1).T.astype(np.float32))


def _made_up(shape: Sequence[int]) -> np.ndarray:
    """Numbers from -1 to 1, always the same."""
    return np.sin(np.arange(np.prod(shape), dtype=np.float32)).reshape(shape)
