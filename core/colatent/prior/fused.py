"""`torch.compile` for what a layer does to each row by itself, which is all but attention.

Layouts differ from step to step: who sees whom is rectangles of other numbers each time, and a compiled attention would
be compiled again for each. The two halves of a branch, before attention and after it, know of a step only how many rows
it has, so one compilation serves all steps and all layers. They are compiled as functions of the module, not as modules
around it: names in a state dict stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch

from colatent.errors import UserError
from colatent.prior.dit import Prior
from colatent.prior.layer import Branch

BACKEND = "inductor"


def fuse(prior: Prior, *, backend: str = BACKEND, always: bool = False) -> None:
    """Compile what every layer of a prior does to rows, each part when it is first run; `always`: see `Fused`."""
    for branch in prior.branches():
        branch.to_qkv = Fused(Branch.to_qkv, branch, backend=backend, always=always)  # type: ignore[method-assign,assignment]
        branch.finish = Fused(Branch.finish, branch, backend=backend, always=always)  # type: ignore[method-assign,assignment]


class Fused:
    """A method of a branch, compiled for any number of rows when it is first run. Without gradient it runs as it is
    written unless `always`: evaluations and samples of a run are too few to be worth a compilation of their own. A copy
    is of the copied branch."""

    def __init__(self, method: Callable[..., Any], branch: Any, *, backend: str, always: bool) -> None:
        self._method, self._branch, self._backend, self._always = method, branch, backend, always
        self._compiled: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """What the method gives."""
        if not self._always and not torch.is_grad_enabled():
            return self._method(self._branch, *args)
        if self._compiled is None:
            self._compiled = torch.compile(MethodType(self._method, self._branch), dynamic=True, backend=self._backend)
        return self._compiled(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_compiled": None}


def check_compiler(device: torch.device, *, where: str) -> None:
    """Refuse to compile where that does not work: it needs a C++ compiler, on CUDA Triton too. Only trying tells."""
    x = torch.ones(2, 3, device=device, requires_grad=True)
    try:
        torch.compile(_tried, dynamic=True, backend=BACKEND)(x).sum().backward()
    except (RuntimeError, OSError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        do = "install a C++ compiler (Debian: g++), on CUDA Triton too, or do without"
        raise UserError(f"torch.compile does not work here: {lines[0][:200]}", where=where, do=do) from error


def _tried(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")
