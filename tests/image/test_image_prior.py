"""Text and pictures of two sizes in one prior, from a folder to generated files, by the public surface."""

from __future__ import annotations

import colorsys
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image as Pillow

import colatent
from colatent import Given
from colatent.errors import UserError
from colatent.generate.model import Model
from colatent.plugins import load_plugins
from colatent.testing import check_codec, check_dataset
from colatent_image.codec import ImageCodec
from plugins_for_tests.runs import changed, metrics, run

COLOURS = {"red": 0.0, "green": 0.33, "blue": 0.66}
SIZES = ((8, 8), (8, 16))
SHOWN = (("red", 16), ("blue", 8), ("green", 16))

CONFIG: dict[str, Any] = {
    "name": "colours",
    "streams": {
        "text": {
            "codec": "text",
            "config": {
                "width": 32,
                "heads": 2,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "block": 8,
                "window": 8,
                "channels": 8,
            },
        },
        "image": {
            "codec": "image",
            "config": {"height": 8, "width": 16, "downsample": 4, "kind": "patch", "features": 32, "channels": 8},
        },
    },
    "data": {
        "length": 8,
        "sources": {
            "paint": {"dataset": "image-folder", "segments": [{"stream": "text"}, {"stream": "image"}]},
            "describe": {"dataset": "image-folder", "segments": [{"stream": "image"}, {"stream": "text"}]},
        },
    },
    "prior": {"layers": 1, "dual_layers": 1, "width": 32, "heads": 2},
    "stages": {
        "codec": {"steps": 100, "batch": 16, "lr": 5e-3, "warmup": 5, "ema": 0.9, "eval_every": 0},
        "prior": {"steps": 60, "batch": 16, "lr": 5e-3, "warmup": 5, "ema": 0.9, "eval_every": 0},
    },
    "sample": {"steps": 8, "max_units": 8},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 pictures of each colour, every second one twice as wide."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("colours")
    for name, hue in COLOURS.items():
        (root / name).mkdir()
        for number in range(16):
            colour = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.7, 1.0), rng.uniform(0.6, 1.0)))
            pixels = colour * rng.uniform(0.92, 1.0, size=(*SIZES[number % 2], 1))
            Pillow.fromarray((255 * pixels).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = CONFIG
    for source in ("paint", "describe"):
        settings = {"path": str(folder), "height": 8, "width": 16, "downsample": 4, "fit": "keep", "heldout": 0.2}
        tree = changed(tree, **{f"data__sources__{source}__config": settings})
    return run(tree, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return colatent.load(trained)


def test_the_plugin_keeps_the_contract() -> None:
    found = load_plugins()
    results = check_codec(found, "image") + check_dataset(found, "image-folder")
    assert [(result.name, result.detail) for result in results if result.state == "failed"] == []


def test_the_example_of_the_documentation_trains(folder: Path, tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "image.md"
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    few = [f"stages.{stage}.{key}" for stage in ("codec", "prior") for key in ("steps=2", "batch=4")]
    held = "data.sources.paint.config.heldout=0.2"  # there are few pictures here
    done = run(yaml.safe_load(block), tmp_path / "run", f"data.path={folder}", held, *few)
    made = colatent.load(done).generate("red", target="image", steps=1)
    assert made.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("stream", "changes", "says"),
    [
        ("image", {"data__sources__paint__config__bands": 1}, "is float32 (1, 8, 8); give a float32 array (3, "),
        (
            "image",
            {"data__sources__paint__config__downsample": 2, "data__sources__paint__config__width": 6},
            "is 6 x 6 pixels",
        ),
        ("image", {"streams__image__field": "text"}, "is a str; give"),
        ("text", {"streams__text__field": "image"}, "a text is a string, this is of type ndarray; give a string"),
    ],
)
def test_items_that_a_codec_does_not_take_are_refused_before_there_is_a_run(
    trained: Path, tmp_path: Path, stream: str, changes: dict[str, Any], says: str
) -> None:
    tree = yaml.safe_load((trained / "config.yaml").read_text()) | {"init": str(trained)}
    del tree["data"]["sources"]["describe"]
    with pytest.raises(UserError) as caught:
        run(changed(tree, **changes), tmp_path / "run")
    assert str(caught.value).startswith(f"data.sources.paint: stream {stream!r} refuses sample paint/0: {says}")
    assert not (tmp_path / "run").exists()


def test_flow_loss_falls_in_both_streams_and_orders(trained: Path) -> None:
    scores = [record["eval"] for record in metrics(trained) if record["stage"] == "prior" and "eval" in record]
    for order in ("paint/text", "paint/image", "describe/image", "describe/text"):
        before, after = (scores[index][f"{order}/t=0.5"] for index in (0, -1))
        assert after < 0.9 * before, f"{order}: {before:.3f} -> {after:.3f}"


def test_the_codec_is_on_scale_for_both_sizes(model: Model, folder: Path) -> None:
    codec = model.codecs["image"]
    assert isinstance(codec, ImageCodec)
    items = [codec.read_item(path) for path in sorted(folder.rglob("*.png"))]
    z_NC = torch.cat([record.mean_LC for record in codec.encode(items)])
    assert 0.5 < float(z_NC.std()) < 2.0
    good, total = codec.reconstruction_score(items, [record.sample(None) for record in codec.encode(items)])
    assert good > 0.6 * total


def test_a_picture_is_generated_at_the_size_that_is_asked_for_and_kept_as_a_file(model: Model, tmp_path: Path) -> None:
    codec = model.codecs["image"]
    assert isinstance(codec, ImageCodec)
    for options, shape in (({}, (3, 8, 16)), ({"width": 8}, (3, 8, 8)), ({"height": 4, "width": 12}, (3, 4, 12))):
        made = model.generate("red", target="image", options=options)
        assert made.shape == shape
        assert (made.dtype, made.min() >= 0, made.max() <= 1) == (np.float32, True, True)
        path = codec.write_item(made, tmp_path / "made")
        with Pillow.open(path) as file:
            assert file.size == (shape[2], shape[1])


def test_pictures_are_looked_at_whatever_their_size(model: Model, folder: Path) -> None:
    """In one batch as alone, and a red picture does not lead to what a blue one leads to."""
    codec = model.codecs["image"]
    sizes = [np.ascontiguousarray(codec.read_item(folder / name / "1.png")[..., :width]) for name, width in SHOWN]
    prompts = [[Given("image", item)] for item in sizes]
    together = model.generate_many(prompts, target="text", guidance=1.0)
    for prompt, results in zip(prompts, together, strict=True):
        (alone,) = model.generate_many([prompt], target="text", guidance=1.0)
        torch.testing.assert_close(results[0].latents_LC, alone[0].latents_LC, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0][0].latents_LC, together[1][0].latents_LC, atol=1e-2)
