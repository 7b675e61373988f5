"""Our prior against vectors of the published DiT: velocity of packed sequences, and of the two-copy training pass.

Folders come from COLATENT_GOLDEN (colon-separated), else from ../shared/golden beside the checkout; without any, these
tests are skipped. The key mapping below belongs to the test until there is an importer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from colatent.config.schema import PriorConfig
from colatent.latents.packing import pack, stack_masks
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.latents.sequence import LatentSequence, Segment, history_mask
from colatent.prior.dit import Prior

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


def folders() -> list[Path]:
    """Folders that hold golden vectors of a DiT."""
    named = [Path(part) for part in os.environ.get("COLATENT_GOLDEN", "").split(":") if part]
    return [path for path in named or sorted(BESIDE.glob("*")) if (path / "golden.safetensors").is_file()]


FOLDERS = folders() or [
    pytest.param(None, marks=pytest.mark.skip(reason="no golden vectors: set COLATENT_GOLDEN to their folders"))
]


class Golden:
    """One folder: the published model in our prior, and its vectors."""

    def __init__(self, path: Path) -> None:
        config = json.loads((path / "cola_dit" / "config.json").read_text())
        self.block = config["block_size"]
        self.vectors = load_file(path / "golden.safetensors")
        settings = PriorConfig(
            layers=config["num_layers"],
            width=config["emb_dim"],
            heads=config["heads"],
            rope_dim=config["rope_dim"],
            mlp_ratio=config["expand_ratio"],
            norm_eps=config["norm_eps"],
            qk_bias=config["qk_bias"],
        )
        self.prior = Prior(settings, {"text": config["txt_in_channels"]}).eval()
        self.prior.load_state_dict(ours(load_file(path / "cola_dit" / "model.safetensors"), config["num_layers"]))

    def sequences(self, name: str) -> list[slice]:
        """Where each sequence of a packed vector lies."""
        lengths = self.vectors[f"{name}.lengths"].tolist()
        starts = [sum(lengths[:number]) for number in range(len(lengths))]
        return [slice(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def ours(published: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The published state dict under our names; the four modulations of a layer become one."""
    renamed = {"emb_in.": "time.", "txt_in.proj.": "enter.text.", "txt_out.proj.": "exit.text."}
    renamed |= {"txt_out_ada.out_in.1.": "exit_modulation.text.", "txt_out_norm.": "exit_norm.text."}
    for number in range(layers):
        theirs, here = f"blocks.{number}.", f"layers.{number}.branches.shared."
        renamed |= {f"{theirs}msa.norm_{x}.": f"{here}norm_{x}." for x in "qk"}
        renamed |= {f"{theirs}msa.proj_qkv.": f"{here}qkv.", f"{theirs}msa.proj_out.": f"{here}attention_out."}
        renamed |= {f"{theirs}mlp.proj_{x}.": f"{here}mlp_{x}." for x in ("in", "out")}
    found = {}
    for name, tensor in published.items():
        for theirs, here in renamed.items():
            if name.startswith(theirs):
                found[here + name.removeprefix(theirs)] = tensor
    for number in range(layers):
        for kind in ("weight", "bias"):
            parts = [published[f"blocks.{number}.ada.{m}.1.{kind}"] for m in ("msa_in", "msa_out", "mlp_in", "mlp_out")]
            found[f"layers.{number}.branches.shared.modulation.{kind}"] = torch.cat(parts)
    return found


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name if path else "none")
def golden(request) -> Golden:
    return Golden(request.param)


def assert_published(found: Tensor, published: Tensor) -> None:
    assert found.shape == published.shape
    assert float((found - published).abs().max()) <= 1e-4 * float(published.abs().max())


@torch.no_grad()
def test_golden_velocity(golden: Golden) -> None:
    where = golden.sequences("velocity")
    lengths = [one.stop - one.start for one in where]
    rows = Rows([one.start for one in where], lengths)
    masks = stack_masks([history_mask(torch.arange(length).numpy() // golden.block) for length in lengths])
    t_T, t_index_N = torch.unique(golden.vectors["velocity.t"] / 1000, return_inverse=True)
    positions_N = torch.cat([torch.arange(length, dtype=torch.float32) for length in lengths])
    found = golden.prior(
        {"text": golden.vectors["velocity.x"]},
        layout=Layout((AttentionPart(queries=rows, keys=rows, mask_BQK=masks),), sum(lengths)),
        rows={"text": None},
        positions_N3=positions_N[:, None].expand(-1, 3),
        t_index_N=t_index_N,
        modulation=golden.prior.modulate(t_T),
    )
    assert_published(found["text"], golden.vectors["velocity.v"])


@torch.no_grad()
def test_golden_two_copy_velocity(golden: Golden) -> None:
    batch = pack([two_copy_sequence(golden, where) for where in golden.sequences("train")])
    rows = batch.streams["text"]
    found = golden.prior(
        {"text": rows.z0_SC + rows.t_S[:, None] * (rows.noise_SC - rows.z0_SC)},
        layout=batch.layout,
        rows={"text": rows.rows_S},
        positions_N3=batch.positions_N3,
        t_index_N=batch.t_index_N,
        modulation=golden.prior.modulate(batch.t_T),
        wanted={"text": rows.noisy_S.nonzero()[:, 0]},
    )
    assert_published(found["text"], golden.vectors["train.v"])


def two_copy_sequence(golden: Golden, where: slice) -> LatentSequence:
    """A training sequence whose noisy copy is the given one: its noise is what the path makes of it."""
    t_L1 = golden.vectors["train.t"][where][:, None] / 1000
    clean_LC, noisy_LC = golden.vectors["train.clean"][where], golden.vectors["train.noisy"][where]
    assert float(t_L1.min()) > 0.01, "the noise cannot be told from a latent at t = 0"
    segment = Segment(
        stream="text",
        z_LC=clean_LC,
        block_lengths=(golden.block,) * (len(clean_LC) // golden.block),
        positions_LA=torch.arange(len(clean_LC), dtype=torch.float32)[:, None],
        noise_LC=(noisy_LC - (1 - t_L1) * clean_LC) / t_L1,
        t_K=tuple(t_L1[:: golden.block, 0].tolist()),
    )
    return (segment,)
