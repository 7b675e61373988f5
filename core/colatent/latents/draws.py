"""Randomness as a function, not a state.

Every draw names what it is for: (seed, purpose, epoch, sample key, block, ...). So it never depends on rank, worker or
place in the batch, resume is exact, and a sample is the same whatever its neighbours. NumPy's counter-based Philox is
used because opening a stream is cheap and because its normals come one after the other: the first rows of a longer
draw equal a shorter one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Name = str | int


def digest(*names: Name) -> int:
    """128 bits that depend on every name and on their order."""
    text = "\x1f".join(f"{type(name).__name__}:{name}" for name in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def generator(*names: Name) -> np.random.Generator:
    """The random stream of these names."""
    return np.random.Generator(np.random.Philox(key=digest(*names)))


def torch_seed(*names: Name) -> int:
    """A seed that torch takes, of these names."""
    return digest(*names) % 2**63


def torch_generator(*names: Name) -> torch.Generator:
    """The same for code that draws with torch (a codec's own losses)."""
    return torch.Generator().manual_seed(torch_seed(*names))


def normal(shape: Sequence[int], *names: Name) -> Tensor:
    """Standard normal float32 draw on the CPU."""
    return torch.from_numpy(generator(*names).standard_normal(tuple(shape), dtype=np.float32))
