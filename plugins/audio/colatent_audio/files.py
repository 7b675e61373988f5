"""Sound in files: whatever libsndfile reads, at any rate and of any channel count, and 16-bit WAV out.

What a header says is looked at before a sample is read, so that a wrong or hostile file costs no memory.
"""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio import functional as audio

from colatent.checkpoint.storage import atomic_write_bytes
from colatent.errors import UserError
from colatent_audio.items import LOUDEST, Sound
from colatent_audio.whole import missing

MOST_SECONDS, MOST_VALUES = 600, 2**27
"""Longest sound, and most samples over all channels, that are read."""
RATES = (1000, 384_000)
"""Sample rates that are read."""
FINEST = 1000
"""Largest denominator of the ratio of two rates: a filter for exactly 8000 over 44101 would fill a gigabyte, and
the nearest ratio of small numbers is off by less than anyone hears."""


def read_sound(path: Path, *, sample_rate: int) -> Sound:
    """The sound in a file: mean of its channels, at `sample_rate`."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "no such file"
        raise UserError(what, where=str(path), do="give a WAV or FLAC file")
    return _sound(path, sample_rate=sample_rate, where=str(path))


def open_sound(data: bytes, *, sample_rate: int, name: str) -> Sound:
    """The same of a file's bytes."""
    return _sound(BytesIO(data), sample_rate=sample_rate, where=name)


def resampled(samples_T: np.ndarray, rate: int, wanted: int) -> Sound:
    """The same sound at another rate; at least one sample of it."""
    if rate == wanted:
        return np.ascontiguousarray(samples_T, dtype=np.float32)
    ratio = Fraction(wanted, rate).limit_denominator(FINEST)
    if wanted > rate:
        ratio = 1 / Fraction(rate, wanted).limit_denominator(FINEST)
    found = audio.resample(torch.from_numpy(samples_T), ratio.denominator, ratio.numerator)
    return found.numpy()


def write_wav(sound: Sound, path: Path, *, sample_rate: int) -> Path:
    """Write 16-bit WAV to `path` with its suffix appended."""
    path = path.with_name(path.name + ".wav")
    atomic_write_bytes(path, wav_bytes(sound, sample_rate=sample_rate))
    return path


def wav_bytes(sound: Sound, *, sample_rate: int) -> bytes:
    """The sound as a 16-bit WAV file."""
    file = BytesIO()
    soundfile.write(file, sound.clip(-1.0, 1.0), sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _sound(source: Path | BytesIO, *, sample_rate: int, where: str) -> Sound:
    try:
        with soundfile.SoundFile(source) as file:
            _check_header(file, where)
            # the number is said because telephone formats (GSM 6.10, G.721) cannot be sought in to find it
            samples_TS = file.read(file.frames, dtype="float32", always_2d=True)
            rate = file.samplerate
        cut = _is_cut(source)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: a file called .raw has no header
        what = f"cannot be read as sound ({_reason(error)})"
        raise UserError(what, where=where, do="give a WAV or FLAC file that is whole") from error
    if cut:
        what = "is cut short: it announces more than it holds"
        raise UserError(what, where=where, do="get it again, or leave it out")
    if not len(samples_TS):
        raise UserError("holds no samples", where=where, do="leave it out, or record it again")
    if not np.isfinite(samples_TS).all():
        raise UserError("holds NaN or infinity", where=where, do="repair it, or leave it out")
    if (peak := np.abs(samples_TS).max()) > LOUDEST:
        what = f"has samples up to {peak:g}, where full scale is 1"
        raise UserError(what, where=where, do="scale it down, or leave it out")
    return resampled(samples_TS.mean(-1), rate, sample_rate)


def _is_cut(source: Path | BytesIO) -> bool:
    if isinstance(source, BytesIO):
        return missing(source) > 0
    with open(source, "rb") as file:
        return missing(file) > 0


def _check_header(file: soundfile.SoundFile, where: str) -> None:
    low, high = RATES
    if not low <= file.samplerate <= high:
        what = f"has {file.samplerate} samples a second"
        raise UserError(what, where=where, do=f"give a file of {low} to {high}")
    seconds = file.frames / file.samplerate
    if seconds > MOST_SECONDS or file.frames * file.channels > MOST_VALUES:
        what = f"is {seconds:.0f} seconds of {file.channels} channels long"
        raise UserError(what, where=where, do=f"cut it into parts of at most {MOST_SECONDS} seconds")


def _reason(error: Exception) -> str:
    """What the library says, as one line without the path, which is said already."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")
