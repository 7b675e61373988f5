"""Recordings of spoken digits, read from the archive in which they are published.

The archive is looked through as it stands: nothing is unpacked, so a member's name is only ever matched, never a path,
and what a header says is checked before a sample is decoded. Recordings are in rounds, every digit of one speaker after
the other, so that any ten in a row are of ten digits.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile

from colatent.errors import UserError

RATE = 8000
"""Samples a second."""
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<number>\d{1,6})\.wav")
MOST_SECONDS, MOST_BYTES = 30, 2**22
"""Longest recording, and largest member, that are read."""
SOURCE = "give the archive of the Free Spoken Digit Dataset, spoken_digits.tar.gz"


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """One digit, spoken once: samples -1..1, float32 at 8 kHz, and the number of the speaker's take."""

    digit: int
    speaker: str
    number: int
    sound: np.ndarray


def load_recordings(path: str, *, heldout: int) -> tuple[tuple[Recording, ...], tuple[Recording, ...]]:
    """The recordings for training and those held out: the first `heldout` takes of each digit by each speaker."""
    found = _all_recordings(path, _stamp(path))
    training = tuple(one for one in found if one.number >= heldout)
    test = tuple(one for one in found if one.number < heldout)
    if not training or not test:
        what = f"{len(test)} of {len(found)} recordings are takes below {heldout}"
        raise UserError(what, where=path, do="set heldout so that some are held out and some are not")
    return training, test


def _stamp(path: str) -> tuple[int, int]:
    """What changes with a file, so that another one of the same name is read anew."""
    try:
        if Path(path).is_dir():
            raise UserError("is a folder", where=path, do=SOURCE)
        found = Path(path).stat()
    except FileNotFoundError:
        raise UserError("no such file", where=path, do=SOURCE) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path, do=SOURCE) from None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=2)
def _all_recordings(path: str, stamp: tuple[int, int]) -> tuple[Recording, ...]:
    """Every recording, in rounds. The sources and judges of a run share them."""
    try:
        with tarfile.open(path, "r:*") as archive:
            found = list(_read(archive, path))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        what = f"is no whole tar archive ({' '.join(str(error).split()) or type(error).__name__})"
        raise UserError(what, where=path, do=SOURCE) from error
    if not found:
        what = "holds no recordings named DIGIT_SPEAKER_NUMBER.wav"
        raise UserError(what, where=path, do=SOURCE)
    return tuple(sorted(found, key=lambda one: (one.number, one.speaker, one.digit)))


def _read(archive: tarfile.TarFile, path: str) -> Iterator[Recording]:
    for member in archive:
        matched = NAME.fullmatch(PurePosixPath(member.name).name)
        if matched is None or not member.isfile():
            continue
        where = f"{path}: {matched[0]}"
        if member.size > MOST_BYTES:
            raise UserError(f"is {member.size} bytes long", where=where, do=f"leave out what exceeds {MOST_BYTES}")
        file = archive.extractfile(member)
        assert file is not None  # a member that is a file has content
        sound = _sound(file.read(), where=where)
        yield Recording(
            digit=int(matched["digit"]), speaker=matched["speaker"], number=int(matched["number"]), sound=sound
        )


def _sound(data: bytes, *, where: str) -> np.ndarray:
    do = f"give mono recordings of {RATE} samples a second, at most {MOST_SECONDS} seconds each"
    try:
        with soundfile.SoundFile(BytesIO(data)) as file:
            if (file.samplerate, file.channels) != (RATE, 1) or not 0 < file.frames <= MOST_SECONDS * RATE:
                what = f"has {file.frames} samples, {file.channels} channels, {file.samplerate} samples a second"
                raise UserError(what, where=where, do=do)
            samples = np.asarray(file.read(dtype="float32"))
    except soundfile.SoundFileError as error:
        raise UserError(f"cannot be read as sound ({str(error).rstrip('.')})", where=where, do=do) from error
    if not np.isfinite(samples).all():
        raise UserError("holds NaN or infinity", where=where, do=do)
    return samples
