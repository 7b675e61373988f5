"""log p(tokens | latents) of the text codec against a loop over tokens: ends count, padding does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from colatent.plugins.contract import Latents, Scorable, Spelled
from colatent_text.codec import TextCodec
from colatent_text.config import TextConfig
from colatent_text.items import Text
from colatent_text.tokens import token_ids

ITEMS = ("abcdefg", Text(text="abcdefgh", ends=False), "", Text(text="xyz", ends=False))


def codec(*, per: int = 1, **settings: Any) -> TextCodec:
    torch.manual_seed(0)
    config = TextConfig(width=16, heads=2, channels=4, block=2, window=4, tokens_per_latent=per, **settings)
    return TextCodec(config, {}).eval()


def latents(made: TextCodec) -> list[Latents]:
    generator = torch.Generator().manual_seed(1)
    records = made.encode(list(ITEMS))
    return [record.sample(torch.randn(record.mean_LC.shape, generator=generator)) for record in records]


@torch.no_grad()
@pytest.mark.parametrize("per", [1, 3])
def test_tokens_are_scored_one_by_one(per: int) -> None:
    made = codec(per=per)
    drawn = latents(made)
    found = made.log_likelihood(ITEMS, drawn)
    for item, record, found_K in zip(ITEMS, drawn, found, strict=True):
        ids_LP, logits_LPV = made.token_rows(item).ids_LP, made.logits([record.z_LC])
        truth = torch.zeros(len(record.block_lengths))
        counted = []
        for latent, (ids, logits) in enumerate(zip(ids_LP, logits_LPV, strict=True)):
            for token, row in zip(ids.tolist(), logits, strict=True):
                if token != made.tokenizer.pad_id:
                    truth[latent // 2] += torch.log(torch.softmax(row, 0)[token])
                    counted.append(token)
        assert counted == token_ids(item, made.tokenizer)
        torch.testing.assert_close(found_K, truth)
        assert float(found_K.max()) < 0


@torch.no_grad()
def test_the_end_symbol_is_paid_for() -> None:
    made = codec()
    with_end, without = Text(text="abc"), Text(text="abc", ends=False)
    record = made.encode([with_end])[0].sample(None)
    ended, open_ended = made.log_likelihood([with_end, without], [record, record])
    assert float(ended[-1]) < float(open_ended[-1])
    torch.testing.assert_close(ended[0], open_ended[0])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["block_causal", "causal", "full"])
def test_a_block_is_decoded_without_looking_ahead(attention: str) -> None:
    """Also where training's decoder sees both ways: a text is made block by block."""
    made = codec(attention=attention)
    record = made.encode(["abcdefg"])[0].sample(None)
    moved = record.z_LC.clone()
    moved[4:6] += 1.0
    other = Latents(z_LC=moved, block_lengths=record.block_lengths, positions_LA=record.positions_LA)
    before, after = made.log_likelihood(["abcdefg"] * 2, [record, other])
    torch.testing.assert_close(before[:2], after[:2])
    assert not torch.allclose(before[2:], after[2:])


def test_a_spelled_item_ends() -> None:
    made = codec()
    assert isinstance(made, Scorable)
    assert isinstance(made, Spelled)
    assert token_ids(made.spelled("ab"), made.tokenizer) == [97, 98, made.tokenizer.end_id]
