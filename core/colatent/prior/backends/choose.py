"""Which backend does which part of a layout: a function of the device, of whether a gradient is needed, and of who sees
whom. `COLATENT_ATTENTION` overrides it, in every command and every library call.

The setting belongs to the machine, not to the model: no config and no checkpoint holds it. A backend that cannot work
here is refused in one line. Where it can, but not for a certain part (xFormers under a gradient, FlexAttention with a
cache), that part is done as under `auto`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.prior.backends import flex, matrix, sdpa, tiled, varlen, xformers
from colatent.prior.backends.records import Case, Operands, Refusal

SETTING = "COLATENT_ATTENTION"
FLEX = "flex"
"""The backend that does all parts of a layout at once."""


def _never(case: Case) -> Refusal | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A kernel that attention can run on.

    why_not      why it cannot work in a case; None: it can
    attend_part  how it does one part; None for FLEX
    """

    why_not: Callable[[Case], Refusal | None] = _never
    attend_part: Callable[[Operands], Tensor] | None = None


BACKENDS = {
    "sdpa": Backend(attend_part=sdpa.attend_part),
    "matrix": Backend(attend_part=matrix.attend_part),
    FLEX: Backend(why_not=flex.why_not),
    "xformers": Backend(why_not=xformers.why_not, attend_part=xformers.attend_part),
}


_COUNTED: ContextVar[bool] = ContextVar("counted", default=False)


@contextmanager
def counted() -> Iterator[None]:
    """Inside, only PyTorch's own operators are chosen, whatever is set: no others are known to its counter of FLOPs."""
    before = _COUNTED.set(True)
    try:
        yield
    finally:
        _COUNTED.reset(before)


def choose(layout: Layout, case: Case) -> tuple[str, ...]:
    """The name of the backend of each part; FLEX for all parts or none."""
    if _COUNTED.get():
        return tuple(_part(part, case, "auto") for part in layout.parts)
    name = asked(case)
    hidden = any(part.mask_BQK is not None or part.own is not None for part in layout.parts)
    wanted = name == FLEX or (name == "auto" and case.device.type == "cuda" and case.gradient and hidden)
    if wanted and BACKENDS[FLEX].why_not(case) is None and flex.takes(layout):
        return (FLEX,) * len(layout.parts)
    return tuple(_part(part, case, name) for part in layout.parts)


def by_lengths(layout: Layout, case: Case) -> bool:
    """Whether a block's rows over a cache of one shape are done all at once, by where their sequences end."""
    reads = any(part.cache == "read" for part in layout.parts)
    return reads and asked(case) == "auto" and varlen.works(case) and not _COUNTED.get()


def _part(part: AttentionPart, case: Case, name: str) -> str:
    if name in ("sdpa", "matrix"):
        return name
    if name == "xformers" and not case.gradient and xformers.takes(part):
        return name
    masked = part.mask_BQK is not None and (case.gradient or tiled.takes(part))
    # Where nothing is computed ("meta"), costs are counted as of a CPU.
    return "matrix" if case.device.type != "cuda" and (part.own is not None or masked) else "sdpa"


def asked(case: Case) -> str:
    """The name that the setting has, `auto` where it is not set; refused where that backend cannot work."""
    name = os.environ.get(SETTING) or "auto"
    if name == "auto":
        return name
    if name not in BACKENDS:
        raise UserError(f"there is no backend {name!r}", where=SETTING, do=f"set auto, {', '.join(BACKENDS)}")
    refusal = BACKENDS[name].why_not(case)
    if refusal is not None:
        raise UserError(f"{name} {refusal.what}", where=SETTING, do=refusal.do)
    return name


def typical(device: torch.device, *, gradient: bool) -> Case:
    """The case that most models are, to ask about a machine before there is a model."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return Case(device=device, dtype=dtype, head_dim=64, gradient=gradient)


def describe(device: torch.device) -> dict[str, str]:
    """What trains and what generates on a device, recorded or not, and why other backends do not work there."""
    rows = Rows([0], [2])
    trained = AttentionPart(queries=rows, keys=rows, mask_BQK=torch.ones(1, 2, 2, dtype=torch.bool).tril())
    generated = AttentionPart(queries=rows, keys=rows, cache="read")
    said = {"setting": os.environ.get(SETTING) or "auto"}
    for word, part, gradient in (("training", trained, True), ("generation", generated, False)):
        case = typical(device, gradient=gradient)
        try:
            said[word] = choose(Layout((part,), 2), case)[0]
        except UserError as error:
            said[word] = str(error)
    with suppress(UserError):
        if by_lengths(Layout((generated,), 2), typical(device, gradient=False)):
            said["recorded"] = "varlen"
    for name, backend in BACKENDS.items():
        training, generation = (backend.why_not(typical(device, gradient=gradient)) for gradient in (True, False))
        if generation is not None:
            said[name] = f"not on {device.type}: {generation.what}"
        elif training is not None:
            said[name] = f"not for training on {device.type}: {training.what}"
    return said
