"""Prompts that are equally long are encoded in one call, and answered as each would be alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from colatent import Given, load
from colatent.errors import UserError
from colatent.generate import prompts as module
from colatent.generate.model import Model
from colatent.generate.precision import Precision
from plugins_for_tests.runs import TEXT, run

PROMPTS = ["one, two", "", "ab", [Given("text", "whole", ends=False)], "six, ten", "four, ni"]
"""Three of eight bytes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(TEXT, tmp_path_factory.mktemp("prompts") / "run")


def counted(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many items each call of the codec's encoder had."""
    found: list[int] = []
    codec = model.codecs["text"]
    encode = codec.encode

    def counting(items: Any, **how: Any) -> Any:
        found.append(len(items))
        return encode(items, **how)

    monkeypatch.setattr(codec, "encode", counting)
    return found


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_equal_prompts_are_encoded_together(folder, precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder, precision=precision)
    how: dict[str, Any] = {"max_new_tokens": 6, "target": "text"}
    alone = [model.generate_many([prompt], **how)[0][0] for prompt in PROMPTS]
    calls = counted(model, monkeypatch)
    together = [one[0] for one in model.generate_many(PROMPTS, **how)]
    assert calls == [3, 1, 1]
    for one, other in zip(alone, together, strict=True):
        assert one.item == other.item
        assert torch.equal(one.latents_LC, other.latents_LC)


def test_no_more_than_so_many_are_encoded_at_once(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 2)
    model = load(folder)
    calls = counted(model, monkeypatch)
    model.generate_many(["ab", "cd", "ef"], max_new_tokens=1)
    assert calls == [2, 1]


def test_whole_items_and_codecs_that_cannot_tell_lengths_go_one_by_one(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(folder)
    calls = counted(model, monkeypatch)
    model.generate_many([[Given("text", "ab")], [Given("text", "cd")]], target="text", max_new_tokens=1)
    assert calls == [1, 1]
    calls.clear()
    monkeypatch.setattr(module, "MeasuredCodec", Given)  # which no codec is
    model.generate_many(["ab", "cd"], max_new_tokens=1)
    assert calls == [1, 1]


def test_a_prompt_that_cannot_be_read_is_refused_as_alone(folder) -> None:
    model = load(folder)
    with pytest.raises(UserError) as alone:
        model.generate_many([[1, 10**6]], max_new_tokens=1)
    with pytest.raises(UserError) as together:
        model.generate_many(["ab", [1, 10**6]], max_new_tokens=1)
    assert str(together.value) == str(alone.value)
