"""examples/configs/cola-2b.yaml: the published defaults, the published sizes, and what a step really costs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from colatent.checkpoint.published import PublishedPrior, published_prior
from colatent.config import load
from colatent.config.checks import validate
from colatent.config.schema import RunConfig
from colatent.evaluate.cost import codec_flops, parameters, prior_flops
from colatent.prior.dit import Prior, rotary_dim
from colatent_text.codec import TextCodec
from colatent_text.cola.layout import PublishedVAE, published_vae
from colatent_text.config import TextConfig
from colatent_text.items import Text

CONFIG = Path(__file__).resolve().parents[1] / "examples" / "configs" / "cola-2b.yaml"
VOCABULARY = 100278


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load(CONFIG, ["data.path=.", "streams.text.config.tokenizer.path=tokenizer.json"]).config


@pytest.fixture(scope="module")
def codec(config: RunConfig) -> TextCodec:
    """On the meta device, with ids in the place of a tokenizer."""
    settings = config.streams["text"].config | {"tokenizer": {"kind": "ids", "size": VOCABULARY}}
    with torch.device("meta"):
        return TextCodec(validate(TextConfig, settings), {})


@pytest.fixture(scope="module")
def prior(config: RunConfig) -> Prior:
    with torch.device("meta"):
        return Prior(config.prior, {"text": 16})


def test_its_networks_are_the_published_ones(config: RunConfig, codec: TextCodec) -> None:
    blocks = {"block_size": 16}  # the published code's own default, 4, is not that of its weights
    expected = PublishedPrior(**blocks)
    assert published_prior(config.prior, channels=16, block=16, rope_dim=rotary_dim(config.prior)) == expected
    assert published_vae(codec.config, vocabulary=VOCABULARY) == PublishedVAE(**blocks)


def test_its_training_is_the_published_one(config: RunConfig) -> None:
    assert list(config.stages) == ["codec", "joint"]
    stage, law = config.stages["joint"], config.flow.time
    assert stage.batch * config.data.length == 720_896
    assert (stage.lr, stage.min_lr, stage.warmup, stage.steps) == (1.5e-4, 1e-5, 5000, 1_000_000)
    assert (stage.betas, stage.weight_decay, stage.clip, stage.ema) == ((0.9, 0.95), 0.01, 1.0, 0.0)
    assert (stage.schedule, stage.precision) == ("cosine", "bf16")
    assert (law.kind, law.loc, law.scale) == ("logit_normal", 1.0, 1.0)
    assert (config.joint.regime, config.joint.codec_lr) == ("joint", 1.0)
    assert (config.sample.steps, config.sample.guidance, config.sample.solver) == (16, 7.0, "euler")
    assert (config.sample.shift, config.sample.guidance_interval, config.sample.guidance_rescale) == (1.0, (0, 1), 0)
    assert config.sample.options == {"text": {"repetition_penalty": 1.1}}


def test_its_parameters_are_as_many_as_published(prior: Prior, codec: TextCodec) -> None:
    assert parameters(prior) == 1_829_875_728  # published: 1.8 B
    assert parameters(codec) == 501_871_574  # published: 0.5 B


def test_its_training_costs_more_than_the_rule_of_thumb(prior: Prior, codec: TextCodec) -> None:
    length, block = 512, 16
    flow = prior_flops(prior, "text", block_lengths=(block,) * (length // block)) / length
    vae = codec_flops(codec, [Text(ids=(1,) * length, ends=False)]) / length
    assert flow == pytest.approx(14.70e9, rel=1e-3)
    assert vae == pytest.approx(4.27e9, rel=1e-3)
    assert 6 * parameters(prior) == pytest.approx(10.98e9, rel=1e-3)
    assert (flow + vae) * 720_896 * 1e6 == pytest.approx(13_700e18, rel=1e-2)


def test_the_page_states_these_figures(prior: Prior, codec: TextCodec) -> None:
    page = (CONFIG.parents[2] / "docs" / "cola.md").read_text(encoding="utf-8")
    for figure in ("1.830 B", "0.502 B", "14.70", "4.27", "18.97", "10.98", "13,700"):
        assert figure in page, figure
