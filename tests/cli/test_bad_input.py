"""Whatever a user gets wrong is one line on stderr that says what, where and what to do, with exit status 2; and
nothing that was there before is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from colatent.checkpoint.manifest import MANIFEST
from colatent.cli.main import main
from colatent.errors import UserError
from colatent.train.device import pick_device, usable
from plugins_for_tests.runs import TEXT, changed, last, rewritten, run
from plugins_for_tests.site import install

Complaint = Callable[..., str]
FILES = changed(
    TEXT, data__sources={"corpus": {"dataset": "text-files", "config": {"path": "${data.path}", "window": 48}}}
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, and one of another seed that stopped after its codec; tests copy them before they break them."""
    folder = tmp_path_factory.mktemp("made")
    run(TEXT, folder / "run", "stages.prior.save_every=4")
    run(changed(TEXT, seed=1, stages={"codec": TEXT["stages"]["codec"]}), folder / "other")
    return folder


@pytest.fixture
def broken(made: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str]) -> Complaint:
    """Runs a command line that must fail, and gives its one line."""

    def run_it(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(each) for each in arguments]) == 2
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1, printed.err
        assert printed.err.startswith("colatent: ")
        assert "Traceback" not in printed.err + printed.out
        return printed.err.strip()

    return run_it


def config(folder: Path, tree: dict[str, Any]) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def contents(folder: Path) -> dict[Path, bytes]:
    """All that a run holds, but the lock, which names the last process."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["stages.prior.stepz=3"], ["config.yaml: stages.prior.stepz", "did you mean steps?"]),
        (["streams.text.config.widht=3"], ["streams.text.config.widht", "did you mean width?"]),
        (["stages.prior.lr=fast"], ["stages.prior.lr", '"fast"', "a number"]),
        (["stages.prior.lr=.inf"], ["stages.prior.lr", "a finite number"]),
        (["stages.prior.lr=-1"], ["stages.prior.lr", "greater than 0"]),
        (["stages.prior.steps=-5"], ["stages.prior.steps", "greater than or equal to 0"]),
        (["stages.prior.betas=[0.9,-1]"], ["stages.prior.betas", "-1"]),
        (["seed=-1"], ["seed", "greater than or equal to 0"]),
        (["data.length=-4"], ["data.length"]),
        (["data.length=3"], ["data.length: is 3, less than a block of stream 'text' (4 latents)", "give at least 4"]),
        (["prior.width=18", "prior.heads=4"], ["prior", "width 18 must be a multiple of 2 x heads (4)"]),
        (["prior.width=18"], ["prior", "width 18 must be a multiple of 2 x heads (2)"]),
        (["prior.rope_dim=3"], ["prior", "rope_dim 3 must be even"]),
        (["prior.rope_dim=10"], ["prior", "at most a head's 8 channels"]),
        (["prior.layers=0"], ["prior", "both 0"]),
        (["streams.text.config.window=15"], ["streams.text.config", "window 15 must be a multiple of block 4"]),
        (["streams.text.codec=txet"], ["streams.text.codec", "did you mean 'text'?"]),
        (["streams.text.weights=nowhere"], ["nowhere", "does not exist"]),
        (
            ["streams.too={codec: text}", "data.sources.counting.segments=[{stream: text}]"],
            ["streams.too", "no source"],
        ),
        (["streams.a/b={codec: text}"], ["'a/b'", "letters"]),
        (["data.sources.counting.segments=[{stream: txt}]"], ["segments.0", "no stream 'txt'"]),
        (
            ["data.sources.counting.segments=[{stream: text, same_group: true}]"],
            ["data.sources.counting.segments.0.same_group", "none before it", "leave it out"],
        ),
        (["data.sources.counting.dataset=countin"], ["data.sources.counting.dataset", "did you mean 'counting'?"]),
        (["flow.weights.txt=1"], ["flow.weights", "no stream 'txt'"]),
        (["sample.options.txt={}"], ["sample.options", "no stream 'txt'"]),
        (["sample.options.text.wings=1"], ["sample.options.text.wings: unknown key", "temperature"]),
        (["sample.options.text.top_p=2"], ["sample.options.text.top_p: is 2", "pass sample.options.text.top_p=VALUE"]),
        (["device=cuda:77"], ["device", "cuda:77"]),
        (["device=gpu"], ["device", "'gpu'", f"use {usable()}"]),
        (["init=nowhere"], ["nowhere", "does not exist"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_settings(overrides: list[str], parts: list[str], in_tmp: Path, complaint: Complaint) -> None:
    line = complaint("train", config(in_tmp, TEXT), "out=run", *overrides)
    assert [part for part in parts if part not in line] == [], line
    assert not Path("run").exists()


@pytest.mark.parametrize(("cuda", "names"), [(False, "auto or cpu"), (True, "auto, cpu or cuda")])
def test_what_is_not_there_is_not_suggested(cuda: bool, names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    with pytest.raises(UserError, match=rf"^device: 'cuda:77' cannot be used here; use {names}$"):
        pick_device("cuda:77")


@pytest.mark.parametrize("stages", [["prior"], ["prior", "codec"]])
def test_a_prior_needs_a_trained_codec(stages: list[str], in_tmp: Path, complaint: Complaint) -> None:
    tree = changed(TEXT, stages={name: TEXT["stages"][name] for name in stages})
    line = complaint("train", config(in_tmp, tree), "out=run")
    assert line.startswith("colatent: streams.text: its codec was never trained")
    assert "put stages.codec before stages.prior" in line
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (None, ["corpus.txt", "no such file"]),
        (b"", ["corpus.txt", "the text is empty"]),
        (b"caf\xe9 is not UTF-8 but Latin-1", ["corpus.txt", "not UTF-8", "offset 3"]),
        (b"too short", ["corpus.txt", "9 characters"]),
        (b"longer than that, yet no block", ["data.sources.corpus", "less than one block (32)"]),
    ],
)
def test_corpora(data: bytes | None, parts: list[str], in_tmp: Path, complaint: Complaint) -> None:
    if data is not None:
        Path("corpus.txt").write_bytes(data)
    tree = changed(FILES, streams__text__config__block=32, streams__text__config__window=32, data__length=32)
    line = complaint("train", config(in_tmp, tree), "out=run", "data.path=corpus.txt")
    assert [part for part in parts if part not in line] == [], line
    assert not Path("run").exists()


def test_a_path_must_be_given_where_the_config_asks_for_it(in_tmp: Path, complaint: Complaint) -> None:
    line = complaint("train", config(in_tmp, changed(FILES, data__path="???")), "out=run")
    assert line.endswith("data.path: must be given; pass data.path=FILE")


def test_a_corpus_of_many_short_texts_is_long_enough(in_tmp: Path) -> None:
    Path("texts").mkdir()
    for number in range(9):
        Path(f"texts/{number}.txt").write_text(f"no {number}.")
    tree = changed(FILES, stages={"codec": changed(TEXT["stages"]["codec"], steps=1)})
    assert main(["train", str(config(in_tmp, tree)), "out=run", "data.path=texts", "--quiet"]) == 0


def letter_tokenizer(letters: str) -> str:
    """A tokenizer.json that knows these letters and no other."""
    words = {word: number for number, word in enumerate(["[UNK]", *letters])}
    split = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
    layout = dict.fromkeys(["truncation", "padding", "normalizer", "post_processor"]) | {"added_tokens": []}
    layout |= {"version": "1.0", "pre_tokenizer": split, "decoder": {"type": "Fuse"}}
    layout |= {"model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}}
    return json.dumps(layout)


def test_a_corpus_outside_the_vocabulary(in_tmp: Path, complaint: Complaint) -> None:
    Path("words.json").write_text(letter_tokenizer("to bern"))
    Path("corpus.txt").write_text("question " + "to be or not to be " * 40)
    tree = changed(FILES, streams__text__config__tokenizer={"kind": "file", "path": "words.json"})
    line = complaint("train", config(in_tmp, tree), "out=run", "data.path=corpus.txt", "--quiet")
    assert line.startswith("colatent: data.sources.corpus (corpus.txt): stream 'text' refuses sample corpus/")
    assert "the tokenizer cannot represent " in line
    assert "train with a tokenizer that has it" in line


def test_a_weight_of_a_loss_that_no_codec_has(in_tmp: Path, complaint: Complaint) -> None:
    line = complaint("train", config(in_tmp, TEXT), "out=run", "stages.codec.losses={mask: 1, msak: 1}", "--quiet")
    assert "stages.codec.losses.msak: no codec of this run has such a loss; use one of mask, reconstruction" in line


def test_a_prompt_outside_the_vocabulary(in_tmp: Path, complaint: Complaint) -> None:
    Path("words.json").write_text(letter_tokenizer("to bern"))
    Path("corpus.txt").write_text("to be or not to be " * 40)
    tree = changed(FILES, streams__text__config__tokenizer={"kind": "file", "path": "words.json"})
    assert main(["train", str(config(in_tmp, tree)), "out=run", "data.path=corpus.txt", "--quiet"]) == 0
    assert main(["generate", "run", "--prompt", "to be", "--max-new", "2"]) == 0
    assert "cannot represent 'm' at character 1" in complaint("generate", "run", "--prompt", "omen")
    assert "cannot represent 'q' at character 0" in complaint("generate", "run", "--prompt", "quit", "--json")


def test_a_run_folder_that_exists(broken: Path, tmp_path: Path, complaint: Complaint) -> None:
    before = contents(broken)
    line = complaint("train", config(tmp_path, TEXT), f"out={broken}")
    assert "already holds a run; use --resume or another out=" in line
    assert contents(broken) == before
    (tmp_path / "file").write_text("")
    assert "is a file" in complaint("train", config(tmp_path, TEXT), f"out={tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--target", "image"], ["no stream 'image'", "use one of text"]),
        (["--n", "0"], ["--n"]),
        (["--max-new", "-1"], ["--max-new"]),
        (["--guidance", "-2"], ["--guidance"]),
        (["--steps", "0"], ["--steps"]),
        (["--solver", "rk9"], ["--solver", "rk9"]),
        (["--seed", "-1"], ["--seed"]),
        (["--device", "cuda:77"], ["cuda:77", f"use {usable()}"]),
        (["--prompt", "\udc80"], ["cannot represent U+DC80 at character 0"]),
        (["--promt", "x"], ["--promt"]),
        (["--temperature", "-1"], ["option temperature: is -1.0", "greater than or equal to 0"]),
        (["--option", "tempurature=1"], ["option tempurature: unknown key; did you mean temperature?"]),
        (["--option", "height=2"], ["option height: unknown key; known keys: repetition_penalty, stop, temperature"]),
        (["--option", "height"], ["'height' is not NAME=VALUE"]),
        (["--option", "top_p=1", "--top-p", "0.5"], ["--option top_p=... and --top-p say the same thing"]),
        (["--stop", ""], ['option stop.0: is ""']),
        (["--option", "stop=999"], ["option stop: token 999 is not in the vocabulary (0 to 257)"]),
        (["--stream", "--top-k", "-1"], ["option top_k: is -1"]),
        (["--stream", "--out", "there"], ["--out writes whole samples: leave out --stream"]),
    ],
)
def test_generate_options(arguments: list[str], parts: list[str], made: Path, complaint: Complaint) -> None:
    line = complaint("generate", made / "run", *arguments)
    assert [part for part in parts if part not in line] == [], line


def test_generate_on_what_is_no_model(made: Path, tmp_path: Path, complaint: Complaint) -> None:
    assert "has no prior yet, only codecs; train stage prior first" in complaint("generate", made / "other")
    assert "does not exist; name a run folder or a checkpoint" in complaint("generate", tmp_path / "nowhere")
    assert "is neither a run nor a checkpoint" in complaint("generate", tmp_path)
    assert "is neither a run nor a checkpoint" in complaint("generate", __file__)


def test_a_truncated_checkpoint(
    broken: Path, tmp_path: Path, complaint: Complaint, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = sorted((broken / "checkpoints" / "prior").glob("step-*"))
    for step in reversed(steps):
        weights = step / "prior.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        line = complaint("generate", step)
        assert "prior.safetensors: has " in line
        assert "its manifest says" in line
        if step == steps[-1]:  # an older one is still good
            assert main(["generate", str(broken), "--max-new", "1"]) == 0
            warning = capsys.readouterr().err
            assert warning.startswith("colatent: warning: skipped a damaged checkpoint: ")
            assert warning.count("\n") == 1
    assert "no valid checkpoint" in complaint("generate", broken)


def test_weights_cut_short_before_their_manifest_was_made(broken: Path, complaint: Complaint) -> None:
    step = last(broken, "prior").path
    weights = step / "prior.ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    rewritten(step)
    assert "prior.ema.safetensors: cannot be read" in complaint("generate", step)


def test_a_checkpoint_of_another_format(broken: Path, complaint: Complaint) -> None:
    step = last(broken, "prior").path
    manifest = json.loads((step / MANIFEST).read_text())
    (step / MANIFEST).write_text(json.dumps(manifest | {"format": 99}))
    line = complaint("generate", step)
    assert "written by format 99, this colatent reads 1; use the colatent that wrote it" in line


def swap_codec(checkpoint: Path, origin: Path) -> None:
    """Put another run's codec in a checkpoint, with a manifest that agrees."""
    for path in origin.glob("codec.text*"):
        if path.is_dir():
            shutil.copytree(path, checkpoint / path.name, dirs_exist_ok=True)
        else:
            shutil.copy(path, checkpoint / path.name)
    rewritten(checkpoint)


