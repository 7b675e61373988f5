"""The device that a config or a command line names, and which one that is to each of several processes."""

from __future__ import annotations

import os

import torch

from colatent.errors import UserError
from colatent.prior.backends.choose import asked, typical


def pick_device(name: str) -> torch.device:
    """The device of this name; `auto` is CUDA where there is one. Refused where the attention that is asked for cannot
    work on it, before anything is loaded."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"{name!r} cannot be used here", where="device", do=f"use {usable()}") from error
    asked(typical(device, gradient=False))
    return device


def own_device(name: str) -> torch.device:
    """The device of one of several processes: of several CUDA devices, the one that has its number on this machine."""
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"is {name}, the same for all processes", where="device", do=f"use {usable()}")
    if name == "cpu" or not torch.cuda.is_available():
        return pick_device(name)
    local, count = launched("LOCAL_RANK", 0), torch.cuda.device_count()
    if local >= count:
        what = f"there is no CUDA device {local} for this process, the machine has {count}"
        raise UserError(what, where="torchrun", do="start no more processes than devices, or set device=cpu")
    torch.cuda.set_device(local)  # from here on it is what "cuda" means
    return torch.device("cuda", local)


def usable() -> str:
    """The names that a device has here, in words."""
    return "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu"


def launched(name: str, default: int) -> int:
    """A number that a launcher sets."""
    text = os.environ.get(name)
    if text is None and name == "RANK" and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("is not set, and WORLD_SIZE is", where=name, do="start with torchrun, or unset WORLD_SIZE")
    try:
        return default if text is None else int(text)
    except ValueError:
        raise UserError(f"is {text!r}, not a number", where=name, do="start with torchrun, or unset it") from None
