"""A VAE over groups of pen points: so many neighbouring points become one latent, and most drawings are one or two.

A drawing has as many blocks as it needs. After its last point comes an empty place, which says that it has ended, so
even a drawing that fills its blocks exactly gets one more; the other places of the last block are padding.

Axes: L latents of one drawing, C channels, P points of a latent, N latents, F features, S states of the pen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent.errors import UserError
from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.items import Shown
from colatent.plugins.records import LatentSpec
from colatent_strokes.config import StrokesConfig
from colatent_strokes.files import from_svg, to_svg
from colatent_strokes.shapes import SHAPES, join, resample

DRAWS, LIFTS, ENDED = range(3)
"""States of the pen after a point: it draws on, it is lifted; or there is no point, for the drawing has ended."""
STATES = 3


class Network(nn.Module):
    """A linear map and what two hidden layers add to it: places need little more than the map, the pen's states do."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.hidden = nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs)
        )

    def forward(self, x_NF: Tensor) -> Tensor:
        """(N, inputs) to (N, outputs)."""
        return self.linear(x_NF) + self.hidden(x_NF)


class StrokesCodec(nn.Module):
    """See `StrokesConfig`. An item is an array (points, 3), see `colatent_strokes.shapes`."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: StrokesConfig) -> None:
        super().__init__()
        self.config = config
        features = config.points * (2 + STATES)
        self.encoder = Network(features, config.width, 2 * config.channels)
        self.decoder = Network(config.channels, config.width, features)
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))

    # What every codec does.

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[np.ndarray], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """Posterior of each drawing; a latent sees its own points alone."""
        return [self._encode_one(item) for item in items]

    def decode(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        """Points up to the end of each drawing; the last one lifts the pen."""
        return [self._decode_one(record) for record in latents]

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        """Blocks without end: a drawing says itself when it is done."""
        block = self.config.block
        done = 0 if request.given is None else int((request.given.units_L > 0).sum()) // block * block
        for start in count(done, block):
            yield BlockPlan(length=block, positions_LA=_positions(block, start=start))

    def finished(self, latents: Latents) -> bool:
        """Whether there is a place without a point."""
        _, logits_LPS = self._places(latents)
        return bool((logits_LPS.argmax(-1) == ENDED).any())

    def example_batch(self, n: int) -> list[np.ndarray]:
        shapes = list(SHAPES.values())
        return [join([resample(stroke, 0.2) for stroke in shapes[i % len(shapes)]]) for i in range(n)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """See `Codec.set_scale`: z = (raw - shift) * scale."""
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    # What this one also does: train, read and write files, be shown.

    def losses(
        self, items: Sequence[np.ndarray], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Squared misses in units of `precision`, and cross-entropy of the pen's state, per place."""
        misses, states = [], []
        for item, record in zip(items, latents, strict=True):
            target_LP2, state_LP = self._padded(item)
            point_LP2, logits_LPS = self._places(record)
            counted_LP = _counted(state_LP)
            drawn_LP = state_LP != ENDED
            misses.append(((point_LP2 - target_LP2)[drawn_LP] / self.config.precision).square().sum(-1))
            states.append(F.cross_entropy(logits_LPS[counted_LP], state_LP[counted_LP], reduction="none"))
        return {"place": 0.5 * torch.cat(misses).mean(), "pen": torch.cat(states).mean()}

    def reconstruction_score(self, items: Sequence[np.ndarray], latents: Sequence[Latents]) -> tuple[int, int]:
        """Places whose state is right and whose point, where there is one, misses by no more than `precision`."""
        right = total = 0
        for item, record in zip(items, latents, strict=True):
            target_LP2, state_LP = self._padded(item)
            point_LP2, logits_LPS = self._places(record)
            near_LP = (point_LP2 - target_LP2).norm(dim=-1) <= self.config.precision
            good_LP = (logits_LPS.argmax(-1) == state_LP) & (near_LP | (state_LP == ENDED))
            counted_LP = _counted(state_LP)
            right, total = right + int(good_LP[counted_LP].sum()), total + int(counted_LP.sum())
        return right, total

    def read_item(self, path: Path) -> np.ndarray:
        """See `FileCodec.read_item`: an SVG of polylines within -1 to 1."""
        return from_svg(path)

    def write_item(self, item: np.ndarray, path: Path) -> Path:
        """See `FileCodec.write_item`."""
        path = path.with_name(f"{path.name}.svg")
        path.write_text(to_svg(item), encoding="utf-8")
        return path

    def show(self, item: np.ndarray) -> Shown:
        """See `Showable.show`."""
        return Shown(media="image/svg+xml", data=to_svg(item).encode())

    # Rooms below the door.

    def _encode_one(self, item: np.ndarray) -> Encoded:
        point_LP2, state_LP = self._padded(item)
        features_LF = torch.cat([point_LP2.flatten(1), F.one_hot(state_LP, STATES).flatten(1)], dim=-1)
        mean_LC, logvar_LC = self.encoder(features_LF).chunk(2, dim=-1)
        length, block = len(mean_LC), self.config.block
        return Encoded(
            mean_LC=(mean_LC - self.shift_C) * self.scale_C,
            logvar_LC=logvar_LC - 4.0 + 2 * self.scale_C.log(),  # begins narrow: a wide posterior hides the points
            block_lengths=(block,) * (length // block),
            positions_LA=_positions(length),
            units_L=_counted(state_LP).sum(-1),
        )

    def _decode_one(self, record: Latents) -> np.ndarray:
        point_LP2, logits_LPS = self._places(record)
        states = logits_LPS.argmax(-1).flatten().tolist()
        length = states.index(ENDED) if ENDED in states else len(states)
        lifted = torch.tensor([float(state == LIFTS) for state in states[:length]])
        lifted[-1:] = 1.0
        points = point_LP2.flatten(0, 1)[:length].detach().float().cpu()
        return torch.cat([points, lifted[:, None]], dim=-1).numpy()

    def _padded(self, item: np.ndarray) -> tuple[Tensor, Tensor]:
        """Points (L, P, 2) and states (L, P) of a drawing, with empty places to the end of its last block."""
        device, size = self.shift_C.device, self.config.points * self.config.block
        drawing = torch.from_numpy(_checked(item)).to(device)
        empty = size - len(drawing) % size
        points = F.pad(drawing[:, :2], (0, 0, 0, empty))
        states = F.pad(torch.where(drawing[:, 2] > 0.5, LIFTS, DRAWS), (0, empty), value=ENDED)
        return points.view(-1, self.config.points, 2), states.view(-1, self.config.points)

    def _places(self, record: Latents) -> tuple[Tensor, Tensor]:
        """Points (L, P, 2) and logits of their states (L, P, S) that latents decode to."""
        features = self.decoder(record.z_LC.to(self.shift_C) / self.scale_C + self.shift_C)
        point_LF, logits_LF = features.split([2 * self.config.points, STATES * self.config.points], dim=-1)
        return point_LF.unflatten(-1, (-1, 2)), logits_LF.unflatten(-1, (-1, STATES)).float()


def _checked(item: np.ndarray) -> np.ndarray:
    """The item, if it is a drawing."""
    if np.ndim(item) != 2 or np.shape(item)[1] != 3 or not np.isfinite(item).all():
        what = f"a drawing is an array (points, 3) of finite numbers, this is of shape {np.shape(item)}"
        raise UserError(what, do="give x, y and whether the pen is lifted for each point")
    return np.ascontiguousarray(item, dtype=np.float32)


def _positions(length: int, *, start: int = 0) -> Tensor:
    return torch.arange(start, start + length, dtype=torch.float32)[:, None]


def _counted(state_LP: Tensor) -> Tensor:
    """The places that count: every point, and the first empty one, which says that there is no more."""
    ended = state_LP.flatten() == ENDED
    return (~ended | (ended.cumsum(0) == 1)).view_as(state_LP)
