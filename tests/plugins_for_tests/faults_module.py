"""Slips in a codec as a module and as a guest of its process."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

import numpy as np
import torch

from plugins_for_tests.faults import breaks, changing
from plugins_for_tests.wave_codec import WaveCodec

# Scale, weights, device, precision.


@breaks("scale", "mean_LC is not as set_scale says")
class Unscaled(WaveCodec):
    def set_scale(self, mean_C, std_C):
        pass


@breaks("scale", "logvar_LC is not as set_scale says")
class FixedSpread(changing(logvar_LC=lambda logvar: 0 * logvar)):
    pass


@breaks("scale", "decode does not undo the scale")
class ScaledItems(WaveCodec):
    def numbers(self, record):
        return self.decoder(record.z_LC)


@breaks("scale", "after set_scale with measured statistics, allowed 0.5 to 2.0")
class TimidScale(WaveCodec):
    def set_scale(self, mean_C, std_C):
        super().set_scale(mean_C, std_C.clamp(min=1.0))


@breaks("state-dict", "after saving and loading")
class ForgetsScale(WaveCodec):
    def __init__(self, config, assets) -> None:
        super().__init__(config, assets)
        self.register_buffer("scale_C", self.scale_C, persistent=False)


@breaks("state-dict", "decode to another item after saving and loading")
class HiddenWeights(WaveCodec):
    def __init__(self, config, assets) -> None:
        super().__init__(config, assets)
        self.offset = float(torch.rand(()))

    def decode(self, latents):
        return [item + np.float32(self.offset) for item in super().decode(latents)]


@breaks("state-dict", "is a dict, not a tensor")
class ExtraState(WaveCodec):
    def get_extra_state(self):
        return {"version": 1}

    def set_extra_state(self, state):
        pass


@breaks("pickling", "cannot be pickled")
class HoldsALambda(WaveCodec):
    def __init__(self, config, assets) -> None:
        super().__init__(config, assets)
        self.activation = lambda x: x


@breaks("dtype", "mean_LC is torch.bfloat16")
class HalfRecords(
    changing(
        mean_LC=lambda mean: mean.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else mean
    )
):
    pass


@breaks("device", "encode on")
class LeftBehind(WaveCodec):
    def __init__(self, config, assets) -> None:
        super().__init__(config, assets)
        self.offset_C = torch.zeros(config.channels)

    def encode_one(self, item):
        record = super().encode_one(item)
        return replace(record, mean_LC=record.mean_LC + self.offset_C)


@breaks("device", "decode on")
class StaysWithLatents(WaveCodec):
    def numbers(self, record):
        return self.decoder(record.z_LC / self.scale_C + self.shift_C)


@breaks("device", "encode gives latents on cpu")
class StaysOnCPU(WaveCodec):
    def _apply(self, fn, recurse=True):
        return self


# The process.


@breaks("global-state", "building changes torch's default dtype")
class Doubles(WaveCodec):
    def __init__(self, config, assets) -> None:
        super().__init__(config, assets)
        torch.set_default_dtype(torch.float64 if torch.get_default_dtype() == torch.float32 else torch.float32)


@breaks("global-state", "use changes torch's random state, NumPy's random state")
class DrawsGlobally(WaveCodec):
    def encode(self, items, *, generator=None):
        torch.rand(())
        np.random.normal()
        return super().encode(items)


@breaks("global-state", "use changes torch's grad mode, the warning filters, the environment")
class ChangesTheProcess(WaveCodec):
    def decode(self, latents):
        torch.set_grad_enabled(not torch.is_grad_enabled())
        warnings.simplefilter("ignore", category=DeprecationWarning, lineno=len(warnings.filters))
        os.environ["WAVES"] = str(len(os.environ))
        return super().decode(latents)
