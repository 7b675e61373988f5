"""Sound files as people have them: odd rates, many channels, broken and hostile ones. Every file here is a real one."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio.sounds import RATE, detected, keypad
from colatent.errors import UserError
from colatent.plugins.items import FileCodec, Showable
from colatent_audio import files
from colatent_audio.codec import AudioCodec
from colatent_audio.config import AudioConfig

SEVEN = keypad("7", np.random.default_rng(0))


@pytest.fixture(scope="module")
def codec() -> AudioCodec:
    return AudioCodec(AudioConfig(width=16))


def header(rate: int, *, channels: int = 1, samples: int = 100, claimed: int | None = None) -> bytes:
    """A 16-bit WAV whose header may claim more than there is."""
    data = np.zeros(samples * channels, dtype="<i2").tobytes()
    size = len(data) if claimed is None else claimed
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels & 0xFFFFFFFF, 2 * channels, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + (b"data" + struct.pack("<I", size) + data)
    )


def test_the_codec_reads_and_shows(codec: AudioCodec) -> None:
    assert isinstance(codec, FileCodec)
    assert isinstance(codec, Showable)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_what_was_written_is_read(codec: AudioCodec, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"seven.{suffix}"
    soundfile.write(path, SEVEN, RATE)
    np.testing.assert_allclose(codec.read_item(path), SEVEN, atol=1 / 32768)
    written = codec.write_item(codec.read_item(path), tmp_path / "copy.1")
    assert written == tmp_path / "copy.1.wav"
    assert soundfile.info(written).subtype == "PCM_16"
    np.testing.assert_array_equal(codec.read_item(written), codec.read_item(path))


def test_a_report_gets_a_whole_wav_file(codec: AudioCodec) -> None:
    shown = codec.show(np.array([0.0, 0.5, -2.0], dtype=np.float32))
    assert shown.media == "audio/wav"
    samples, rate = soundfile.read(BytesIO(shown.data))
    assert rate == RATE
    np.testing.assert_allclose(samples, [0.0, 0.5, -1.0], atol=1e-4)


@pytest.mark.parametrize("rate", [1000, 4000, 11_025, 11_127, 44_100, 44_101, 48_000, 96_000])
def test_any_rate_is_resampled(codec: AudioCodec, tmp_path: Path, rate: int) -> None:
    time = np.arange(rate // 2) / rate
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 300 * time), rate)
    found = codec.read_item(tmp_path / "tone.wav")
    assert found.dtype == np.float32
    assert abs(len(found) - RATE // 2) <= 8
    expected = 0.5 * np.sin(2 * np.pi * 300 * np.arange(len(found)) / RATE)
    assert float(np.abs(found - expected)[400:-400].max()) < 0.03


def test_channels_are_averaged(codec: AudioCodec, tmp_path: Path) -> None:
    channels = np.stack([SEVEN, 0 * SEVEN, SEVEN, 0 * SEVEN, SEVEN, SEVEN], axis=1)
    soundfile.write(tmp_path / "six.wav", channels, RATE, subtype="FLOAT")
    found = codec.read_item(tmp_path / "six.wav")
    np.testing.assert_allclose(found, SEVEN * 4 / 6, atol=1e-6)
    assert detected(found) == "7"


def test_eight_and_24_bits_are_read(codec: AudioCodec, tmp_path: Path) -> None:
    for subtype, step in (("PCM_U8", 1 / 128), ("PCM_24", 1 / 2**23)):
        soundfile.write(tmp_path / "some.wav", SEVEN, RATE, subtype=subtype)
        np.testing.assert_allclose(codec.read_item(tmp_path / "some.wav"), SEVEN, atol=step)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_telephone_formats_are_read(codec: AudioCodec, tmp_path: Path, subtype: str) -> None:
    soundfile.write(tmp_path / "call.wav", SEVEN, RATE, subtype=subtype)
    found = codec.read_item(tmp_path / "call.wav")
    assert len(found) >= len(SEVEN)
    assert detected(found[: len(SEVEN)]) == "7"


def flac_cut_short() -> bytes:
    file = BytesIO()
    soundfile.write(file, np.random.default_rng(0).uniform(-1, 1, size=50_000), RATE, format="FLAC")
    return file.getvalue()[:-40_000]


def wav_of(samples: np.ndarray, *, endian: str = "FILE") -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="FLOAT", endian=endian)
    return file.getvalue()


def flac_cut_between_frames() -> bytes:
    """Whole as far as it goes: each of its frames of 4096 samples can be decoded."""
    file = BytesIO()
    soundfile.write(file, np.zeros(50_000), RATE, format="FLAC")
    data = file.getvalue()
    return data[: data.rindex(b"\xff\xf8")]


BROKEN = {
    "half.wav": (wav_of(SEVEN)[: 2 * len(SEVEN)], "is cut short: it announces more than it holds; get it again"),
    "last.wav": (wav_of(SEVEN)[:-1], "is cut short"),
    "big-endian.wav": (wav_of(SEVEN, endian="BIG")[:-1], "is cut short"),
    "frames.flac": (flac_cut_between_frames(), "cannot be read as sound"),
    "empty.wav": (b"", "cannot be read as sound"),
    "text.wav": (b"not a sound at all, but text " * 9, "cannot be read as sound"),
    "cut.flac": (flac_cut_short(), "cannot be read as sound"),
    "header.wav": (header(RATE)[:20], "cannot be read as sound"),
    "nothing.wav": (header(RATE, samples=0), "holds no samples; leave it out"),
    "nan.wav": (wav_of(np.array([0.1, np.nan, 0.2])), "holds NaN or infinity; repair it"),
    "infinite.wav": (wav_of(np.array([0.1, np.inf, 0.2])), "holds NaN or infinity; repair it"),
    "whole.wav": (wav_of(np.array([1.0, -32768.0])), "has samples up to 32768, where full scale is 1; scale it down"),
    "stereo.wav": (wav_of(np.full((2, 2), 3e38)), "has samples up to 3e+38"),
    "bare.raw": (bytes(100), "cannot be read as sound"),
    "slow.wav": (header(10), "has 10 samples a second; give a file of 1000 to 384000"),
    "fast.wav": (header(2_000_000_000), "has 2000000000 samples a second; give"),
    "long.wav": (header(1000, samples=601_000), "is 601 seconds of 1 channels long; cut it into parts of at most 600"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_bad_file_is_one_line_that_names_it(codec: AudioCodec, tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        codec.read_item(tmp_path / name)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in line
    assert caught.value.do


def test_a_size_that_was_never_filled_in_costs_no_memory(codec: AudioCodec, tmp_path: Path) -> None:
    (tmp_path / "liar.wav").write_bytes(header(RATE, claimed=2**32 - 64))
    assert len(codec.read_item(tmp_path / "liar.wav")) == 100


def test_what_follows_the_samples_is_not_missed(codec: AudioCodec, tmp_path: Path) -> None:
    """A chunk of notes before them, of an odd length, and a file that ends without the byte that pads one."""
    data = header(RATE, samples=100)
    (tmp_path / "noted.wav").write_bytes(data[:12] + b"note" + struct.pack("<I", 3) + b"abc\0" + data[12:])
    assert len(codec.read_item(tmp_path / "noted.wav")) == 100
    (tmp_path / "odd.wav").write_bytes(data[:-1].replace(struct.pack("<I", 200), struct.pack("<I", 199)))
    assert len(codec.read_item(tmp_path / "odd.wav")) == 99


def test_in_shards_a_sound_that_is_cut_short_is_damaged(codec: AudioCodec) -> None:
    with pytest.raises(UserError, match=r"^a\.wav: is cut short"):
        codec.open_item(codec.config, wav_of(SEVEN)[:-100], name="a.wav")


def test_the_length_is_looked_at_before_a_sample_is_read(
    codec: AudioCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "wide.wav", np.zeros((1000, 64)), RATE)
    monkeypatch.setattr(files, "MOST_VALUES", 63_999)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    with pytest.raises(UserError, match=r"wide\.wav: is 0 seconds of 64 channels long; cut it"):
        codec.read_item(tmp_path / "wide.wav")


def test_what_is_no_file_is_told(codec: AudioCodec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.wav: no such file; give a WAV or FLAC file"):
        codec.read_item(tmp_path / "none.wav")
    with pytest.raises(UserError, match=r"is a folder; give"):
        codec.read_item(tmp_path)
