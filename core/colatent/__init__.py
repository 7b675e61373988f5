"""colatent: one block-causal prior over continuous latents, for any kind of data that a plugin can encode.

Importing this package imports nothing heavy; `load` and `Given` are fetched when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colatent.generate.model import load
    from colatent.generate.requests import Given

__version__ = "0.1.0"
__all__ = ["Given", "__version__", "load"]

_LAZY = {"load": "colatent.generate.model", "Given": "colatent.generate.requests"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'colatent' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
