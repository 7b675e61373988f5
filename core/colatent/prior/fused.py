"""`torch.compile` for what a layer does to each row by itself, which is all but attention.

Layouts differ from step to step: who sees whom is rectangles of other numbers each time, and a compiled attention would
be compiled again for each. The two halves of a branch, before attention and after it, know of a step only how many rows
it has, so one compilation serves all steps and all layers. They are compiled as functions of the module, not as modules
around it: names in a state dict stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from colatent.errors import UserError
from colatent.prior.dit import Prior

BACKEND = "inductor"


def fuse(prior: Prior, *, backend: str = BACKEND, always: bool = False) -> None:
    """Compile what every layer of a prior does to rows, each part when it is first run; `always`: see `fused`."""
    for branch in prior.branches():
        branch.to_qkv = fused(branch.to_qkv, backend=backend, always=always)  # type: ignore[method-assign]
        branch.finish = fused(branch.finish, backend=backend, always=always)  # type: ignore[method-assign]


def fused(function: Callable[..., Any], *, backend: str = BACKEND, always: bool = False) -> Callable[..., Any]:
    """A function compiled for any number of rows. Without gradient it runs as it is written unless `always`:
    evaluations and samples of a run are too few to be worth a compilation of their own."""
    compiled = torch.compile(function, dynamic=True, backend=backend)

    def run(*args: Any) -> Any:
        return (compiled if always or torch.is_grad_enabled() else function)(*args)

    return run


def check_compiler(device: torch.device, *, where: str) -> None:
    """Refuse to compile where that does not work: it needs a C++ compiler, on CUDA Triton too. Only trying tells."""
    x = torch.ones(2, 3, device=device, requires_grad=True)
    try:
        fused(_tried)(x).sum().backward()
    except (RuntimeError, OSError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        do = "install a C++ compiler (Debian: g++), on CUDA Triton too, or set it to false"
        raise UserError(f"torch.compile does not work here: {lines[0][:200]}", where=where, do=do) from error


def _tried(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")
