"""Checks of a codec that can be trained: its losses, and whom their gradients reach."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from colatent.latents.posterior import entropy_term
from colatent.plugins.contract import TrainableCodec
from colatent.testing.requiring import SkippedError, require
from colatent.testing.running import check
from colatent.testing.subject import Subject, drawn

SHOWN = 5
"""Parameters that a message names at most."""


@check()
def losses(subject: Subject) -> None:
    """Losses are finite scalars, and `reconstruction_score` counts every unit of the items once."""
    codec = _trainable(subject)
    _check_losses(codec.losses(subject.items, subject.latents(), generator=torch.Generator().manual_seed(0)))
    right, total = codec.reconstruction_score(subject.items, subject.latents())
    units = sum(int(record.units_L.sum()) for record in subject.encoded)
    require(0 <= right <= total == units, f"the score is {right} of {total}, and the items have {units} units")


@check()
def gradients(subject: Subject) -> None:
    """Latents carry a gradient to the encoder, losses with the posterior's entropy reach every parameter that can be
    trained, and a frozen codec stays as it is."""
    codec = _trainable(subject, own=True)
    with torch.enable_grad():
        _step(codec, subject.items)
        missing = [name for name, parameter in codec.named_parameters() if _untouched(parameter)]
        require(not missing, f"no gradient reaches {', '.join(missing[:SHOWN])}")
        _check_finite(codec)
        codec.requires_grad_(False)
        (record, *_) = codec.encode(subject.items)
    waking = [name for name, parameter in codec.named_parameters() if parameter.requires_grad]
    require(not waking, f"encode makes {', '.join(waking[:SHOWN])} trainable again")
    require(not record.mean_LC.requires_grad, "latents of a frozen codec carry a gradient")


def _trainable(subject: Subject, *, own: bool = False) -> Any:
    if not isinstance(subject.codec, TrainableCodec):
        raise SkippedError("nothing here trains it (TrainableCodec)")
    return subject.copy() if own else subject.codec


def _step(codec: Any, items: list[Any]) -> None:
    """The backward pass of a training step."""
    before = {name: parameter.detach().clone() for name, parameter in codec.named_parameters()}
    records = codec.encode(items)
    require(all(record.mean_LC.requires_grad for record in records), "the latents' means carry no gradient")
    found = codec.losses(items, drawn(records), generator=torch.Generator().manual_seed(0))
    _check_losses(found)
    untied = [name for name, loss in found.items() if not loss.requires_grad]
    require(not untied, f"loss {', '.join(untied)} reaches no parameter")
    total, entropy = sum(found.values(), torch.zeros(())), entropy_term(records)
    (total if entropy is None or not entropy.requires_grad else total + entropy).backward()
    moved = [name for name, parameter in codec.named_parameters() if not torch.equal(parameter, before[name])]
    require(not moved, f"losses change {', '.join(moved[:SHOWN])} themselves")


def _check_losses(found: dict[str, Tensor]) -> None:
    require(bool(found), "there is no loss")
    for name, loss in found.items():
        whole = isinstance(loss, Tensor) and loss.ndim == 0 and bool(loss.isfinite())
        require(whole, f"loss {name!r} is not one finite number")


def _check_finite(codec: Any) -> None:
    bad = [name for name, each in codec.named_parameters() if each.grad is not None and not each.grad.isfinite().all()]
    require(not bad, f"the gradient of {', '.join(bad[:SHOWN])} is not finite")


def _untouched(parameter: Tensor) -> bool:
    return parameter.requires_grad and parameter.grad is None
