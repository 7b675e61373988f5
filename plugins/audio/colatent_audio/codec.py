"""The audio codec: what the engine's contract asks, in terms of the audio VAE.

Axes: L latents of an item, N latents of the flat batch, P frames per latent, M bands, C channels, B items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.items import Shown
from colatent.plugins.records import LatentSpec
from colatent_audio.config import AudioConfig
from colatent_audio.files import open_sound, read_sound, wav_bytes, write_wav
from colatent_audio.items import Sound, Span, checked
from colatent_audio.spectrum import STEP_DB, Spectrum
from colatent_audio.stream import AudioStream
from colatent_audio.vae import Decoder, Encoder

TOLERANCE_DB = 6.0
"""Mean error of a frame's levels up to which its samples count as reconstructed."""


class AudioCodec(nn.Module):
    """VAE over spectral frames; see `AudioConfig` for its settings."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum = Spectrum(config)
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))

    # What every codec does.

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    @property
    def block_seconds(self) -> float:
        """Span of a block."""
        return self.config.block_seconds

    def encode(self, items: Sequence[Sound], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """Posterior of each sound, its end included."""
        sounds = [checked(item) for item in items]
        if not sounds:
            return []
        spans = self._spans(sounds)
        present_NP = torch.cat([span.present_LP() for span in spans]).to(self.shift_C.device)
        lengths = [span.latents for span in spans]
        mean_NC, logvar_NC = self.encoder(self.spectrum(sounds), present_NP, item_N=self._item_of(lengths))
        means = ((mean_NC - self.shift_C) * self.scale_C).split(lengths)
        logvars = (logvar_NC + 2 * self.scale_C.log()).split(lengths)
        return [self._record(*each) for each in zip(spans, means, logvars, strict=True)]

    def decode(self, latents: Sequence[Latents]) -> list[Sound]:
        """The sound of each item up to its end, block by block as a stream makes it."""
        return [self._decode_one(record) for record in latents]

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        """Blocks without end; the first one holds the partial block of what is given."""
        block = self.config.block
        done = 0 if request.given is None else int((request.given.units_L > 0).sum()) // block * block
        for start in count(done, block):
            positions_LA = torch.arange(start, start + block, dtype=torch.float32)[:, None]
            yield BlockPlan(length=block, positions_LA=positions_LA)

    def finished(self, latents: Latents) -> bool:
        """Whether a frame says that the sound has ended."""
        _, odds_LP = self.frames([latents.z_LC])
        return bool((odds_LP < 0).any())

    def example_batch(self, n: int) -> list[Sound]:
        return [_example(number, rate=self.config.sample_rate) for number in range(n)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """See `Codec.set_scale`: z = (raw - shift) * scale."""
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    # What this one also does.

    def lengths(self, items: Sequence[Sound]) -> list[int]:
        """See `MeasuredCodec.lengths`."""
        return [span.latents for span in self._spans([checked(item) for item in items])]

    def losses(
        self, items: Sequence[Sound], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean error of the levels of frames that hold sound, in steps of 20 dB; cross-entropy of where they end."""
        sounds = [checked(item) for item in items]
        units_NP, present_NP, target_NPM = self._targets(sounds)
        levels_NPM, odds_NP = self.frames([record.z_LC for record in latents])
        weight_NPM = 1.0 + self.config.loud_weight * torch.exp(target_NPM - target_NPM.amax(-1, keepdim=True))
        error_NP = ((levels_NPM - target_NPM).abs() * weight_NPM).sum(-1) / weight_NPM.sum(-1)
        # What follows the end within its own latent is known too: still no sound.
        told_NP = (units_NP.sum(-1, keepdim=True) > 0).expand_as(units_NP)
        end = F.binary_cross_entropy_with_logits(odds_NP[told_NP], present_NP[told_NP].to(odds_NP))
        return {"spectrum": error_NP[present_NP].mean(), "end": self.config.end_weight * end}

    def reconstruction_score(self, items: Sequence[Sound], latents: Sequence[Latents]) -> tuple[int, int]:
        """Samples whose frame is decoded as sound with levels within `TOLERANCE_DB` on average, and ends found, of all
        samples and ends."""
        sounds = [checked(item) for item in items]
        units_NP, present_NP, target_NPM = self._targets(sounds)
        levels_NPM, odds_NP = self.frames([record.z_LC for record in latents])
        close_NP = (levels_NPM - target_NPM).abs().mean(-1) * STEP_DB <= TOLERANCE_DB
        right_NP = torch.where(present_NP, close_NP & (odds_NP >= 0), odds_NP < 0)
        return int(units_NP[right_NP].sum()), int(units_NP.sum())

    def open_stream(
        self,
        given: Sequence[Encoded | None],
        *,
        max_units: int | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        names: Sequence[tuple[int | str, ...]] = (),
    ) -> AudioStream:
        """See `StreamingCodec.open_stream`. Nothing is drawn at random, so `names` are not looked at."""
        return AudioStream(self, given, max_units=max_units)

    def expects(self) -> dict[str, int]:
        """See `ExpectingCodec.expects`."""
        return {"sample_rate": self.config.sample_rate}

    def read_item(self, path: Path) -> Sound:
        """See `FileCodec.read_item`: WAV, FLAC and whatever else libsndfile reads."""
        return read_sound(path, sample_rate=self.config.sample_rate)

    def write_item(self, item: Sound, path: Path) -> Path:
        """See `FileCodec.write_item`: 16-bit WAV."""
        return write_wav(checked(item), path, sample_rate=self.config.sample_rate)

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        """See `StoredCodec.suffixes`."""
        return ("wav", "flac", "ogg", "mp3")

    @classmethod
    def open_item(cls, config: AudioConfig, data: bytes, *, name: str) -> Sound:
        """See `StoredCodec.open_item`; the same files as `read_item` takes."""
        return open_sound(data, sample_rate=config.sample_rate, name=name)

    def show(self, item: Sound) -> Shown:
        """See `Showable.show`."""
        return Shown(media="audio/wav", data=wav_bytes(checked(item), sample_rate=self.config.sample_rate))

    # Rooms below the door.

    def frames(self, latents: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels (N, P, M) and log-odds (N, P) of items laid end to end, given their unit-scale latents (L, C)."""
        raw_NC = torch.cat(list(latents)).to(self.shift_C.device) / self.scale_C + self.shift_C
        levels_NPM, odds_NP = self.decoder(raw_NC, item_N=self._item_of([len(z_LC) for z_LC in latents]))
        return levels_NPM, odds_NP

    def _targets(self, sounds: Sequence[Sound]) -> tuple[Tensor, Tensor, Tensor]:
        """Units and presence (N, P) of the frames of some sounds, and their levels (N, P, M)."""
        spans, device = self._spans(sounds), self.shift_C.device
        units_NP = torch.cat([span.units_LP() for span in spans]).to(device)
        present_NP = torch.cat([span.present_LP() for span in spans]).to(device)
        return units_NP, present_NP, self.spectrum(sounds)

    def _spans(self, sounds: Sequence[Sound]) -> list[Span]:
        return [Span(samples=len(sound), config=self.config) for sound in sounds]

    def _item_of(self, lengths: Sequence[int]) -> Tensor:
        """Number of the item of each latent of the flat batch."""
        return torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(self.shift_C.device)

    def _record(self, span: Span, mean_LC: Tensor, logvar_LC: Tensor) -> Encoded:
        return Encoded(
            mean_LC=mean_LC,
            logvar_LC=logvar_LC,
            block_lengths=(self.config.block,) * (span.latents // self.config.block),
            positions_LA=torch.arange(span.latents, dtype=torch.float32)[:, None],
            units_L=span.units_LP().sum(-1),
        )

    def _decode_one(self, record: Latents) -> Sound:
        stream = self.open_stream([None])
        blocks = zip(record.z_LC.split(self.config.block), record.positions_LA.split(self.config.block), strict=True)
        for z_LC, positions_LA in blocks:
            stream.push([Latents(z_LC=z_LC, block_lengths=(len(z_LC),), positions_LA=positions_LA)])
        return stream.items()[0]


def _example(number: int, *, rate: int) -> Sound:
    """A tone with an overtone, each number's of another pitch and length."""
    time = np.arange(rate // 8 + number * rate // 20) / rate
    pitch = 220.0 * (1 + number % 5)
    return (0.4 * np.sin(2 * np.pi * pitch * time) + 0.1 * np.sin(4 * np.pi * pitch * time)).astype(np.float32)
