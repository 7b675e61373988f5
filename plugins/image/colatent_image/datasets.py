"""A folder of pictures with captions: scanned once for names, each picture read when it is drawn.

What is held out hangs on a file's name alone, so that adding pictures moves none of the others across the line.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from colatent.data.dataset import Sample, Split
from colatent.errors import UserError
from colatent_image.config import Framing
from colatent_image.files import MOST_BANDS, SUFFIXES, as_item, read_pixels
from colatent_image.framing import framed, random_crop


class ImageFolderConfig(Framing):
    """A folder of pictures, searched with its subfolders. What it shares with the codec must be set alike."""

    path: str = Field(min_length=1)
    captions: Literal["folders", "files"] = "folders"
    """What a picture's text is: the name of the folder that it lies in, or what its own file says (`cat.txt` beside
    `cat.png`)."""
    heldout: float = Field(default=0.05, gt=0.0, le=0.5)
    """Share of the pictures that is held out, by a hash of their names."""
    flip: bool = False
    """Whether half of the training pictures are mirrored."""
    crop: float = Field(default=1.0, gt=0.0, le=1.0)
    """Least share of height and width that a training picture keeps, in a window drawn at random; 1: all of it."""


class ImageFolder:
    """`{"image": array, "text": caption}` of each picture in a folder."""

    def __init__(self, config: ImageFolderConfig, *, split: Split) -> None:
        self._config, self._training = config, split == "train"
        root = Path(config.path)
        names = _picture_names(root, SUFFIXES if config.bands <= MOST_BANDS else (".npy",))
        chosen = [name for name in names if held_out(name, config.heldout) != self._training]
        if not chosen:
            what = f"of {len(names)} pictures none is {'left for training' if self._training else 'held out'}"
            raise UserError(what, where=config.path, do="give more pictures, or change heldout")
        self._paths = [root / name for name in chosen]
        if config.captions == "files":
            for path in self._paths:  # now, and not in the middle of a run
                _caption_file(path)

    def __len__(self) -> int:
        return len(self._paths)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        config, path = self._config, self._paths[index]
        pixels_PHW = read_pixels(path, config)
        if self._training and config.crop < 1:
            pixels_PHW = random_crop(pixels_PHW, config.crop, rng)
        if self._training and config.flip and rng.random() < 0.5:
            pixels_PHW = pixels_PHW.flip(-1)
        return {"image": as_item(framed(pixels_PHW, config)), "text": self._caption(path)}

    def _caption(self, path: Path) -> str:
        if self._config.captions == "files":
            return _read_caption(_caption_file(path))
        return path.absolute().parent.name


def held_out(name: str, share: float) -> bool:
    """Whether a picture of this name, inside its folder, is held out."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def _picture_names(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    """The files in a folder that are named like pictures, in order; those whose name begins with a dot are none."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "no such folder"
        raise UserError(what, where=str(folder), do="give a folder of pictures")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in files if not path.name.startswith("."))
    if not names:
        raise UserError(f"holds no file named *{', *'.join(suffixes)}", where=str(folder), do="check the path")
    return names


def _caption_file(picture: Path) -> Path:
    """The file beside a picture that says what it shows."""
    path = picture.with_suffix(".txt")
    if not path.is_file():
        raise UserError(
            "has no caption", where=str(picture), do=f"write {path.name} beside it, or use captions: folders"
        )
    return path


def _read_caption(path: Path) -> str:
    """A caption without the white space round it."""
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read as UTF-8 text", where=str(path), do="write it again") from error
    if not text:
        raise UserError("the caption is empty", where=str(path), do="write what the picture shows")
    return text
