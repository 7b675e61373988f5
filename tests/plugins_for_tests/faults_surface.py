"""Slips in what a codec offers, and in how it lays out its latents."""

from __future__ import annotations

import torch
from pydantic import BaseModel

from colatent.config.schema import Settings
from colatent.plugins import LatentSpec
from colatent.plugins.contract import BlockPlan
from plugins_for_tests.faults import breaks, changing
from plugins_for_tests.wave import WaveOptions
from plugins_for_tests.wave_codec import WaveCodec

# Methods.


@breaks("protocol", "lacks finished (Codec)")
class NoFinished(WaveCodec):
    finished = None


@breaks("protocol", "has losses but lacks reconstruction_score (TrainableCodec)")
class HalfTrainable(WaveCodec):
    reconstruction_score = None


@breaks("protocol", "encode(items) is not called as encode(items, *, generator=None)")
class NoGenerator(WaveCodec):
    def encode(self, items):
        return super().encode(items)


@breaks("protocol", "missing a required argument: 'seed'")
class OneMore(WaveCodec):
    def losses(self, items, latents, *, generator, seed):
        return super().losses(items, latents, generator=generator)


@breaks("protocol", "options_model is not a classmethod")
class OptionsOfOne(WaveCodec):
    def options_model(self):
        return WaveOptions


class NoModule:
    """All methods of the codec, and none of a module."""


for _name in ("latent_spec", "encode", "decode", "plan", "finished", "example_batch", "set_scale"):
    setattr(NoModule, _name, getattr(WaveCodec, _name))
breaks("class", "NoModule is not an nn.Module")(NoModule)


@breaks("class", "latent_spec() differs from the config's")
class OtherSpec(WaveCodec):
    def latent_spec(self) -> LatentSpec:
        return LatentSpec(channels=4, block=2, units_per_latent=2.0)


@breaks("class", "RuntimeError: no weights")
class NeverBuilt(WaveCodec):
    def __init__(self, config, assets) -> None:
        raise RuntimeError("no weights")


@breaks("options", "settings can be changed")
class ChangeableOptions(WaveCodec):
    @classmethod
    def options_model(cls):
        return type("Changeable", (BaseModel,), {"model_config": {"extra": "forbid"}})


@breaks("options", "Field required")
class NeedyOptions(WaveCodec):
    @classmethod
    def options_model(cls):
        return NeededOptions


class NeededOptions(Settings):
    gain: float


# Layout.


@breaks("examples", "gives 2 items")
class TooFewExamples(WaveCodec):
    def example_batch(self, n):
        return super().example_batch(n - 1)


@breaks("examples", "other items the second time")
class RandomExamples(WaveCodec):
    def example_batch(self, n):
        return [torch.rand(4).numpy() for _ in range(n)]


@breaks("records", "mean_LC has shape (2, 2), not (2, 3)")
class Narrow(changing(mean_LC=lambda mean: mean[:, :2])):
    pass


@breaks("records", "mean_LC is torch.float64")
class Wide(changing(mean_LC=lambda mean: mean.double())):
    pass


@breaks("records", "logvar_LC is not finite")
class Endless(changing(logvar_LC=lambda logvar: logvar / 0)):
    pass


@breaks("records", "blocks of [1], latent_spec() says 2")
class SmallBlocks(changing(block_lengths=lambda lengths: (1,) * sum(lengths))):
    pass


@breaks("records", "not Encoded")
class Tuples(WaveCodec):
    def encode(self, items, *, generator=None):
        return [(record.mean_LC, record.logvar_LC) for record in super().encode(items)]


@breaks("positions", "positions_LA is torch.int64")
class WholePositions(changing(positions_LA=lambda positions: positions.long())):
    pass


@breaks("positions", "before the item's start")
class EarlyPositions(changing(positions_LA=lambda positions: positions - 1)):
    pass


@breaks("units", "sum to 0")
class AllPadding(changing(units_L=lambda units: 0 * units)):
    pass


@breaks("measure", "and the items have")
class CountsNoPadding(WaveCodec):
    def lengths(self, items):
        return [(len(item) + 1) // 2 for item in items]


@breaks("plan", "plans no block")
class NoPlan(WaveCodec):
    def plan(self, request):
        return iter(())


@breaks("plan", "a block of 3, not 2")
class LongPlan(WaveCodec):
    def plan(self, request):
        yield BlockPlan(length=3, positions_LA=torch.arange(3).float()[:, None])


@breaks("plan", "not those that encode gives")
class LatePlan(WaveCodec):
    def plan(self, request):
        yield BlockPlan(length=2, positions_LA=torch.arange(1, 3).float()[:, None])


@breaks("finished", "not bool")
class MaybeFinished(WaveCodec):
    def finished(self, latents):
        return torch.tensor(False)
