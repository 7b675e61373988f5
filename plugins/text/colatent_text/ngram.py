"""An n-gram model over bytes: the baseline that stands beside the prior's numbers in the demo's report.

Witten-Bell interpolation, the simplest smoothing that needs no tuning: a context that was followed by many different
bytes trusts its shorter context more. Counts of every order are sorted arrays, so fitting is a few sorts and a
context's followers are one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FloatArray = NDArray[np.float64]
_IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class _Order:
    """Followers of every context of one length: context `contexts[i]` owns the slice `starts[i]:starts[i + 1]`."""

    contexts: _IntArray
    starts: _IntArray
    followers: _IntArray
    counts: _FloatArray


class NGram:
    """P(next byte | the last order - 1 bytes). Build with `fit`."""

    def __init__(self, orders: list[_Order], seen: _FloatArray) -> None:
        self._orders = orders
        self._uniform = seen / seen.sum()
        self._cache: dict[bytes, _FloatArray] = {}

    @classmethod
    def fit(cls, texts: Iterable[str], *, order: int = 5) -> NGram:
        """Count all n-grams of up to `order` (at most 7) bytes; none spans two texts."""
        assert 1 <= order <= 7
        data = [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int64) for text in texts if text]
        assert data, "nothing to count"
        seen = np.bincount(np.concatenate(data), minlength=256) > 0
        return cls([_count(data, length) for length in range(order)], seen.astype(np.float64))

    def distribution(self, context: bytes) -> _FloatArray:
        """Probability of each of the 256 bytes after `context`."""
        context = context[max(0, len(context) - len(self._orders) + 1) :]
        if context not in self._cache:
            shorter = self.distribution(context[1:]) if context else self._uniform
            self._cache[context] = self._interpolate(context, shorter)
        return self._cache[context]

    def generate(self, prompt: str, n_chars: int, *, rng: np.random.Generator) -> str:
        """`n_chars` bytes drawn after `prompt`, as text."""
        draws = iter(rng.random(n_chars))
        return self._continue(prompt, n_chars, lambda p: int(np.searchsorted(np.cumsum(p), next(draws) * p.sum())))

    def continue_greedy(self, prompt: str, n_chars: int) -> str:
        """The `n_chars` most likely bytes one after the other, as text."""
        return self._continue(prompt, n_chars, lambda p: int(np.argmax(p)))

    def _interpolate(self, context: bytes, shorter: _FloatArray) -> _FloatArray:
        """(count + kinds * shorter) / (total + kinds), where `kinds` different bytes followed the context."""
        order = self._orders[len(context)]
        code = int.from_bytes(context, "big")
        at = int(np.searchsorted(order.contexts, code))
        if at == len(order.contexts) or order.contexts[at] != code:
            return shorter
        own = slice(int(order.starts[at]), int(order.starts[at + 1]))
        kinds = own.stop - own.start
        mixed = kinds * shorter
        mixed[order.followers[own]] += order.counts[own]
        return mixed / (order.counts[own].sum() + kinds)

    def _continue(self, prompt: str, n_bytes: int, pick: Callable[[_FloatArray], int]) -> str:
        text = bytearray(prompt.encode("utf-8"))
        start = len(text)
        for _ in range(n_bytes):
            text.append(pick(self.distribution(bytes(text[-len(self._orders) :]))))
        return text[start:].decode("utf-8", errors="replace")


def _count(data: list[_IntArray], length: int) -> _Order:
    """Followers of all contexts of `length` bytes; a gram is one integer, its follower the lowest byte."""
    grams = [np.zeros(max(0, len(text) - length), dtype=np.int64) for text in data]
    for gram, text in zip(grams, data, strict=True):
        for offset in range(length + 1):
            gram <<= 8
            gram |= text[offset : offset + len(gram)]
    unique, counts = np.unique(np.concatenate(grams), return_counts=True)
    contexts, starts = np.unique(unique >> 8, return_index=True)
    return _Order(
        contexts=contexts,
        starts=np.append(starts, len(unique)),
        followers=unique & 255,
        counts=counts.astype(np.float64),
    )
