"""The golden folders, each imported once as a user would.

Folders come from COLATENT_GOLDEN (colon-separated), else from ../shared/golden beside the checkout; a skipped test
stands for them where there are none. To them come the folders of `variants.py`, which our own reference writes: what
the published code computed for one configuration, the reference computes for every other.
"""

from __future__ import annotations

import json
import os
import warnings
from glob import glob
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import colatent
from colatent.generate.model import Model
from colatent_text.codec import TextCodec
from colatent_text.cola.importing import Special, import_cola
from golden.variants import VARIANTS, Variant

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


def folders() -> list[Path]:
    """Folders that hold golden vectors: those that are named (or match a pattern), or lie right under one of them."""
    named = [part for part in os.environ.get("COLATENT_GOLDEN", "").split(":") if part]
    found = {part: [one for match in glob(part) for one in _under(Path(match))] for part in named}
    for part, here in found.items():
        if not here:
            raise pytest.UsageError(f"COLATENT_GOLDEN: {part} holds no golden.safetensors")
    return list(dict.fromkeys(path for here in found.values() for path in here)) if named else _under(BESIDE)


def _under(path: Path) -> list[Path]:
    return [one for one in (path, *sorted(path.glob("*"))) if (one / "golden.safetensors").is_file()]


PUBLISHED = [pytest.param(path, id=path.name) for path in folders()] or [
    pytest.param(None, marks=pytest.mark.skip(reason="no golden vectors: set COLATENT_GOLDEN to their folders"))
]
FOLDERS = [*PUBLISHED, *(pytest.param(variant, id=variant.name) for variant in VARIANTS)]


def without_tokenizer(path: Path, room: Path) -> Path:
    """A folder's two models alone: its vectors are about ids, whatever tokenizer comes with them."""
    bare = room / "models"
    bare.mkdir()
    for name in ("cola_dit", "cola_vae"):
        (bare / name).symlink_to((path / name).resolve())
    return bare


class Golden:
    """One folder: the published model, imported, and its vectors."""

    def __init__(self, path: Path, out: Path) -> None:
        self.path, self.out = path, out
        self.vectors: dict[str, Tensor] = load_file(path / "golden.safetensors")
        self.generation: dict[str, Any] = json.loads((path / "generate.json").read_text())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*causal has no effect")
            import_cola(
                without_tokenizer(path, out.parent), out, special=Special(pad=str(self.generation["pad_token_id"]))
            )
        self.model: Model = colatent.load(out)
        codec = self.model.codecs["text"]
        assert isinstance(codec, TextCodec)
        self.codec = codec
        self.block = codec.config.block

    def sequences(self, name: str) -> list[slice]:
        """Where each sequence of a packed vector lies."""
        lengths = self.vectors[f"{name}.lengths"].tolist()
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        return [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]


@pytest.fixture(scope="session", params=FOLDERS)
def golden(request, tmp_path_factory) -> Golden:
    folder, room = request.param, tmp_path_factory.mktemp("golden")
    return Golden(folder.write(room / folder.name) if isinstance(folder, Variant) else folder, room / "imported")


def assert_published(found: Tensor, published: Tensor) -> None:
    """Within 1e-4 of the largest published value."""
    assert found.shape == published.shape
    assert float((found - published).abs().max()) <= 1e-4 * float(published.abs().max())
