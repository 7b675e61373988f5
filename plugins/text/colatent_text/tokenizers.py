"""Text to token ids and back: plain bytes, any Hugging Face `tokenizer.json`, read from a file or trained here, or ids.

A tokenizer that cannot represent a text refuses it: a prompt that silently loses a character would be continued from
something that nobody wrote. Special ids (end, padding, mask) never come out of `encode`, even where the text spells
the name of one, and the mask is always the last id, a row of its own that no tokenizer file needs to know. The library
`tokenizers` is imported where it is first needed, so that configs stay cheap to check.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from colatent.config.schema import Settings
from colatent.errors import UserError
from colatent_text.ids import IdTokenizer, is_id

ASSET = "tokenizer.json"
"""File name of a Hugging Face tokenizer among a codec's assets."""

OUTSIDE = "leave it out, or train with a tokenizer that has it (kind bytes or train has every text)"


class Tokenizer(Protocol):
    """Text to ids and back. `vocab_size` counts every id, the special ones included; `end_id` is None where nothing
    ends a text."""

    vocab_size: int
    end_id: int | None
    pad_id: int
    mask_id: int

    def encode(self, text: str) -> list[int]:
        """Ids without special ones. Raises `UserError` with the character and its offset if `text` has no ids."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`: special ones are skipped, bytes that are not UTF-8 become U+FFFD."""
        ...

    def asset(self) -> tuple[str, bytes]:
        """File name and content that describe this tokenizer beside the weights."""
        ...


class ByteTokenizer:
    """The 256 bytes of UTF-8, then end, padding and mask."""

    vocab_size, pad_id, mask_id = 259, 257, 258
    end_id: int | None = 256

    def encode(self, text: str) -> list[int]:
        return list(_utf8(text))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode("utf-8", errors="replace")

    def asset(self) -> tuple[str, bytes]:
        return "bytes.json", b'{"kind": "bytes"}\n'


class JsonTokenizer:
    """A Hugging Face tokenizer. `end` and `pad` name tokens of its vocabulary; without, ids are appended to it.

    A model of a fixed `size` (ids, without the mask) has no room for more: there, without `end` nothing ends a text.
    """

    def __init__(self, data: bytes, end: str | None = None, pad: str | None = None, *, size: int | None = None) -> None:
        self._data = data
        self._tokenizer, self._unknown_id = _load(data)
        vocabulary: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        highest = max(vocabulary.values(), default=-1)
        if size is not None and highest >= size:
            raise UserError(f"its ids go to {highest}, the model's end at {size - 1}", where=ASSET)
        fresh = iter(range(highest + 1, 2**31))
        self.end_id = (
            None if end is None and size is not None else _special_id(vocabulary, end, "end", fresh, size=size)
        )
        self.pad_id = _special_id(vocabulary, pad, "pad", fresh, size=size)
        self.mask_id = next(fresh) if size is None else size
        self.vocab_size = self.mask_id + 1
        self._special = {self.end_id, self.pad_id, self.mask_id}

    def encode(self, text: str) -> list[int]:
        _utf8(text)
        encoding = self._library_encode(text)
        ids: list[int] = encoding.ids
        if self._unknown_id in ids:
            raise _unrepresentable(text, encoding.offsets[ids.index(self._unknown_id)][0])
        if not self._special.isdisjoint(ids):
            named = self._tokenizer.id_to_token(next(i for i in ids if i in self._special))
            raise UserError(f"it spells {named!r}, which ends or pads a text", where="text", do="leave it out")
        decoded = self.decode(ids)
        if decoded != text and (lost := self._first_dropped(text, decoded)) is not None:
            raise _unrepresentable(text, lost)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        kept = [i for i in ids if i not in self._special]
        return str(self._tokenizer.decode(kept, skip_special_tokens=True))

    def asset(self) -> tuple[str, bytes]:
        return ASSET, self._data

    def _library_encode(self, text: str) -> Any:
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as error:  # a model without an unknown token raises bare Exception
            what = f"the tokenizer cannot represent {text[:40]!r} ({error})"
            raise UserError(what, where="text", do=OUTSIDE) from error

    def _first_dropped(self, text: str, decoded: str) -> int | None:
        """Offset of the first character that leaves no token, None if `text` is only spelt differently (normalised).

        Spaces often belong to no token and come back in decoding: they count as dropped only where words have merged.
        """
        merged = len(decoded.split()) < len(text.split())
        for char in dict.fromkeys(text):
            # A model of whole words refuses a lone letter: that letter is not dropped from the word.
            with contextlib.suppress(UserError):
                if (merged or not char.isspace()) and not self._library_encode(char).ids:
                    return text.index(char)
        return None


EFFECTIVE = {
    "bytes": set[str](),
    "file": {"path", "end", "pad", "size"},
    "train": {"vocab", "sample_chars"},
    "ids": {"size", "end_id", "pad_id"},
}
"""Which settings have an effect, by kind."""


