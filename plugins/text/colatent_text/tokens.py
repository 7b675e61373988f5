"""From an item to its rows of tokens: which ids stand in which latent, and which of them are only padding.

Whether an id is padding is noted, never read off the id: published models pad with an id that can be a token too.

Axes: L latents of an item, P tokens per latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from colatent.errors import UserError
from colatent_text.config import TextConfig
from colatent_text.items import Text
from colatent_text.tokenizers import Tokenizer

TextItem = str | Text


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRows:
    """The tokens of one item, (L, P), and which of them are no padding."""

    ids_LP: Tensor
    real_LP: Tensor

    def __len__(self) -> int:
        return len(self.ids_LP)


def as_text(item: TextItem) -> Text:
    """The item, if it is one."""
    if not isinstance(item, str | Text):
        raise UserError(f"a text is a string, this is of type {type(item).__name__}", do="give a string")
    return Text(text=item) if isinstance(item, str) else item


def token_ids(item: TextItem, tokenizer: Tokenizer) -> list[int]:
    """Tokens of an item, with the end symbol where it ends."""
    item = as_text(item)
    ids = list(item.ids) if item.ids is not None else tokenizer.encode(item.text or "")
    return [*ids, tokenizer.end_id] if item.ends and tokenizer.end_id is not None else ids


def token_rows(item: TextItem, tokenizer: Tokenizer, config: TextConfig) -> TokenRows:
    """Tokens of an item, padded to whole latents (at its start, or where it ends) and to whole blocks at its end."""
    per, block, pad = config.tokens_per_latent, config.block, tokenizer.pad_id
    ids = token_ids(item, tokenizer)
    front = -len(ids) % per if config.alignment == "end" else 0
    back = -(len(ids) + front) % (per * block)
    real = [False] * front + [True] * len(ids) + [False] * back
    return TokenRows(
        ids_LP=torch.tensor([pad] * front + ids + [pad] * back, dtype=torch.int64).view(-1, per),
        real_LP=torch.tensor(real, dtype=torch.bool).view(-1, per),
    )


def cut_item(item: TextItem, length: int, tokenizer: Tokenizer, config: TextConfig) -> Text:
    """The first `length` latents of an item, as a text that goes on; one that is shorter stays whole. Kept as ids, so
    that an item is tokenised once a step."""
    rows = token_rows(item, tokenizer, config)
    ids = rows.ids_LP[:length][rows.real_LP[:length]].tolist()
    if ids and ids[-1] == tokenizer.end_id:
        return Text(ids=tuple(ids[:-1]), ends=True)
    return Text(ids=tuple(ids), ends=False)
