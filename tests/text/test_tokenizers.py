"""Tokenizers: what goes in comes out, or is refused with the character that cannot; special ids stay apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers

from colatent.errors import UserError
from colatent_text.tokenizers import (
    ASSET,
    ByteTokenizer,
    JsonTokenizer,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
    prepare_assets,
    train_bpe,
)

CORPUS = ["LATIN SMALL LETTER A\nBLACK CHESS KNIGHT\nSNOWMAN\n" * 20, "forty-one, forty-two, forty-three.\n" * 20]
TEXTS = ["", "a", "LATIN SMALL LETTER A\n", "  two  spaces \t\r\n", "é ß 漢字 😀 \x00", "<|endoftext|> [MASK] </s>"]


@pytest.fixture(scope="module")
def bpe() -> bytes:
    return train_bpe(CORPUS, 300)


def library_json(model: Any, *, split: bool = False, normalizer: Any = None, special: tuple[str, ...] = ()) -> bytes:
    library = Library(model)
    if split:
        library.pre_tokenizer = pre_tokenizers.Whitespace()
    if normalizer is not None:
        library.normalizer = normalizer
    library.add_special_tokens(list(special))
    return str(library.to_str()).encode()


def in_another_process() -> bytes:
    """Hash seeds differ from process to process; the tokenizer must not."""
    code = "import sys; from colatent_text.tokenizers import train_bpe; "
    code += f"sys.stdout.buffer.write(train_bpe({CORPUS!r}, 300))"
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONPATH": path}
    ).stdout


@pytest.mark.parametrize("text", TEXTS)
def test_lossless_tokenizers_give_back_every_text_without_special_ids(bpe: bytes, text: str) -> None:
    for tokenizer in (ByteTokenizer(), JsonTokenizer(bpe)):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert not {tokenizer.end_id, tokenizer.pad_id, tokenizer.mask_id} & set(ids)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)


def test_special_ids_are_distinct_last_and_skipped_in_decoding(bpe: bytes) -> None:
    for tokenizer, size in ((ByteTokenizer(), 256), (JsonTokenizer(bpe), len(json.loads(bpe)["model"]["vocab"]))):
        special = [tokenizer.end_id, tokenizer.pad_id, tokenizer.mask_id]
        assert special == [size, size + 1, size + 2]
        assert tokenizer.vocab_size == size + 3
        assert tokenizer.decode([special[2], *tokenizer.encode("ab"), *special]) == "ab"


def test_broken_utf8_becomes_the_replacement_character(bpe: bytes) -> None:
    assert ByteTokenizer().decode([0x61, 0xC3, 0x62]) == "a\ufffdb"
    tokenizer = JsonTokenizer(bpe)
    first, _ = tokenizer.encode("é")
    assert tokenizer.decode([first]) == "\ufffd"


def test_a_lone_surrogate_is_refused_with_its_offset(bpe: bytes) -> None:
    for tokenizer in (ByteTokenizer(), JsonTokenizer(bpe)):
        with pytest.raises(UserError, match=r"U\+D800 at character 2"):
            tokenizer.encode("ab\ud800")


def test_training_is_deterministic_and_keeps_to_its_vocabulary(bpe: bytes) -> None:
    assert train_bpe(iter(CORPUS), 300) == bpe == in_another_process()
    assert len(json.loads(bpe)["model"]["vocab"]) == 300
    assert len(JsonTokenizer(bpe).encode(CORPUS[0])) < len(CORPUS[0]) / 3
    assert len(json.loads(train_bpe(CORPUS, 256))["model"]["vocab"]) == 256
    with pytest.raises(UserError, match="255 is too small"):
        train_bpe(CORPUS, 255)


def test_end_and_pad_name_tokens_of_the_vocabulary_and_mask_stays_apart() -> None:
    data = library_json(models.BPE({"a": 0, "b": 1}, []), special=("<end>", "<pad>"))
    tokenizer = JsonTokenizer(data, end="<end>", pad="<pad>")
    assert (tokenizer.end_id, tokenizer.pad_id, tokenizer.mask_id, tokenizer.vocab_size) == (2, 3, 4, 5)
    assert (JsonTokenizer(data, end="<end>").pad_id, JsonTokenizer(data).end_id) == (4, 4)
    with pytest.raises(UserError, match="'<stop>' is not in the vocabulary"):
        JsonTokenizer(data, end="<stop>")


def test_text_that_spells_a_special_token_never_becomes_it() -> None:
    data = library_json(models.BPE({"a": 0, "<": 1, ">": 2}, []), special=("<a>",))
    assert JsonTokenizer(data, end="<a>").encode("a<a>") == [0, 1, 0, 2]


def test_an_ordinary_token_that_was_named_end_is_refused_in_text() -> None:
    tokenizer = JsonTokenizer(library_json(models.BPE({"a": 0, "z": 1}, [])), end="z")
    assert tokenizer.encode("aa") == [0, 0]
    with pytest.raises(UserError, match="spells 'z'"):
        tokenizer.encode("az")


@pytest.mark.parametrize("end", ["[UNK]", None])
def test_an_unknown_token_is_an_error_with_the_place(end: str | None) -> None:
    data = library_json(models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]"), split=True)
    tokenizer = JsonTokenizer(data, end=end)
    assert tokenizer.encode("hello world") == [1, 2]
    with pytest.raises(UserError, match="'m' at character 6"):
        tokenizer.encode("hello moon")


def test_a_model_without_an_unknown_token_refuses_too() -> None:
    tokenizer = JsonTokenizer(library_json(models.WordLevel({"hello": 0}), split=True))
    assert tokenizer.encode("hello  hello") == [0, 0]
    with pytest.raises(UserError, match="cannot represent 'hello moon'"):
        tokenizer.encode("hello moon")


def test_a_silently_dropped_character_is_an_error() -> None:
    tokenizer = JsonTokenizer(library_json(models.BPE({"a": 0, "b": 1}, [])))
    with pytest.raises(UserError, match="'z' at character 1"):
        tokenizer.encode("azb")


def test_a_normalising_tokenizer_is_accepted() -> None:
    data = library_json(models.BPE({"a": 0, "b": 1}, []), normalizer=normalizers.Lowercase())
    assert JsonTokenizer(data).encode("AB") == [0, 1]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"model": {}}', b"\xff\xfe"])
def test_broken_json_is_one_line_that_names_the_file(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UserError, match=r"^tokenizer\.json: "):
        JsonTokenizer(data)
    file = tmp_path / "mine.json"
    file.write_bytes(data)
    with pytest.raises(UserError) as caught:
        prepare_assets(TokenizerConfig(kind="file", path=str(file)), [])
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_missing_files_and_missing_assets_are_named(tmp_path: Path) -> None:
    config = TokenizerConfig(kind="file", path=str(tmp_path / "none.json"))
    with pytest.raises(UserError, match=r"none\.json: cannot read"):
        prepare_assets(config, [])
    with pytest.raises(UserError, match=ASSET):
        build_tokenizer(config, {})


def test_assets_rebuild_the_same_tokenizer(tmp_path: Path, bpe: bytes) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(bpe)
    for config in (
        TokenizerConfig(),
        TokenizerConfig(kind="train", vocab=300),
        TokenizerConfig(kind="file", path=str(file), end="z"),
    ):
        assets = prepare_assets(config, CORPUS)
        first, second = build_tokenizer(config, assets), build_tokenizer(config, assets)
        assert first.encode(CORPUS[0]) == second.encode(CORPUS[0])
        assert (first.vocab_size, first.end_id) == (second.vocab_size, second.end_id)
        assert dict([first.asset()]) == assets or config.kind == "bytes"
    assert prepare_assets(TokenizerConfig(), CORPUS) == {}


def test_training_reads_no_more_text_than_its_sample() -> None:
    def endless() -> Any:
        while True:
            yield "abcdefgh " * 10

    config = TokenizerConfig(kind="train", vocab=256, sample_chars=1000)
    assert prepare_assets(config, endless()) == prepare_assets(config, ["abcdefgh " * 10] * 12)
    with pytest.raises(UserError, match="no text"):
        prepare_assets(config, ["", ""])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "file"}, "needs path"),
        ({"kind": "bytes", "vocab": 512}, "vocab has no effect"),
        ({"kind": "train", "path": "x.json"}, "path has no effect"),
        ({"kind": "train", "end": "</s>"}, "end has no effect"),
        ({"kind": "file", "path": "x.json", "sample_chars": 5}, "sample_chars has no effect"),
        ({"kind": "train", "vocab": 255}, "256"),
        ({"kind": "words"}, "kind"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig(**settings)


def test_a_dumped_config_loads_again() -> None:
    config = TokenizerConfig(kind="train", vocab=512)
    assert TokenizerConfig(**config.model_dump()) == config


def test_both_classes_fulfil_the_protocol(bpe: bytes) -> None:
    tokenizers: list[Tokenizer] = [ByteTokenizer(), JsonTokenizer(bpe)]
    assert all(isinstance(t.asset()[1], bytes) for t in tokenizers)
