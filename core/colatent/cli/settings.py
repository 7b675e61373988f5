"""The settings of a pydantic model as a reader of the command line wants them: name, type, default, meaning.

The meaning is the string under a field, as everywhere in this project; pydantic keeps it only where the model asks for
`use_attribute_docstrings`, so it is read from the source here.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any


def describe_settings(model: type[Any], *, prefix: str = "") -> list[dict[str, str]]:
    """One entry per field of `model`, nested models by dotted names."""
    docs = field_docs(model)
    settings = []
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and hasattr(nested, "model_fields"):
            settings += describe_settings(nested, prefix=f"{prefix}{name}.")
            continue
        settings.append(
            {
                "name": f"{prefix}{name}",
                "type": _type_name(nested),
                "default": "(required)" if field.is_required() else repr(field.get_default(call_default_factory=True)),
                "doc": " ".join((field.description or docs.get(name, "")).split()),
            }
        )
    return settings


def field_docs(model: type[Any]) -> dict[str, str]:
    """The string that stands under each annotated attribute, the class's own before its bases'."""
    docs: dict[str, str] = {}
    for owner in model.__mro__:
        for name, doc in _own_docs(owner).items():
            docs.setdefault(name, doc)
    return docs


def _own_docs(owner: type[Any]) -> dict[str, str]:
    if "model_fields" not in dir(owner) or owner.__module__.startswith("pydantic"):
        return {}
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    except (OSError, TypeError, SyntaxError):  # no source: a frozen or generated module
        return {}
    docs = {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for field, below in pairwise(statements):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            docs[field.target.id] = below.value.value
    return docs


def _type_name(annotation: Any) -> str:
    name = annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else None
    return name or str(annotation).replace("typing.", "")
