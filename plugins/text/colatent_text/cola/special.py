"""The tokenizer of a published folder, in and out: its file or token ids, and what ends a text and what pads.

The published layout says neither: a reader goes by the names of two tokens. So an export gives those names to a
tokenizer that has none, and an import takes other names, or plain ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colatent.config.checks import validate
from colatent.errors import UserError
from colatent_text.cola.files import TOKENIZER
from colatent_text.config import TextConfig
from colatent_text.ids import is_id
from colatent_text.tokenizers import ASSET, TokenizerConfig, build_tokenizer, token_names

END, PAD = "<|endoftext|>", "<|pad|>"
"""Tokens of the published tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Special:
    """What ends a text and what pads: tokens of the tokenizer, or ids where there is none. None: the defaults."""

    end: str | None = None
    pad: str | None = None


DEFAULT = Special()


def read_tokenizer(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        do = "copy it again, or take it away: prompts are then token ids"
        raise UserError(f"cannot be read: {error.strerror}", where=str(path), do=do) from error


def tokenizer_settings(assets: Mapping[str, bytes], special: Special, *, size: int, path: Path) -> dict[str, Any]:
    """Settings of the tokenizer: the file's, or ids where there is none."""
    if not assets:
        for name, value in (("--end", special.end), ("--pad", special.pad)):
            if value is not None and not is_id(value, size):
                what = f"is {value[:40]!r}, but there is no {TOKENIZER} that knows it"
                raise UserError(what, where=name, do=f"give a token id below {size}")
        end_id = None if special.end is None else int(special.end)
        if end_id == int(special.pad or 0):
            raise UserError(f"is {end_id}, which also ends a text", where="--pad", do="give two different ids")
        values = {"kind": "ids", "size": size, "end_id": end_id, "pad_id": int(special.pad or 0)}
        return validate(TokenizerConfig, values, where="tokenizer").model_dump(mode="json")
    known = token_names(assets[ASSET])
    end = (END if END in known else None) if special.end is None else special.end
    pad = (PAD if PAD in known else None) if special.pad is None else special.pad
    if pad is None:
        raise UserError(f"has no token {PAD!r}", where=str(path), do="name the token or id that pads: --pad TOKEN")
    if end == pad:
        raise UserError(f"is {pad!r}, which also ends a text", where="--pad", do="give two different tokens")
    # The path is kept for the record: the file itself becomes part of the checkpoint.
    values = {"kind": "file", "path": TOKENIZER, "end": end, "pad": pad, "size": size}
    return validate(TokenizerConfig, values, where="tokenizer").model_dump(mode="json")


def named_tokenizer(config: TextConfig, assets: Mapping[str, bytes]) -> dict[str, bytes]:
    """The tokenizer's file as a published folder has it, if there is one: end and padding that are ids beyond its own
    vocabulary get their published names."""
    if ASSET not in assets:
        return {}
    tokenizer, known = build_tokenizer(config.tokenizer, assets), token_names(assets[ASSET])
    document = json.loads(assets[ASSET])
    for role, name, number in (("end", END, tokenizer.end_id), ("pad", PAD, tokenizer.pad_id)):
        if number is None or number in known.values():
            continue
        if name in known:
            what = f"its id that {role}s a text is {number}, but its tokenizer calls {known[name]} {name!r}"
            raise UserError(what, where="tokenizer", do="such a model cannot be exported")
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        document["added_tokens"] = [
            *(document.get("added_tokens") or []),
            {"id": number, "content": name, **plain, "special": True},
        ]
    if len(document.get("added_tokens") or []) == len(json.loads(assets[ASSET]).get("added_tokens") or []):
        return {TOKENIZER: assets[ASSET]}
    return {TOKENIZER: json.dumps(document, ensure_ascii=False).encode()}
