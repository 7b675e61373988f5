"""In which precision a model computes what it generates.

In bf16 matrices are cast once, when the model is built, and what else is computed with them is cast where it is used
(autocast). Latents, noise and the solver stay float32, and so do norms, embeddings and the scale of latents: rounded,
they would gain no speed and shift every item.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import nn

from colatent.errors import UserError
from colatent.prior.packed import pack, packing

Precision = Literal["float32", "bf16"]
PRECISIONS = ("float32", "bf16")
MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d)

Event = TypeVar("Event")


class Computing:
    """How the networks of one model are run."""

    def __init__(
        self,
        precision: Precision,
        networks: Iterable[nn.Module],
        *,
        device: torch.device,
        compiled: Collection[nn.Module] = (),
    ) -> None:
        """Casts the networks' matrices, in place, and packs those of linear layers where the device multiplies so; in
        float32 they stay as they are. `compiled`: of the networks those that a compiler has, which are not packed."""
        if precision not in PRECISIONS:
            raise UserError(f"precision is {precision!r}", where="load", do=f"use one of {', '.join(PRECISIONS)}")
        self._lower, self._device = precision == "bf16", device
        for network in networks if self._lower else ():
            for module in network.modules():
                if isinstance(module, MATRICES):
                    module.to(torch.bfloat16)
            if packing(device) and network not in compiled:
                pack(network)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """For the length of a computation: without gradient, in this precision."""
        lower = torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._lower)
        with torch.no_grad(), lower:
            yield

    def each(self, events: Iterator[Event]) -> Iterator[Event]:
        """The same events, each computed so. Between two of them the caller computes as it likes."""
        while True:
            with self():
                event = next(events, None)
            if event is None:
                return
            yield event
