"""The tokenizer of a model whose tokenizer is not known: its text is the token ids themselves, "104 227 2".

A published model can come without its `tokenizer.json`. It still runs, prompts and all: whoever has the tokenizer
elsewhere writes ids and reads ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from colatent.errors import UserError


def is_id(word: str, size: int) -> bool:
    """Whether a word spells a whole number below `size`."""
    return word.isascii() and word.isdigit() and len(word) <= len(str(size)) and int(word) < size


class IdTokenizer:
    """Ids as text, parted by spaces or commas. The mask is the last id, as everywhere."""

    def __init__(self, size: int, *, end_id: int | None = None, pad_id: int = 0) -> None:
        """`size`: ids that can be written, padding and end included; the mask comes on top."""
        for name, value in (("end_id", end_id), ("pad_id", pad_id)):
            if value is not None and value >= size:
                raise UserError(f"is {value}, the ids end at {size - 1}", where=f"tokenizer.{name}")
        self.end_id, self.pad_id, self.mask_id, self.vocab_size = end_id, pad_id, size, size + 1

    def encode(self, text: str) -> list[int]:
        ids = []
        for word in re.split(r"[\s,]+", text.strip().strip("[]")):
            if not word:
                continue
            if not is_id(word, self.mask_id):
                what = f"{word[:40]!r} is no token id: this model came without its tokenizer"
                raise UserError(what, where="text", do=f"write ids from 0 to {self.mask_id - 1}, such as '104 227 2'")
            ids.append(int(word))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f" {i}" for i in ids if i not in (self.end_id, self.pad_id, self.mask_id))

    def asset(self) -> tuple[str, bytes]:
        return "ids.json", b'{"kind": "ids"}\n'
