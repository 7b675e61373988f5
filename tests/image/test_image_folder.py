"""A folder of pictures: captions, what is held out, chance by the generator alone, and files that are not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from colatent.data.dataset import Dataset
from colatent.errors import UserError
from colatent_image.datasets import ImageFolder, ImageFolderConfig, held_out

SETTINGS: dict[str, Any] = {"bands": 1, "height": 8, "width": 8, "downsample": 4, "heldout": 0.25}


def dataset(folder: Path, *, split: Any = "train", **settings: Any) -> ImageFolder:
    return ImageFolder(ImageFolderConfig(path=str(folder), **SETTINGS | settings), split=split)


def draw(source: ImageFolder, index: int = 0, seed: int = 0) -> dict[str, Any]:
    return dict(source.sample(index, np.random.default_rng(seed)))


def brightness(number: int) -> int:
    return 5 * number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 grey pictures in two folders, of brightness 0, 5, ..., 195, brighter on the left."""
    for number in range(40):
        path = tmp_path / "data" / ("dark" if number < 20 else "bright") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((12, 16), brightness(number), dtype=np.uint8)
        pixels[:, :8] += 50
        Pillow.fromarray(pixels).save(path)
    (tmp_path / "data" / "dark" / ".hidden.png").write_bytes(b"no picture")
    (tmp_path / "data" / "dark" / "notes.md").write_text("no picture either")
    return tmp_path / "data"


def numbers(source: ImageFolder) -> list[int]:
    """Which of the pictures it has."""
    return [round(draw(source, index)["image"].min() * 51) for index in range(len(source))]


def test_every_picture_is_trained_on_or_held_out(folder: Path) -> None:
    train, heldout = (dataset(folder, split=split) for split in ("train", "heldout"))
    assert isinstance(train, Dataset)
    assert sorted(numbers(train) + numbers(heldout)) == list(range(40))
    assert 4 <= len(heldout) <= 16
    names = [f"{'dark' if number < 20 else 'bright'}/{number:02d}.png" for number in range(40)]
    assert sorted(numbers(heldout)) == [number for number, name in enumerate(names) if held_out(name, 0.25)]


def test_other_pictures_do_not_move_what_is_held_out(folder: Path) -> None:
    before = numbers(dataset(folder, split="heldout"))
    for number in range(20, 30):
        (folder / "bright" / f"{number}.png").unlink()
    after = numbers(dataset(folder, split="heldout"))
    assert after == [number for number in before if not 20 <= number < 30]


def test_a_share_is_held_out() -> None:
    assert sum(held_out(f"{number}.png", 0.1) for number in range(5000)) == pytest.approx(500, rel=0.15)


def test_a_caption_is_the_name_of_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = dataset(folder)
    for index, number in enumerate(numbers(source)):
        assert draw(source, index)["text"] == ("dark" if number < 20 else "bright")
    monkeypatch.chdir(folder / "dark")
    assert draw(dataset(Path()))["text"] == "dark"


def test_a_caption_may_be_a_file(folder: Path) -> None:
    for path in folder.rglob("[0-9]*.png"):
        path.with_suffix(".txt").write_text(f"\ufeff the number {path.stem}, größer \n", encoding="utf-8")
    source = dataset(folder, captions="files")
    assert draw(source)["text"] == f"the number {numbers(source)[0]:02d}, größer"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (None, r"has no caption; write {stem}.txt beside it, or use captions: folders"),
        (b" \n", r"{stem}.txt: the caption is empty; write what"),
        (b"\xff\xfe", r"{stem}.txt: cannot be read as UTF-8 text"),
    ],
)
def test_a_caption_that_is_missing_or_unreadable_is_told(folder: Path, data: bytes | None, what: str) -> None:
    for path in folder.rglob("[0-9]*.png"):
        path.with_suffix(".txt").write_bytes(b"a number")
    stem = f"{numbers(dataset(folder))[0]:02d}"
    (caption,) = folder.rglob(f"{stem}.txt")
    if data is None:
        caption.unlink()
    else:
        caption.write_bytes(data)
    with pytest.raises(UserError, match=what.format(stem=stem)):
        draw(dataset(folder, captions="files"))


