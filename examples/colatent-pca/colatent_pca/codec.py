"""Somebody else's encoder behind colatent's contract: it knows nothing of torch, and nothing here is trained.

Three things make a frozen encoder a codec. It is built from assets, bytes that are saved with every checkpoint, here
the arrays of a fitted PCA: `prepare` makes them (it could as well read them from a file that the config names). It has
no `losses`, so that stage codec trains nothing and only measures the scale. And it keeps that scale in buffers of its
own, since the encoder's latents may have any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from safetensors.numpy import load, save
from sklearn.decomposition import PCA
from torch import Tensor, nn

from colatent.errors import UserError
from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.records import LatentSpec
from colatent_pca.config import PCAConfig

FILE = "pca.safetensors"
ARRAYS = ("mean_", "components_", "explained_variance_")
"""What scikit-learn needs of a fitted PCA to go to and fro."""


class PCACodec(nn.Module):
    """See `PCAConfig`. An item is a float32 array (features,)."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: PCAConfig, assets: Mapping[str, bytes]) -> None:
        super().__init__()
        self.config, self._assets = config, dict(assets)
        self.pca = PCA(n_components=config.channels)
        for name, array in load(assets[FILE]).items():
            setattr(self.pca, name, array)
        self.register_buffer("shift_C", torch.zeros(config.channels))
        self.register_buffer("scale_C", torch.ones(config.channels))

    @classmethod
    def prepare(cls, config: PCAConfig, items: Iterable[np.ndarray]) -> dict[str, bytes]:
        """Fit the PCA to training items. Plain arrays are kept and no pickle, which would run what a file says."""
        vectors = _stacked(items, config.features)
        if len(vectors) < config.channels:
            what = f"{len(vectors)} vectors cannot give {config.channels} components"
            raise UserError(what, do="give more data or fewer channels")
        fitted = PCA(n_components=config.channels, svd_solver="full").fit(vectors)
        return {FILE: save({name: np.ascontiguousarray(getattr(fitted, name)) for name in ARRAYS})}

    def assets(self) -> dict[str, bytes]:
        """What `prepare` made."""
        return dict(self._assets)

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[np.ndarray], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """One latent for each vector, without a posterior."""
        if not items:  # which scikit-learn would refuse
            return []
        raw_BC = torch.from_numpy(self.pca.transform(_stacked(items, self.config.features))).to(self.shift_C)
        mean_BLC = ((raw_BC - self.shift_C) * self.scale_C)[:, None]
        return [
            Encoded(
                mean_LC=mean_LC,
                logvar_LC=None,
                block_lengths=(1,),
                positions_LA=torch.zeros(1, 1),
                units_L=torch.tensor([self.config.features]),
            )
            for mean_LC in mean_BLC
        ]

    def decode(self, latents: Sequence[Latents]) -> list[np.ndarray]:
        """The vectors that the components stand for."""
        if not latents:
            return []
        z_BC = torch.cat([record.z_LC.to(self.shift_C) for record in latents])
        raw_BC = (z_BC / self.scale_C + self.shift_C).detach().cpu().numpy()
        return list(self.pca.inverse_transform(raw_BC).astype(np.float32))

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        yield BlockPlan(length=1, positions_LA=torch.zeros(1, 1))

    def finished(self, latents: Latents) -> bool:
        return True

    def example_batch(self, n: int) -> list[np.ndarray]:
        steps = np.arange(self.config.features, dtype=np.float32)
        return [np.sin(steps * (1 + number)) for number in range(n)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """See `Codec.set_scale`: z = (raw - shift) * scale."""
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)


def _stacked(items: Iterable[np.ndarray], features: int) -> np.ndarray:
    """Vectors (B, features), each looked at first."""
    vectors = list(items)
    for vector in vectors:
        if np.shape(vector) != (features,):
            what = f"an item has shape {np.shape(vector)}, not ({features},)"
            raise UserError(what, do="set features of the codec to the length of your vectors")
    return np.array(vectors, dtype=np.float32).reshape(-1, features)
