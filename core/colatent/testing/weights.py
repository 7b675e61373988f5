"""Checks of a codec as a module: its scale, what is saved of it, where it can go, and in which precision it runs.

Axes: C channels, N latents of a batch.
"""

from __future__ import annotations

import math
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colatent.checkpoint.tensors import read_safetensors, safetensors_chunks
from colatent.latents.posterior import SCALE_RANGE, overall_std
from colatent.plugins.contract import TrainableCodec
from colatent.plugins.loader import describe
from colatent.testing.requiring import (
    BrokenContractError,
    SkippedError,
    close,
    like_record,
    means,
    require,
    same,
    same_record,
)
from colatent.testing.running import check
from colatent.testing.subject import Subject, drawn

MEASURED = 16
"""Example items from which a scale is measured."""
ELSEWHERE = re.compile(r"expected device|same device|found at least two devices")
"""How torch says that a tensor was left behind on another device."""


@check()
def scale(subject: Subject) -> None:
    """`set_scale` is folded into `encode` and undone by `decode`; measured statistics give latents of unit scale."""
    codec, channels = subject.copy(), subject.spec.channels
    mean_C, std_C = torch.full((channels,), 0.5), torch.full((channels,), 2.0)
    codec.set_scale(mean_C, std_C)
    scaled = codec.encode(subject.items)
    for before, after in zip(subject.encoded, scaled, strict=True):
        close("mean_LC", after.mean_LC, (before.mean_LC - mean_C) / std_C, otherwise="is not as set_scale says")
        if before.logvar_LC is not None:
            expected_LC = before.logvar_LC - 2 * math.log(2.0)
            close("logvar_LC", after.logvar_LC, expected_LC, otherwise="is not as set_scale says")
    again = codec.decode(means(scaled))
    require(same(again, subject.codec.decode(subject.latents())), "decode does not undo the scale")
    codec = subject.copy()
    codec.set_scale(*_statistics(codec))
    low, high = SCALE_RANGE
    std = overall_std(_statistics(codec)[1].tolist())
    require(low <= std <= high, f"std {std:.3g} after set_scale with measured statistics, allowed {low} to {high}")


@check()
def state_dict(subject: Subject) -> None:
    """All that a codec does follows from its settings, its assets and a state dict of tensors, the scale included."""
    codec = subject.copy()
    codec.set_scale(torch.full((subject.spec.channels,), 0.5), torch.full((subject.spec.channels,), 2.0))
    state = codec.state_dict()
    for name, value in state.items():
        require(isinstance(value, Tensor), f"state_dict()[{name!r}] is a {type(value).__name__}, not a tensor")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codec.safetensors"
        path.write_bytes(b"".join(safetensors_chunks(state)))
        torch.manual_seed(1)  # what is drawn when a codec is built must be in the state dict
        again = subject.build()
        again.load_state_dict(read_safetensors(path))
    records = codec.encode(subject.items)
    for one, other in zip(records, again.encode(subject.items), strict=True):
        same_record(other, one, "after saving and loading")
    items = [each.decode(means(records)) for each in (codec, again)]
    require(same(*items), "latents decode to another item after saving and loading")


@check()
def pickling(subject: Subject) -> None:
    """Settings and codec can be sent to another process, and do there what they did here."""
    config, codec = _pickled(subject.config), _pickled(subject.codec)
    require(config == subject.config, "the settings are others after pickling")
    for one, other in zip(subject.encoded, codec.encode(subject.items), strict=True):
        same_record(other, one, "after pickling")


@check()
def dtype(subject: Subject) -> None:
    """Under bfloat16 autocast, as in training, records are finite float32 and losses finite."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        records = subject.codec.encode(subject.items)
        losses = _losses(subject.codec, subject.items, means(records))
    for record in records:
        like_record(record, channels=subject.spec.channels, block=subject.spec.block)
    for name, loss in losses.items():
        require(bool(loss.isfinite()), f"loss {name!r} is not finite")


@check()
def device(subject: Subject) -> None:
    """A codec works where it was moved to, on items and latents that come from the CPU."""
    place = "cuda" if torch.cuda.is_available() else "meta"
    codec = subject.copy().to(place)
    with _on(place, "encode"):
        for record in codec.encode(subject.items):
            where = record.mean_LC.device.type
            require(where == place, f"encode gives latents on {where}, the codec was moved to {place}")
    with _on(place, "decode", reads=True):
        codec.decode(subject.latents())
    with _on(place, "losses"):
        _losses(codec, subject.items, subject.latents())


@contextmanager
def _on(place: str, what: str, *, reads: bool = False) -> Iterator[None]:
    """Tell tensors that were left behind from values that the meta device, where there is no GPU, does not have. What
    `reads` its result ends there, its network having run."""
    try:
        yield
    except RuntimeError as error:
        if place != "meta" or ELSEWHERE.search(str(error)):
            raise BrokenContractError(f"{what} on {place}: {describe(error)}") from error
        if not (reads and isinstance(error, NotImplementedError)):
            raise SkippedError(f"{what} needs values, so it takes a GPU to judge ({describe(error)})") from error


def _losses(codec: Any, items: list[Any], latents: list[Any]) -> dict[str, Tensor]:
    """The losses of a codec that can be trained; none of another."""
    if not isinstance(codec, TrainableCodec):
        return {}
    return codec.losses(items, latents, generator=torch.Generator().manual_seed(0))


def _statistics(codec: Any) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of posterior samples of example items, as stage codec measures them."""
    records = codec.encode(codec.example_batch(MEASURED))
    held = [latents.z_LC[record.units_L > 0] for record, latents in zip(records, drawn(records), strict=True)]
    z_NC = torch.cat(held)
    return z_NC.mean(0), z_NC.std(0)


def _pickled(value: Any) -> Any:
    """What comes out of a pickle; the complaint of one that cannot be made names what stood in it."""
    try:
        return pickle.loads(pickle.dumps(value))
    except Exception as error:  # pickling asks any object inside
        raise BrokenContractError(f"a {type(value).__name__} cannot be pickled: {describe(error)}") from error
