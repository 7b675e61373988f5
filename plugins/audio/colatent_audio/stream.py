"""Sound as its blocks arrive: each block's frames given the latents before, and their samples given the sound before.

Every item is decoded by itself, for the phases of a neighbour must not change it by as much as a rounding error.

Axes: L latents of an item, P frames per latent, M bands, F frames of a block, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from colatent.plugins.contract import Encoded, Latents, Part
from colatent_audio.inversion import Inversion
from colatent_audio.items import Sound

if TYPE_CHECKING:
    from colatent_audio.codec import AudioCodec


class AudioStream:
    """Decodes B sounds block after block, each after its own given latents."""

    def __init__(self, codec: AudioCodec, given: Sequence[Encoded | None], *, max_units: int | None) -> None:
        self._voices = [_Voice(codec, record, budget=max_units) for record in given]

    def push(self, blocks: Sequence[Latents]) -> None:
        """See `DecodeStream.push`."""
        for voice, block in zip(self._voices, blocks, strict=True):
            voice.push(block.z_LC)

    def finished(self) -> list[bool]:
        """See `DecodeStream.finished`."""
        return [voice.stopped is not None for voice in self._voices]

    def items(self) -> list[Sound]:
        """See `DecodeStream.items`."""
        return [voice.sound() for voice in self._voices]

    def details(self) -> list[dict[str, Any]]:
        """See `DecodeStream.details`: the length in seconds, and why the sound stopped ("end", "budget")."""
        return [voice.facts(len(voice.sound())) for voice in self._voices]

    def news(self, *, final: bool = False) -> list[Part]:
        """See `DecodeStream.news`: the samples that no later block changes."""
        return [voice.news(final=final) for voice in self._voices]

    def preview(self, blocks: Sequence[Latents]) -> list[Sound]:
        """See `DecodeStream.preview`."""
        return [voice.after(block.z_LC).sound() for voice, block in zip(self._voices, blocks, strict=True)]


class _Voice:
    """One sound on its way."""

    def __init__(self, codec: AudioCodec, given: Encoded | None, *, budget: int | None) -> None:
        config = codec.config
        self.codec, self._budget = codec, budget
        self._inversion = Inversion(n_fft=config.n_fft, hop=config.hop, iterations=config.griffin_lim)
        self._before_LC = torch.zeros(0, config.channels)
        self._settled: list[Sound] = []
        self._frames, self._told = 0, 0
        self.stopped: str | None = "budget" if budget == 0 else None
        self._given = 0 if given is None else self._begin(given)

    def _begin(self, given: Encoded) -> int:
        """Decode the whole blocks of what is given, as sound that goes on; the samples that are given in all."""
        block, real = self.codec.config.block, int((given.units_L > 0).sum())
        for start in range(0, real // block * block, block):
            levels_FM, _ = self._decode(given.mean_LC[start : start + block])
            self._add(levels_FM, ends=False)
        return real * self.codec.config.samples_per_latent

    def push(self, z_LC: Tensor) -> None:
        """Add a block; what comes after the end is no part of the sound."""
        if self.stopped is not None:
            return
        levels_FM, odds_F = self._decode(z_LC)
        absent_F = odds_F < 0
        if not self._frames:  # no sound is shorter than a frame
            absent_F[0] = False
        ends = bool(absent_F.any())
        count = int(absent_F.int().argmax()) if ends else len(absent_F)
        self._add(levels_FM[:count], ends=ends)
        self.stopped = self._reason(ends=ends)

    def _reason(self, *, ends: bool) -> str | None:
        """Why the sound stops with the block that was added, if it does."""
        over = self._frames * self.codec.config.hop - self._given - (self._budget or 0)
        if self._budget is not None and (over > 0 or (over == 0 and not ends)):
            return "budget"
        return "end" if ends else None

    def _decode(self, z_LC: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (F, M) and log-odds (F,) of the next block."""
        seen_LC = torch.cat([self._before_LC, z_LC.to(self._before_LC)])
        with torch.no_grad():
            levels_LPM, odds_LP = self.codec.frames([seen_LC])
        self._before_LC = seen_LC[len(seen_LC) - min(len(seen_LC), self.codec.config.depth) :]
        return levels_LPM[-len(z_LC) :].flatten(0, 1), odds_LP[-len(z_LC) :].flatten()

    def _add(self, levels_FM: Tensor, *, ends: bool) -> None:
        sound = self._inversion.add(self.codec.spectrum.magnitudes(levels_FM), ends=ends)
        self._settled.append(sound.astype(np.float32))
        self._frames += len(levels_FM)

    def sound(self) -> Sound:
        """What was generated, up to the end or the budget."""
        pending = self._inversion.pending_T.astype(np.float32)
        return np.concatenate([*self._settled, pending])[self._given :][: self._budget]

    def after(self, z_LC: Tensor) -> _Voice:
        """This sound as it would be with another block."""
        voice = copy.copy(self)
        voice._inversion, voice._settled = copy.copy(self._inversion), list(self._settled)
        voice.push(z_LC)
        return voice

    def news(self, *, final: bool) -> Part:
        """The settled samples that were not told yet; all where nothing more comes."""
        whole = self.sound()
        settled = sum(map(len, self._settled)) - self._given
        stop = len(whole) if final or self.stopped is not None else max(0, min(settled, len(whole)))
        new = whole[self._told : stop]
        self._told = max(self._told, stop)
        return Part(item=new, details=self.facts(len(new)))

    def facts(self, samples: int) -> dict[str, Any]:
        """What is told of so many samples."""
        return {"seconds": samples / self.codec.config.sample_rate, "stopped": self.stopped}
