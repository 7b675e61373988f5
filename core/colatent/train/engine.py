"""torch's own engines for many devices, each behind the same two calls: run a pass and its gradients, and only look.

DDP keeps all weights in every process and adds up their gradients. FSDP2 cuts weights, gradients, moments and averages
into a share for each process, gathers the weights of one layer at a time where they are used, and lets them go again.
Both average over processes; a loss is multiplied by their number first, so that gradients are sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from colatent.train.stage import Part
from colatent.train.world import World

Loss = tuple[Tensor, dict[str, float], int]
"""What `Stage.loss` gives."""


class Engine(Protocol):
    """What computes gradients over the weights under training."""

    def gradients(self, work: Callable[[], Loss], *, last: bool) -> Loss:
        """Run a pass and add its gradients to those of the weights. After the `last` pass of a step they are those of
        all passes of all processes."""
        ...

    def look(self, work: Callable[[], Any]) -> Any:
        """Run something that uses the weights as they are, without gradient."""
        ...

    def agree(self) -> None:
        """Go on with the first process's buffers: running statistics are moved by each pass, and not by gradients."""
        ...


def build_engine(parts: Mapping[str, Part], *, parallel: str, world: World, device: torch.device) -> Engine:
    """The engine for these parts. FSDP2 puts shards in the place of their weights."""
    if world.size == 1 or not parts:
        return Alone()
    return (Sharded if parallel == "fsdp" else Replicated)(parts, size=world.size, device=device)


class Alone:
    """One process."""

    def gradients(self, work: Callable[[], Loss], *, last: bool) -> Loss:
        """See `Engine`."""
        loss, parts, units = work()
        loss.backward()
        return loss, parts, units

    def look(self, work: Callable[[], Any]) -> Any:
        """See `Engine`."""
        return work()

    def agree(self) -> None:
        """See `Engine`."""


class Work(nn.Module):
    """All weights under training as one module, whose forward pass is whatever is asked of them: a codec is encoded,
    decoded and scored, a prior modulated and run, and torch's engines want to see that as one thing."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: part.module for name, part in parts.items()})

    def forward(self, work: Callable[[], Any]) -> Any:
        """What the work gives."""
        return work()


class Replicated:
    """DDP: which weights a pass uses hangs on what its samples are, so it looks for those that are not used."""

    def __init__(self, parts: Mapping[str, Part], *, size: int, device: torch.device) -> None:
        work = Work(parts)
        # Used by every pass: a process without a sample that teaches anything must still take part.
        self._anchor = work.anchor = nn.Parameter(torch.zeros((), device=device))
        # Used by none: where a first pass uses all weights, torch takes the search for a mistake and says so.
        work.idle = nn.Parameter(torch.zeros((), device=device))
        self._size, self._parts = size, parts
        # Not before a pass, as DDP would: what an earlier one keeps for its gradient may be among the buffers.
        self._run = DistributedDataParallel(work, find_unused_parameters=True, broadcast_buffers=False)

    def gradients(self, work: Callable[[], Loss], *, last: bool) -> Loss:
        """See `Engine`."""
        with nullcontext() if last else self._run.no_sync():
            loss, parts, units = self._run(lambda: self._anchored(*work()))
            (loss * self._size).backward()
        return loss, parts, units

    def _anchored(self, loss: Tensor, parts: dict[str, float], units: int) -> Loss:
        return loss + 0.0 * self._anchor, parts, units

    def look(self, work: Callable[[], Any]) -> Any:
        """See `Engine`."""
        return work()

    def agree(self) -> None:
        """See `Engine`."""
        _hand_round_buffers(self._parts)


class Sharded:
    """FSDP2. All processes must use the same weights in a pass, since they gather them together."""

    def __init__(self, parts: Mapping[str, Part], *, size: int, device: torch.device) -> None:
        mesh = init_device_mesh(device.type, (size,))
        for part in parts.values():
            for layer in part.layers:
                fully_shard(layer, mesh=mesh)
        self._size, self._parts = size, parts
        self._run: Any = fully_shard(Work(parts), mesh=mesh)  # still the module that it was, beside what its type says

    def gradients(self, work: Callable[[], Loss], *, last: bool) -> Loss:
        """See `Engine`. Gradients are handed round after every pass, for nobody has room for all of them."""
        loss, parts, units = self._run(work)
        (loss * self._size).backward()
        return loss, parts, units

    def look(self, work: Callable[[], Any]) -> Any:
        """See `Engine`."""
        with torch.no_grad():
            found = self._run(work)
        self._run.reshard()
        return found

    def agree(self) -> None:
        """See `Engine`."""
        _hand_round_buffers(self._parts)


def _hand_round_buffers(parts: Mapping[str, Part]) -> None:
    for part in parts.values():
        for buffer in part.module.buffers():
            dist.broadcast(buffer, 0)


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which each process may have a share. All must ask for it alike."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """The whole tensors, on the CPU where they had to be gathered; nothing where they are not to be kept. All processes
    must ask alike."""
    found = {}
    for name, tensor in tensors.items():
        one = tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
        if keep:
            found[name] = one
    return found


def cut(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of whole tensors, this process's shares where those of the same name in `like` are shares."""
    return {name: _share(tensor, like[name]) if name in like else tensor for name, tensor in tensors.items()}


def cut_like(tensors: Mapping[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """The same for what an optimiser keeps of one parameter."""
    return {name: _share(tensor, parameter) for name, tensor in tensors.items()}


def _share(tensor: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
