"""Whether a sound file holds all that it announces. libsndfile reads a WAV file that was cut short as far as it goes,
without a word, and a sound that stops in its middle teaches a model to do so.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

STREAMED = 0x7FFF0000
"""A WAV file that was written into a pipe announces such a size or a larger one, since its writer could not go back."""


def missing(file: BinaryIO) -> int:
    """Bytes of samples that a WAV file announces and does not have; 0 of every other file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return 0
    order = "<" if head[:4] == b"RIFF" else ">"
    start = 12 + 8
    while start <= size:
        file.seek(start - 8)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        if name == b"data":
            return max(0, start + length - size) if length < STREAMED else 0
        start += length + length % 2 + 8
    return 0
