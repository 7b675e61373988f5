"""Versions of what wrote a checkpoint."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

NAMED = ("colatent", "torch", "numpy", "safetensors", "tokenizers")


def versions() -> dict[str, str]:
    """Version of each package that matters, as installed."""
    found = {"python": platform.python_version()}
    for name in NAMED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
