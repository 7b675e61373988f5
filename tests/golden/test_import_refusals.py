"""What `import-cola` cannot take it refuses in one line that names the file and the setting or the tensor, and leaves
nothing behind: a network that is nearly the published one would be worse than none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from colatent.cli.main import main
from golden.published_folder import write_weights
from golden.variants import Variant

Complaint = Callable[..., str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "whole"
    write_weights(folder, Variant(name="patch_2", vae={"patch_size": 2}).model)
    return folder


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    """A copy of a published folder, to be broken."""
    return Path(shutil.copytree(whole, tmp_path / "source"))


@pytest.fixture
def complaint(source: Path, tmp_path: Path, capsys) -> Complaint:
    """Imports the folder, which must fail, and gives the one line that says why."""

    def run_it(*options: str) -> str:
        assert main(["import-cola", str(source), str(tmp_path / "out"), *options]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1, printed
        assert {path.name for path in tmp_path.iterdir()} == {"source"}
        return str(printed)

    return run_it


def change_config(folder: Path, values: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


SETTINGS = [
    ("cola_vae", {"layer_norm_type": "rms_norm"}, "layer_norm_type"),
    ("cola_vae", {"use_emb": False}, "use_emb"),
    ("cola_vae", {"dropout": 0.1}, "dropout"),
    ("cola_vae", {"attn_dropout": 0.1}, "attn_dropout"),
    ("cola_vae", {"shared_heads_kv": 2}, "shared_heads_kv 2"),
    ("cola_vae", {"act": "relu"}, "act"),
    ("cola_vae", {"rope_full_precision": False}, "rope_full_precision"),
    ("cola_vae", {"moe_experts": 4}, "moe_experts"),
    ("cola_vae", {"num_heads": 5}, "num_heads"),
    ("cola_vae", {"latent_dim": 8}, "latent_dim of cola_vae is 8"),
    ("cola_vae", {"block_size": 8}, "block_size of cola_vae is 8"),
    ("cola_dit", {"block_size": 8}, "block_size of cola_dit is 8"),
    ("cola_dit", {"patch_size": 2}, "patch_size"),
    ("cola_dit", {"head_dim": 16}, "head_dim 16"),
    ("cola_dit", {"emb_dim": 64}, "emb_dim 64"),
    ("cola_dit", {"txt_out_channels": 12}, "txt_out_channels 12"),
    ("cola_dit", {"rope_dim": 10}, "rope_dim"),
    ("cola_dit", {"rope_dim": 5}, "rope_dim"),
    ("cola_dit", {"mlp_type": "swiglu"}, "mlp_type"),
    ("cola_dit", {"num_layers": 0}, "num_layers"),
]


@pytest.mark.parametrize(
    ("part", "values", "named"), SETTINGS, ids=lambda each: "-".join(each) if isinstance(each, dict) else ""
)
def test_a_setting_that_does_not_run_is_refused_by_name(source, complaint, part, values, named) -> None:
    change_config(source / part, values)
    line = complaint()
    assert named in line
    assert "VALUE" not in line, "there is no such option to pass"


TENSORS: dict[str, tuple[str, Callable[[dict[str, Tensor]], Any], str]] = {
    "missing": ("cola_dit", lambda t: t.pop("txt_in.proj.bias"), "'txt_in.proj.bias'"),
    "missing from a modulation": ("cola_dit", lambda t: t.pop("blocks.1.ada.mlp_in.1.weight"), "ada.mlp_in.1.weight"),
    "extra": ("cola_vae", lambda t: t.update({"encoder.more": torch.zeros(1)}), "'encoder.more'"),
    "a layer too many": ("cola_dit", lambda t: t.update({"blocks.2.msa.norm_q.bias": torch.zeros(8)}), "blocks.2"),
    "wrong width": ("cola_vae", lambda t: t.update({"encoder.wte.weight": torch.zeros(50, 32)}), "encoder.wte.weight"),
    "transposed": ("cola_vae", lambda t: t.update({"decoder.in_layer.weight": torch.zeros(6, 32)}), "in_layer.weight"),
    "wrong modulation": (
        "cola_dit",
        lambda t: t.update({"blocks.0.ada.msa_in.1.weight": torch.zeros(64, 31)}),
        "blocks.0.ada.msa_in.1.weight",
    ),
    "modulations exchanged": (
        "cola_dit",
        lambda t: t.update({f"blocks.0.ada.msa_{k}.1.bias": torch.zeros(n) for k, n in (("in", 32), ("out", 64))}),
        "blocks.0.ada.msa_in.1.bias",
    ),
    "wrong unpatching": ("cola_vae", lambda t: t.update({"decoder.unpatch_layer.bias": torch.zeros(63)}), "unpatch_"),
    "wrong kernel": ("cola_vae", lambda t: t.update({"encoder.patch_embedder.weight": torch.zeros(32, 32)}), "patch_e"),
    "other frequencies": (
        "cola_dit",
        lambda t: t.update({"blocks.1.msa.rope.rope.freqs": torch.tensor([1.0, 0.1, 0.01])}),
        "blocks.1.msa.rope.rope.freqs",
    ),
    "more than float32 holds": (
        "cola_dit",
        lambda t: t.update({"txt_in.proj.bias": t["txt_in.proj.bias"].double() + 1e-12}),
        "txt_in.proj.bias",
    ),
    "not finite": (
        "cola_vae",
        lambda t: t.update({"decoder.in_layer.bias": torch.full((32,), float("nan"))}),
        "decoder.in_layer.bias",
    ),
    "whole numbers": ("cola_vae", lambda t: t.update({"decoder.in_layer.bias": torch.ones(32).int()}), "in_layer.bias"),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_that_does_not_fit_is_refused_by_name(source, complaint, case) -> None:
    part, change, named = TENSORS[case]
    change_tensors(source / part, change)
    line = complaint()
    assert named in line
    assert part in line


def test_qk_bias_of_the_config_alone_is_refused(source, complaint) -> None:
    change_config(source / "cola_vae", {"qk_bias": True})
    assert "qkv_proj.bias" in complaint()


@pytest.mark.parametrize("part", ["cola_dit", "cola_vae"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "other bytes", "a folder"])
def test_a_damaged_file_is_named(source, complaint, part, name, damage) -> None:
    path = source / part / name
    data = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "other bytes": b"\xff\xfe" * 400}[damage])
    line = complaint()
    assert part in line
    assert name in line


@pytest.mark.parametrize("text", ["[]", '"text"', "null"])
def test_a_config_that_is_no_mapping_is_named(source, complaint, text) -> None:
    (source / "cola_vae" / "config.json").write_text(text)
    assert "cola_vae/config.json" in complaint()


INDICES = {
    "a list": "[]",
    "no map": "{}",
    "a map that is a list": '{"weight_map": ["a"]}',
    "a number as file": '{"weight_map": {"txt_in.proj.bias": 1}}',
    "a file that is not there": '{"weight_map": {"txt_in.proj.bias": "model-00001.safetensors"}}',
    "the folder above": '{"weight_map": {"txt_in.proj.bias": ".."}}',
    "a file elsewhere": '{"weight_map": {"txt_in.proj.bias": "../cola_vae/model.safetensors"}}',
}


@pytest.mark.parametrize("case", INDICES)
def test_a_damaged_index_is_named(source, complaint, case) -> None:
    (source / "cola_dit" / "model.safetensors").unlink()
    (source / "cola_dit" / "model.safetensors.index.json").write_text(INDICES[case])
    assert "cola_dit" in complaint()


@pytest.mark.parametrize("what", ["folder", "broken link"])
def test_a_tokenizer_that_cannot_be_read_is_not_taken_for_none(source, complaint, what) -> None:
    path = source / "tokenizer.json"
    if what == "folder":
        path.mkdir()
    else:
        path.symlink_to(source / "nowhere")
    assert "tokenizer.json" in complaint()


def test_sizes_beyond_all_machines_are_refused(source, complaint) -> None:
    change_config(source / "cola_vae", {"dim": 10**9, "ff_dim": 10**12})
    assert "cola_vae" in complaint() or "source" in complaint()


def test_a_folder_that_is_not_there_is_named(source, complaint) -> None:
    shutil.rmtree(source / "cola_dit")
    assert "cola_dit" in complaint()


@pytest.mark.parametrize("mine", ["out/mine", "out"])
def test_out_is_never_written_over(source, tmp_path, capsys, mine) -> None:
    (tmp_path / mine).parent.mkdir(exist_ok=True)
    (tmp_path / mine).write_text("mine")
    assert main(["import-cola", str(source), str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert str(tmp_path / "out") in line
    assert (tmp_path / mine).read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--pad", "<|pad|>"), "--pad"),
        (("--end", "²"), "--end"),
        (("--end", "50"), "--end"),
        (("--pad", "50"), "--pad"),
        (("--pad", "9" * 5000), "--pad"),
        (("--end", ""), "--end"),
        (("--end", "5", "--pad", "5"), "also ends a text"),
        (("--end", "0"), "also ends a text"),
    ],
)
def test_special_ids_are_checked(complaint, options, named) -> None:
    assert named in complaint(*options)
