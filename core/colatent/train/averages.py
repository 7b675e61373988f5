"""The exponential moving averages of the weights, and where they stand in for them.

A stage has one part or several (codecs, prior), each with an average. Where averaged weights count they stand in for
all parts at once, so that a prior is never scored or saved with another codec than its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from colatent.train.stage import Part

Weights = dict[str, Tensor]


class MovingAverage:
    """Exponential moving average of a module's parameters and buffers, stored apart.

    Early on, the average follows fast: its decay is min(decay, (1 + n) / (10 + n)) after n updates, so that it never
    remembers the initial weights for longer than training has lasted.
    """

    def __init__(self, module: nn.Module, *, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move a step towards the module's current weights."""
        weight = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        shadow, current = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                shadow.append(self.shadow[name])
                current.append(value)
            else:
                self.shadow[name].copy_(value)
        torch._foreach_lerp_(shadow, current, weight)

    def load(self, tensors: Mapping[str, Tensor], updates: int) -> None:
        """Take up a saved average."""
        self.updates = updates
        for name, value in tensors.items():
            self.shadow[name].copy_(value)


class Averages(dict[str, MovingAverage]):
    """The averages of parts by name, none where `decay` is 0."""

    def __init__(self, parts: Mapping[str, Part], *, decay: float) -> None:
        super().__init__({name: MovingAverage(part.module, decay=decay) for name, part in parts.items() if decay})
        self._parts = parts
        self._settled: set[str] = set()

    def follow(self, names: Iterable[str]) -> None:
        """Move the averages of these parts a step towards their weights."""
        for name in self.keys() & set(names):
            self[name].update(self._parts[name].module)

    @contextmanager
    def in_place(self, names: Iterable[str]) -> Iterator[dict[str, Weights]]:
        """The averages of these parts in place of the weights under training, which are given, of all parts."""
        raw = {name: part.module.state_dict() for name, part in self._parts.items()}
        swapped = [name for name in names if self._counts(name)]
        for name in swapped:
            raw[name] = {key: value.clone() for key, value in raw[name].items()}
            self._parts[name].module.load_state_dict(self[name].shadow)
        try:
            yield raw
        finally:
            for name in swapped:
                self._parts[name].module.load_state_dict(raw[name])

    def settle(self, names: Iterable[str]) -> None:
        """Make parts their average, for good. There is one codec, and priors must see the one that decodes their
        samples; its scale is measured, and becomes part of it, after that."""
        for name in names:
            if self._counts(name):
                self._parts[name].module.load_state_dict(self[name].shadow)
                self._settled.add(name)

    def _counts(self, name: str) -> bool:
        """Whether there is an average that the weights are not already."""
        return name in self and bool(self[name].updates) and name not in self._settled
