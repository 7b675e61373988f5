"""Prompts far longer than any window: only their end is encoded, cut where a block of the whole would begin."""

from __future__ import annotations

from colatent_text.codec import PROMPT_WINDOWS, TextCodec
from colatent_text.config import TextConfig


def codec(*, tokens_per_latent: int) -> TextCodec:
    config = TextConfig(width=16, heads=2, channels=4, block=4, window=8, tokens_per_latent=tokens_per_latent)
    return TextCodec(config, {})


def test_a_very_long_prompt_keeps_its_end_and_its_blocks() -> None:
    for per in (1, 2):
        made, size = codec(tokens_per_latent=per), 4 * per
        kept = PROMPT_WINDOWS * 8 * per
        for length in (kept - 1, kept, kept + 1, 3 * kept + 5):
            text = "".join(chr(97 + at % 26) for at in range(length))
            ids = made.prompt(text).ids
            assert ids is not None
            assert kept <= len(ids) < kept + size or len(ids) == length
            assert text.encode().endswith(bytes(ids))
            assert (length - len(ids)) % size == 0
            assert len(made.token_rows(made.prompt(text))) <= (PROMPT_WINDOWS * 8) + 4
