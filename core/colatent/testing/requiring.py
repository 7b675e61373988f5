"""How a check says that a contract does not hold, and by what it compares: items of any modality, tensors, records.

Axes: L latents of one item, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from colatent.plugins.latents import Encoded, Latents

TOLERANCE = 1e-5
"""Largest difference between two encodings of one item (float32, unit scale)."""


class BrokenContractError(Exception):
    """A check found something that the contract does not allow."""


class SkippedError(Exception):
    """A check does not apply here, or cannot be judged."""


def require(holds: bool, otherwise: str) -> None:
    """Raise unless the contract holds."""
    if not holds:
        raise BrokenContractError(otherwise)


def check_closed(model: type[Any]) -> None:
    """A pydantic model is frozen and refuses unknown keys."""
    require(model.model_config.get("extra") == "forbid", "unknown keys are accepted (model_config extra='forbid')")
    require(bool(model.model_config.get("frozen")), "settings can be changed (model_config frozen=True)")


def is_array(item: Any) -> bool:
    """Whether an item is a tensor or converts to an array."""
    return isinstance(item, Tensor) or hasattr(item, "__array__")


def same(one: Any, other: Any, *, within: float = 1e-4) -> bool:
    """Whether two items of any modality are equal, arrays up to `within` (by default float32 rounding)."""
    if is_array(one) and is_array(other):
        a, b = torch.as_tensor(one), torch.as_tensor(other)
        return a.shape == b.shape and bool(torch.allclose(a.double(), b.double(), atol=within))
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # a sample may be one that makes its items when asked
        return one.keys() == other.keys() and all(same(one[key], other[key], within=within) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b, within=within) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def close(what: str, found: Tensor, expected: Tensor, *, otherwise: str) -> None:
    """Raise unless two tensors agree up to float32 rounding."""
    agree = found.shape == expected.shape and torch.allclose(found, expected, atol=1e-4, rtol=1e-4)
    require(agree, f"{what} {otherwise}")


def tensor_like(name: str, tensor: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Raise unless `tensor` is a finite tensor of that shape and type."""
    require(isinstance(tensor, Tensor), f"{name} is no tensor")
    require(tuple(tensor.shape) == shape, f"{name} has shape {tuple(tensor.shape)}, not {shape}")
    require(tensor.dtype == dtype, f"{name} is {tensor.dtype}, not {dtype}")
    require(bool(tensor.isfinite().all()), f"{name} is not finite")


def like_record(record: Any, *, channels: int, block: int | None, empty: bool = False) -> None:
    """Raise unless `record` is a posterior over whole blocks of latents; `empty`: there may be none."""
    require(isinstance(record, Encoded), f"gives {type(record).__name__}, not Encoded")
    length = len(record.mean_LC)
    require(length > 0 or empty, "an example item has no latents")
    tensor_like("mean_LC", record.mean_LC, (length, channels), torch.float32)
    if record.logvar_LC is not None:
        tensor_like("logvar_LC", record.logvar_LC, (length, channels), torch.float32)
    lengths = record.block_lengths
    whole = isinstance(lengths, tuple) and all(type(each) is int and each > 0 for each in lengths)
    require(whole, f"block_lengths is {lengths!r}, not a tuple of positive integers")
    fits = block is None or set(lengths) <= {block}
    require(fits, f"blocks of {sorted(set(lengths))}, latent_spec() says {block}")


def same_record(one: Encoded, other: Encoded, otherwise: str) -> None:
    """Raise unless two encodings of one item are the same; `otherwise` says of which."""
    require(one.block_lengths == other.block_lengths, f"an item has other blocks {otherwise}")
    require(torch.equal(one.positions_LA, other.positions_LA), f"an item has other positions {otherwise}")
    require(torch.equal(one.units_L, other.units_L), f"an item has other units {otherwise}")
    for name in ("mean_LC", "logvar_LC"):
        a, b = getattr(one, name), getattr(other, name)
        require((a is None) == (b is None), f"{name} is now there and now not")
        if a is not None and len(a):
            difference = float((a - b).abs().max())
            require(difference <= TOLERANCE, f"an item's {name} differs by {difference:.1e} {otherwise}")


def means(records: list[Encoded]) -> list[Latents]:
    """The posterior means of some records."""
    return [record.sample(None) for record in records]
