"""Reading and writing the published folders: `cola_dit/` and `cola_vae/`, a `config.json` and safetensors each.

Large checkpoints may come in shards with an index, as the library that wrote them cuts them; they are read so, and
written as one file.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from colatent.checkpoint.storage import sync_folder, temporary_beside, write_chunks
from colatent.checkpoint.tensors import read_safetensors, safetensors_chunks
from colatent.errors import UserError
from colatent.jsons import parse_json

PRIOR, VAE, TOKENIZER = "cola_dit", "cola_vae", "tokenizer.json"
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One of the two folders: its config as it stands there, and its tensors."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def read_model(folder: Path) -> PublishedModel:
    """`config.json` and all tensors of a folder."""
    config, weights = _read_json(folder / CONFIG), folder / WEIGHTS
    if weights.is_file():
        return PublishedModel(config=config, tensors=read_safetensors(weights))
    if (folder / INDEX).is_file():
        shards = [read_safetensors(folder / name) for name in _shards(folder / INDEX)]
        return PublishedModel(
            config=config, tensors={name: tensor for shard in shards for name, tensor in shard.items()}
        )
    raise UserError(f"there is no {WEIGHTS}", where=str(folder), do="give the folder that holds cola_dit and cola_vae")


def _shards(index: Path) -> list[str]:
    """File names of the shards that an index lists, which lie beside it."""
    weight_map = _read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(
        isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors") for name in names
    ):
        raise UserError("has no weight_map of tensors to files beside it", where=str(index), do="copy it again")
    return sorted(set(names))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        do = "give the folder that holds cola_dit and cola_vae"
        raise UserError("does not exist", where=str(path), do=do) from error
    except ValueError as error:
        raise UserError("is not JSON", where=str(path), do="copy it again") from error
    if not isinstance(found, dict):
        raise UserError("is no mapping of settings", where=str(path), do="copy it again")
    return found


def write_models(folder: Path, models: Mapping[str, PublishedModel], *, files: Mapping[str, bytes]) -> None:
    """A new folder with these models and files, as a whole or not at all."""
    check_new(folder)
    temporary = temporary_beside(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, model in models.items():
            (temporary / name).mkdir()
            text = json.dumps(dict(model.config), indent=2, sort_keys=True) + "\n"
            write_chunks(temporary / name / CONFIG, [text.encode()])
            write_chunks(temporary / name / WEIGHTS, safetensors_chunks(model.tensors, metadata={"format": "pt"}))
            sync_folder(temporary / name)
        for name, data in files.items():
            write_chunks(temporary / name, [data])
        move_in(temporary, folder)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror or error}", where=str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new(folder: Path) -> None:
    """A folder that is to be written must not hold anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("exists already", where=str(folder), do="choose a new folder")


def move_in(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name."""
    if folder.exists():
        folder.rmdir()
    sync_folder(temporary)
    os.rename(temporary, folder)
    sync_folder(folder.parent)
