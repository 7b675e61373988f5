"""What the text plugin calls an item: a piece of text, or its token ids, and whether it ends there."""

from __future__ import annotations

from dataclasses import dataclass


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
