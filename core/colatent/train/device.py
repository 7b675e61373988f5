"""The device that a config or a command line names."""

from __future__ import annotations

import torch

from colatent.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{name!r} cannot be used here", where="device", do="use auto, cpu or cuda") from error
    return device