def test_a_codec_that_was_swapped(broken: Path, made: Path, tmp_path: Path, complaint: Complaint) -> None:
    swap_codec(last(broken, "prior").path, last(made / "other", "codec").path)
    line = complaint("generate", broken)
    assert "the prior was trained on another codec for stream 'text'" in line
    assert "use the codec that the prior was trained on, or train the prior again" in line


def test_codec_weights_that_are_not_those_of_its_facts(broken: Path, made: Path, complaint: Complaint) -> None:
    step = last(broken, "prior").path
    shutil.copy(last(made / "other", "codec").path / "codec.text.safetensors", step / "codec.text.safetensors")
    rewritten(step)
    assert "are not those that its facts were measured on" in complaint("generate", broken)


def test_a_codec_of_the_same_weights_with_other_assets(in_tmp: Path, complaint: Complaint) -> None:
    Path("words.json").write_text(letter_tokenizer("to bern"))
    Path("corpus.txt").write_text("to be or not to be " * 40)
    tree = changed(FILES, streams__text__config__tokenizer={"kind": "file", "path": "words.json"})
    assert main(["train", str(config(in_tmp, tree)), "out=run", "data.path=corpus.txt", "--quiet"]) == 0
    step = last(Path("run"), "prior").path
    (step / "codec.text" / "tokenizer.json").write_text(letter_tokenizer("nreb ot"))
    rewritten(step)
    assert "assets of codec 'text' are not those that its facts were measured on" in complaint("generate", "run")


