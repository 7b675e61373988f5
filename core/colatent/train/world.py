"""The processes that train one model together, as torchrun starts them: who is who, and what they tell one another.

A process alone is a world of one and needs no network. In a larger one all do the same in the same order, and what they
tell one another here is small: numbers that are added up, and short texts. Weights and gradients are the business of
`engine`. Nothing is pickled: numbers travel as numbers, texts as bytes.
"""

from __future__ import annotations

import gc
import hashlib
import json
import signal
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from colatent.errors import UserError
from colatent.train.device import launched, own_device
from colatent.train.interrupts import Interrupted

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others. One that dies is noticed at once; this is for one that hangs."""


class World:
    """This process among those that train together: number `rank` of `size`."""

    def __init__(self, *, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size = rank, size
        self._device = device  # where the numbers that travel must lie
        self._names: list[str] = []

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def sum(self, named: Mapping[str, float]) -> dict[str, float]:
        """Sums over all ranks, by name; a name may be missing on some."""
        if self.size == 1:
            return dict(named)
        unknown, *_ = total = self._add_up(named)
        if unknown:  # a name that is new to one rank is new to all, for they have heard the same until now
            told = (json.loads(text) for text in self.gather(json.dumps(list(named))))
            self._names = sorted({*self._names, *(name for some in told for name in some)})
            total = self._add_up(named)
        held, values = total[1:].reshape(2, -1).tolist() if self._names else ([], [])
        return {name: value for name, some, value in zip(self._names, held, values, strict=True) if some}

    def _add_up(self, named: Mapping[str, float]) -> Tensor:
        """In one reduction: how many names are not known to all yet; who has each known one; and their sums."""
        held = [float(name in named) for name in self._names]
        values = [float(named.get(name, 0.0)) for name in self._names]
        unknown = float(not named.keys() <= set(self._names))
        total = torch.tensor([unknown, *held, *values], dtype=torch.float64, device=self._device)
        dist.all_reduce(total)
        return total

    def largest(self, value: int) -> int:
        """The largest of the ranks' numbers."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=self._device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def gather(self, text: str) -> list[str]:
        """What each rank says, in their order."""
        if self.size == 1:
            return [text]
        data = text.encode()
        longest = self.largest(len(data))
        mine = torch.zeros(8 + longest, dtype=torch.uint8)  # its length, then the text itself
        mine[:8] = torch.frombuffer(bytearray(len(data).to_bytes(8, "little")), dtype=torch.uint8)
        mine[8 : 8 + len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
        found = [torch.empty_like(mine, device=self._device) for _ in range(self.size)]
        dist.all_gather(found, mine.to(self._device))
        told = [bytes(one.tolist()) for one in found]
        return [one[8 : 8 + int.from_bytes(one[:8], "little")].decode() for one in told]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one rank refuses inside, all refuse; nobody goes on before all have come to the end."""
        refused: UserError | None = None
        try:
            yield
        except UserError as error:
            refused = error
        said = "" if refused is None else json.dumps([refused.what, refused.where, refused.do])
        first = next((text for text in self.gather(said) if text), None)
        if refused is not None:
            raise refused
        if first is not None:
            what, where, do = json.loads(first)
            raise UserError(what, where=where, do=do)

    def check_same(self, told: Mapping[str, str], *, do: str) -> None:
        """Refuse to go on where ranks differ in what is told by name."""
        hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in told.items()}
        everyone = [json.loads(text) for text in self.gather(json.dumps(hashes))]
        for name in told:
            for rank, one in enumerate(everyone):
                if one[name] != everyone[0][name]:
                    raise UserError(f"{name} of process {rank} is not that of process 0", where="torchrun", do=do)


@contextmanager
def join(device: str) -> Iterator[World]:
    """Meet the other processes, if there are any, and part from them at the end, whatever that is."""
    size = launched("WORLD_SIZE", 1)
    if size == 1:
        yield World()
        return
    where = own_device(device)
    _meet(where)
    try:
        yield World(rank=rank(), size=size, device=where)
        _await_others()
    except BaseException as error:
        _prepare_to_leave(error)
        if isinstance(error, Interrupted):
            _await_others()
        if not (isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))):
            raise
        what = f"process {rank()} lost another one: {_first_line(error)}"
        raise UserError(what, where="torchrun", do="what ended that one is in its own last lines") from None
    finally:
        dist.destroy_process_group()


def _meet(device: torch.device) -> None:
    cuda = device.type == "cuda"
    try:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT, device_id=device if cuda else None)
    except (RuntimeError, ValueError) as error:  # torch's network errors are RuntimeErrors
        what = f"process {rank()} cannot meet the others: {_first_line(error)}"
        raise UserError(what, where="torchrun", do="check that all nodes reach MASTER_ADDR at MASTER_PORT") from error


def rank() -> int:
    """Number of this process among those that train together."""
    return launched("RANK", 0)


def _await_others() -> None:
    """Wait until all are done. Nobody may leave while others still ask it for something."""
    gc.collect()
    dist.barrier()


def _prepare_to_leave(error: BaseException) -> None:
    """See that an error is told: a launcher ends the rest as soon as one process has left, and this one is about to
    leave too. Tensors that the error's frames hold are let go: sharded ones must be gone before the group is."""
    with suppress(ValueError):  # not the main thread: whoever runs us there has handlers of its own
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    traceback.clear_frames(error.__traceback__)
    gc.collect()


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
