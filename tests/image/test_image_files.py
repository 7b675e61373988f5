"""Picture files of every kind: read as they are meant, or refused in one line that names the file.

Where a file can be read at all, Pillow's own reading of it is the reference.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from colatent.errors import UserError
from colatent_image import files
from colatent_image.codec import ImageCodec
from colatent_image.config import Framing, ImageConfig

ROW, COLUMN = np.indices((16, 24))
COLOURS = np.stack([COLUMN * 10, ROW * 15, (ROW + COLUMN) * 6], -1).astype(np.uint8)
RGB = Pillow.fromarray(COLOURS)
DEEP = (COLOURS.astype(np.uint16) << 8) + ROW.astype(np.uint16)[..., None]
"""The same with 16 bits, whose lower ones matter."""


def own_size(**settings: Any) -> Framing:
    """Settings under which a picture keeps its size."""
    return Framing(**{"height": 64, "width": 64, "downsample": 1, "fit": "keep"} | settings)


def saved(path: Path, image: Pillow.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def opened(path: Path) -> Pillow.Image:
    return Pillow.open(BytesIO(path.read_bytes()))


def png(samples_HWP: np.ndarray) -> bytes:
    """A PNG file of 8 or 16 bits, written by hand: Pillow writes 16 bits of grey alone."""
    height, width, bands = samples_HWP.shape
    rows = b"".join(b"\0" + row.astype(samples_HWP.dtype.newbyteorder(">")).tobytes() for row in samples_HWP)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    head = struct.pack(">IIBBBBB", width, height, 8 * samples_HWP.itemsize, kind, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def values(image: Pillow.Image) -> np.ndarray:
    """(P, H, W) from 0 to 1."""
    return np.asarray(image, dtype=np.float32).reshape(image.height, image.width, -1).transpose(2, 0, 1) / 255


def on_white(image: Pillow.Image) -> np.ndarray:
    colour_alpha = values(image.convert("RGBA"))
    return colour_alpha[:3] * colour_alpha[3:] + 1 - colour_alpha[3:]


HALF = RGB.copy()
HALF.putalpha(Pillow.fromarray((ROW * 16).astype(np.uint8)))
WEB = RGB.quantize(16)
PLAIN = {
    "rgb.png": (RGB, {}),
    "grey.png": (RGB.convert("L"), {}),
    "bits.png": (RGB.convert("1"), {}),
    "palette.png": (WEB, {}),
    "few.png": (RGB.quantize(4), {"bits": 2}),
    "rgb.jpg": (RGB, {"quality": 95}),
    "grey.jpg": (RGB.convert("L"), {}),
    "progressive.jpeg": (RGB, {"progressive": True}),
    "cmyk.jpg": (RGB.convert("CMYK"), {"quality": 100}),
    "rgb.webp": (RGB, {"lossless": True}),
    "rgb.gif": (WEB, {}),
}
SEE_THROUGH = {
    "alpha.png": (HALF, {}),
    "grey-alpha.png": (HALF.convert("LA"), {}),
    "alpha.webp": (HALF, {"lossless": True}),
    "colour.png": (RGB, {"transparency": (0, 0, 0)}),
    "grey-colour.png": (RGB.convert("L"), {"transparency": 0}),
    "entry.png": (WEB, {"transparency": WEB.getpixel((12, 8))}),
    "entry.gif": (WEB, {"transparency": WEB.getpixel((12, 8))}),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_every_kind_of_file_is_read_as_it_is_meant(name: str, bands: int, tmp_path: Path) -> None:
    image, options = PLAIN[name]
    path = saved(tmp_path / name, image, **options)
    found = files.read_image(path, own_size(bands=bands))
    colour = values(opened(path).convert("RGB"))
    grey = np.tensordot([0.299, 0.587, 0.114], colour, axes=1)[None]
    opaque = np.ones_like(grey)
    expected = {1: [grey], 2: [grey, opaque], 3: [colour], 4: [colour, opaque]}[bands]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1.5 / 255 if "jp" in name else 1e-3)


@pytest.mark.parametrize("name", SEE_THROUGH)
def test_what_is_transparent_shows_white_or_is_kept_as_a_band(name: str, tmp_path: Path) -> None:
    image, options = SEE_THROUGH[name]
    path = saved(tmp_path / name, image, **options)
    meant = opened(path).convert("RGBA")
    assert np.asarray(meant)[..., 3].min() < 255
    np.testing.assert_allclose(files.read_image(path, own_size()), on_white(meant), atol=1e-5)
    np.testing.assert_allclose(files.read_image(path, own_size(bands=4)), values(meant), atol=1e-5)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bits_are_scaled_and_not_cut_off(bands: int, tmp_path: Path) -> None:
    samples = np.concatenate([DEEP, np.full_like(DEEP[..., :1], 0xFFFF)], -1)
    samples = samples[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[bands]]
    (tmp_path / "deep.png").write_bytes(png(samples))
    found = files.read_image(tmp_path / "deep.png", own_size(bands=bands))
    finest = 1 / 65535 if bands == 1 else 1 / 255  # of colours, the upper 8 bits are read
    np.testing.assert_allclose(found, samples.transpose(2, 0, 1) / 65535, atol=finest)


def test_a_transparent_level_of_deep_grey_shows_white(tmp_path: Path) -> None:
    grey = DEEP[..., :1]
    clear, data = int(grey[8, 12, 0]), png(grey)
    at = data.index(b"IDAT") - 4
    (tmp_path / "deep.png").write_bytes(data[:at] + chunk(b"tRNS", struct.pack(">H", clear)) + data[at:])
    expected = np.where(grey == clear, 1, grey / 65535).transpose(2, 0, 1)
    np.testing.assert_allclose(files.read_image(tmp_path / "deep.png", own_size(bands=1)), expected, atol=1 / 65535)
    opacity = files.read_image(tmp_path / "deep.png", own_size(bands=4))[3]
    np.testing.assert_array_equal(opacity, grey[..., 0] != clear)


def test_of_several_pictures_of_one_scene_the_first_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "camera.jpg", RGB, format="MPO", save_all=True, append_images=[Pillow.new("RGB", RGB.size)])
    assert opened(path).format == "MPO"
    np.testing.assert_allclose(files.read_image(path, own_size()), values(opened(path)), atol=1e-3)


@pytest.mark.parametrize("name", ["held.jpg", "held.png", "held.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_that_was_turned_is_turned_back(name: str, orientation: int, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / name, RGB, exif=exif.tobytes(), **({} if name.endswith("png") else {"quality": 95}))
    upright = ImageOps.exif_transpose(opened(path)).convert("RGB")
    np.testing.assert_allclose(files.read_image(path, own_size()), values(upright), atol=2 / 255)


def noise() -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short_is_refused(suffix: str, share: float, tmp_path: Path, capfd: Any) -> None:
    path = saved(tmp_path / f"cut.{suffix}", noise())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, r"is damaged or cut short|is no picture, or its header is damaged", capfd)


def test_a_png_file_with_a_wrong_byte_is_refused(tmp_path: Path, capfd: Any) -> None:
    path = saved(tmp_path / "wrong.png", noise())
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    refused(path, r"is damaged or cut short: its picture cannot be decoded; get it again", capfd)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", r"is empty; get it again, or leave it out"),
        (b"\x89PNG\r\n\x1a\n", r"is no picture, or its header is damaged; give a PNG, JPEG, WebP or GIF file"),
        (b"<html>not found</html>", r"is no picture"),
        (b"BM" + bytes(60), r"is no picture"),
        (b"GIF89a" + bytes(200), r"is no picture|is damaged"),
        (b"\xff\xd8\xff\xe0" + bytes(200), r"is no picture|is damaged"),
        (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(60), r"is no picture|is damaged"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, what: str, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "what.png"
    path.write_bytes(data)
    refused(path, what, capfd)


def refused(path: Path, what: str, capfd: Any, **settings: Any) -> None:
    """One line that begins with the file, and nothing on the terminal from underneath."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match=what) as caught:
            files.read_image(path, own_size(**settings))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_moving_pictures_are_refused(suffix: str, tmp_path: Path, capfd: Any) -> None:
    path = saved(tmp_path / f"moving.{suffix}", RGB, save_all=True, append_images=[ImageOps.mirror(RGB)])
    refused(path, r"is animated; save one frame of it as a PNG file", capfd)