def test_a_codec_of_the_same_weights_with_other_settings(broken: Path, complaint: Complaint) -> None:
    step = last(broken, "prior").path
    facts = json.loads((step / "codec.text.json").read_text())
    assert facts["config"]["attention"] == "block_causal"  # defaults are part of what is remembered
    other = facts | {"config": facts["config"] | {"attention": "causal"}}
    (step / "codec.text.json").write_text(json.dumps(other))
    rewritten(step)
    assert "settings or assets of codec 'text' are not those" in complaint("generate", broken)


def test_resume_over_a_swapped_codec(broken: Path, made: Path, tmp_path: Path, complaint: Complaint) -> None:
    swap_codec(last(broken, "codec").path, last(made / "other", "codec").path)
    before = contents(broken)
    line = complaint("train", config(tmp_path, TEXT), f"out={broken}", "stages.prior.steps=10", "--resume")
    assert "the prior was trained on another codec for stream 'text'" in line
    assert contents(broken) == before


def test_resume_with_the_weights_of_another_run(made: Path, tmp_path: Path, complaint: Complaint) -> None:
    tree = changed(TEXT, stages={"prior": TEXT["stages"]["prior"]})
    folder = run(tree, tmp_path / "run", f"streams.text.weights={made / 'run'}", "stages.prior.steps=2")
    before = contents(folder)
    arguments = [f"out={folder}", f"streams.text.weights={made / 'other'}", "--resume"]
    line = complaint("train", config(tmp_path, tree), *arguments)
    assert "the prior was trained on another codec for stream 'text'" in line
    assert contents(folder) == before


