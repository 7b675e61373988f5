"""Several tasks in one run: which source a step draws from, and sequences that lose their condition."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from colatent.config import load
from colatent.config.sampling import SampleConfig, StreamSampleConfig
from colatent.data.mixture import Drawn, Mixture
from colatent.errors import UserError
from colatent.latents.packing import pack
from colatent.latents.sequence import LatentSequence
from colatent.train.codecs import build_codecs
from colatent.train.prepare import Run, prepare
from colatent.train.sequences import build_sequences
from plugins_for_tests.grid import CONFIG, plugins_with_grid
from plugins_for_tests.runs import changed, metrics, run


class Numbers:
    """A dataset that only counts."""

    def __len__(self) -> int:
        return 7

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, int]:
        return {"number": index}


def mixture(*, whole: bool = True, seed: int = 0) -> Mixture:
    sources = {"rare": (Numbers(), 1.0), "often": (Numbers(), 3.0)}
    return Mixture(sources, seed=seed, whole=whole, sizes={"rare": 5})


def test_a_step_is_of_one_source_and_as_large_as_that_says() -> None:
    drawing = mixture()
    steps = [Counter(one.source for one in drawing.take(3)) for _ in range(400)]
    assert all(step in ({"rare": 5}, {"often": 3}) for step in steps)
    assert 0.18 < sum("rare" in step for step in steps) / 400 < 0.32
    apart = mixture(whole=False)
    assert any(len(Counter(one.source for one in apart.take(8))) == 2 for _ in range(5))


def test_the_order_of_tasks_is_a_function_of_seed_and_position() -> None:
    one, other, stranger = mixture(), mixture(), mixture(seed=1)
    keys = [[drawn.key for drawn in one.take(3)] for _ in range(20)]
    assert keys[:10] == [[drawn.key for drawn in other.take(3)] for _ in range(10)]
    assert keys != [[drawn.key for drawn in stranger.take(3)] for _ in range(20)]
    resumed = mixture()
    resumed.load_state(other.state())
    assert keys[10:] == [[drawn.key for drawn in resumed.take(3)] for _ in range(10)]


def built(tree: dict[str, Any], folder: Path) -> Run:
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    prepared = prepare(load(folder / "config.yaml").config, plugins_with_grid())
    build_codecs(prepared)
    return prepared


def sequences(of: Run, drawn: list[Drawn], share: float) -> list[LatentSequence]:
    flow = of.config.flow.model_copy(update={"condition_dropout": share})
    return build_sequences(drawn, streams=of.streams, segments=of.sources.segments, flow=flow, seed=0)


THREE = [{"stream": "text", "role": "given"}, {"stream": "grid"}, {"stream": "text", "same_group": True}]


def test_condition_dropout_keeps_one_generated_item_by_itself(tmp_path: Path) -> None:
    of = built(changed(CONFIG, data__sources={"three": {"dataset": "captions", "segments": THREE}}), tmp_path)
    drawn = of.sources.mixture(seed=0).take(200)
    whole, some, none = (sequences(of, drawn, share) for share in (0.0, 0.4, 1.0))
    assert {len(sequence) for sequence in whole} == {3}
    assert {len(sequence) for sequence in none} == {1}
    assert 0.3 < sum(len(sequence) == 1 for sequence in some) / 200 < 0.5
    assert 0.4 < sum(sequence[0].stream == "grid" for sequence in none) / 200 < 0.6
    for sequence, (lone,) in zip(whole, none, strict=True):
        kept = next(one for one in sequence[1:] if one.stream == lone.stream)
        assert torch.equal(lone.z_LC, kept.z_LC)
        assert torch.equal(lone.noise_LC, kept.noise_LC)
        assert lone.t_K == kept.t_K
        assert not lone.same_group


def test_an_item_without_its_condition_is_counted_from_its_own_start(tmp_path: Path) -> None:
    of = built(CONFIG, tmp_path)
    drawn = [one for one in of.sources.mixture(seed=0).take(40) if one.source == "paint"][:1]
    ((lone,),) = sequences(of, drawn, 1.0)
    batch = pack([(lone,)])
    assert lone.stream == "grid"
    assert torch.equal(batch.positions_N3[:, 1:], lone.positions_LA)
    assert float(batch.positions_N3[:, 0].abs().max()) == 0.0


def test_padding_counts_as_much_as_the_config_says(tmp_path: Path) -> None:
    of = built(changed(CONFIG, data__sources={"one": {"dataset": "captions", "segments": [{"stream": "text"}]}},
                       streams={"text": CONFIG["streams"]["text"]}), tmp_path)  # fmt: skip
    drawn = of.sources.mixture(seed=0).take(4)
    for weight in (0.0, 0.25):
        flow = of.config.flow.model_copy(update={"padding": weight})
        some = build_sequences(drawn, streams=of.streams, segments=of.sources.segments, flow=flow, seed=0)
        held = [sum(len(one.sample["text"]) + 1 for one in drawn), sum(len(s.z_LC) for (s,) in some)]
        assert sum(float((s.weight_L == 1.0).sum()) for (s,) in some) == held[0] < held[1]
        assert sum(float(s.weight_L.sum()) for (s,) in some) == held[0] + weight * (held[1] - held[0])


def test_only_what_has_something_before_it_can_lose_it(tmp_path: Path) -> None:
    of = built(changed(CONFIG, data__sources={"one": {"dataset": "captions", "segments": [{"stream": "text"}]}},
                       streams={"text": CONFIG["streams"]["text"]}), tmp_path)  # fmt: skip
    drawn = of.sources.mixture(seed=0).take(4)
    whole, dropped = (sequences(of, drawn, share) for share in (0.0, 1.0))
    assert all(torch.equal(a[0].z_LC, b[0].z_LC) for a, b in zip(whole, dropped, strict=True))


def test_tasks_by_step_train_and_resume_refuses_another_way(tmp_path: Path) -> None:
    tree = changed(CONFIG, stages__prior__draw="step", stages__prior__steps=4, stages__codec__steps=2)
    tree = changed(tree, data__sources__paint__batch=3, flow={"condition_dropout": 0.3})
    folder = run(tree, tmp_path / "run", plugins=plugins_with_grid())
    with pytest.raises(UserError, match=r"stages\.prior\.draw: is 'sample', but this run was started with 'step'"):
        run(changed(tree, stages__prior__draw="sample", data__sources__paint__batch=None), folder,
            plugins=plugins_with_grid(), resume=True)  # fmt: skip


def test_a_batch_of_a_source_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.sources\.paint\.batch has no effect: no stage has draw: step"):
        built(changed(CONFIG, data__sources__paint__batch=3), tmp_path)


def test_settings_of_generation_by_stream() -> None:
    sample = SampleConfig(guidance=2.0, steps=4, streams={"grid": StreamSampleConfig(guidance=5.0)})
    assert (sample.of("grid").guidance, sample.of("grid").steps) == (5.0, 4)
    assert sample.of("text") is sample
    assert sample.of(None) is sample


def test_three_in_a_row_train_and_weigh_as_the_config_says(tmp_path: Path) -> None:
    """A picture and words given together, then words; a picture after words after a picture; each stream's weight."""
    joined = [{"stream": "grid", "role": "given"}, {"stream": "text", "role": "given", "same_group": True}]
    sources = {
        "asked": {"dataset": "captions", "segments": [*joined, {"stream": "text"}]},
        "three": {"dataset": "captions", "segments": THREE},
        "back": {"dataset": "captions", "segments": [{"stream": "grid"}, {"stream": "text"}, {"stream": "grid"}]},
    }
    short = {"steps": 6, "batch": 6, "warmup": 0, "ema": 0.0, "eval_every": 0, "log_every": 1}
    tree = changed(CONFIG, data__sources=sources, stages={"codec": short, "prior": short})
    folder = run(changed(tree, flow={"weights": {"grid": 0.25}}), tmp_path / "run", plugins=plugins_with_grid())
    steps = [one for one in metrics(folder) if one["stage"] == "prior" and "loss" in one]
    assert len(steps) == 6
    for one in steps:
        assert one["loss"] == pytest.approx(one["text/flow"] + 0.25 * one["grid/flow"], rel=1e-6)
    (scored,) = [
        one["eval"] for one in metrics(folder) if one["stage"] == "prior" and one["step"] == 6 and "eval" in one
    ]
    assert {name.rsplit("/", 1)[0] for name in scored} == {
        "asked/text",
        "three/grid",
        "three/text",
        "back/grid",
        "back/text",
    }