@pytest.mark.parametrize("side", [3000, 12_000, 50_000])
def test_too_many_pixels_are_refused_before_anything_is_decoded(side: int, tmp_path: Path, capfd: Any) -> None:
    """Headers that promise much and data that hold nothing: were they decoded, other lines would come."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    refused(
        path, r"more (pixels )?than max_pixels=1,000,000; scale it down, or raise max_pixels", capfd, max_pixels=10**6
    )


def test_the_limit_is_on_pixels_and_itself_allowed(tmp_path: Path) -> None:
    path = saved(tmp_path / "just.png", RGB)
    assert files.read_image(path, own_size(max_pixels=16 * 24)).shape == (3, 16, 24)
    with pytest.raises(UserError, match=r"has 24 x 16 pixels, more than max_pixels=383"):
        files.read_image(path, own_size(max_pixels=16 * 24 - 1))


def test_a_file_far_larger_than_its_pixels_is_not_even_read(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.truncate(2**21)
    refused(path, r"is 2,097,152 bytes, more than any picture within max_pixels needs", capfd, max_pixels=1000)


def test_damage_anywhere_gives_a_picture_or_one_line(tmp_path: Path) -> None:
    """Bytes drawn at random over files of every kind: no reader's own exception comes through."""
    rng, image = np.random.default_rng(0), noise().resize((12, 8))
    moving = {"save_all": True, "append_images": [image.rotate(180)]}
    kinds = [("png", {}), ("jpg", {}), ("webp", {}), ("gif", {}), ("gif", moving), ("png", moving)]
    for number, (suffix, options) in enumerate(kinds):
        path = saved(tmp_path / f"{number}.{suffix}", image, **options)
        data = path.read_bytes()
        for _ in range(150):
            changed = bytearray(data)
            for place in rng.integers(min(len(data), 120), size=3):
                changed[place] = rng.integers(256)
            path.write_bytes(changed)
            with contextlib.suppress(UserError):
                found = files.read_image(path, own_size(max_pixels=10_000))
                assert 0 <= found.min() <= found.max() <= 1