def test_latents_off_scale(made: Path, tmp_path: Path, complaint: Complaint) -> None:
    other = Path(shutil.copytree(made / "other", tmp_path / "other"))
    step = last(other, "codec").path
    facts = json.loads((step / "codec.text.json").read_text())
    (step / "codec.text.json").write_text(json.dumps(facts | {"std": [5.0] * 8}))
    rewritten(step)
    tree = changed(TEXT, stages={"prior": TEXT["stages"]["prior"]}, streams__text__weights=str(other))
    line = complaint("train", config(tmp_path, tree), f"out={tmp_path / 'run'}")
    assert line.startswith("colatent: streams.text: its latents are off scale: std 5, allowed 0.5 to 2")
    assert not (tmp_path / "run").exists()


def test_weights_of_a_codec_that_never_finished(made: Path, tmp_path: Path, complaint: Complaint) -> None:
    half = Path(shutil.copytree(made / "other", tmp_path / "half"))
    step = last(half, "codec").path
    facts = json.loads((step / "codec.text.json").read_text())
    (step / "codec.text.json").write_text(json.dumps(facts | {"trained": False}))
    rewritten(step)
    tree = changed(TEXT, stages={"prior": TEXT["stages"]["prior"]}, streams__text__weights=str(half))
    assert "was never trained" in complaint("train", config(tmp_path, tree), f"out={tmp_path / 'run'}")


