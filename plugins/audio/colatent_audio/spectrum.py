"""From samples to the frames that the VAE sees, and from its frames back to magnitudes.

A frame is the level of each band in steps of 20 dB, centred between floor and full scale, so that it is of the order of
1. Phases are left out: `colatent_audio.inversion` finds some that fit.

Axes: N latents of the flat batch, P frames per latent, M bands, F frames, Q frequencies, T samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchaudio import functional as audio

from colatent.errors import UserError
from colatent_audio.config import AudioConfig
from colatent_audio.items import Sound, Span

STEP_DB = 20.0
"""Decibels that are one unit of a frame's values."""


class Spectrum(nn.Module):
    """Levels of sounds, and magnitudes of levels. It has no weights and nothing to save."""

    window_T: Tensor
    bands_QM: Tensor | None
    inverse_MQ: Tensor | None

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        bands_QM = None if config.mels is None else mel_bands(config)
        inverse_MQ = None if bands_QM is None else torch.linalg.pinv(bands_QM.double()).float()
        self.register_buffer("window_T", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("bands_QM", bands_QM, persistent=False)
        self.register_buffer("inverse_MQ", inverse_MQ, persistent=False)

    def forward(self, sounds: Sequence[Sound]) -> Tensor:
        """Levels (N, P, M) of sounds laid end to end, padding included."""
        config = self.config
        spans = [Span(samples=len(sound), config=config) for sound in sounds]
        frames = [span.latents * config.frames_per_latent for span in spans]
        gap = config.n_fft // config.hop - 1  # frames that would look into two sounds
        flat_T = torch.from_numpy(_laid_out(sounds, frames, config)).to(self.window_T)
        starts = zip(frames, _starts(frames, gap), strict=True)
        kept = torch.from_numpy(np.concatenate([np.arange(start, start + count) for count, start in starts]))
        with torch.autocast(flat_T.device.type, enabled=False):  # few digits of a level are a wrong level
            magnitude_FQ = self._magnitudes_of(flat_T).T[kept.to(flat_T.device)]
            return self._levels(magnitude_FQ).unflatten(0, (-1, config.frames_per_latent))

    def _magnitudes_of(self, flat_T: Tensor) -> Tensor:
        """Magnitudes (Q, F) of all frames of a signal, those of a full-scale sine 1."""
        n_fft, hop = self.config.n_fft, self.config.hop
        found_QF = audio.spectrogram(
            flat_T,
            pad=0,
            window=self.window_T,
            n_fft=n_fft,
            hop_length=hop,
            win_length=n_fft,
            power=1.0,
            normalized=False,
            center=False,
        )
        return found_QF / self._full_scale

    @property
    def _full_scale(self) -> float:
        """Magnitude of a sine of amplitude 1."""
        return float(self.window_T.sum()) / 2

    def _levels(self, magnitude_FQ: Tensor) -> Tensor:
        power_FM = magnitude_FQ.square()
        if self.bands_QM is not None:
            power_FM = power_FM @ self.bands_QM
        floor = self.config.floor_db
        db_FM = 10.0 * power_FM.clamp(min=10.0 ** (floor / 10)).log10()
        return (db_FM - floor / 2) / STEP_DB

    def magnitudes(self, levels_FM: Tensor) -> np.ndarray:
        """Magnitudes (F, Q) of the levels of a run of frames, float64: 0 at the floor, and at most those that the
        loudest sound has."""
        floor = self.config.floor_db
        db_FM = (levels_FM.float() * STEP_DB + floor / 2).clamp(max=6.0)
        power_FQ = torch.where(db_FM > floor + 1.0, 10.0 ** (db_FM / 10), 0.0)
        if self.inverse_MQ is not None:
            power_FQ = (power_FQ @ self.inverse_MQ).clamp(min=0.0)
        return (power_FQ.sqrt() * self._full_scale).double().cpu().numpy()


def mel_bands(config: AudioConfig) -> Tensor:
    """Weights (Q, M) of each frequency in each mel band, each band of which must have some."""
    assert config.mels is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an empty band: it is refused below
        rate, count = config.sample_rate, config.n_fft // 2 + 1
        bands_QM = audio.melscale_fbanks(count, f_min=0.0, f_max=rate / 2, n_mels=config.mels, sample_rate=rate)
    empty = int((bands_QM.amax(0) == 0).sum())
    if empty:
        what = f"{empty} of {config.mels} mel bands are narrower than the distance of two frequencies"
        raise UserError(what, where="mels", do="use fewer mels or a longer n_fft")
    return bands_QM


def _laid_out(sounds: Sequence[Sound], frames: Sequence[int], config: AudioConfig) -> np.ndarray:
    """Sounds end to end in zeros, each with room for its frames and for the windows at both its ends."""
    margin = (config.n_fft - config.hop) // 2
    room = config.n_fft - config.hop
    flat = np.zeros(sum(frames) * config.hop + len(frames) * room, dtype=np.float32)
    at = 0
    for sound, count in zip(sounds, frames, strict=True):
        flat[at + margin : at + margin + len(sound)] = sound
        at += count * config.hop + room
    return flat


def _starts(frames: Sequence[int], gap: int) -> np.ndarray:
    """Number of the first frame of each sound among all frames of the flat signal."""
    return np.cumsum([0, *(count + gap for count in frames[:-1])])
