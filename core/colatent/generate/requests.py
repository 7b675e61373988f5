"""What is asked of a model, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from colatent.errors import UserError
from colatent.flow.solvers import SOLVERS
from colatent.plugins.contract import Encoded, Item, PlanRequest


@dataclass(frozen=True)
class Given:
    """An item that is there already: `Given("image", picture)`.

    same_group  whether it and the one before it see each other (an instruction and its picture), as in the segments
                that the prior was trained on
    """

    stream: str
    item: Item
    same_group: bool = field(default=False, kw_only=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenLatents:
    """A `Given`, encoded."""

    stream: str
    latents: Encoded
    same_group: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to solve the flow."""

    steps: int
    solver: str
    guidance: float


def check_settings(settings: Settings, *, n: int, units: int | None, batch: int, seed: int) -> None:
    """Refuse what cannot be solved or counted."""
    if settings.solver not in SOLVERS:
        raise UserError(f"unknown solver {settings.solver!r}", do=f"use one of {', '.join(SOLVERS)}")
    for name, value, least in (("steps", settings.steps, 1), ("n", n, 1), ("batch", batch, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise UserError(f"is {value!r}, it must be a whole number of at least {least}", where=name)
    if not 0 <= settings.guidance < math.inf:
        raise UserError(f"is {settings.guidance}, it must be a number that is not negative", where="guidance")
    if units is not None and (not isinstance(units, int) or units < 0):
        raise UserError(f"is {units!r}, it must be a whole number that is not negative", where="max_new_tokens")


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One item to generate.

    target   stream of the item
    given    whole items before it, in order
    own      the item's own beginning, which may end inside a block; None where it starts from nothing
    names    seed and number of the sample, and what else its noise hangs on
    max_units  budget in the target's data units
    options  what the user asked of this modality
    """

    target: str
    given: tuple[GivenLatents, ...] = ()
    own: Encoded | None = None
    names: tuple[int | str, ...] = (0,)
    max_units: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def plan_request(self) -> PlanRequest:
        """What the target's codec plans from."""
        return PlanRequest(given=self.own, max_units=self.max_units, options=self.options)


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """One generated item: the item, facts of its codec about it (token ids, ...), and its latents (L, C)."""

    item: Item
    details: Mapping[str, Any]
    latents_LC: Tensor
