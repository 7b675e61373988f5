"""What is asked of a model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from torch import Tensor

from colatent.config.sampling import SampleConfig
from colatent.errors import UserError
from colatent.flow.solvers import SOLVERS
from colatent.plugins.latents import Encoded, Item, PlanRequest

Value = TypeVar("Value")

UNCONDITIONAL = ("auto", "alone", "condition")
MOST_GUIDANCE, MOST_STEPS, MOST_SHIFT = 1e6, 100_000, 1000.0
"""Far beyond any use; what lies further is a slip of the hand that would cost memory or overflow."""


@dataclass(frozen=True)
class Given:
    """An item that is there already: `Given("image", picture)`.

    same_group  whether it and the one before it see each other (an instruction and its picture), as in the segments
                that the prior was trained on
    ends        False, for the last item of a list only: a string or token ids with which the item to be generated
                begins, so that it is continued
    """

    stream: str
    item: Item
    same_group: bool = field(default=False, kw_only=True)
    ends: bool = field(default=True, kw_only=True)


Prompt = str | Sequence[int] | Sequence[Given]
"""A string, token ids, or items that are given. An empty one: from nothing."""


class Ask(TypedDict, total=False):
    """What every way of generating takes; whatever is left out or None is as the run's config says.

    target          stream to generate; that of the prompt where not said
    max_new_tokens  budget in the target's data units; an item may end before
    steps, solver   how the flow is solved, see `colatent.flow.solvers`
    shift           how the steps are spread over t, see `SampleConfig`
    guidance        scale of classifier-free guidance, 1 is off
    guidance_interval  the least and the largest t at which there is guidance
    guidance_rescale   how far the spread that guidance adds is taken back, from 0 to 1
    unconditional   what guidance compares with: "alone", "condition" or "auto", see `SampleConfig`
    seed            sample i of a prompt is a function of (seed, i), the prompt and these settings; default 0
    options         of the target's codec, on top of those of the config (text: temperature, stop, ...)
    """

    target: str | None
    max_new_tokens: int | None
    steps: int | None
    solver: str | None
    shift: float | None
    guidance: float | None
    guidance_interval: tuple[float, float] | None
    guidance_rescale: float | None
    unconditional: str | None
    seed: int | None
    options: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class GivenLatents:
    """A `Given`, encoded."""

    stream: str
    latents: Encoded
    same_group: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to solve the flow, each as in `SampleConfig`; what has a default is published."""

    steps: int
    solver: str
    guidance: float
    shift: float = 1.0
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    guidance_rescale: float = 0.0
    unconditional: str = "auto"

    def guides_at(self, t: float) -> bool:
        """Whether there is guidance at this time."""
        low, high = self.guidance_interval
        return low <= t <= high

    def branch(self, request: Request) -> str | None:
        """The unconditional branch of a request: "alone", "condition", or None where there is nothing to guide."""
        if self.guidance == 1.0:
            return None
        if self.unconditional == "alone" or (self.unconditional == "auto" and not request.given):
            return "alone"
        return "condition" if request.given else None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An `Ask` that was checked, with nothing left open."""

    target: str | None
    units: int
    seed: int
    settings: Settings
    options: Mapping[str, Any]


def settle(sample: SampleConfig, ask: Ask) -> Asked:
    """Fill in what is left open, and refuse what cannot be solved or counted."""
    unknown = ", ".join(ask.keys() - Ask.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown keyword {unknown}; known: n, batch, progress, {', '.join(Ask.__annotations__)}")
    asked = Asked(
        target=ask.get("target"),
        units=_said(ask.get("max_new_tokens"), sample.max_units),
        seed=_said(ask.get("seed"), 0),
        settings=Settings(
            steps=_said(ask.get("steps"), sample.steps),
            solver=_said(ask.get("solver"), sample.solver),
            shift=_said(ask.get("shift"), sample.shift),
            guidance=_said(ask.get("guidance"), sample.guidance),
            guidance_interval=_said(ask.get("guidance_interval"), sample.guidance_interval),
            guidance_rescale=_said(ask.get("guidance_rescale"), sample.guidance_rescale),
            unconditional=_said(ask.get("unconditional"), sample.unconditional),
        ),
        options=_said(ask.get("options"), {}),
    )
    _check(asked)
    return asked


def _said(value: Value | None, default: Value) -> Value:
    return default if value is None else value


def _check(asked: Asked) -> None:
    settings = asked.settings
    if settings.solver not in SOLVERS:
        raise UserError(f"unknown solver {settings.solver!r}", do=f"use one of {', '.join(SOLVERS)}")
    if settings.unconditional not in UNCONDITIONAL:
        raise UserError(f"unknown branch {settings.unconditional!r}", do=f"use one of {', '.join(UNCONDITIONAL)}")
    check_counts(steps=(settings.steps, 1), seed=(asked.seed, 0))
    if settings.steps > MOST_STEPS:
        raise UserError(f"is {settings.steps}, it must be at most {MOST_STEPS}", where="steps")
    if not 1 / MOST_SHIFT <= settings.shift <= MOST_SHIFT:
        raise UserError(f"is {settings.shift}, it must be from {1 / MOST_SHIFT:g} to {MOST_SHIFT:g}", where="shift")
    _check_guidance(settings)
    if not isinstance(asked.units, int) or asked.units < 0:
        raise UserError(f"is {asked.units!r}, it must be a whole number that is not negative", where="max_new_tokens")
    if not isinstance(asked.options, Mapping):
        raise UserError(f"is {asked.options!r}, it must be a mapping of names to values", where="options")


def _check_guidance(settings: Settings) -> None:
    if not 0 <= settings.guidance <= MOST_GUIDANCE:
        raise UserError(f"is {settings.guidance}, it must be from 0 to {MOST_GUIDANCE:g}", where="guidance")
    if not 0 <= settings.guidance_rescale <= 1:
        raise UserError(f"is {settings.guidance_rescale}, it must be from 0 to 1", where="guidance_rescale")
    low, high = settings.guidance_interval
    if not 0 <= low <= high <= 1:
        what = f"is {low} to {high}, it must be two times between 0 and 1, the smaller first"
        raise UserError(what, where="guidance_interval")


def check_counts(**counts: tuple[int, int]) -> None:
    """Refuse what is no whole number of at least the second of each pair."""
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or value < least:
            raise UserError(f"is {value!r}, it must be a whole number of at least {least}", where=name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One item to generate.

    target   stream of the item
    given    whole items before it, in order
    own      the item's own beginning, which may end inside a block; None where it starts from nothing
    names    seed and number of the sample, and what else its noise hangs on
    max_units  budget in the target's data units
    options  of the target's codec, checked and filled in
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """What a block added to an item that is being generated.

    block    number of the block, from 0
    item     to be appended to the pieces before (text: a string, which may be empty); None where the item comes whole
             at its end and that is not reached yet
    details  facts of the codec about this piece (text: its tokens, and why the text stopped if it did)
    last     whether this is the end
    """

    block: int
    item: Item | None
    details: Mapping[str, Any]
    last: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A block on its way from noise to latents, before one of the solver's steps.

    block, step  their numbers, from 0
    t            1 noise, 0 clean
    z_KC         the latents at t
    clean_KC     what the model expects them to be at t = 0: z - t * v with its (guided) velocity v
    item         the item so far if these were the block, decoded; None where that was not asked for
    """

    block: int
    step: int
    t: float
    z_KC: Tensor
    clean_KC: Tensor
    item: Item | None
