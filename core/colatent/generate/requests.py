"""What is asked of a model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from colatent.plugins.contract import Encoded, Item, PlanRequest


@dataclass(frozen=True)
class Given:
    """An item that is there already: `Given("image", picture)`."""

    stream: str
    item: Item


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to solve the flow."""

    steps: int
    solver: str
    guidance: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One item to generate.

    target   stream of the item
    given    whole items before it, as (stream, latents)
    own      the item's own beginning, which may end inside a block; None where it starts from nothing
    names    seed and number of the sample, and what else its noise hangs on
    max_units  budget in the target's data units
    options  what the user asked of this modality
    """

    target: str
    given: tuple[tuple[str, Encoded], ...] = ()
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
