"""The demo's numbers on strings whose right answer is plain, and the n-gram baseline against a direct count."""

from __future__ import annotations

import time
from collections import Counter, defaultdict

import numpy as np
import pytest

from colatent.errors import UserError
from colatent_text import counting
from colatent_text.datasets import Counting, CountingConfig
from colatent_text.demo_metrics import complete_names, complete_words, counting_exact, counting_prompts, score_names
from colatent_text.ngram import NGram
from colatent_text.tokenizers import JsonTokenizer, train_bpe

RANGES = CountingConfig().ranges()


@pytest.mark.parametrize("runs", [RANGES.trained, RANGES.heldout], ids=["trained", "heldout"])
def test_prompts_stay_inside_one_series(runs: tuple[range, ...]) -> None:
    inside = [counting.series(run) for run in runs]
    prompts = counting_prompts(64, seed=0, runs=runs, block=16)
    for number, prompt in enumerate(prompts):
        assert any(run.endswith(prompt.prompt + prompt.truth) for run in inside)
        assert len(prompt.truth) >= 64
        assert prompt.tokens == len(prompt.prompt)
        assert prompt.tokens % 16 == number % 16
        assert prompt.prompt.count(counting.SEPARATOR) >= 1
    assert prompts == counting_prompts(64, seed=0, runs=runs, block=16)
    assert prompts != counting_prompts(64, seed=1, runs=runs, block=16)


def test_prompts_cover_all_residues_in_tokens() -> None:
    text = counting.series(range(1000))
    encode = JsonTokenizer(train_bpe([text], 400)).encode
    prompts = counting_prompts(48, seed=0, runs=RANGES.heldout, encode=encode, block=16)
    assert Counter(len(encode(p.prompt)) % 16 for p in prompts) == dict.fromkeys(range(16), 3)


def test_long_prompts_fit_the_trained_range_and_not_a_stretch() -> None:
    prompts = counting_prompts(4, seed=0, runs=RANGES.trained, chars=(1600, 1700))
    assert all(1600 <= len(p.prompt) <= 1700 for p in prompts)
    with pytest.raises(UserError, match="no run of numbers"):
        counting_prompts(1, seed=0, runs=RANGES.heldout, chars=(1600, 1700))
    with pytest.raises(UserError, match="block of 400"):
        counting_prompts(1000, seed=0, runs=RANGES.heldout, block=400)


def test_continuations_are_all_rests_long_enough() -> None:
    runs = (range(100, 104), range(300, 302))
    rests = [range(n, run.stop) for run in runs for n in run]
    wanted = [rest for rest in rests if len(counting.series(rest)) >= 33]
    assert counting.continuations(runs, chars=33) == wanted
    assert 2 < len(wanted) < len(rests)


def test_exactness_looks_at_the_first_bytes_only() -> None:
    truth = "ty-one, forty-two, forty-three, forty-four"
    assert counting_exact(truth[:32], truth)
    assert counting_exact(truth[:32] + "!", truth)
    assert not counting_exact(truth[:31], truth)
    assert not counting_exact(truth[:31] + "!", truth)
    assert counting_exact("ty-", truth, count=3)


def test_broken_edges_are_not_judged() -> None:
    text = "TTER A; SNOWMAN; LATIN SMA"
    assert complete_names(text) == ["SNOWMAN"]
    assert complete_names(text, whole=True) == ["TTER A", "SNOWMAN"]
    assert complete_words(text) == ["A", "SNOWMAN", "LATIN"]
    assert complete_words("LATIN ;", whole=True) == ["LATIN"]
    assert complete_words(" LATIN;") == ["LATIN"]
    for empty in ("", "SNOW", ";", " "):
        assert complete_names(empty) == complete_words(empty) == []


def test_scores_of_names() -> None:
    scores = score_names(
        [" SNOWMAN; BLACK SUN; SN", " BLACK SNOWMAN; XYZZY; A", " SNOWMAN; BLACK SUN; SN", " COMET;"],
        train=["SNOWMAN", "BLACK SUN"],
        heldout=["COMET"],
        vocabulary={"SNOWMAN", "BLACK", "SUN", "COMET"},
        whole=True,
    )
    assert (scores.words, scores.names) == (10, 7)
    assert scores.known_words == 9 / 10
    assert scores.real == 5 / 7
    assert scores.real_heldout == 1 / 5
    assert scores.distinct == 3 / 4


def test_nothing_to_judge_scores_zero() -> None:
    scores = score_names(["SNOW"], train=[], heldout=[], vocabulary=[])
    assert (scores.words, scores.known_words, scores.real, scores.real_heldout, scores.distinct) == (0, 0, 0, 0, 1)


def test_ngram_is_witten_bell_by_hand() -> None:
    texts = ["abracadabra", "abba", "é"]
    model = NGram.fit(texts, order=3)
    counts: dict[bytes, Counter[int]] = defaultdict(Counter)
    for data in (text.encode() for text in texts):
        for at in range(len(data)):
            for length in range(min(2, at) + 1):
                counts[data[at - length : at]][data[at]] += 1
    seen = sorted(set("".join(texts).encode()))

    def probability(context: bytes, byte: int) -> float:
        shorter = probability(context[1:], byte) if context else 1 / len(seen)
        follow = counts[context]
        total, kinds = sum(follow.values()), len(follow)
        return shorter if not total else (follow[byte] + kinds * shorter) / (total + kinds)

    for context in (b"", b"a", b"ab", b"bz", b"zz", b"xxab"):
        ours = model.distribution(context)
        assert ours.sum() == pytest.approx(1.0)
        for byte in seen:
            assert ours[byte] == pytest.approx(probability(context[-2:], byte))


def test_ngram_continues_what_it_has_seen_and_follows_its_generator() -> None:
    model = NGram.fit(["forty-one, forty-two, " * 30])
    assert model.continue_greedy("forty-one, ", 9) == "forty-two"[:6] + model.continue_greedy("forty-one, forty-", 3)
    one, same, other = (model.generate("f", 200, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one == same != other
    assert len(one) == 200
    assert set(one) <= set("forty-newo, ")
    assert model.generate("", 5, rng=np.random.default_rng(0))


def test_ngram_draws_follow_the_distribution() -> None:
    model = NGram.fit(["aaab" * 50], order=1)
    text = model.generate("", 4000, rng=np.random.default_rng(0))
    assert text.count("a") / len(text) == pytest.approx(model.distribution(b"")[ord("a")], abs=0.03)


def test_ngram_is_fast_enough_and_cannot_count() -> None:
    train = Counting(CountingConfig(), split="train")
    rng = np.random.default_rng(0)
    texts = [str(train.sample(i, rng)["text"].text) for i in range(200)]
    begun = time.perf_counter()
    model = NGram.fit(texts)
    prompts = counting_prompts(100, seed=0, runs=RANGES.trained)
    hits = [counting_exact(model.continue_greedy(p.prompt, 40), p.truth) for p in prompts]
    assert sum(hits) < 20
    assert time.perf_counter() - begun < 10
