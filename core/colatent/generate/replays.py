"""Passes of one shape, recorded once as CUDA graphs and replayed.

At small batches a pass is a thousand small kernels, and takes as long as Python takes to ask for them: seven times as
long as they run.

What a recorded pass reads and writes stays where it is in memory, so it is kept from call to call with the recording:
the cache, the modulation of the times, positions, inputs. A model keeps those of the last shape that it was asked for.
On a CPU nothing is recorded, and the same passes run as they are written; that is for tests alone.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.prior.backends.choose import SETTING as ATTENTION
from colatent.prior.dit import Prior
from colatent.prior.fixed_cache import FixedCache
from colatent.prior.modulation import Modulation

SETTING = "COLATENT_GRAPHS"
WARM = 2
"""Passes before one is recorded: libraries make plans and take memory in the first."""


def replaying(device: torch.device) -> bool:
    """Whether generation replays its passes: on CUDA, unless the setting says otherwise."""
    said = os.environ.get(SETTING) or "auto"
    if said not in ("auto", "on", "off"):
        raise UserError(f"there is no choice {said!r}", where=SETTING, do="set auto, on or off")
    if os.environ.get(ATTENTION) == "xformers":  # it reads who sees whom on the host, once
        return False
    return device.type == "cuda" if said == "auto" else said == "on"


_RECORDING = Lock()
"""A process records one pass at a time."""


class Replays:
    """The passes of one shape over a prior, with all that they read and write."""

    def __init__(self, prior: Prior, cache: FixedCache, modulation: Modulation) -> None:
        self.cache, self.modulation = cache, modulation
        self._prior, self._held = prior, {}  # type: ignore[var-annotated]
        self._device = modulation.embedding_TD.device
        self._pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    def restart(self, modulation: Modulation) -> None:
        """Begin another call: no history, and modulations as the weights give them now."""
        self.cache.restart()
        for kept, new in zip(_tensors(self.modulation), _tensors(modulation), strict=True):
            kept.copy_(new)

    def run(self, key: Any, x_SC: Tensor, *, inputs: Mapping[str, Tensor], **fixed: Any) -> dict[str, Tensor]:
        """The prior on rows of one stream. All calls of one `key` have the same shapes, and the same `fixed`.

        inputs  what changes beside x: `positions_N3`, `t_index_N`
        fixed   target, and the rest of the prior's arguments
        """
        given = [x_SC, *inputs.values()]
        if key not in self._held:
            held = [one.clone() for one in given]
            self._held[key] = held, self._record(lambda: self._pass(held, tuple(inputs), **fixed))
        held, replay = self._held[key]
        for mine, new in zip(held, given, strict=True):
            mine.copy_(new)
        with self._there():
            return replay()

    def _pass(self, held: Sequence[Tensor], names: Sequence[str], *, target: str, **fixed: Any) -> dict[str, Tensor]:
        more = dict(zip(names, held[1:], strict=True))
        return self._prior(
            {target: held[0]}, rows={target: None}, modulation=self.modulation, cache=self.cache, **more, **fixed
        )

    def _record(self, work: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
        """`work` to be done again and again, with what it gives each time."""
        if self._pool is None:
            return work
        with _RECORDING, self._there(), _casting_anew(), _no_collection():
            side, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM):
                    work()
            torch.cuda.current_stream().wait_stream(side)
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=side, capture_error_mode="thread_local"):
                    made = work()
            except RuntimeError as error:  # one about the recording hides what broke it off
                what = f"a pass cannot be recorded as a CUDA graph ({_first_line(error.__context__ or error)})"
                raise UserError(what, where="generate", do=f"set {SETTING}=off, which takes longer") from error

        def replay() -> dict[str, Tensor]:
            graph.replay()
            return {name: velocity.clone() for name, velocity in made.items()}  # the next replay writes there

        return replay

    def _there(self) -> AbstractContextManager[Any]:
        """With the prior's device as the current one, whose streams are recorded."""
        return nullcontext() if self._pool is None else torch.cuda.device(self._device)


class Kept:
    """The replays of the last shape, for one run at a time."""

    def __init__(self) -> None:
        self._key: Any = None
        self._replays: Replays | None = None
        self._lent = Lock()

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        """Copies of a model begin without."""
        return Kept, ()

    def lend(
        self, prior: Prior, modulation: Modulation, key: Any, *, device: torch.device, **shape: int | None
    ) -> Replays | None:
        """Those of this shape, without history; made where the last ones were of another. None while another run that
        is not at its end has them: its cache is in use."""
        if not self._lent.acquire(blocking=False):
            return None
        key = (key, _state(prior, device))
        try:
            if self._replays is None or key != self._key:
                self._replays = None  # first: there may not be memory for both
                made = prior.new_cache(device=device, **shape)  # type: ignore[arg-type]
                assert isinstance(made, FixedCache)
                self._key, self._replays = key, Replays(prior, made, modulation)
            self._replays.restart(modulation)
        except BaseException:
            self._replays = None
            self._lent.release()
            raise
        return self._replays

    def give_back(self) -> None:
        """The run that has them is at its end."""
        self._lent.release()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the garbage collector: if it frees an older recording, the one that is being made breaks off."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _state(prior: Prior, device: torch.device) -> tuple[Any, ...]:
    """What else a recording hangs on: which prior, where its weights lie, and how it is run."""
    cast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    setting = os.environ.get(ATTENTION)
    return id(prior), next(prior.parameters()).data_ptr(), cast, setting, torch.is_inference_mode_enabled()


def _casting_anew() -> torch.autocast:
    """Autocast as it is, but for weights that it keeps cast until it ends: a recorded pass must not read those."""
    enabled, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    return torch.autocast("cuda", dtype=dtype, enabled=enabled, cache_enabled=False)


def _tensors(modulation: Modulation) -> list[Tensor]:
    layers = [table for tables in modulation.layers or () for table in tables.values()]
    return [*layers, *modulation.exits.values(), modulation.embedding_TD]
