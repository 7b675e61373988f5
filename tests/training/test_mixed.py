"""The page on mixed priors, run as written: its config trains, and the demo's text prior grows into such a prior."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import colatent
from colatent import Given
from colatent.config import load
from colatent_image.codec import ImageCodec
from colatent_image.config import ImageConfig
from colatent_text.demo import config_path
from plugins_for_tests.runs import changed, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "mixed.md"
SMALL = {"layers": 1, "dual_layers": 1, "width": 32, "heads": 2}


def written() -> dict[str, Any]:
    """The page's first config."""
    return {"name": "mixed", **yaml.safe_load(PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0])}


@pytest.fixture
def material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`pictures/NAME/*.png` and `books/*.txt` in the current directory."""
    monkeypatch.chdir(tmp_path)
    codec = ImageCodec(ImageConfig(bands=1, height=32, width=32, kind="patch"))
    rng = np.random.default_rng(0)
    for name in ("light", "dark"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(30):
            level = rng.uniform(0.6, 1.0) if name == "light" else rng.uniform(0.0, 0.4)
            picture = np.clip(level + rng.normal(scale=0.05, size=(1, 32, 32)), 0, 1).astype(np.float32)
            codec.write_item(picture, tmp_path / "pictures" / name / str(number))
    (tmp_path / "books").mkdir()
    (tmp_path / "books" / "one.txt").write_text("so it goes on and on, " * 400)
    return tmp_path


def test_the_config_of_the_page_trains(material: Path) -> None:
    tree = changed(written(), prior=SMALL, stages__codec__steps=3, stages__prior__steps=3, stages__prior__batch=4)
    folder = run(tree, material / "run")
    model = colatent.load(folder)
    drawn = model.generate([Given("text", "light")], target="image", steps=2)
    assert drawn.shape == (1, 32, 32)
    assert isinstance(model.generate([Given("image", drawn)], target="text", steps=2, max_new_tokens=4), str)


def test_the_demo_becomes_the_text_stream_of_a_mixed_prior(material: Path) -> None:
    demo = yaml.safe_load(config_path().read_text(encoding="utf-8"))
    demo = changed(demo, stages__codec__steps=2, stages__prior__steps=2)
    for source in demo["data"]["sources"].values():
        source["config"]["window"] = 200
    before = run(demo, material / "demo")
    mixed = written()
    mixed["streams"] = {"text": {"codec": "text"}, "image": mixed["streams"]["image"]}
    tree = changed(mixed, init=str(before), prior={"dual_layers": 2, "layers": 2, "width": 192, "heads": 3})
    tree = changed(tree, stages__codec__steps=2, stages__prior__steps=1, stages__prior__batch=4)
    after = run(tree, material / "grown")
    grown, text = colatent.load(after), colatent.load(before)
    same = (grown.codecs["text"], text.codecs["text"])
    assert all(torch.equal(a, b) for a, b in zip(*(codec.state_dict().values() for codec in same), strict=True))
    assert grown.generate([Given("text", "dark")], target="image", steps=1).shape == (1, 32, 32)
    assert load(after / "config.yaml").config.init == str(before)
