"""Folders of recordings with captions.

What a recording says stands beside it in a text file, in the name of its folder, or in its own name; which recordings
are held out follows from their names alone, so that two runs hold out the same ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from colatent.config.schema import Settings
from colatent.data.dataset import Sample, Split
from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent_audio.files import read_sound


class AudioFolderConfig(Settings):
    """WAV, FLAC and other recordings in a folder and its subfolders."""

    path: str = Field(min_length=1)
    """The folder."""
    sample_rate: PositiveInt = 8000
    """Samples a second of the items; that of the codec."""
    pattern: tuple[str, ...] = ("*.wav", "*.flac")
    """Names of the files that are read, in small or capital letters; never those that begin with a dot."""
    captions: Literal["files", "folders", "names"] = "files"
    """Where captions are: in UTF-8 files of the same names that end in .txt, in the names of the folders, or in the
    recordings' own names, as `name` says."""
    name: str | None = None
    """For captions from names: a regular expression that the file's name without its suffix must match as a whole. Its
    group `text` is the caption."""
    heldout_name: str | None = None
    """A regular expression: recordings whose name without suffix matches as a whole are held out. Default: a share."""
    heldout: float = Field(default=0.05, gt=0.0, le=0.5)
    """Share that is held out where names do not say, at least one."""
    max_seconds: PositiveFloat = 30.0
    """A longer recording is refused, since a piece cut from it would not end where its caption does."""

    @field_validator("name", "heldout_name")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _captions_are_named(self) -> AudioFolderConfig:
        if (self.name is not None) != (self.captions == "names"):
            raise ValueError("name and captions: names go together")
        if self.name is not None and "text" not in re.compile(self.name).groupindex:
            raise ValueError("name needs a group called text: (?P<text>...)")
        return self


@dataclass(frozen=True, kw_only=True)
class _Recording:
    """A recording in memory, with what it says."""

    sound: np.ndarray
    text: str


class AudioFolder:
    """`{"audio": samples, "text": caption}`, a recording each."""

    def __init__(self, config: AudioFolderConfig, *, split: Split) -> None:
        self._rate, files = config.sample_rate, _files(Path(config.path), config.pattern)
        held = _held_out(files, config)
        chosen = [file for file in files if (file in held) == (split == "heldout")]
        self._recordings = [_recording(file, config) for file in chosen]

    def __len__(self) -> int:
        return len(self._recordings)

    def facts(self) -> dict[str, dict[str, int]]:
        """See `colatent.data.dataset.FactualDataset`."""
        return {"audio": {"sample_rate": self._rate}}

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        recording = self._recordings[index]
        return {"audio": recording.sound, "text": recording.text}


def _files(folder: Path, pattern: tuple[str, ...]) -> list[Path]:
    """The recordings in a folder, in the order of their names."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise UserError(what, where=str(folder), do="give a folder of WAV or FLAC files")
    files = [file for file in folder.rglob("*") if _matches(file.name, pattern) and file.is_file()]
    if len(files) < 2:
        what = f"{len(files)} files match {', '.join(pattern) or 'an empty pattern'}"
        raise UserError(what, where=str(folder), do="give two at least: one to train on, one to hold out")
    return sorted(files, key=Path.as_posix)


def _matches(name: str, pattern: tuple[str, ...]) -> bool:
    return not name.startswith(".") and any(fnmatch(name.lower(), glob.lower()) for glob in pattern)


def _held_out(files: list[Path], config: AudioFolderConfig) -> set[Path]:
    if config.heldout_name is not None:
        held = {file for file in files if re.fullmatch(config.heldout_name, file.stem)}
        if not 0 < len(held) < len(files):
            what = f"{len(held)} of {len(files)} recordings match heldout_name {config.heldout_name!r}"
            raise UserError(what, where=config.path, do="let it match some of them and not all")
        return held
    # By a number that hangs on the name alone: files that come or go leave the order of the others as it is.
    root = Path(config.path)
    ranked = sorted(files, key=lambda file: generator("heldout", file.relative_to(root).as_posix()).random())
    return set(ranked[: max(1, round(len(files) * config.heldout))])


def _recording(file: Path, config: AudioFolderConfig) -> _Recording:
    sound = read_sound(file, sample_rate=config.sample_rate)
    seconds = len(sound) / config.sample_rate
    if seconds > config.max_seconds:
        what = f"is {seconds:.1f} seconds long, more than max_seconds={config.max_seconds:g}"
        raise UserError(what, where=str(file), do="cut it, with a caption for each part, or allow more")
    return _Recording(sound=sound, text=_caption(file, config))


def _caption(file: Path, config: AudioFolderConfig) -> str:
    if config.captions == "folders":
        return file.absolute().parent.name
    if config.captions == "names":
        found = re.fullmatch(config.name or "", file.stem)
        if found is None or not found["text"]:
            what = f"its name does not match {config.name!r} with a text"
            raise UserError(what, where=str(file), do="change data.sources.*.config.name, or pattern to leave it out")
        return found["text"]
    return _read_caption(file.with_suffix(".txt"), of=file.name)


def _read_caption(path: Path, *, of: str) -> str:
    """A caption without the white space round it; `of` is the recording's name."""
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UserError("not UTF-8", where=str(path), do="convert the file to UTF-8") from None
    except OSError as error:
        what = f"the caption of {of} cannot be read ({error.strerror})"
        raise UserError(what, where=str(path), do="write it, or take captions from folders or names") from None
    if not text:
        raise UserError(f"the caption of {of} is empty", where=str(path), do="write what is said")
    return text
