"""Samples drawn while a prior trains: which they are, that they change nothing, and that no step has half of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import colatent
from colatent.cli.main import main
from colatent.config import load
from colatent.errors import UserError
from colatent.evaluate.sampling import COUNT, Sampled
from colatent.train.board import Board
from colatent_audio.codec import AudioCodec
from colatent_audio.config import AudioConfig
from colatent_image.codec import ImageCodec
from colatent_image.config import ImageConfig
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.ranks import Asked, both
from plugins_for_tests.runs import TEXT, assert_same_checkpoint, assert_same_run, changed, last, run
from plugins_for_tests.stops import PowerCutError, StopsAt

STAGE = {"steps": 7, "batch": 4, "warmup": 2, "lr": 5e-3, "ema": 0.9, "save_every": 3, "eval_every": 0, "log_every": 1}
TREE = changed(CONFIG, device="cpu", stages={"codec": {**STAGE}, "prior": {**STAGE}}, sample__steps=2)
EVERY = "stages.prior.sample_every=2"
STEPS = [f"step-{step:08d}" for step in (2, 4, 6, 7)]


def files(folder: Path) -> dict[str, bytes]:
    """All that lies below `samples/`, by path."""
    root = folder / "samples"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that draws none."""
    return run(TREE, tmp_path_factory.mktemp("plain") / "run", plugins=plugins_with_grid())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with samples."""
    return run(TREE, tmp_path_factory.mktemp("drawn") / "run", EVERY, plugins=plugins_with_grid())


def test_they_change_nothing(plain: Path, drawn: Path) -> None:
    assert not files(plain)
    assert_same_run(plain, drawn)


def test_nor_where_the_codec_trains_too(tmp_path: Path) -> None:
    tree = changed(TEXT, joint={"regime": "joint"}, stages__joint=TEXT["stages"]["prior"])
    del tree["stages"]["prior"]
    run(tree, tmp_path / "plain")
    run(tree, tmp_path / "drawn", "stages.joint.sample_every=3")
    assert_same_run(tmp_path / "plain", tmp_path / "drawn", ("codec", "joint"))
    assert {name.split("/")[1] for name in files(tmp_path / "drawn")} == {f"step-0000000{step}" for step in (3, 6, 8)}


def test_every_stream_of_every_source_is_drawn(drawn: Path) -> None:
    found = files(drawn)
    for step in STEPS:
        for source, stream, given in [
            ("paint", "grid", {"given text"}),
            ("paint", "text", set()),
            ("describe", "text", {"given grid"}),
            ("describe", "grid", set()),
        ]:
            place = f"prior/{step}/{source}/{stream}"
            records = [json.loads(line) for line in found[f"{place}/samples.jsonl"].decode().splitlines()]
            assert [record.keys() for record in records] == [{*given, stream}] * COUNT
            written = {record[name] for record in records for name in record if name.endswith("grid")}
            assert {f"{place}/{name}" for name in written} <= found.keys()


def test_they_are_what_the_averaged_weights_generate(drawn: Path) -> None:
    model = colatent.load(drawn, plugins=plugins_with_grid())
    said = [result.item for result in model.generate_many([""], n=COUNT, target="text")[0]]
    lines = files(drawn)[f"prior/{STEPS[-1]}/paint/text/samples.jsonl"].decode().splitlines()
    assert [json.loads(line)["text"] for line in lines] == said


def test_a_run_that_goes_on_has_the_same(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(PowerCutError):
        run(TREE, tmp_path / "run", EVERY, plugins=plugins_with_grid(), reporter=StopsAt("prior", 5, None))
    place = tmp_path / "run" / "samples" / "prior"
    assert sorted(path.name for path in place.iterdir()) == STEPS[:2]
    (place / STEPS[1] / "from before").write_text("the crash")  # step 4 lies behind the checkpoint of step 3
    (place / ".tmp-left-1-0").mkdir()
    run(TREE, tmp_path / "run", EVERY, plugins=plugins_with_grid(), resume=True)
    assert files(tmp_path / "run") == files(drawn)
    assert sorted(path.name for path in place.iterdir()) == STEPS


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), UserError("latents are not finite")])
def test_what_fails_costs_samples_alone(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(sampled: object, folder: Path) -> None:
        (folder / "half").write_text("of it")
        raise error

    monkeypatch.setattr("colatent.train.samples.write_samples", fail)
    with pytest.warns(UserWarning, match=r"no samples of step \d: .*(No space|not finite)"):
        run(TREE, tmp_path / "run", EVERY, plugins=plugins_with_grid())
    assert not any((tmp_path / "run" / "samples" / "prior").iterdir())
    assert_same_run(plain, tmp_path / "run")


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(sampled: object, folder: Path) -> None:
        (folder / "half").write_text("of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("colatent.train.samples.write_samples", stop)
    with pytest.raises(KeyboardInterrupt):
        run(TREE, tmp_path / "run", EVERY, plugins=plugins_with_grid())
    assert not any((tmp_path / "run" / "samples" / "prior").iterdir())


def test_a_report_shows_them(drawn: Path) -> None:
    assert main(["report", str(drawn)]) == 0
    page = (drawn / "run.html").read_text(encoding="utf-8")
    assert "prior/describe/text step 2" in page
    assert "prior/paint/text step 7" in page


def test_so_does_tensorboard(drawn: Path, tmp_path: Path) -> None:
    """Text, pictures and sounds; what it cannot show is left out."""
    board = EventAccumulator(str(drawn / "tensorboard" / "prior")).Reload()
    assert f"paint/text/{COUNT - 1}/text_summary" in board.Tags()["tensors"]
    assert not board.Tags()["images"]
    codecs = {"picture": ImageCodec(ImageConfig(bands=1, height=16, width=24)), "sound": AudioCodec(AudioConfig())}
    with Board(tmp_path, "prior", step=0) as shown:
        for name, codec in codecs.items():
            items = codec.example_batch(1)
            shown.samples(3, [Sampled(codecs=codecs, source="all", stream=name, items=items, given=[[]])])
    found = EventAccumulator(str(tmp_path / "tensorboard" / "prior")).Reload()
    (picture,), (sound,) = found.Images("all/picture/0"), found.Audio("all/sound/0")
    assert picture.step == sound.step == 3
    assert (picture.width, picture.height) == (8, 8)
    assert picture.encoded_image_string == codecs["picture"].show(codecs["picture"].example_batch(1)[0]).data
    assert sound.encoded_audio_string.startswith(b"RIFF")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_of_two_processes_one_writes(parallel: str, tmp_path: Path) -> None:
    tree = changed(TREE, stages__prior__parallel=parallel)
    sampled = changed(tree, stages__prior__sample_every=2)
    ended = both([Asked(tree=tree, out=tmp_path / "plain"), Asked(tree=sampled, out=tmp_path / "run")], tmp_path)
    assert [one.ends for one in ended] == [["", ""], ["", ""]]
    assert_same_checkpoint(last(tmp_path / "plain", "prior"), last(tmp_path / "run", "prior"))
    assert {name.split("/")[1] for name in files(tmp_path / "run")} == set(STEPS)


def test_a_codec_generates_nothing() -> None:
    tiny = Path(__file__).parents[2] / "examples" / "configs" / "tiny.yaml"
    with pytest.raises(UserError, match=r"stages\.codec\.sample_every has no effect in stage codec: take it out"):
        load(tiny, ["stages.codec.sample_every=5"])
