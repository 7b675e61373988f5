"""JSON, without what Python's own module adds to it on the way out, and lets through on the way in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def parse_json(data: bytes | str, *, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What JSON says; `ValueError` where it is none, or is nested deeper than anything of ours ever is."""
    try:
        return json.loads(data, object_hook=object_hook)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON, with null for the numbers that JSON does not have."""
    return json.dumps(_with_nulls(value), indent=indent, ensure_ascii=False, allow_nan=False)


def _with_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_nulls(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