def test_pictures_vary_by_the_generator_and_held_out_ones_do_not(folder: Path) -> None:
    train = dataset(folder, flip=True, crop=0.5)
    drawn = [draw(train, seed=seed)["image"] for seed in range(40)]
    assert all(image.shape == (1, 8, 8) for image in drawn)
    assert all(np.array_equal(image, draw(train, seed=seed)["image"]) for seed, image in enumerate(drawn))
    assert len({image.tobytes() for image in drawn}) > 20
    heldout = dataset(folder, split="heldout", flip=True, crop=0.5)
    assert len({draw(heldout, seed=seed)["image"].tobytes() for seed in range(20)}) == 1


def test_half_of_the_pictures_are_mirrored(folder: Path) -> None:
    train = dataset(folder, flip=True)
    drawn = [draw(train, seed=seed)["image"] for seed in range(200)]
    plain = draw(dataset(folder))["image"]
    mirrored = [np.allclose(image, plain[..., ::-1], atol=1e-5) for image in drawn]
    straight = [np.allclose(image, plain, atol=1e-5) for image in drawn]
    assert all(np.not_equal(mirrored, straight))
    assert 70 < sum(mirrored) < 130


def test_a_crop_keeps_its_share(folder: Path) -> None:
    """Of 16 columns of which 8 are bright, three quarters hold at least 4 bright and 4 dark ones."""
    train = dataset(folder, crop=0.75, fit="keep")
    for seed in range(50):
        image = draw(train, seed=seed)["image"]
        assert (image.shape[1] >= 8, image.shape[2] <= 12) == (True, True)
        assert 0.25 <= (image > image.mean()).mean() <= 0.75


def test_pictures_keep_their_sizes_where_asked_to(folder: Path) -> None:
    Pillow.new("L", (24, 4)).save(folder / "dark" / "long.png")
    source = dataset(folder, fit="keep", height=16, width=16, heldout=0.01)
    shapes = {draw(source, index)["image"].shape for index in range(len(source))}
    assert shapes == {(1, 12, 16), (1, 4, 24)}


def test_a_dataset_travels_into_a_worker(folder: Path) -> None:
    source = dataset(folder, flip=True)
    other = pickle.loads(pickle.dumps(source))
    assert np.array_equal(draw(other, 3, 5)["image"], draw(source, 3, 5)["image"])


def test_arrays_of_many_bands_are_found_by_their_suffix(folder: Path) -> None:
    for number in range(8):
        np.save(folder / f"{number}.npy", np.full((5, 8, 8), number / 8, dtype=np.float32))
    source = dataset(folder, bands=5)
    assert all(draw(source, index)["image"].shape == (5, 8, 8) for index in range(len(source)))


def test_a_broken_picture_is_named_when_it_is_drawn(folder: Path) -> None:
    name = f"{numbers(dataset(folder))[0]:02d}.png"
    (path,) = folder.rglob(name)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=rf"{name}: is damaged or cut short"):
        draw(dataset(folder))


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("none", r"none: no such folder; give a folder of pictures"),
        ("dark/notes.md", r"notes.md: is not a folder"),
        ("empty", r"empty: holds no file named \*.png, \*.jpg, \*.jpeg, \*.webp, \*.gif; check the path"),
        ("single", r"single: of 1 pictures none is held out; give more pictures, or change heldout"),
    ],
)
def test_a_folder_without_pictures_is_told(folder: Path, path: str, what: str) -> None:
    (folder / "empty").mkdir()
    (folder / "single").mkdir()
    Pillow.new("L", (8, 8)).save(folder / "single" / "one.png")
    with pytest.raises(UserError, match=what):
        dataset(folder / path, split="heldout", heldout=0.01)
