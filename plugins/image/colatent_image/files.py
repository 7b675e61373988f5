"""Pictures from files and back: the header is read before anything is decoded, and a file is read whole or refused.

Pillow reads and writes, torchvision scales (docs/decisions/0012-image-files.md says why). A file comes out as what its
owner means by it: upright, palettes and inks as colours, 16 bits scaled and not cut off.

Axes: P bands, H and W rows and columns.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from colatent.checkpoint.storage import atomic_write_bytes
from colatent.errors import UserError
from colatent_image.arrays import array_bytes, read_array
from colatent_image.config import Framing
from colatent_image.framing import framed
from colatent_image.items import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
"""How the names of such files end, in small letters."""
MOST_BANDS = 4
"""Bands that a picture file can have; more of them are stored as an array."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey; torchvision's sum to 0.9999, which makes white a shade of grey."""
BYTES_PER_PIXEL = 16
"""More than any picture needs (of an array: 8 for each band); a larger file is not what its header says."""


def read_image(path: Path, config: Framing) -> Image:
    """The picture in a file, with the bands and of the size that `config` says."""
    return as_item(framed(read_pixels(path, config), config))


def open_image(data: bytes, config: Framing, *, name: str) -> Image:
    """The same of a file's bytes."""
    return as_item(framed(open_pixels(data, config, where=name), config))


def as_item(pixels_PHW: Tensor) -> Image:
    """Pixels as an item: what scaling adds beyond 0 and 1 by rounding is cut off."""
    return pixels_PHW.clamp(0, 1).contiguous().numpy()


def read_pixels(path: Path, config: Framing) -> Tensor:
    """The picture in a file at its own size, upright, (P, H, W) with values from 0 to 1."""
    data = _bytes(path, limit=config.max_pixels * max(BYTES_PER_PIXEL, 8 * config.bands) + 2**20)
    return open_pixels(data, config, where=str(path))


def open_pixels(data: bytes, config: Framing, *, where: str) -> Tensor:
    """The same of a file's bytes."""
    if config.bands > MOST_BANDS:
        return read_array(data, config, where=where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, looser limit on pixels, and oddities of metadata
        pixels_PHW = _picture(data, where, config.max_pixels)
    return to_bands(F.to_dtype(pixels_PHW, torch.float32, scale=True), config.bands)


def to_bands(pixels_PHW: Tensor, bands: int) -> Tensor:
    """Red, green, blue and opacity, or grey, as `bands` bands; where none is for opacity, white shows through."""
    colour_PHW, alpha_PHW = pixels_PHW[:3].expand(3, -1, -1), pixels_PHW[3:]
    if not len(alpha_PHW):
        alpha_PHW = torch.ones_like(colour_PHW[:1])
    if bands in (1, 3):
        colour_PHW = colour_PHW * alpha_PHW + (1 - alpha_PHW)
    if bands < 3:
        colour_PHW = (colour_PHW * colour_PHW.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    return torch.cat([colour_PHW, alpha_PHW])[:bands]


def write_image(item: Image, path: Path) -> Path:
    """Write an item as a PNG file of 8 bits, or as an array where it has too many bands; see `FileCodec.write_item`."""
    suffix, data = (".png", png_bytes(item)) if len(item) <= MOST_BANDS else (".npy", array_bytes(item))
    path = path.with_name(path.name + suffix)
    atomic_write_bytes(path, data)
    return path


def png_bytes(item: Image) -> bytes:
    """An item as a PNG file; of one with too many bands, the first three."""
    shown_PHW = torch.from_numpy(item if len(item) <= MOST_BANDS else item[:3])
    file = BytesIO()
    F.to_pil_image((255 * shown_PHW.clamp(0, 1)).round().to(torch.uint8)).save(file, "PNG")
    return file.getvalue()


def _bytes(path: Path, *, limit: int) -> bytes:
    """What a file holds, if it is one and no larger than `limit`."""
    where = str(path)
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "no such file"
            raise UserError(what, where=where, do="give an image file")
        if (size := path.stat().st_size) > limit:
            what = f"is {size:,} bytes, more than any picture within max_pixels needs"
            raise UserError(what, where=where, do="check the file, or raise max_pixels")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot be read ({error.strerror})", where=where, do="check the path and its rights"
        ) from error
    if not data:
        raise UserError("is empty", where=where, do="get it again, or leave it out")
    return data


def _picture(data: bytes, where: str, max_pixels: int) -> Tensor:
    """A file's picture in its own colours and bits, or what is wrong with the file."""
    header = _header(data, where, max_pixels)
    try:
        pixels_PHW = None if _is_animated(header) else _decoded(header, data)
    except Exception as error:  # readers of formats raise what they like: OSError, IndexError, struct.error, ...
        what = "is damaged or cut short: its picture cannot be decoded"
        raise UserError(what, where=where, do="get it again, or leave it out") from error
    if pixels_PHW is None:
        raise UserError("is animated", where=where, do="save one frame of it as a PNG file")
    return pixels_PHW


def _header(data: bytes, where: str, max_pixels: int) -> Pillow.Image:
    """An opened, undecoded image of a known format and of an allowed size."""
    do = "scale it down, or raise max_pixels"
    try:
        header = _opened(data)
    except Pillow.DecompressionBombError as error:
        raise UserError(f"has more pixels than max_pixels={max_pixels:,}", where=where, do=do) from error
    except Exception as error:  # as above
        what = "is no picture, or its header is damaged"
        raise UserError(what, where=where, do="give a PNG, JPEG, WebP or GIF file") from error
    if header.width * header.height > max_pixels:
        what = f"has {header.width} x {header.height} pixels, more than max_pixels={max_pixels:,}"
        raise UserError(what, where=where, do=do)
    return header


def _opened(data: bytes) -> Pillow.Image:
    return Pillow.open(BytesIO(data), formats=FORMATS)


def _is_animated(header: Pillow.Image) -> bool:
    """Whether pictures follow one another; an MPO file, a camera's JPEG, shows one scene: its first is meant."""
    return header.format != "MPO" and getattr(header, "is_animated", False)


def _decoded(header: Pillow.Image, data: bytes) -> Tensor:
    """Red, green, blue and opacity, or deep grey, upright, in 8 or 16 bits."""
    header.verify()  # the checksums of a PNG file
    upright = ImageOps.exif_transpose(_opened(data))  # verifying used the other one up
    if upright.mode == "I;16":
        return _with_clear_level(F.pil_to_tensor(upright), upright.info.get("transparency"))
    return F.pil_to_tensor(upright.convert("RGBA"))


def _with_clear_level(grey_PHW: Tensor, clear: int | None) -> Tensor:
    """Deep grey, with opacity where one level of it stands for transparent: Pillow's conversion would cut bits off."""
    if clear is None:
        return grey_PHW
    alpha_PHW = ((grey_PHW.int() != clear) * 65535).to(torch.uint16)
    return torch.cat([grey_PHW, grey_PHW, grey_PHW, alpha_PHW])
