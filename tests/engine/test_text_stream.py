"""The text codec's decode stream with its options, against logits of whole items and a slow reference in plain Python.

Weights are random, so that no token is a matter of course; blocks come from a random prior that is not there: they are
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent.plugins.contract import Encoded, Latents
from colatent_text.codec import TextCodec
from colatent_text.config import TextConfig
from colatent_text.decoding import DecodingOptions, choose
from colatent_text.items import Text

BLOCK, CHANNELS, MADE = 4, 3, 4
LENGTHS = (0, 3, 8, 6)


def random_codec(*, per: int = 1, window: int = 32, **settings: Any) -> TextCodec:
    small = {"width": 16, "heads": 2, "block": BLOCK, "window": window, "channels": CHANNELS, "tokens_per_latent": per}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = TextCodec(TextConfig(**(small | settings)), {})
        for name, parameter in codec.named_parameters():
            if parameter.ndim == 2 and "wte" not in name:
                torch.nn.init.normal_(parameter, std=1.2 / parameter.shape[1] ** 0.5)
    return codec.eval().requires_grad_(False)


def prompts(codec: TextCodec, lengths: Sequence[int]) -> list[Encoded | None]:
    texts = [Text(ids=tuple(range(97, 97 + length)), ends=False) for length in lengths]
    return [codec.encode([text])[0] if text.ids else None for text in texts]


def drawn_blocks(given: Sequence[Encoded | None], *, seed: int = 0) -> list[list[Latents]]:
    """`MADE` blocks for each item; the first holds the prompt's own partial block."""
    z = torch.randn(MADE, len(given), BLOCK, CHANNELS, generator=torch.Generator().manual_seed(seed))
    for item, record in enumerate(given):
        count = 0 if record is None else int((record.units_L > 0).sum())
        if record is not None and count % BLOCK:
            z[0, item, : count % BLOCK] = record.mean_LC[count // BLOCK * BLOCK : count]
    return [[block_of(z_KC) for z_KC in made] for made in z]


def block_of(z_KC: Tensor) -> Latents:
    return Latents(z_LC=z_KC, block_lengths=(BLOCK,), positions_LA=torch.arange(float(BLOCK))[:, None])


def run(codec: TextCodec, given: Sequence[Encoded | None], blocks: list[list[Latents]], **asked: Any) -> Any:
    stream = codec.open_stream(given, **asked)
    for made in blocks:
        stream.push(made)
    return stream


def whole_logits(codec: TextCodec, record: Encoded | None, blocks: Sequence[Latents]) -> tuple[list[Tensor], int]:
    """Logits (T, V) of each generated block, the item decoded whole; and the prompt's latents in the first one."""
    count = 0 if record is None else int((record.units_L > 0).sum())
    before = [] if record is None else [record.mean_LC[: count // BLOCK * BLOCK]]
    logits = codec.logits([torch.cat([*before, *(block.z_LC for block in blocks)])])[count // BLOCK * BLOCK :]
    return [rows.flatten(0, 1) for rows in logits.split(BLOCK)], count % BLOCK


def slow_tokens(
    blocks: Sequence[Tensor], *, trim: int, penalty: float, options: DecodingOptions, names: tuple[Any, ...], pad: int
) -> list[int]:
    """What is emitted, place by place, with the penalty in plain Python over what earlier blocks emitted."""
    found: list[int] = []
    earlier: set[int] = set()
    for number, logits_TV in enumerate(blocks):
        rows = logits_TV.tolist()
        for row in rows:
            for token in earlier:
                row[token] = row[token] / penalty if row[token] > 0 else row[token] * penalty
        changed = torch.tensor(rows)
        if options.temperature:
            uniform = generator(*names, "decode", "tokens", number).random(len(rows), dtype=np.float32)
            ids = choose(changed, options=options, uniform_T=torch.from_numpy(uniform)).tolist()
        else:
            ids = [max(range(len(row)), key=row.__getitem__) for row in rows]
        earlier |= set(ids)
        found += ids if number else ids[trim:]
    end = found.index(256) if 256 in found else len(found)
    return [token for token in found[:end] if token != pad]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("penalty", [1.0, 1.3, 4.0])
@pytest.mark.parametrize("per", [1, 2])
def test_tokens_are_those_of_the_reference(per: int, penalty: float, temperature: float) -> None:
    codec = random_codec(per=per)
    given = prompts(codec, LENGTHS)
    blocks = drawn_blocks(given)
    options = {"repetition_penalty": penalty, "temperature": temperature, "top_k": 50}
    names = [(7, number, "a prompt") for number in range(len(given))]
    stream = run(codec, given, blocks, options=options, names=names)
    for item, record in enumerate(given):
        logits, pinned = whole_logits(codec, record, [made[item] for made in blocks])
        truth = slow_tokens(
            logits,
            trim=pinned * per,
            penalty=penalty,
            options=DecodingOptions(**options),
            names=names[item],
            pad=codec.tokenizer.pad_id,
        )
        assert stream.details()[item]["tokens"] == truth


def test_the_penalty_is_felt_from_the_second_block_on_and_knows_the_prompt_only_there() -> None:
    codec = random_codec()
    given = prompts(codec, (6,))
    blocks = drawn_blocks(given, seed=2)
    plain, changed = (
        run(codec, given, blocks, options={"repetition_penalty": penalty}).details()[0]["tokens"]
        for penalty in (1.0, 1e6)
    )
    assert changed[:2] == plain[:2]  # the rest of the first block
    first = whole_logits(codec, given[0], [made[0] for made in blocks])[0][0].argmax(-1).tolist()
    assert len(first) == BLOCK
    assert not set(first) & set(changed[2 : 2 + BLOCK])


def test_a_sampled_token_does_not_know_its_neighbours() -> None:
    codec = random_codec()
    given = prompts(codec, (3, 0, 6))
    blocks = drawn_blocks(given)
    options = {"temperature": 1.5, "repetition_penalty": 1.2}
    names = [(1, number, "p") for number in range(3)]
    together = run(codec, given, blocks, options=options, names=names).details()
    for item in range(3):
        mine = [[made[item]] for made in blocks]
        alone = run(codec, [given[item]], mine, options=options, names=[names[item]])
        assert alone.details() == [together[item]]
        other = run(codec, [given[item]], mine, options=options, names=[(2, item, "p")])
        assert other.details() != [together[item]]


@pytest.mark.parametrize("per", [1, 2, 3])
@pytest.mark.parametrize("tokens", [0, 1, 5, 7, 8, 9, 11, 12, 13])
def test_a_left_aligned_prompt_is_trimmed_by_its_own_tokens(tokens: int, per: int) -> None:
    """`units_L` as a codec with alignment "start" gives it: the last latent of a prompt may be part padding."""
    codec = random_codec(per=per, alignment="start")
    latents = -(-tokens // per)
    given = left_aligned(codec, tokens) if tokens else None
    blocks = drawn_blocks([given])
    whole = latents // BLOCK
    logits, _ = whole_logits(codec, given, [made[0] for made in blocks])
    emitted = torch.cat(logits).argmax(-1).tolist()
    own = max(0, tokens - whole * per * BLOCK)
    assert own == (0 if latents % BLOCK == 0 else tokens - whole * per * BLOCK)
    found = run(codec, [given], blocks).details()[0]["tokens"]
    kept = emitted[own:]
    assert found == (kept[: kept.index(256)] if 256 in kept else kept)


def left_aligned(codec: TextCodec, tokens: int) -> Encoded:
    per = codec.config.tokens_per_latent
    latents = -(-tokens // per)
    total = -(-latents // BLOCK) * BLOCK
    units = [min(per, max(0, tokens - number * per)) for number in range(total)]
    return Encoded(
        mean_LC=torch.randn(total, CHANNELS, generator=torch.Generator().manual_seed(tokens)),
        logvar_LC=None,
        block_lengths=(BLOCK,) * (total // BLOCK),
        positions_LA=torch.arange(float(total))[:, None],
        units_L=torch.tensor(units),
    )


@pytest.mark.parametrize("alignment", ["end", "start"])
def test_padding_is_kept_where_prompts_are_left_aligned(alignment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = random_codec(alignment=alignment)
    given: list[Encoded | None] = [None]
    blocks = drawn_blocks(given)
    plain = run(codec, given, blocks).details()[0]["tokens"]
    common = max(set(plain), key=plain.count)
    monkeypatch.setattr(codec, "tokenizer", SimpleNamespace(**facts(codec), pad_id=common, end_id=None))
    found = run(codec, given, blocks)
    kept = plain if alignment == "start" else [token for token in plain if token != common]
    assert found.details() == [{"tokens": kept, "stopped": None}]
    assert found.finished() == [False]  # a model without an end symbol


def facts(codec: TextCodec) -> dict[str, Any]:
    return {"vocab_size": codec.tokenizer.vocab_size, "decode": codec.tokenizer.decode}


def test_looking_ahead_changes_nothing_and_gives_what_comes() -> None:
    codec = random_codec()
    given = prompts(codec, (6, 0))
    blocks = drawn_blocks(given)
    watched, plain = codec.open_stream(given), codec.open_stream(given)
    for made, other in zip(blocks, drawn_blocks(given, seed=9), strict=True):
        watched.preview(other)
        expected = watched.preview(made)
        watched.push(made)
        plain.push(made)
        assert watched.items() == expected == plain.items()
        assert watched.details() == plain.details()


@pytest.mark.parametrize("window", [8, 32])
@pytest.mark.parametrize("max_units", [1, 5, 9, None])
def test_a_cache_of_what_is_needed_gives_the_same_bits(max_units: int | None, window: int) -> None:
    codec = random_codec(window=window)
    given = prompts(codec, (9, 0, 3))
    blocks = drawn_blocks(given)
    whole, fitted = codec.open_stream(given), codec.open_stream(given, max_units=max_units)
    for made in blocks:  # more blocks than the budget needs: then the cache grows
        assert torch.equal(whole._logits(made), fitted._logits(made))
        whole.push(made)
        fitted.push(made)
    first = codec.open_stream(given, max_units=max_units)
    first.push(blocks[0])
    keys = first.cache._keys[0]
    assert keys is not None
    needed = window if max_units is None else 8 + BLOCK * (1 + -(-max_units // BLOCK))
    assert keys.shape[1] == min(window, needed) + BLOCK


def test_a_stop_token_must_be_in_the_vocabulary() -> None:
    codec = random_codec()
    with pytest.raises(UserError, match=r"option stop: token 258 is not in the vocabulary \(0 to 257\)"):
        codec.open_stream([None], options={"stop": [257, 258]})


@pytest.mark.parametrize(
    ("ids", "line"),
    [
        ([5, 259], "prompt, token 1: 259 is not in the vocabulary; give ids from 0 to 258"),
        ([-1], "prompt, token 0: -1 is not in the vocabulary"),
        ([5, 1.0], "prompt, token 1: is 1.0, not a whole number"),
        (["5"], "prompt, token 0: is '5', not a whole number"),
        ([258], "prompt, token 0: 258 is the mask or the padding, which no text has; leave it out"),
        ([257], "prompt, token 0: 257 is the mask or the padding"),
    ],
)
def test_ids_that_no_text_has_are_told(ids: list[Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        random_codec().prompt(ids)
    assert str(caught.value).startswith(line)


def test_a_prompt_of_ids_is_that_of_their_text() -> None:
    codec = random_codec()
    assert codec.prompt([104, 105]) == codec.prompt("hi")
    assert codec.prompt(np.array([104, 105])) == codec.prompt("hi")
    assert random_codec(alignment="start").prompt([257]).ids == (257,)  # published prompts may hold it
