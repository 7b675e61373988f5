"""Text and sound in one prior: both directions train, and a sound is made and streamed from a caption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import colatent
from audio.sounds import RATE, keypad
from colatent import Given
from colatent.cli.heldout import load_with_data
from colatent.cli.main import main
from colatent.config import load
from colatent.errors import UserError
from colatent.generate.model import Model
from colatent_audio.codec import AudioCodec
from colatent_audio.datasets import AudioFolder
from plugins_for_tests.runs import TEXT, changed, metrics, run

WORDS = {"1": "one", "5": "five", "9": "nine"}
TASKS, STAGES = ("say", "hear"), ("codec", "prior")
STAGE = {"steps": 20, "batch": 4, "lr": 3e-3, "warmup": 2, "ema": 0.9, "eval_every": 0}


def tree(folder: Path) -> dict[str, Any]:
    """A run over a folder of keypad tones, in both orders."""
    dataset = {"dataset": "audio-folder", "config": {"path": str(folder), "captions": "folders", "heldout": 0.1}}
    orders = (("text", "audio"), ("audio", "text"))
    sources = {
        task: dataset | {"segments": [{"stream": stream} for stream in order]}
        for task, order in zip(TASKS, orders, strict=True)
    }
    config = changed(TEXT, data={"length": 16, "sources": sources}, stages={"codec": STAGE, "prior": STAGE})
    audio = {"codec": "audio", "config": {"width": 32, "channels": 8, "block": 4}}
    return changed(
        config, name="tones", streams__audio=audio, prior__dual_layers=1, sample__streams={"audio": {"max_units": 3000}}
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for key, word in WORDS.items():
        (folder / "sounds" / word).mkdir(parents=True)
        for take in range(8):
            soundfile.write(folder / "sounds" / word / f"{take}.wav", keypad(key, rng), RATE)
    return run(tree(folder / "sounds"), folder / "run")


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return colatent.load(trained)


def test_both_directions_train(trained: Path) -> None:
    records = metrics(trained)
    codec, prior = ([one["eval"] for one in records if one["stage"] == stage and "eval" in one] for stage in STAGES)
    assert codec[-1]["audio/reconstruction_score"] > codec[0]["audio/reconstruction_score"]
    for order in ("say/audio", "hear/text"):
        assert prior[-1][f"{order}/t=0.5"] < prior[0][f"{order}/t=0.5"]


def test_a_sound_from_a_caption_is_a_sound(model: Model) -> None:
    (results,) = model.generate_many([[Given("text", "five")]], target="audio", n=2)
    for result in results:
        assert result.item.dtype == np.float32
        assert 0 < len(result.item) <= 3000
        assert float(np.abs(result.item).max()) <= 1.0
        assert result.details["stopped"] in ("end", "budget")


def test_a_streamed_sound_is_the_whole_one(model: Model) -> None:
    prompt = [Given("text", "nine")]
    whole = model.generate_many([prompt], target="audio", n=2)[0][1].item
    pieces = list(model.stream(prompt, target="audio", sample=1))
    assert len(pieces) > 1
    np.testing.assert_allclose(np.concatenate([piece.item for piece in pieces]), whole, atol=1e-3)


def test_a_caption_from_a_sound_is_a_string(model: Model) -> None:
    sound = keypad("1", np.random.default_rng(5))
    assert isinstance(model.generate([Given("audio", sound)], target="text", max_new_tokens=8), str)


def test_latents_of_another_width_are_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", str(trained.parent / "run.yaml"), f"out={tmp_path / 'again'}", f"init={trained}"]
    assert main([*line, "streams.audio.config.channels=9"]) == 2
    assert "channels" in capsys.readouterr().err


def test_sounds_of_another_rate_are_refused(trained: Path, tmp_path: Path) -> None:
    faster = changed(tree(trained.parent / "sounds"), data__sources__say__config__sample_rate=2 * RATE)
    line = r"^data\.sources\.say: its items for stream 'audio' have sample_rate 16000, the codec's is 8000; give both"
    with pytest.raises(UserError, match=line):
        run(faster, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=line):
        run(changed(faster, init=str(trained)), tmp_path / "run")
    config = load(trained / "config.yaml", [f"data.sources.say.config.sample_rate={2 * RATE}"]).config
    with pytest.raises(UserError, match=line):
        load_with_data(str(trained), config, n=1, seed=0, device="cpu")


@pytest.mark.parametrize(("side", "says"), [(AudioFolder, "facts"), (AudioCodec, "expects")])
def test_what_only_one_side_says_is_no_contradiction(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: type, says: str
) -> None:
    monkeypatch.setattr(side, says, lambda self: {})
    config = changed(tree(trained.parent / "sounds"), stages__codec__steps=1, stages__prior__steps=1)
    for task in TASKS:
        config["data"]["sources"][task]["config"]["sample_rate"] = 2 * RATE
    assert run(config, tmp_path / "run").is_dir()
