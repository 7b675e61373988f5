"""A published folder through the command line: in, generate, train on, and out again with the same bytes, whatever
dtypes, shards and tokenizer it came with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import colatent
from colatent.checkpoint.codecs import read_facts
from colatent.checkpoint.resolve import resolve_model
from colatent.cli.main import main
from golden.published_folder import write_weights
from golden.variants import Variant

PARTS = ("cola_dit", "cola_vae")
TEXT_VOCABULARY = 258


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A published folder without a tokenizer: 50 ids."""
    write_weights(tmp_path / "source", Variant(name="plain").model)
    return tmp_path / "source"


@pytest.fixture
def with_tokenizer(tmp_path: Path) -> Path:
    """A published folder with a byte-level tokenizer whose special tokens come last, as published."""
    variant = Variant(name="text", vae={"vocab_size": TEXT_VOCABULARY, "patch_size": 2, "scaling_factor": 0.7})
    write_weights(tmp_path / "source", variant.model)
    vocabulary = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|pad|>"])
    tokenizer.save(str(tmp_path / "source" / "tokenizer.json"))
    return tmp_path / "source"


def run(*arguments: object) -> None:
    assert main([str(each) for each in arguments]) == 0


def generated(capsys, *arguments: object) -> list[dict[str, Any]]:
    """Samples as `colatent generate --json` prints them."""
    capsys.readouterr()
    run("generate", *arguments, "--json")
    samples: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["samples"]
    return samples


def assert_same_folder(found: Path, expected: Path) -> None:
    """Equal settings, and tensors with equal names, dtypes and bytes."""
    for part in PARTS:
        before, after = (load_file(root / part / "model.safetensors") for root in (expected, found))
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert after[name].dtype == tensor.dtype
            assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name
        assert json.loads((found / part / "config.json").read_text()) == json.loads(
            (expected / part / "config.json").read_text()
        )


def test_ids_in_ids_out(source, tmp_path, capsys) -> None:
    run("import-cola", source, tmp_path / "model", "--pad", "3", "--end", "7")
    (first,) = generated(capsys, tmp_path / "model", "--prompt", "4 5 6 8 9", "--max-new", 6, "--steps", 2)
    (again,) = generated(capsys, tmp_path / "model", "--prompt", "4 5 6 8 9", "--max-new", 6, "--steps", 2)
    assert first == again
    assert first["text"] == "".join(f" {number}" for number in first["tokens"] if number != 3)
    assert first["tokens"]
    model = colatent.load(tmp_path / "model")
    tokenizer = model.codecs["text"].tokenizer
    assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.vocab_size) == (3, 7, 51)


def test_a_text_with_its_tokenizer(with_tokenizer, tmp_path, capsys) -> None:
    run("import-cola", with_tokenizer, tmp_path / "model")
    model = colatent.load(tmp_path / "model")
    tokenizer = model.codecs["text"].tokenizer
    assert (tokenizer.end_id, tokenizer.pad_id, tokenizer.vocab_size) == (256, 257, 259)
    generated(capsys, tmp_path / "model", "--prompt", "to be", "--max-new", 6, "--steps", 2)
    run("export-cola", tmp_path / "model", tmp_path / "out")
    assert_same_folder(tmp_path / "out", with_tokenizer)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (with_tokenizer / "tokenizer.json").read_bytes()


def test_a_tokenizer_without_padding_asks_for_it(with_tokenizer, tmp_path, capsys) -> None:
    path = with_tokenizer / "tokenizer.json"
    path.write_text(path.read_text().replace("<|pad|>", "<|other|>"))
    assert main(["import-cola", str(with_tokenizer), str(tmp_path / "model")]) == 2
    assert "--pad" in capsys.readouterr().err
    run("import-cola", with_tokenizer, tmp_path / "model", "--pad", "<|other|>")


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"model": 1}'])
def test_a_damaged_tokenizer_is_named(with_tokenizer, tmp_path, capsys, data) -> None:
    (with_tokenizer / "tokenizer.json").write_bytes(data)
    assert main(["import-cola", str(with_tokenizer), str(tmp_path / "model")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "tokenizer.json" in line


def test_a_tokenizer_of_another_size_is_refused(with_tokenizer, tmp_path, capsys) -> None:
    write_weights(tmp_path / "small", Variant(name="plain").model)
    (tmp_path / "small" / "tokenizer.json").write_bytes((with_tokenizer / "tokenizer.json").read_bytes())
    assert main(["import-cola", str(tmp_path / "small"), str(tmp_path / "model")]) == 2
    assert "its ids go to 257" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_back_as_it_came(source, tmp_path, dtype) -> None:
    """Frequencies included, which are rounded with the weights where a whole model was cast."""
    for part in PARTS:
        path = source / part / "model.safetensors"
        save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    run("import-cola", source, tmp_path / "model")
    run("export-cola", tmp_path / "model", tmp_path / "out")
    assert_same_folder(tmp_path / "out", source)
    assert colatent.load(tmp_path / "model").prior.time.proj_in.weight.dtype == torch.float32


def test_frequencies_need_not_be_stored(source, tmp_path) -> None:
    path = source / "cola_dit" / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "rope" not in name}, path)
    run("import-cola", source, tmp_path / "model")
    run("export-cola", tmp_path / "model", tmp_path / "out")
    assert_same_folder(tmp_path / "out", source)


