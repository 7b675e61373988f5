"""What the text plugin calls an item: a piece of text, or its token ids, and whether it ends there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index

from colatent.errors import UserError
from colatent_text.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Text:
    """A piece of text. A bare `str` stands for `Text(text=..., ends=True)`.

    text  the characters; None where only token ids are known (after a cut between tokens)
    ids   token ids without an end symbol; None where the text is not yet tokenised
    ends  whether the item ends here (an end symbol follows) or goes on (a window, a prompt)
    """

    text: str | None = None
    ids: tuple[int, ...] | None = None
    ends: bool = True

    def __post_init__(self) -> None:
        assert self.text is not None or self.ids is not None


def decoded(data: bytes, *, name: str) -> str:
    """The text of a file as it is, line ends included, without a byte order mark."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        what = f"not UTF-8 (byte 0x{error.object[error.start]:02x} at offset {error.start})"
        raise UserError(what, where=name, do="convert the file to UTF-8") from error


def checked_ids(ids: Sequence[int], tokenizer: Tokenizer, *, padding: bool) -> list[int]:
    """Token ids of a prompt, if all of them are tokens that a text can have; `padding`: whether that is one of them."""
    return [_checked(place, token, tokenizer, padding=padding) for place, token in enumerate(ids)]


def _checked(place: int, token: object, tokenizer: Tokenizer, *, padding: bool) -> int:
    where, do = f"prompt, token {place}", f"give ids from 0 to {tokenizer.vocab_size - 1}"
    try:
        number = index(token)  # type: ignore[arg-type]  # of whatever counts: NumPy's and torch's whole numbers too
    except TypeError:
        raise UserError(f"is {token!r}, not a whole number", where=where, do=do) from None
    if not 0 <= number < tokenizer.vocab_size:
        raise UserError(f"{number} is not in the vocabulary", where=where, do=do)
    if number == tokenizer.mask_id or (number == tokenizer.pad_id and not padding):
        raise UserError(f"{number} is the mask or the padding, which no text has", where=where, do="leave it out")
    return number
