"""One text as it grows token by token: where it stops, and how much of it is settled and can be shown.

Text is not settled where a later token may change it: half a character, or what may be the beginning of a stop text.
It is settled block by block whether or not anyone looks, so that pieces joined are the whole text for every tokenizer,
even one that would spell earlier tokens in another way once it has seen later ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Literal

from colatent_text.tokenizers import Tokenizer

Stopped = Literal["end", "stop", "budget"]
HALF = 3
"""Replacement characters at the end of a text that may still become one: a character has at most four bytes."""


class Continuation:
    """Tokens and text of one item.

    tokens   what was generated, without the prompt and what follows the end
    text     the same as text
    stopped  None while it goes on; "end": by its end symbol or a block of padding; "stop": before a stop text or
             token; "budget": by its number of tokens
    """

    def __init__(
        self, tokenizer: Tokenizer, *, budget: int | None, stop: Sequence[str | int] = (), keep_padding: bool = False
    ) -> None:
        self.tokenizer, self.budget, self.keep_padding = tokenizer, budget, keep_padding
        self.stop_texts = tuple(one for one in stop if isinstance(one, str))
        self.stop_tokens = frozenset(one for one in stop if isinstance(one, int))
        self.tokens: list[int] = []
        self.text = ""
        self.stopped: Stopped | None = "budget" if budget == 0 else None
        self._settled = self._told = (0, 0)  # tokens and characters

    def extend(self, tokens: Iterable[int]) -> None:
        """Append a block's tokens up to where the text stops. A block of nothing but padding is the end as well: no
        text goes on after one, and a decoder that writes nothing else would never use up a budget."""
        if self.stopped:
            return
        before, tokens = len(self.tokens), list(tokens)
        for token in tokens:
            self._append(token)
            if self.stopped:
                break
        if tokens and not self.stopped and len(self.tokens) == before:
            self.stopped = "end"
        self.text = self._read()
        cut = self._stop_text()
        if cut is not None:
            self.stopped, self.text = "stop", self.text[: max(cut, self._settled[1])]
            del self.tokens[self._tokens_within(self.text) :]
        self._settle()

    def news(self, *, final: bool = False) -> tuple[list[int], str]:
        """Tokens and text that were settled since the last call; with `final` all that is left."""
        tokens, chars = self._told
        self._told = (len(self.tokens), len(self.text)) if final else self._settled
        return self.tokens[tokens : self._told[0]], self.text[chars : self._told[1]]

    def with_more(self, tokens: Iterable[int]) -> str:
        """The text if these tokens came next."""
        trial = copy.copy(self)
        trial.tokens = list(self.tokens)
        trial.extend(tokens)
        return trial.text

    def _append(self, token: int) -> None:
        if token == self.tokenizer.end_id:
            self.stopped = "end"
        elif token in self.stop_tokens:
            self.stopped = "stop"
        elif token != self.tokenizer.pad_id or self.keep_padding:
            self.tokens.append(token)
            if self.budget is not None and len(self.tokens) >= self.budget:
                self.stopped = "budget"

    def _read(self) -> str:
        """All tokens as text, which begins with what is settled."""
        tokens, chars = self._settled
        settled, text = self.text[:chars], self.tokenizer.decode(self.tokens)
        return text if text.startswith(settled) else settled + self.tokenizer.decode(self.tokens[tokens:])

    def _stop_text(self) -> int | None:
        """Where the stop text begins that is complete first, so that it does not matter where blocks end."""
        starts = ((self.text.find(one), one) for one in self.stop_texts)
        found = [(start + len(one), start) for start, one in starts if start >= 0]
        return min(found)[1] if found else None

    def _settle(self) -> None:
        if self.stopped:
            self._settled = len(self.tokens), len(self.text)
            return
        half = min(HALF, len(self.text) - len(self.text.rstrip("\ufffd")))
        safe = self.text[: len(self.text) - half]
        safe = safe[: len(safe) - self._begun_stop(safe)]
        self._settled = self._tokens_within(safe), max(len(safe), self._settled[1])

    def _begun_stop(self, text: str) -> int:
        """Characters at the end of a text that begin a stop text."""
        return max(
            (size for one in self.stop_texts for size in range(1, len(one)) if text.endswith(one[:size])), default=0
        )

    def _tokens_within(self, text: str) -> int:
        """How many of the tokens spell no more than this beginning of the text."""
        for count in range(len(self.tokens), self._settled[0], -1):
            if text.startswith(self.tokenizer.decode(self.tokens[:count])):
                return count
        return self._settled[0]