def test_a_loss_that_is_not_finite(broken: Path, tmp_path: Path, complaint: Complaint) -> None:
    wild = ["stages.prior.lr=1e9", "stages.prior.steps=60", "stages.prior.schedule=constant"]
    line = complaint("train", config(tmp_path, TEXT), f"out={broken}", *wild, "--quiet", "--resume")
    assert line.startswith("colatent: stages.prior: loss ")
    assert "on samples counting/" in line
    assert "lower lr or raise warmup and --resume" in line
    assert last(broken, "prior").step == 8
    assert main(["generate", str(broken), "--max-new", "1"]) == 0


FULL = """
import resource, sys
from colatent.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


def test_a_full_disk(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    largest = (last(broken, "prior").path / "optimiser.safetensors").stat().st_size
    before = contents(broken / "checkpoints")
    train = ["train", str(config(tmp_path, TEXT)), f"out={broken}", "stages.prior.steps=12", "--resume", "--quiet"]
    done = subprocess.run([sys.executable, "-c", FULL, str(largest // 2), *train], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "cannot save a checkpoint: File too large; make room, then use --resume (the last good" in done.stderr
    assert contents(broken / "checkpoints") == before
    assert main(["generate", str(broken), "--max-new", "1"]) == 0
    assert main(train) == 0
    assert last(broken, "prior").step == 12


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose distributions are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


CLAIM = """
from colatent.plugins import CodecInfo, hookimpl

@hookimpl
def colatent_codecs():
    return [CodecInfo(name={name!r}, modality="text", axes=1, fields=("text",), factory="a:B", config="a:C")]
"""


def test_a_plugin_that_raises_at_import(site: Path, in_tmp: Path, complaint: Complaint) -> None:
    install(site, "smells", code="raise RuntimeError('no nose')")
    line = complaint("train", config(in_tmp, TEXT), "out=run", "streams.smell={codec: smell}")
    assert "streams.smell.codec: no active plugin brings codec 'smell'" in line
    assert "plugin 'smells' of smells 1.0 is broken (import failed: RuntimeError: no nose)" in line
    assert not Path("run").exists()
    stages = [f"stages.{name}.steps=1" for name in TEXT["stages"]]
    assert main(["train", str(config(in_tmp, TEXT)), "out=run", "--quiet", *stages]) == 0  # text is not its business


def test_a_second_claim_of_text_changes_nothing(site: Path, made: Path, in_tmp: Path, complaint: Complaint) -> None:
    install(site, "usurper", code=CLAIM.format(name="text"))
    assert main(["generate", str(made / "run"), "--max-new", "1"]) == 0
    install(site, "first", code=CLAIM.format(name="smell"))
    install(site, "second", code=CLAIM.format(name="smell"))
    line = complaint("train", config(in_tmp, TEXT), "out=run", "streams.smell={codec: smell}")
    assert "codec 'smell' is declared by plugin 'first' of first 1.0 and by plugin 'second' of second 1.0" in line


def test_a_run_resumed_under_other_plugins(site: Path, broken: Path, tmp_path: Path, complaint: Complaint) -> None:
    install(site, "first", code=CLAIM.format(name="smell"))
    before = contents(broken)
    line = complaint("train", config(tmp_path, TEXT), f"out={broken}", "stages.prior.steps=9", "--resume")
    assert "the plugins in force are not those that this run was started with; see colatent plugins doctor" in line
    assert contents(broken) == before


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "model", "--out"],
        ["report", "run", "--out"],
        ["encode", "config", "--out"],
        ["eval", "run", "model", "--task", "a", "--out"],
        ["eval", "diagnose", "model", "--out"],
        ["demo", "--out"],
        ["data", "pack", "."],
        ["plugins", "new", "a", "--modality", "a"],
        ["import-cola", "."],
        ["export-cola", "model"],
    ],
)
def test_an_empty_place_to_write_to_is_refused(command: list[str], complaint: Complaint) -> None:
    assert "is empty, it must say where to write" in complaint(*command, "")


def test_so_is_that_of_a_run(complaint: Complaint) -> None:
    tiny = Path(__file__).parents[2] / "examples" / "configs" / "tiny.yaml"
    assert "out: " in complaint("train", tiny, "out=''")
