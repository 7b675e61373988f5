"""Pictures and sounds in shards are the items that the folders give, and several modalities train from one archive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from audio.sounds import KEYS, RATE, keypad
from colatent.data.dataset import Opener
from colatent.data.pack import pack
from colatent.data.raw import open_raw
from colatent.errors import UserError
from colatent.plugins import Candidate, PluginSet, load_plugins
from colatent_audio.codec import AudioCodec
from colatent_audio.config import AudioConfig
from colatent_audio.files import read_sound
from colatent_image.codec import ImageCodec
from colatent_image.config import ImageConfig
from colatent_image.files import read_image
from data.shards_made import TEXT, opened
from plugins_for_tests.grid import CONFIG, HERE, PATTERNS, picture
from plugins_for_tests.runs import assert_same_run, changed, metrics, run
from plugins_for_tests.stops import PowerCutError, StopsAt

IMAGE = Opener(codec=ImageCodec, config=ImageConfig(height=8, width=16, downsample=4))
AUDIO = Opener(codec=AudioCodec, config=AudioConfig(sample_rate=4000))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of two formats with captions."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(12):
        path = folder / f"{number:02d}.{'png' if number % 2 else 'webp'}"
        Pillow.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path, lossless=True)
        path.with_suffix(".txt").write_text(f"picture {number}\n")
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen tones of two formats."""
    folder = tmp_path_factory.mktemp("sounds")
    for number, key in enumerate(KEYS):
        suffix = "flac" if number % 2 else "wav"
        soundfile.write(folder / f"{number:02d}.{suffix}", keypad(key, np.random.default_rng(number)), RATE)
    return folder


def test_pictures_and_captions_are_what_their_files_give(photos: Path, tmp_path: Path) -> None:
    shards = pack(open_raw(photos), tmp_path / "shards").path
    dataset = opened(shards, openers={"image": IMAGE, "text": TEXT})
    assert dataset.fields() == ["image", "text"]
    for index in range(len(dataset)):
        found = dataset.sample(index, np.random.default_rng(0))
        (path,) = (one for one in photos.glob(f"{int(found['text'].split()[1]):02d}.*") if one.suffix != ".txt")
        np.testing.assert_array_equal(found["image"], read_image(path, IMAGE.config))


def test_sounds_are_what_their_files_give(sounds: Path, tmp_path: Path) -> None:
    dataset = opened(pack(open_raw(sounds), tmp_path / "shards").path, openers={"audio": AUDIO})
    found = [dataset.sample(index, np.random.default_rng(0))["audio"] for index in range(len(dataset))]
    wanted = [read_sound(path, sample_rate=4000) for path in sorted(sounds.iterdir())]
    assert len(found) == 15
    assert all(any(np.array_equal(one, other) for other in wanted) for one in found)


@pytest.mark.parametrize(("opener", "name"), [(IMAGE, "a.png"), (AUDIO, "a.wav"), (TEXT, "a.txt")])
def test_what_does_not_open_is_a_line_that_names_it(opener: Opener, name: str) -> None:
    for data in (b"\xff\xfe no file", b"RIFF\xff\xff", b"\x89PNG\r\n\x1a\n\xff"):
        with pytest.raises(UserError, match=rf"^{name}: "):
            opener(data, name=name)


@pytest.mark.parametrize("kind", ["photos", "sounds"])
def test_files_with_flipped_bits_never_end_in_a_traceback(kind: str, request: pytest.FixtureRequest) -> None:
    rng, opener = np.random.default_rng(0), {"photos": IMAGE, "sounds": AUDIO}[kind]
    files = [path for path in sorted(request.getfixturevalue(kind).iterdir()) if path.suffix != ".txt"]
    refused = 0
    for number in range(150):
        data = bytearray(files[number % len(files)].read_bytes())
        for _ in range(4):
            data[int(rng.integers(min(len(data), 400)))] = int(rng.integers(256))
        try:
            opener(bytes(data), name="a")
        except UserError:
            refused += 1
    assert 0 < refused < 150


def plugins() -> PluginSet:
    """The core's datasets, and the tests' codec of two axes beside text."""
    ours = [("data", "colatent.data.plugin"), ("text", "colatent_text.plugin")]
    found = [Candidate(name=name, distribution="colatent", version="0", target=target) for name, target in ours]
    return load_plugins([*found, Candidate(name="grid", distribution="grids", version="1", target=HERE)])


def test_one_archive_trains_two_modalities_and_resumes(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), []
    for number in range(40):
        name, (height, width) = list(PATTERNS)[number % 3], rng.integers(1, 4, size=2)
        np.save(tmp_path / f"{number}.npy", picture(name, height, width, patch=2) + rng.normal(scale=0.1))
        lines.append(json.dumps({"text": f"{name} {height}x{width}", "grid": f"{number}.npy"}))
    (tmp_path / "all.jsonl").write_text("\n".join(lines))
    path = str(pack(open_raw(tmp_path / "all.jsonl"), tmp_path / "shards").path)
    source = {"dataset": "shards", "config": {"path": path}, "segments": [{"stream": "text"}, {"stream": "grid"}]}
    few = {"steps": 5, "batch": 6, "warmup": 1, "save_every": 2, "eval_every": 0, "ema": 0.9}
    tree = changed(CONFIG, data__sources={"paint": source}, stages={"codec": few, "prior": few})
    whole = run(tree, tmp_path / "whole", plugins=plugins())
    assert {"paint/text/t=0.5", "paint/grid/t=0.5"} <= metrics(whole)[-1]["eval"].keys()
    with pytest.raises(PowerCutError):
        run(tree, tmp_path / "cut", plugins=plugins(), reporter=StopsAt("codec", 3, None))
    run(tree, tmp_path / "cut", plugins=plugins(), resume=True)
    assert_same_run(whole, tmp_path / "cut")
