"""The text codec's network: cut items, streams and packing against whole items, one by one.

Weights are random (a codec that was trained for a second would hide a wrong mask behind its confidence); what is held
is that every fast path gives what the plain one gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from sampling import Eager
from torch import Tensor

from colatent.config.sampling import SampleConfig
from colatent.generate import running
from colatent.generate.model import Model
from colatent.generate.requests import Result
from colatent.plugins.contract import Encoded, Latents
from colatent_text.codec import TextCodec
from colatent_text.config import TextConfig
from colatent_text.items import Text
from colatent_text.tokens import token_ids

BLOCK = 4
MakeCodec = Callable[..., TextCodec]
SHAPES = [("block_causal", 1), ("block_causal", 2), ("causal", 1), ("causal", 2)]


@pytest.fixture
def make_codec() -> MakeCodec:
    """A small random codec with a scale of its own."""

    def make(attention: str = "block_causal", per: int = 1, **settings: object) -> TextCodec:
        small = {"width": 16, "heads": 2, "block": BLOCK, "window": 8, "channels": 3}
        config = TextConfig(**(small | {"attention": attention, "tokens_per_latent": per} | settings))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            codec = TextCodec(config, TextCodec.prepare(config, ["any text"]))
            for name, parameter in codec.named_parameters():
                if parameter.ndim == 2 and "wte" not in name:
                    torch.nn.init.normal_(parameter, std=1.2 / parameter.shape[1] ** 0.5)
        codec.set_scale(torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.5, 1.0, 1.5]))
        return codec.eval().requires_grad_(False)

    return make


def prompt(tokens: int, *, seed: int = 0) -> Text:
    """A text of so many tokens that goes on."""
    ids = torch.randint(97, 123, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Text(text=bytes(ids).decode(), ids=None, ends=False)


def latents_of(z_LC: Tensor) -> Latents:
    """Whole blocks of latents as a record."""
    blocks = (BLOCK,) * (len(z_LC) // BLOCK)
    return Latents(z_LC=z_LC, block_lengths=blocks, positions_LA=torch.arange(float(len(z_LC)))[:, None])


def close(found: Tensor, truth: Tensor) -> None:
    """Equal up to float32: the posterior's norm over few channels magnifies rounding."""
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("attention", "per"), SHAPES)
def test_encode_cut_is_encode_of_the_item_cut_there(make_codec, attention: str, per: int) -> None:
    codec = make_codec(attention, per)
    items = [prompt(19 * per), prompt(9 * per - 1, seed=1), "ends here", prompt(4 * per, seed=2)]
    records = codec.encode(items)
    for shift in range(BLOCK):
        cuts = [[(k + shift) % BLOCK for k in range(len(r.block_lengths))] for r in records]
        found = codec.encode_cut(items, cuts)
        for item, record, item_cuts, mean_LC in zip(items, records, cuts, found, strict=True):
            assert mean_LC.shape == record.mean_LC.shape
            for k, cut in enumerate(item_cuts):
                assert_cut_block(codec, item, record, k=k, cut=cut, mean_LC=mean_LC)


def assert_cut_block(codec: TextCodec, item: object, record: Encoded, *, k: int, cut: int, mean_LC: Tensor) -> None:
    start = k * BLOCK
    if not cut:
        close(mean_LC[start : start + BLOCK], record.mean_LC[start : start + BLOCK])
        return
    short = codec.cut([item], [start + cut])  # type: ignore[list-item]
    truth = codec.encode(short)[0].mean_LC
    close(mean_LC[start : start + cut], truth[start : start + cut])


@pytest.mark.parametrize("per", [1, 2])
def test_a_cut_changes_what_its_block_holds_where_the_block_is_seen_whole(make_codec, per: int) -> None:
    codec = make_codec("block_causal", per)
    item = prompt(8 * per)
    whole, cut = codec.encode([item])[0].mean_LC, codec.encode_cut([item], [[0, 2]])[0]
    close(cut[:4], whole[:4])
    assert float((cut[4:6] - whole[4:6]).abs().max()) > 1e-3


