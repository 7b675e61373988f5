"""The codec of `plugins_for_tests.wave`, with every protocol of the contract.

Axes: L latents of one item, C channels, K blocks, P numbers of a latent, B items.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from colatent.errors import UserError
from colatent.plugins.contract import BlockPlan, Encoded, Latents, Part, PlanRequest
from colatent.plugins.items import Shown
from colatent.plugins.records import LatentSpec
from plugins_for_tests.wave import WaveConfig, WaveOptions

PAIR, BLOCK = 2, 2


class WaveCodec(nn.Module):
    """See `WaveConfig`. An item is a float32 array of any length but 0, whose values lie in -1..1."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: WaveConfig, assets: Mapping[str, bytes]) -> None:
        super().__init__()
        self.config, self._assets = config, dict(assets)
        self.encoder = nn.Linear(PAIR, 2 * config.channels)
        self.decoder = nn.Linear(config.channels, PAIR)
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))

    @classmethod
    def prepare(cls, config: WaveConfig, items: Iterable[np.ndarray]) -> dict[str, bytes]:
        return {"longest.txt": str(max(len(item) for item in items)).encode()}

    def assets(self) -> dict[str, bytes]:
        return dict(self._assets)

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[np.ndarray], *, generator: torch.Generator | None = None) -> list[Encoded]:
        return [self.encode_one(item) for item in items]

    def encode_one(self, item: np.ndarray) -> Encoded:
        numbers_LP = self.pairs(item)
        mean_LC, logvar_LC = self.encoder(numbers_LP).chunk(2, dim=-1)
        return Encoded(
            mean_LC=(mean_LC - self.shift_C) * self.scale_C,
            logvar_LC=logvar_LC - 4.0 + 2 * self.scale_C.log(),
            block_lengths=(BLOCK,) * (len(numbers_LP) // BLOCK),
            positions_LA=torch.arange(len(numbers_LP), dtype=torch.float32)[:, None],
            units_L=(len(item) - PAIR * torch.arange(len(numbers_LP))).clamp(0, PAIR),
        )

    def decode(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        return [self.numbers(record).flatten().detach().cpu().numpy() for record in latents]

    def expects(self) -> dict[str, float]:
        return {"pace": 1.0}

    @classmethod
    def options_model(cls) -> type[WaveOptions]:
        return WaveOptions

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        for start in count(0, BLOCK):
            yield BlockPlan(length=BLOCK, positions_LA=torch.arange(start, start + BLOCK).float()[:, None])

    def finished(self, latents: Latents) -> bool:
        return False

    def example_batch(self, n: int) -> list[np.ndarray]:
        return [np.sin(1.7 * np.arange(3 * number + 1) + number).astype(np.float32) for number in range(n)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    def losses(
        self, items: Sequence[np.ndarray], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        pairs = zip(items, latents, strict=True)
        return {"reconstruction": torch.cat([self.errors(item, record).flatten() for item, record in pairs]).mean()}

    def reconstruction_score(self, items: Sequence[np.ndarray], latents: Sequence[Latents]) -> tuple[int, int]:
        right = [(self.errors(item, record) < 0.1).flatten() for item, record in zip(items, latents, strict=True)]
        return sum(int(each[: len(item)].sum()) for each, item in zip(right, items, strict=True)), sum(map(len, items))

    def lengths(self, items: Sequence[np.ndarray]) -> list[int]:
        return [len(self.pairs(item)) for item in items]

    def cut(self, items: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
        return [item[: PAIR * length] for item, length in zip(items, lengths, strict=True)]

    def encode_cut(self, items: Sequence[np.ndarray], cuts: Sequence[Sequence[int]]) -> list[Tensor]:
        found = []
        for item, some in zip(items, cuts, strict=True):
            hidden = np.pad(item, (0, -len(item) % (PAIR * BLOCK)))
            for number, within in enumerate(some):
                if within:
                    hidden[PAIR * (BLOCK * number + within) : PAIR * BLOCK * (number + 1)] = 0.0
            found.append(self.encode_one(hidden).mean_LC)
        return found

    def log_likelihood(self, items: Sequence[np.ndarray], latents: Sequence[Latents]) -> list[Tensor]:
        return [-self.errors(*pair).unflatten(0, (-1, BLOCK)).sum((1, 2)) for pair in zip(items, latents, strict=True)]

    def prompt(self, prompt: str | Sequence[int]) -> np.ndarray:
        if isinstance(prompt, str):
            raise UserError("a curve is prompted by numbers")
        return np.asarray(prompt, dtype=np.float32)

    def spelled(self, text: str) -> np.ndarray:
        return np.asarray([float(word) for word in text.split()], dtype=np.float32)

    def open_stream(
        self,
        given: Sequence[Encoded | None],
        *,
        max_units: int | None,
        options: Mapping[str, Any],
        names: Sequence[tuple[int | str, ...]],
    ) -> WaveStream:
        return WaveStream(self, len(given), options=WaveOptions(**options))

    def read_item(self, path: Path) -> np.ndarray:
        try:
            return self.open_item(self.config, path.read_bytes(), name=str(path))
        except OSError as error:
            raise UserError("cannot be read", where=str(path)) from error

    def write_item(self, item: np.ndarray, path: Path) -> Path:
        path = path.with_name(f"{path.name}.json")
        path.write_text(json.dumps(item.tolist()), encoding="utf-8")
        return path

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        return ("json",)

    @classmethod
    def open_item(cls, config: WaveConfig, data: bytes, *, name: str) -> np.ndarray:
        try:
            return np.asarray(json.loads(data.decode("utf-8")), dtype=np.float32)
        except ValueError as error:
            raise UserError("is no list of numbers", where=name) from error

    def show(self, item: np.ndarray) -> Shown:
        return Shown(media="text/plain", data=" ".join(map(str, item)).encode("utf-8"))

    def pairs(self, item: np.ndarray) -> Tensor:
        """The numbers of an item, zeros after its end, (L, P) in whole blocks."""
        padded = np.pad(item, (0, -len(item) % (PAIR * BLOCK)))
        return torch.from_numpy(padded).view(-1, PAIR).to(self.shift_C)

    def numbers(self, record: Latents) -> Tensor:
        """What latents decode to, (L, P)."""
        return self.decoder(record.z_LC.to(self.shift_C) / self.scale_C + self.shift_C)

    def errors(self, item: np.ndarray, record: Latents) -> Tensor:
        """Squared differences, (L, P)."""
        return (self.numbers(record) - self.pairs(item)).square()


class WaveStream:
    """Decodes B curves block after block; see `DecodeStream`."""

    def __init__(self, codec: WaveCodec, batch: int, *, options: WaveOptions) -> None:
        self.codec, self.gain = codec, options.gain
        self.curves: list[list[np.ndarray]] = [[] for _ in range(batch)]
        self.told = 0

    def push(self, blocks: Sequence[Latents]) -> None:
        for curve, new in zip(self.curves, self._decoded(blocks), strict=True):
            curve.append(new)

    def finished(self) -> list[bool]:
        return [False for _ in self.curves]

    def items(self) -> list[np.ndarray]:
        return [np.concatenate(curve) for curve in self.curves]

    def details(self) -> list[dict[str, Any]]:
        return [{"blocks": len(curve)} for curve in self.curves]

    def news(self, *, final: bool = False) -> list[Part]:
        parts = [Part(item=np.concatenate(curve[self.told :]), details={}) for curve in self.curves]
        self.told = len(self.curves[0])
        return parts

    def preview(self, blocks: Sequence[Latents]) -> list[np.ndarray]:
        pairs = zip(self.curves, self._decoded(blocks), strict=True)
        return [np.concatenate([*curve, new]) for curve, new in pairs]

    def _decoded(self, blocks: Sequence[Latents]) -> list[np.ndarray]:
        return [self.gain * curve for curve in self.codec.decode(blocks)]