class TokenizerConfig(Settings):
    """Which tokenizer, and what it is made from."""

    kind: Literal["bytes", "file", "train", "ids"] = "bytes"
    """bytes; file: a Hugging Face tokenizer.json; train: a byte-level BPE learnt from the training text; ids: the text
    is token ids, for imported models that came without their tokenizer."""
    path: str | None = None
    """Kind file: the tokenizer.json."""
    vocab: int = Field(default=2048, ge=256)
    """Kind train: tokens of the BPE at most, the 256 bytes included (end, padding and mask come on top)."""
    sample_chars: PositiveInt = 2_000_000
    """Kind train: how many characters of training text the BPE is learnt from."""
    end: str | None = None
    """Kind file: token of its vocabulary that ends a text. Default: an id appended to the vocabulary."""
    pad: str | None = None
    """Kind file: token of its vocabulary that pads. Default: an id appended to the vocabulary."""

    size: PositiveInt | None = None
    """Kinds file and ids: how many ids the model has, without the mask. Default of kind file: as many as are named."""
    end_id: NonNegativeInt | None = None
    """Kind ids: the id that ends a text. Default: none does."""
    pad_id: NonNegativeInt = 0
    """Kind ids: the id that pads."""

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> TokenizerConfig:
        if self.kind == "file" and not self.path:
            raise ValueError("kind file needs path, the tokenizer.json")
        if self.kind == "ids" and not self.size:
            raise ValueError("kind ids needs size, the number of ids")
        if self.kind == "file" and self.size and not self.pad:
            raise ValueError("a fixed size needs pad, the token that pads")
        effective = EFFECTIVE[self.kind]
        for name in set().union(*EFFECTIVE.values()):
            if name not in effective and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no effect with kind {self.kind}")
        return self


def prepare_assets(config: TokenizerConfig, texts: Iterable[str]) -> dict[str, bytes]:
    """The files that `build_tokenizer` needs: a tokenizer.json, read or trained on `texts`, or none."""
    if config.kind in ("bytes", "ids"):
        return {}
    if config.kind == "train":
        return {ASSET: train_bpe(_first_chars(texts, config.sample_chars), config.vocab)}
    assert config.path is not None
    data = _read(Path(config.path))
    try:
        JsonTokenizer(data, config.end, config.pad, size=config.size)
    except UserError as error:
        raise UserError(error.what, where=config.path, do=error.do) from error
    return {ASSET: data}


def build_tokenizer(config: TokenizerConfig, assets: Mapping[str, bytes]) -> Tokenizer:
    """The tokenizer that `config` and the assets of `prepare_assets` describe."""
    if config.kind == "bytes":
        return ByteTokenizer()
    if config.kind == "ids":
        assert config.size is not None
        return IdTokenizer(config.size, end_id=config.end_id, pad_id=config.pad_id)
    if ASSET not in assets:
        raise UserError("the tokenizer is missing", where=ASSET, do="restore it beside the weights or train again")
    return JsonTokenizer(assets[ASSET], config.end, config.pad, size=config.size)


def token_names(data: bytes) -> dict[str, int]:
    """The tokens that a tokenizer.json names, with their ids."""
    names: dict[str, int] = _load(data)[0].get_vocab(with_added_tokens=True)
    return names


def train_bpe(texts: Iterable[str], vocab: int) -> bytes:
    """A tokenizer.json with a lossless byte-level BPE of at most `vocab` tokens, the same for the same texts."""
    if vocab < 256:
        raise UserError(f"a byte-level vocabulary of {vocab} is too small", where="vocab", do="give at least 256")
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    # The library's thread pool, once used, warns at every later fork (of a loader's workers for instance).
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    library.train_from_iterator(texts, trainer)
    return str(library.to_str()).encode("utf-8")


def _load(data: bytes) -> tuple[Any, int | None]:
    """The library's tokenizer, told to leave texts whole, and the id of its unknown token if it has one."""
    from tokenizers import Tokenizer as Library

    try:
        library = Library.from_str(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"the tokenizer is not UTF-8 (byte {error.start})", where=ASSET) from error
    except Exception as error:  # the library raises bare Exception
        reason = " ".join(str(error).split())[:200]
        do = "give a Hugging Face tokenizer.json"
        raise UserError(f"not a valid tokenizer ({reason})", where=ASSET, do=do) from error
    library.no_truncation()
    library.no_padding()
    library.encode_special_tokens = True
    model = json.loads(data)["model"]
    unknown = model.get("unk_token")
    return library, model.get("unk_id") if unknown is None else library.token_to_id(unknown)


def _special_id(
    vocabulary: Mapping[str, int], token: str | None, role: str, fresh: Iterator[int], *, size: int | None
) -> int:
    """The id of a token that is named, by its name or, where a model's size is fixed, by its number: of the ids of a
    model, a tokenizer need not name all."""
    if token is None:
        return next(fresh)
    if token not in vocabulary:
        if size is not None and is_id(token, size):
            return int(token)
        raise UserError(f"{role} token {token!r} is not in the vocabulary", where=ASSET, do="name a token that is")
    return vocabulary[token]


def _unrepresentable(text: str, offset: int) -> UserError:
    char = text[offset] if offset < len(text) else ""
    shown = repr(char) if char.isprintable() else f"U+{ord(char):04X}"
    return UserError(f"the tokenizer cannot represent {shown} at character {offset}", where="text", do=OUTSIDE)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:  # a lone surrogate
        raise _unrepresentable(text, error.start) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the tokenizer ({error.strerror})", where=str(path)) from error


def _first_chars(texts: Iterable[str], limit: int) -> list[str]:
    """Texts up to `limit` characters in all; reads no further."""
    taken: list[str] = []
    for text in texts:
        taken.append(text[:limit])
        limit -= len(taken[-1])
        if limit <= 0:
            break
    if not any(taken):
        raise UserError("no text to train the tokenizer on", where="tokenizer", do="check the training data")
    return taken
