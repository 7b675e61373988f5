"""What is installed beside us, told from package metadata: nothing is imported to learn its version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

STACK = (
    "torch",
    "torchvision",
    "torchaudio",
    "xformers",
    "numpy",
    "pydantic",
    "pluggy",
    "click",
    "omegaconf",
    "webdataset",
    "safetensors",
    "tokenizers",
    "rich",
    "tensorboard",
    "matplotlib",
)
"""What `doctor` tells the versions of."""


def version_of(name: str) -> str:
    """A package's installed version, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def devices() -> list[str]:
    """What torch can compute on. Imports torch."""
    try:
        import torch
    except Exception as error:  # a broken installation is what a doctor is asked about
        return [f"torch does not import: {type(error).__name__}: {error}"]
    cuda = [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return [f"cpu ({torch.get_num_threads()} threads)", *cuda]


def attention() -> dict[str, dict[str, str]]:
    """By kind of device, the kernels that attention runs on and why others do not. Imports torch."""
    import torch

    from colatent.prior.backends.choose import describe

    return {kind: describe(torch.device(kind)) for kind in _kinds()}


def compiling() -> dict[str, str]:
    """By kind of device, what a stage's `compile` does there. Only trying tells, which takes seconds. Imports torch."""
    import torch

    from colatent.errors import UserError
    from colatent.prior.fused import check_compiler

    found = {}
    for kind in _kinds():
        found[kind] = "works; off unless a stage says compile: true, or generate --compile"
        try:
            check_compiler(torch.device(kind), where="")
        except UserError as error:
            found[kind] = str(error)
    return found


def replayed() -> dict[str, str]:
    """By kind of device, whether generation replays its passes as CUDA graphs. Imports torch."""
    import torch

    from colatent.errors import UserError
    from colatent.generate.replays import SETTING, replaying

    found = {}
    for kind in _kinds():
        try:
            found[kind] = f"on; {SETTING}=off for none" if replaying(torch.device(kind)) else "off"
        except UserError as error:
            found[kind] = str(error)
    return found


def packed() -> dict[str, str]:
    """By kind of device, whether generation in bf16 keeps its matrices packed. Imports torch."""
    import torch

    from colatent.prior.packed import packing

    return {kind: "in generation in bf16" if packing(torch.device(kind)) else "none" for kind in _kinds()}


def _kinds() -> list[str]:
    import torch

    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


HARDWARE: dict[str, Callable[[], dict[str, Any]]] = {
    "attention": attention,
    "compile": compiling,
    "graphs": replayed,
    "packed": packed,
}
"""What depends on the machine, by kind of device; asking imports torch."""