def test_what_is_no_file_is_told(tmp_path: Path, capfd: Any) -> None:
    refused(tmp_path / "none.png", r"no such file; give an image file", capfd)
    refused(tmp_path, r"is a folder; give an image file", capfd)
    refused(tmp_path / ("long" * 100), r"cannot be read \(File name too long\)", capfd)


def test_a_crop_covers_the_size_and_keeps_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((10, 30), dtype=np.uint8)
    wide[:, 10:20] = 255
    path = saved(tmp_path / "wide.png", Pillow.fromarray(wide))
    config = Framing(bands=1, height=20, width=20, downsample=4)
    np.testing.assert_allclose(files.read_image(path, config), np.ones((1, 20, 20)), atol=1e-6)
    config = Framing(bands=1, height=4, width=12, downsample=4)
    np.testing.assert_allclose(files.read_image(path, config)[:, :, 5:7], np.ones((1, 4, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("size", "shape"),
    [((16, 24), (16, 24)), ((17, 23), (16, 24)), ((3, 3), (4, 4)), ((640, 320), (92, 44)), ((2, 9000), (4, 1024))],
)
def test_a_picture_that_keeps_its_size_is_whole_latents_and_not_too_many(
    size: tuple[int, int], shape: tuple[int, int], tmp_path: Path
) -> None:
    path = saved(tmp_path / "one.png", Pillow.new("RGB", size[::-1], "red"))
    found = files.read_image(path, own_size(downsample=4))
    assert found.shape == (3, *shape)
    assert abs(found - np.array([1.0, 0, 0], dtype=np.float32)[:, None, None]).max() < 1e-6


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_picture_comes_back_from_its_file(bands: int, tmp_path: Path) -> None:
    config = ImageConfig(bands=bands, height=16, width=24, downsample=8, features=16, depth=1)
    codec, item = ImageCodec(config), np.random.default_rng(0).random((bands, 16, 24), dtype=np.float32)
    path = codec.write_item(item, tmp_path / "picture.0")
    assert path == tmp_path / "picture.0.png"
    np.testing.assert_allclose(codec.read_item(path), item, atol=0.51 / 255)
    shown = codec.show(item)
    assert (shown.media, shown.data) == ("image/png", path.read_bytes())


def test_pictures_of_many_bands_are_arrays(tmp_path: Path) -> None:
    config = ImageConfig(bands=6, height=8, width=8, downsample=4, features=16, depth=1)
    codec, item = ImageCodec(config), np.random.default_rng(0).random((6, 8, 8), dtype=np.float32)
    path = codec.write_item(item, tmp_path / "bands")
    assert path.suffix == ".npy"
    np.testing.assert_array_equal(codec.read_item(path), item)
    np.save(path, (item * 65535).astype(np.uint16))
    np.testing.assert_allclose(codec.read_item(path), item, atol=1 / 65535)
    assert Pillow.open(BytesIO(codec.show(item).data)).mode == "RGB"


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (
            np.zeros((5, 8, 8), dtype=np.float32),
            r"holds float32 \(5, 8, 8\); give an .npy file of an array \(6, height",
        ),
        (np.zeros((6, 8, 8), dtype=np.int64), r"holds int64 \(6, 8, 8\)"),
        (np.full((6, 8, 8), 2.0), r"values below 0 or above 1"),
        (np.full((6, 8, 8), np.nan), r"no numbers"),
        (np.zeros((6, 80, 80), dtype=np.uint8), r"has 80 x 80 pixels, more than max_pixels=1,000"),
        (np.array([[[{}]]]), r"holds object"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray, what: str, tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "bands.npy"
    np.save(path, array)
    refused(path, what, capfd, bands=6, max_pixels=1000)


def test_damaged_arrays_are_refused(tmp_path: Path, capfd: Any) -> None:
    path = tmp_path / "bands.npy"
    np.save(path, np.zeros((6, 8, 8), dtype=np.float32))
    for data in (
        path.read_bytes()[:-1],
        path.read_bytes()[:40],
        b"\x89PNG\r\n\x1a\n",
        b"\x93NUMPY\x09\x00" + bytes(90),
    ):
        path.write_bytes(data)
        refused(path, r"is no .npy file, or is damaged", capfd, bands=6)


def test_reading_changes_no_state(tmp_path: Path) -> None:
    path = saved(tmp_path / "rgb.png", RGB)
    before, limit = torch.random.get_rng_state(), Pillow.MAX_IMAGE_PIXELS
    files.read_image(path, own_size())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert limit == Pillow.MAX_IMAGE_PIXELS