@pytest.mark.parametrize(("attention", "per"), SHAPES)
def test_streamed_decoding_is_whole_decoding(make_codec, attention: str, per: int) -> None:
    codec = make_codec(attention, per)
    lengths = [15 * per, 8 * per, 6 * per - per // 2, 3 * per, 26 * per]
    given: list[Encoded] = [codec.encode([prompt(n, seed=n)])[0] for n in lengths]
    blocks = torch.randn(len(given), 3, BLOCK, 3, generator=torch.Generator().manual_seed(3))
    stream = codec.open_stream(given)
    real = [int((record.units_L > 0).sum()) for record in given]
    for number in range(3):
        made = blocks[:, number].clone()
        if not number:
            for item, (record, count) in enumerate(zip(given, real, strict=True)):
                made[item, : count % BLOCK] = record.mean_LC[count // BLOCK * BLOCK : count]
        blocks[:, number] = made
        stream.push([latents_of(z_KC) for z_KC in made])
    for item, (record, count) in enumerate(zip(given, real, strict=True)):
        z_LC = torch.cat([record.mean_LC[: count // BLOCK * BLOCK], *blocks[item]])
        whole = codec.logits([z_LC]).argmax(-1)[count:].flatten().tolist()
        assert stream.details()[item]["tokens"] == until_end(codec, whole)
        assert len(set(whole)) > 3


def until_end(codec: TextCodec, ids: Sequence[int]) -> list[int]:
    """Tokens before the end symbol, without padding."""
    end, pad = codec.tokenizer.end_id, codec.tokenizer.pad_id
    ids = list(ids)
    return [token for token in (ids[: ids.index(end)] if end in ids else ids) if token != pad]


@pytest.mark.parametrize("order", [(9, 0), (0, 9), (0, 9, 0, 3)])
def test_streams_of_prompts_and_of_nothing_side_by_side(make_codec, order: tuple[int, ...]) -> None:
    codec = make_codec()
    given = [codec.encode([prompt(n, seed=n)])[0] if n else None for n in order]
    made = [latents_of(z) for z in torch.randn(len(order), BLOCK, 3, generator=torch.Generator().manual_seed(4))]
    together = codec.open_stream(given)
    together.push(made)
    for item, (record, block) in enumerate(zip(given, made, strict=True)):
        alone = codec.open_stream([record])
        alone.push([block])
        assert alone.details()[0] == together.details()[item]


def test_a_budget_counts_new_tokens_only(make_codec) -> None:
    codec = make_codec()
    given = codec.encode([prompt(6)])[0]
    stream = codec.open_stream([given], max_units=3)
    free = codec.open_stream([given])
    z = torch.randn(2, BLOCK, 3, generator=torch.Generator().manual_seed(5))
    for block in z:
        for one in (stream, free):
            one.push([latents_of(block)])
    assert stream.details()[0]["tokens"] == free.details()[0]["tokens"][:3]
    assert stream.finished() == [True]
    assert codec.open_stream([given], max_units=0).finished() == [True]


@pytest.mark.parametrize(("attention", "per"), SHAPES)
def test_encode_and_logits_do_not_know_the_batch(make_codec, attention: str, per: int) -> None:
    codec = make_codec(attention, per)
    items = [prompt(9, seed=1), "whole", prompt(0), prompt(17, seed=2), "", prompt(4, seed=3)]
    together = codec.encode(items)
    for item, record in zip(items, together, strict=True):
        alone = codec.encode([item])[0]
        torch.testing.assert_close(record.mean_LC, alone.mean_LC)
        torch.testing.assert_close(record.logvar_LC, alone.logvar_LC)
        assert (record.block_lengths, record.units_L.tolist()) == (alone.block_lengths, alone.units_L.tolist())
    latents = [record.mean_LC for record in together]
    found = codec.logits(latents).split([len(z_LC) for z_LC in latents])
    for z_LC, logits in zip(latents, found, strict=True):
        if len(z_LC):
            torch.testing.assert_close(logits, codec.logits([z_LC]))


@pytest.mark.parametrize("tokens", range(1, 10))
def test_with_two_tokens_per_latent_padding_stands_at_the_front_once(make_codec, tokens: int) -> None:
    codec = make_codec(per=2)
    record, ids = codec.encode([prompt(tokens)])[0], token_ids(prompt(tokens), codec.tokenizer)
    rows, pad = codec.token_rows(prompt(tokens)).ids_LP, codec.tokenizer.pad_id
    assert len(rows) % BLOCK == 0
    latents = -(-tokens // 2)
    flat = rows[:latents].flatten().tolist()
    assert flat == [pad] * (tokens % 2) + ids
    assert (rows[latents:] == pad).all()
    assert record.units_L.tolist() == [2 - tokens % 2] + [2] * (latents - 1) + [0] * (len(rows) - latents)


@pytest.mark.parametrize("attention", ["block_causal", "causal"])
def test_what_comes_later_and_what_is_out_of_the_window_is_not_seen(make_codec, attention: str) -> None:
    codec = make_codec(attention, encoder_layers=1, decoder_layers=1)
    ids = tuple(token_ids(prompt(20), codec.tokenizer))
    before = codec.encode([Text(ids=ids, ends=False)])[0].mean_LC
    for changed in (2, 9, 18):
        other = (*ids[:changed], ids[changed] ^ 1, *ids[changed + 1 :])
        moved = (codec.encode([Text(ids=other, ends=False)])[0].mean_LC - before).abs().amax(-1) > 1e-6
        block = changed // BLOCK
        first = changed if attention == "causal" else block * BLOCK
        assert moved.nonzero()[:, 0].tolist() == list(range(first, min(20, (block + 3) * BLOCK)))
        z_LC = before.clone()
        z_LC[changed] += 1.0
        moved = (codec.logits([z_LC]) - codec.logits([before])).abs().amax((-1, -2)) > 1e-6
        assert moved.nonzero()[:, 0].tolist() == list(range(first, min(20, (block + 3) * BLOCK)))


def test_a_measured_scale_gives_unit_latents_and_is_undone_by_decode(make_codec) -> None:
    codec = make_codec()
    items = [prompt(16, seed=seed) for seed in range(8)]
    before = codec.encode(items)
    text = codec.logits([record.mean_LC for record in before])
    mean, logvar = torch.cat([r.mean_LC for r in before]), torch.cat([r.logvar_LC for r in before])
    codec.set_scale(mean.mean(0), mean.std(0))
    after = codec.encode(items)
    unit = torch.cat([r.mean_LC for r in after])
    torch.testing.assert_close(unit, (mean - mean.mean(0)) / mean.std(0))
    torch.testing.assert_close(unit.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(unit.std(0), torch.ones(3))
    torch.testing.assert_close(torch.cat([r.logvar_LC for r in after]), logvar - 2 * mean.std(0).log())
    torch.testing.assert_close(codec.logits([record.mean_LC for record in after]), text, rtol=1e-4, atol=1e-4)
    assert {"shift_C", "scale_C"} <= codec.state_dict().keys()


@pytest.fixture
def model(make_codec, make_prior) -> Model:
    """A random prior over a random codec, with a window of two blocks."""
    prior = make_prior({"text": 3})
    return Model(prior=prior, codecs={"text": make_codec()}, sample=SampleConfig(steps=3, max_units=11), window=8)


PROMPTS = ("", "ab", "abcd", "abcdefghi", "a prompt longer than both windows are", "")


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_tokens_and_latents_are_the_same_whatever_the_batch(model, guidance: float) -> None:
    def generate(batch: int):  # type: ignore[no-untyped-def]
        return model.generate_many(PROMPTS, n=2, seed=3, guidance=guidance, batch=batch)

    truth = [result for prompt in generate(1) for result in prompt]
    for batch in (2, 5, 12):
        found = [result for prompt in generate(batch) for result in prompt]
        for one, other in zip(truth, found, strict=True):
            assert (one.item, one.details) == (other.item, other.details)
            torch.testing.assert_close(one.latents_LC, other.latents_LC, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"stop": list(range(40))}], ids=["budget", "stop"])
def test_the_block_that_ends_all_items_is_not_committed(model, monkeypatch, options: dict[str, object]) -> None:
    passes: list[int] = []
    model.prior.enter["text"].register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))

    def generate() -> list[Result]:
        passes.clear()
        return model.generate_many(["abcd"], n=5, max_new_tokens=30, seed=1, options=options)[0]

    found, done = generate(), len(passes)
    monkeypatch.setattr(running, "BlockSampler", Eager)
    truth = generate()
    blocks = max(len(one.latents_LC) for one in truth) // BLOCK
    assert done == 1 + 3 * blocks + (blocks - 1)  # the prompt, the steps, and a commit between two blocks
    assert len(passes) == done + 1
    for one, other in zip(found, truth, strict=True):
        assert (one.item, one.details) == (other.item, other.details)
        assert torch.equal(one.latents_LC, other.latents_LC)
    assert {one.details["stopped"] for one in found} == ({"stop"} if options else {"budget"})


def test_samples_of_a_prompt_differ_and_seeds_too(model) -> None:
    (first, second), (again, _) = (model.generate_many(["abc"], n=2, seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(first.latents_LC[3:4], second.latents_LC[3:4])
    assert not torch.equal(first.latents_LC[3:4], again.latents_LC[3:4])
    assert torch.equal(first.latents_LC[:3], second.latents_LC[:3])
