"""Sound from magnitudes, a block of frames at a time: Griffin-Lim that never goes back on what it has given out.

The frames of earlier blocks keep their phases, and their share of the samples that the next frames also cover is kept
as a tail. First phases turn from frame to frame by the frequency of the nearest peak, for on its own Griffin-Lim does
not find the frequency of a steady tone; then all frames of the block are made to agree (Griffin and Lim 1984). All is
deterministic, and the same whether a sound comes in one call or block by block, because it always goes block by block.

Axes: F frames of a block, Q frequencies, T samples.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

LEAST_WEIGHT = 0.1
"""Samples that the windows hardly cover (at the end of a block) are divided by this at least."""
TINY = 1e-12


class Inversion:
    """The sound of one item, grown block by block. Sample 0 stands `margin` after the start of the first window."""

    def __init__(self, *, n_fft: int, hop: int, iterations: int) -> None:
        self.n_fft, self.hop, self.iterations = n_fft, hop, iterations
        self.window_T = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
        self.margin = (n_fft - hop) // 2
        # Turns phases at a window's start into those at its middle, where a sine has one phase at all its frequencies.
        self._centre_Q = (-1.0) ** np.arange(n_fft // 2 + 1)
        self._tail_T, self._tail_weight_T = np.zeros(n_fft - hop), np.zeros(n_fft - hop)
        self._last_Q = np.ones(n_fft // 2 + 1, dtype=complex)
        self._skip = self.margin
        self.pending_T = np.zeros(0)

    def add(self, magnitude_FQ: np.ndarray, *, ends: bool) -> np.ndarray:
        """The samples that these frames settle: all where the sound `ends` with them, else those that no later frame
        reaches. What they cover and do not settle is `pending_T`."""
        frames = len(magnitude_FQ)
        settled = frames * self.hop
        stop = settled + self.margin if ends else settled + self.n_fft - self.hop
        sum_T, weight_T = self._sums(self._consistent(magnitude_FQ, stop))
        sound_T = self._sound(sum_T, weight_T, stop).clip(-1.0, 1.0)
        self._tail_T, self._tail_weight_T = sum_T[settled:], weight_T[settled:]
        cut = stop if ends else settled
        skipped, self._skip = min(self._skip, cut), max(0, self._skip - cut)
        # Half of the overlap is the span of these frames themselves, the rest that of later ones.
        self.pending_T = np.zeros(0) if ends else sound_T[settled : settled + self.margin]
        return sound_T[skipped:cut]

    def _consistent(self, magnitude_FQ: np.ndarray, stop: int) -> np.ndarray:
        """The frames with phases, as samples (F, T) under their windows."""
        if not len(magnitude_FQ):
            return np.zeros((0, self.n_fft))
        unit_FQ = self._first(magnitude_FQ)
        for _ in range(self.iterations):
            sound_T = self._sound(*self._sums(self._samples(magnitude_FQ, unit_FQ)), stop)
            unit_FQ = self._units(sliding_window_view(sound_T, self.n_fft)[:: self.hop])
        self._last_Q = unit_FQ[-1]
        return self._samples(magnitude_FQ, unit_FQ)

    def _first(self, magnitude_FQ: np.ndarray) -> np.ndarray:
        """Phases (F, Q), as complex numbers of size 1, that go on from the last frame's."""
        peak_FQ, bin_FQ = nearest_peaks(magnitude_FQ)
        turn_FQ = np.exp(2j * np.pi * bin_FQ * self.hop / self.n_fft)
        unit_FQ, before_Q = np.empty_like(turn_FQ), self._last_Q
        for frame, (peak_Q, turn_Q) in enumerate(zip(peak_FQ, turn_FQ, strict=True)):
            before_Q = unit_FQ[frame] = before_Q[peak_Q] * turn_Q
        return unit_FQ

    def _units(self, frames_FT: np.ndarray) -> np.ndarray:
        """Phases of frames of samples, at the middle of the window; of silence, 1."""
        found_FQ = np.fft.rfft(frames_FT * self.window_T) * self._centre_Q
        size_FQ = np.abs(found_FQ)
        return np.where(size_FQ > TINY, found_FQ / np.maximum(size_FQ, TINY), 1.0)

    def _samples(self, magnitude_FQ: np.ndarray, unit_FQ: np.ndarray) -> np.ndarray:
        """Frames of samples with these magnitudes and phases, under the window."""
        return np.fft.irfft(magnitude_FQ * unit_FQ * self._centre_Q, self.n_fft) * self.window_T

    def _sums(self, frames_FT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Overlapping frames added up on the tail, and the weight of their windows."""
        frames, parts = len(frames_FT), self.n_fft // self.hop
        sum_T, weight_T = np.zeros((frames + parts - 1) * self.hop), np.zeros((frames + parts - 1) * self.hop)
        sum_T[: len(self._tail_T)], weight_T[: len(self._tail_T)] = self._tail_T, self._tail_weight_T
        pieces_FPT = frames_FT.reshape(frames, parts, self.hop)
        squares_PT = np.square(self.window_T).reshape(parts, self.hop)
        for part in range(parts):
            sum_T.reshape(-1, self.hop)[part : part + frames] += pieces_FPT[:, part]
            weight_T.reshape(-1, self.hop)[part : part + frames] += squares_PT[part]
        return sum_T, weight_T

    def _sound(self, sum_T: np.ndarray, weight_T: np.ndarray, stop: int) -> np.ndarray:
        """Samples of sums, with the silence before the item and from `stop` on."""
        sound_T = sum_T / weight_T.clip(LEAST_WEIGHT)
        sound_T[: self._skip] = 0.0
        sound_T[stop:] = 0.0
        return sound_T


def nearest_peaks(magnitude_FQ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each frequency the place of the nearest peak of its frame, and that peak's frequency in places, between them
    too: the top of the parabola through the logarithms of a peak and its neighbours."""
    log_FQ = np.log(np.maximum(magnitude_FQ, TINY))
    before_FQ, after_FQ = log_FQ[:, :-2], log_FQ[:, 2:]
    middle_FQ = log_FQ[:, 1:-1]
    bend_FQ = before_FQ - 2 * middle_FQ + after_FQ
    offset_FQ = 0.5 * (before_FQ - after_FQ) / np.where(bend_FQ < -TINY, bend_FQ, -np.inf)
    peak_FQ = np.pad((middle_FQ > before_FQ) & (middle_FQ >= after_FQ), ((0, 0), (1, 1)))
    place_FQ = np.broadcast_to(np.arange(log_FQ.shape[1]), log_FQ.shape)
    left_FQ = np.maximum.accumulate(np.where(peak_FQ, place_FQ, -log_FQ.shape[1]), axis=1)
    right_FQ = np.minimum.accumulate(np.where(peak_FQ, place_FQ, 2 * log_FQ.shape[1])[:, ::-1], axis=1)[:, ::-1]
    nearest_FQ = np.where(place_FQ - left_FQ <= right_FQ - place_FQ, left_FQ, right_FQ)
    nearest_FQ = np.where(peak_FQ.any(1, keepdims=True), nearest_FQ, place_FQ)
    exact_FQ = place_FQ + np.pad(offset_FQ, ((0, 0), (1, 1)))
    return nearest_FQ, np.take_along_axis(exact_FQ, nearest_FQ, axis=1)