def test_shards_are_read_as_one(source, tmp_path) -> None:
    run("import-cola", source, tmp_path / "whole")
    for part in PARTS:
        tensors = load_file(source / part / "model.safetensors")
        names = sorted(tensors)
        (source / part / "model.safetensors").unlink()
        files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, here in files.items():
            save_file({name: tensors[name] for name in here}, source / part / file)
        index = {"metadata": {}, "weight_map": {name: file for file, here in files.items() for name in here}}
        (source / part / "model.safetensors.index.json").write_text(json.dumps(index))
    run("import-cola", source, tmp_path / "sharded")
    for name in ("whole", "sharded"):
        run("export-cola", tmp_path / name, tmp_path / f"{name}-out")
    assert_same_folder(tmp_path / "sharded-out", tmp_path / "whole-out")


def test_defaults_of_the_published_code_need_not_be_written(tmp_path) -> None:
    """A config that leaves keys out means the published defaults."""
    variant = Variant(name="short")
    write_weights(tmp_path / "source", variant.model)
    path = tmp_path / "source" / "cola_vae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: value for key, value in config.items() if key not in ("act", "post_norm", "bias")})
    )
    run("import-cola", tmp_path / "source", tmp_path / "model")
    run("export-cola", tmp_path / "model", tmp_path / "out")
    assert_same_folder(tmp_path / "out", tmp_path / "source")


@pytest.mark.parametrize("name", ["it's", "${x}", "a: b #c"])
def test_the_training_config_names_the_folder_whatever_it_is_called(source, tmp_path, name) -> None:
    (tmp_path / "ids.txt").write_text(" ".join(str(number) for number in range(1, 40)))
    run("import-cola", source, tmp_path / name)
    data = [f"data.path={tmp_path / 'ids.txt'}", "data.length=8", "data.sources.text.config.window=32"]
    run("train", tmp_path / name / "train.yaml", *data, "stages.prior.steps=1", f"out={tmp_path / 'run'}", "--quiet")


