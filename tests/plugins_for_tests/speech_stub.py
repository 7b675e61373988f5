"""An archive of made-up spoken digits, and a model of them that knows the answers, or does not.

A made-up voice says a digit as a tone of its own; the model is asked as a real one is, through `generate_many` and its
codec, and answers with made-up material of the digit that was given, or of another.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch

from colatent.generate.requests import Given
from colatent.latents.draws import generator
from colatent.plugins.contract import Encoded, Latents
from colatent.plugins.items import Shown
from colatent_gallery.digits.captions import SPOKEN, WORDS, caption, read_digit
from colatent_gallery.speech.recordings import RATE

SPEAKERS = ("ann", "bob")


def voice(digit: int, rng: np.random.Generator) -> np.ndarray:
    """A digit as this voice says it, float32 (samples,)."""
    time = np.arange(int(rng.integers(2000, 3000))) / RATE
    tone = np.sin(2 * np.pi * 300 * 1.27**digit * time)
    return (0.4 * tone + rng.normal(scale=0.02, size=len(time))).astype(np.float32)


def wav(sound: np.ndarray, *, rate: int = RATE) -> bytes:
    """A sound as a WAV file."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def write_archive(path: Path, members: Mapping[str, bytes], *, links: Mapping[str, str] = MappingProxyType({})) -> Path:
    """A tar.gz of these members, and of links to what they name."""
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return path


def takes(count: int) -> dict[str, bytes]:
    """So many takes of each digit by each speaker, as members of an archive."""
    return {
        f"./{digit}_{speaker}_{number}.wav": wav(voice(digit, generator("voice", digit, speaker, number)))
        for digit in range(10)
        for speaker in SPEAKERS
        for number in range(count)
    }


class StubCodec:
    """Keeps a sound's samples as its latents; what `spoil` makes of a sound is what it decodes."""

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray] = lambda sound: sound) -> None:
        self.spoil = spoil

    def encode(self, items: Sequence[np.ndarray]) -> list[Encoded]:
        return [
            Encoded(
                mean_LC=torch.from_numpy(item)[:, None],
                logvar_LC=None,
                block_lengths=(len(item),),
                positions_LA=torch.zeros(len(item), 1),
                units_L=torch.ones(len(item)),
            )
            for item in items
        ]

    def decode(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        return [self.spoil(record.z_LC[:, 0].numpy()) for record in latents]

    def show(self, item: np.ndarray) -> Shown:
        assert len(item), "a real codec shows no empty sound"
        return Shown(media="audio/wav", data=wav(item))


class StubModel:
    """Answers with an item of the digit `answer(digit, rng)`; it knows the held-out `sounds` of these digits."""

    def __init__(
        self,
        answer: Callable[[int, np.random.Generator], int],
        *,
        known: Sequence[tuple[np.ndarray, int]],
        codec: StubCodec,
        streams: Sequence[str] = ("text", "audio"),
    ) -> None:
        self.answer, self.known = answer, known
        self.codecs: dict[str, Any] = dict.fromkeys(streams, codec)

    def generate_many(self, prompts: Sequence[Sequence[Given]], *, target: str, seed: int) -> list[list[Any]]:
        made = []
        for number, (given,) in enumerate(prompts):
            rng = generator(seed, number)
            digit = self.answer(self._digit(given), rng)
            item = caption(digit, rng, templates=SPOKEN) if target == "text" else voice(digit, rng)
            made.append([SimpleNamespace(item=item)])
        return made

    def _digit(self, given: Given) -> int:
        if given.stream == "text":
            found = read_digit(given.item)
            assert found is not None, f"{given.item!r} names none of {WORDS}"
            return found
        return next(digit for sound, digit in self.known if sound is given.item)
