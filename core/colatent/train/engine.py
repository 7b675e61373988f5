"""torch's own engines for many devices, each behind the same two calls: run a pass and its gradients, and only look.

DDP keeps all weights in every process and adds up their gradients. FSDP2 cuts weights, gradients, moments and averages
into a share for each process, gathers the weights of one layer at a time where they are used, and lets them go again.
Both average over processes; a loss is multiplied by their number first, so that gradients are sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from colatent.checkpoint.rows import Rows
from colatent.train.stage import Loss, Part
from colatent.train.world import World


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

    def _anchored(self, loss: Tensor, parts: dict[str, Tensor], units: int) -> Loss:
        return loss + 0.0 * self._anchor, parts, units

    def look(self, work: Callable[[], Any]) -> Any:
        """See `Engine`."""
        return work()

    def agree(self) -> None:
        """See `Engine`."""
        _hand_round_buffers(self._parts)


class Sharded:
    """FSDP2 for parts that have layers. All processes must use the same weights of those in a pass, since they gather
    them together. Parts without layers (codecs) are whole in every process; their gradients are added up here, for DDP
    would have to run the same pass."""

    def __init__(self, parts: Mapping[str, Part], *, size: int, device: torch.device) -> None:
        mesh = init_device_mesh(device.type, (size,))
        layered = {name: part for name, part in parts.items() if part.layers}
        for layer in (layer for part in layered.values() for layer in part.layers):
            fully_shard(layer, mesh=mesh)
        self._size, self._parts = size, parts
        # Still the module that it was, beside what its type says.
        self._run: Any = fully_shard(Work(layered), mesh=mesh)
        rest = [part.module for name, part in parts.items() if name not in layered]
        self._whole = [one for module in rest for one in module.parameters() if one.requires_grad]

    def gradients(self, work: Callable[[], Loss], *, last: bool) -> Loss:
        """See `Engine`. Gradients are handed round after every pass, for nobody has room for all of them."""
        loss, parts, units = self._run(work)
        (loss * self._size).backward()
        if last:
            self._add_up()
        return loss, parts, units

    def _add_up(self) -> None:
        """Give the weights that are whole everywhere the gradient of all processes; none where nobody used them."""
        if not self._whole:
            return
        used = torch.tensor([one.grad is not None for one in self._whole], device=self._whole[0].device).int()
        dist.all_reduce(used)
        some = [one for one, count in zip(self._whole, used.tolist(), strict=True) if count]
        if not some:
            return
        total = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in some])
        dist.all_reduce(total)
        total /= self._size  # each share was multiplied by it
        for one, grad in zip(some, total.split([one.numel() for one in some]), strict=True):
            one.grad = grad.view_as(one)

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


def clip(parameters: Sequence[Tensor], limit: float) -> float:
    """Clip the norm of all gradients together, and give what it was. All processes must ask alike."""
    cut = [one for one in parameters if isinstance(one, DTensor) and one.grad is not None]
    rest = [one for one in parameters if not isinstance(one, DTensor) and one.grad is not None]
    kinds = [some for some in (cut, rest) if some]  # torch takes no norm over both at once
    norms = [whole(get_total_norm([one.grad for one in some if one.grad is not None])) for some in kinds]
    norm = torch.linalg.vector_norm(torch.stack(norms)) if len(norms) > 1 else norms[0] if norms else torch.zeros(())
    for some in kinds:
        clip_grads_with_norm_(some, limit, norm)
    return float(norm)


def is_cut(tensors: Mapping[str, Tensor]) -> bool:
    """Whether processes have shares of any of these tensors."""
    return any(isinstance(tensor, DTensor) for tensor in tensors.values())


def own_rows(tensors: Mapping[str, Tensor], *, leads: bool) -> dict[str, Tensor]:
    """This process's rows; those of tensors that are not cut are the first process's."""
    local = {name: tensor.to_local() for name, tensor in tensors.items() if isinstance(tensor, DTensor)}
    uncut = {name: tensor for name, tensor in tensors.items() if name not in local and leads}
    return uncut | {name: rows for name, rows in local.items() if len(rows)}


def cut(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of whole tensors, this process's shares where those of the same name in `like` are shares."""
    return {name: cut_like(tensors, name, like.get(name)) for name in tensors}


def cut_like(tensors: Mapping[str, Tensor], name: str, like: Tensor | None) -> Tensor:
    """One of them; of what lies in files, no other rows are read."""
    stored = tensors if isinstance(tensors, Rows) else None
    if not isinstance(like, DTensor) or (stored.shape(name) if stored else tensors[name].shape) != like.shape:
        return tensors[name]
    count = math.ceil(len(like) / like.device_mesh.size())
    start = min(like.device_mesh.get_local_rank() * count, len(like))
    stop = min(start + count, len(like))
    rows = stored.rows(name, start, stop) if stored else tensors[name][start:stop]
    return DTensor.from_local(
        rows.to(like.device), like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