def test_training_goes_on_and_the_result_is_exported(with_tokenizer, tmp_path, capsys) -> None:
    """The VAE stays as it is, byte for byte; the prior moves; the exported model is what generates here."""
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("to be or not to be, that is the question. " * 40)
    run("import-cola", with_tokenizer, tmp_path / "model")
    short = ["stages.prior.steps=3", "stages.prior.batch=2", "stages.prior.precision=float32", "data.length=16"]
    window = "data.sources.text.config.window=64"
    run("train", tmp_path / "model/train.yaml", f"data.path={corpus}", *short, window, f"out={tmp_path / 'run'}")
    generated(capsys, tmp_path / "run", "--prompt", "to be", "--max-new", 4, "--steps", 2)
    run("export-cola", tmp_path / "run", tmp_path / "out")
    before, after = (load_file(root / "cola_vae" / "model.safetensors") for root in (with_tokenizer, tmp_path / "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    before, after = (load_file(root / "cola_dit" / "model.safetensors") for root in (with_tokenizer, tmp_path / "out"))
    assert {name: tensor.shape for name, tensor in before.items()} == {
        name: tensor.shape for name, tensor in after.items()
    }
    assert not torch.equal(before["txt_in.proj.weight"], after["txt_in.proj.weight"])
    run("import-cola", tmp_path / "out", tmp_path / "again")
    options = ("--prompt", "to be", "--max-new", 4, "--steps", 2)
    assert generated(capsys, tmp_path / "run", *options) == generated(capsys, tmp_path / "again", *options)


def test_a_joint_run_is_exported_as_its_average_alone(with_tokenizer, tmp_path, capsys) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("to be or not to be, that is the question. " * 40)
    run("import-cola", with_tokenizer, tmp_path / "model")
    config = tmp_path / "model" / "train.yaml"
    config.write_text(config.read_text().replace("\n  prior:\n", "\n  joint:\n"))
    options = ["stages.joint.steps=2", "stages.joint.batch=2", "stages.joint.precision=float32", "data.length=16"]
    sources = [f"data.path={corpus}", "data.sources.text.config.window=64"]
    run("train", config, *sources, *options, f"out={tmp_path / 'run'}", "--quiet")
    capsys.readouterr()
    assert main(["export-cola", str(tmp_path / "run"), str(tmp_path / "raw"), "--raw"]) == 2
    assert "its codecs are saved as their average" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()
    run("export-cola", tmp_path / "run", tmp_path / "out")
    run("import-cola", tmp_path / "out", tmp_path / "again")
    options = ["--prompt", "to be", "--max-new", "4", "--steps", "2"]
    assert generated(capsys, tmp_path / "run", *options) == generated(capsys, tmp_path / "again", *options)


def test_a_model_with_a_learnt_tokenizer_comes_back_with_its_end_and_padding(tmp_path, capsys) -> None:
    """Its end and padding are ids beyond the vocabulary, which the published layout can only name."""
    (tmp_path / "corpus.txt").write_text("to be or not to be, that is the question. " * 40)
    tree = {
        "name": "own",
        "streams": {
            "text": {
                "codec": "text",
                "config": {
                    "tokenizer": {"kind": "train", "vocab": 270},
                    "width": 16,
                    "heads": 2,
                    "channels": 4,
                    "block": 2,
                    "window": 16,
                    "encoder_norm": False,
                    "scaling_factor": 1.0,
                    "alignment": "start",
                },
            }
        },
        "data": {
            "length": 16,
            "sources": {"text": {"dataset": "text-files", "config": {"path": str(tmp_path / "corpus.txt")}}},
        },
        "prior": {"layers": 1, "width": 16, "heads": 2},
        "stages": {"codec": {"steps": 2, "batch": 2}, "prior": {"steps": 2, "batch": 2}},
    }
    (tmp_path / "own.yaml").write_text(json.dumps(tree))
    run("train", tmp_path / "own.yaml", f"out={tmp_path / 'own'}", "--quiet")
    capsys.readouterr()
    run("export-cola", tmp_path / "own", tmp_path / "out")
    assert "--window" in capsys.readouterr().err
    run("import-cola", tmp_path / "out", tmp_path / "again", "--window", "16")
    before, after = (colatent.load(tmp_path / name).codecs["text"].tokenizer for name in ("own", "again"))
    assert (before.end_id, before.pad_id, before.vocab_size) == (after.end_id, after.pad_id, after.vocab_size)
    for options in (("--prompt", "to be"), ("--prompt", ""), ("--prompt", "to be or not to be, that")):
        options = (*options, "--max-new", 9, "--steps", 3, "--guidance", 2, "--repetition-penalty", 1)
        assert generated(capsys, tmp_path / "own", *options) == generated(capsys, tmp_path / "again", *options)


def test_a_token_may_be_named_by_its_number(with_tokenizer, tmp_path) -> None:
    run("import-cola", with_tokenizer, tmp_path / "model", "--pad", "257", "--end", "<|endoftext|>")
    tokenizer = colatent.load(tmp_path / "model").codecs["text"].tokenizer
    assert (tokenizer.end_id, tokenizer.pad_id) == (256, 257)


def test_text_of_ids_is_never_cut_within_an_id(source, tmp_path) -> None:
    from colatent.latents.draws import generator as draw
    from colatent_text.datasets import TextFiles, TextFilesConfig

    (tmp_path / "ids.txt").write_text(" ".join(["227"] * 2000))
    config = TextFilesConfig(path=str(tmp_path / "ids.txt"), window=50, cut="words")
    for split in ("train", "heldout"):
        dataset = TextFiles(config, split=split)
        for number in range(200):
            text = dataset.sample(number % len(dataset), draw("test", number))["text"].text
            assert set(text.replace(",", " ").split()) == {"227"}
    run("import-cola", source, tmp_path / "model")
    assert "cut: words" in (tmp_path / "model" / "train.yaml").read_text()


def test_latents_off_scale_are_told_at_import(tmp_path, capsys) -> None:
    write_weights(tmp_path / "source", Variant(name="big", vae={"scaling_factor": 5.0}).model)
    run("import-cola", tmp_path / "source", tmp_path / "model")
    assert "its latents have std 5: the model generates, but training refuses" in capsys.readouterr().err


@pytest.mark.parametrize("norm", [True, False])
def test_the_scale_is_known_or_measured(tmp_path, norm: bool) -> None:
    """A mean without its norm may have any scale; what the facts say of it is what comes out."""
    model = Variant(name="scale", vae={"encoder_last_ln": norm, "scaling_factor": 0.5}).model
    write_weights(tmp_path / "source", model)
    run("import-cola", tmp_path / "source", tmp_path / "model")
    facts = read_facts(resolve_model(tmp_path / "model"), "text")
    assert facts.std is not None
    measured = torch.tensor(facts.std)
    if norm:
        assert torch.equal(measured, torch.full_like(measured, 0.5))
        return
    codec = colatent.load(tmp_path / "model").codecs["text"]
    ids = torch.randint(0, 49, (4 * codec.config.block * 64,), generator=torch.Generator().manual_seed(0)).tolist()
    (record,) = codec.encode([" ".join(map(str, ids))])
    assert torch.allclose(record.mean_LC.std(0), measured, rtol=0.3)


def test_the_training_config_holds_wherever_it_is_used(source, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("import-cola", "source", "model")
    assert f"init: {tmp_path / 'model'}" in (tmp_path / "model" / "train.yaml").read_text()
