"""One text as it grows: where it stops, whole characters only, and pieces that join to the whole however it is cut."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest

from colatent_text.continuation import Continuation
from colatent_text.tokenizers import ByteTokenizer, JsonTokenizer, train_bpe

BYTES = ByteTokenizer()
END, PAD = 256, 257


class Rewriting(ByteTokenizer):
    """A tokenizer that spells earlier tokens in another way once it has seen later ones: decoders that tidy up do."""

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode(ids).replace("a b", "AB")


def cuts(tokens: Sequence[int], rng: random.Random) -> Iterable[Sequence[int]]:
    """The tokens in runs of random lengths, as blocks bring them."""
    start = 0
    while start < len(tokens):
        stop = start + rng.randint(1, 5)
        yield tokens[start:stop]
        start = stop


def grown(text: Continuation, blocks: Iterable[Sequence[int]]) -> tuple[str, list[int], list[str]]:
    """All pieces of text joined, all tokens joined, and the pieces."""
    tokens, pieces = [], []
    for block in blocks:
        text.extend(block)
        some, piece = text.news(final=text.stopped is not None)
        tokens += some
        pieces.append(piece)
    some, piece = text.news(final=True)
    return "".join([*pieces, piece]), tokens + some, [*pieces, piece]


def earliest(whole: str, stops: Sequence[str]) -> str:
    """The text before the stop text that a reader, character by character, would see complete first."""
    for end in range(len(whole) + 1):
        found = [end - len(stop) for stop in stops if whole[:end].endswith(stop)]
        if found:
            return whole[: min(found)]
    return whole


def test_characters_of_several_bytes_come_whole() -> None:
    whole = "aé€😀é�b"
    text = Continuation(BYTES, budget=None)
    joined, tokens, pieces = grown(text, ([byte] for byte in whole.encode()))
    assert joined == text.text == whole
    assert bytes(tokens).decode() == whole
    assert pieces[:4] == ["a", "", "é", ""]
    assert "😀" in pieces


def test_bytes_that_are_no_characters_come_in_the_end() -> None:
    text = Continuation(BYTES, budget=None)
    tokens = [0xF0, 0x9F, 97, 0xFF, 0xFE, 0xC3, 98, 0xE2, 0x82]
    joined, found, _ = grown(text, ([token] for token in tokens))
    assert joined == bytes(tokens).decode(errors="replace")
    assert found == tokens


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("tokenizer", [BYTES, Rewriting()], ids=["bytes", "rewriting"])
def test_pieces_join_to_the_whole_however_it_is_cut(tokenizer: ByteTokenizer, seed: int) -> None:
    rng = random.Random(seed)
    whole = "".join(rng.choice("aab c\né€😀") for _ in range(40))
    stops = ["".join(rng.choice("ab c\né") for _ in range(rng.randint(2, 4))) for _ in range(rng.randint(0, 3))]
    text = Continuation(tokenizer, budget=None, stop=stops)
    joined, tokens, _ = grown(text, cuts(whole.encode(), rng))
    assert joined == text.text
    assert tokens == text.tokens
    if type(tokenizer) is ByteTokenizer:
        assert joined == bytes(tokens).decode() == earliest(whole, stops)
        assert text.stopped == ("stop" if joined != whole or earliest(whole + "x", stops) == whole else None)


@pytest.mark.parametrize("seed", range(10))
def test_a_learnt_tokenizer_stops_within_a_token(seed: int) -> None:
    corpus = ["the cat sat on the mat, the rat ran to the cat. "] * 20
    tokenizer, rng = JsonTokenizer(train_bpe(corpus, 300)), random.Random(seed)
    whole = "the rat sat on the cat, to the mat"
    stop = rng.choice(["at on", "e cat", ", t", "sat", "mat"])
    ids = tokenizer.encode(whole)
    assert max(len(tokenizer.decode([one])) for one in ids) > 2
    text = Continuation(tokenizer, budget=None, stop=[stop])
    joined, tokens, _ = grown(text, cuts(ids, rng))
    assert joined == text.text == whole[: whole.index(stop)]
    assert tokens == text.tokens == ids[: len(tokens)]
    assert joined.startswith(tokenizer.decode(tokens))
    longer = tokenizer.decode(ids[: len(tokens) + 1])
    assert not joined.startswith(longer)  # as many tokens as the text allows


def test_what_may_begin_a_stop_text_is_held_back() -> None:
    text = Continuation(BYTES, budget=None, stop=["<end>", "eno"])
    told = []
    for byte in b"x<en<ende<end>y":
        text.extend([byte])
        told.append(text.news()[1])
    assert "".join(told) == text.text == "x<en<ende"
    assert told[1:4] == ["", "", ""]
    assert told[4] == "<en"


def test_the_stop_that_is_complete_first_counts_wherever_blocks_end() -> None:
    for size in range(1, 9):
        text = Continuation(BYTES, budget=None, stop=["bcdefg", "de"])
        tokens = list(b"abcdefgh")
        for start in range(0, len(tokens), size):
            text.extend(tokens[start : start + size])
        assert (text.text, bytes(text.tokens), text.stopped) == ("abc", b"abc", "stop")


@pytest.mark.parametrize(
    ("tokens", "kept", "stopped"),
    [
        ([97, 98, END, 99], b"ab", "end"),
        ([97, 98, 120, 99], b"ab", "stop"),
        ([97, 98, 99, 100, 101], b"abcd", "budget"),
        ([97, 98, 99, 100, END], b"abcd", "budget"),
        ([97, PAD, 98], b"ab", None),
        ([PAD, PAD], b"", "end"),
        ([97, 122, 122, END], b"a", "stop"),
    ],
)
def test_why_it_stopped(tokens: list[int], kept: bytes, stopped: str | None) -> None:
    text = Continuation(BYTES, budget=4, stop=[120, "zz"])
    text.extend(tokens)
    text.extend([65] if stopped else [])
    assert (bytes(text.tokens), text.text, text.stopped) == (kept, kept.decode(), stopped)


def test_a_block_of_padding_ends_a_text_and_padding_within_one_does_not() -> None:
    text = Continuation(BYTES, budget=None)
    for block in ([97, PAD], [PAD, 98], [PAD, PAD], [99, 99]):
        text.extend(block)
    assert (text.text, text.stopped) == ("ab", "end")


def test_padding_is_kept_where_it_counts() -> None:
    text = Continuation(BYTES, budget=3, keep_padding=True)
    text.extend([97, PAD, 98, 99])
    assert (text.tokens, text.text, text.stopped) == ([97, PAD, 98], "ab", "budget")


def test_a_budget_of_nothing_has_stopped() -> None:
    text = Continuation(BYTES, budget=0)
    text.extend([97])
    assert (text.tokens, text.stopped) == ([], "budget")


def test_looking_ahead_changes_nothing() -> None:
    text = Continuation(BYTES, budget=None, stop=["cd"])
    text.extend(b"ab")
    assert text.with_more(b"xc") == "abxc"
    assert text.with_more(b"cd") == "ab"
    assert (text.text, bytes(text.tokens), text.stopped) == ("ab", b"ab", None)
