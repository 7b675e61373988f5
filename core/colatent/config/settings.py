"""What settings are made of: the base of all models, and values of which a type alone says too little.

The base refuses unknown keys, so that a misspelt one never passes for a default. A codec's, a dataset's and a task's
settings, which live in their plugins, have the same base.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(ge=0.0, lt=1.0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _in_order(interval: tuple[float, float]) -> tuple[float, float]:
    if interval[0] > interval[1]:
        raise ValueError("the smaller of the two must stand first")
    return interval


Interval = Annotated[tuple[Fraction, Fraction], AfterValidator(_in_order)]


def _of_form(pattern: str, form: str) -> AfterValidator:
    """Text of a pattern, for which a refusal has words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError("text_form", "Input should be {form}", {"form": form})
        return text

    return AfterValidator(check)


RunName = Annotated[
    str, _of_form(r"\w[\w.-]*", "letters, digits, '_', '.' and '-', beginning with a letter, a digit or '_'")
]
Project = Annotated[str, _of_form(r"[^/]+(/[^/]+)?", "PROJECT or ENTITY/PROJECT")]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
