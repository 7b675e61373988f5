"""The block-causal diffusion transformer, for one stream or many.

Latents of each stream enter and leave through their own projections. The first `dual_layers` have parameters per stream
and joint attention; the others are shared. With no dual layers and text alone this is the published DiT, weight for
weight. Parameters are keyed by stream, so that adding or dropping one leaves the rest of a checkpoint valid.

Axes: N rows of the flat batch, S rows of one stream, T distinct times, D width, H heads, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from colatent.config.prior import PriorConfig
from colatent.latents.rows import Layout
from colatent.prior.cache import KVCache
from colatent.prior.fixed_cache import FixedCache
from colatent.prior.layer import Branch, Layer
from colatent.prior.modulation import Modulation, TimeEmbedding
from colatent.prior.passing import SHARED, Pass, ending_of, join, take
from colatent.prior.rotary import angles, interleave


def rotary_dim(config: PriorConfig) -> int:
    """Rotary channels of a head: as set, else three quarters of it."""
    return config.rope_dim or max(2, config.width // config.heads * 3 // 4 // 2 * 2)


class Prior(nn.Module):
    """Velocity of noisy latents, given the clean ones that come before."""

    def __init__(self, config: PriorConfig, channels: Mapping[str, int]) -> None:
        """`channels`: latent width of each stream by name.

        `recompute` may be set on a prior: then only the input of each layer is kept for the backward pass, which
        computes the rest of the layer again.
        """
        super().__init__()
        self.config, self.channels, self.recompute = config, dict(channels), False
        width, head_dim = config.width, config.width // config.heads
        self.head_dim = head_dim
        self.rope_dim = rotary_dim(config)
        self.time = TimeEmbedding(width)
        self.enter = nn.ModuleDict({name: nn.Linear(c, width) for name, c in channels.items()})
        self.in_layers = False  # whether each layer makes its own modulation: nothing of it is used before it is run
        self.layers = nn.ModuleList(
            [Layer(config, tuple(channels)) for _ in range(config.dual_layers)]
            + [Layer(config, (SHARED,)) for _ in range(config.layers)]
        )
        self.exit_norm = nn.ModuleDict({name: nn.LayerNorm(width, eps=config.norm_eps) for name in channels})
        self.exit_modulation = nn.ModuleDict({name: nn.Linear(width, 2 * width) for name in channels})
        self.exit = nn.ModuleDict({name: nn.Linear(width, c) for name, c in channels.items()})
        for name in channels:  # velocity starts at zero, the best guess that looks at nothing
            for linear in (self.exit_modulation[name], self.exit[name]):
                nn.init.zeros_(linear.weight)  # type: ignore[arg-type]
                nn.init.zeros_(linear.bias)  # type: ignore[arg-type]

    def modulate(self, t_T: Tensor) -> Modulation:
        """Modulation tables of the distinct times `t_T` in [0, 1]; computed once per table, not per row."""
        embedding_TD = self.time(t_T)
        layers = None if self.in_layers else [layer.tables(embedding_TD) for layer in self.layers]  # type: ignore[operator]
        exits = {name: linear(embedding_TD).unflatten(-1, (2, -1)) for name, linear in self.exit_modulation.items()}
        return Modulation(layers, exits, embedding_TD)

    def forward(
        self,
        x: Mapping[str, Tensor],
        *,
        layout: Layout,
        rows: Mapping[str, Tensor | None],
        positions_N3: Tensor,
        t_index_N: Tensor,
        modulation: Modulation,
        cache: KVCache | None = None,
        wanted: Mapping[str, Tensor | None] | None = None,
    ) -> dict[str, Tensor]:
        """Velocity of rows by stream.

        x             latents (S, C) of each stream, clean and noisy alike
        layout        who sees whom
        rows          each stream's rows in the flat batch; None for a stream that fills it
        positions_N3  three positions per row
        t_index_N     each row's time, as an index into the table that `modulation` was made of
        cache         history to read or fill, where the layout says so
        wanted        rows (within the stream) whose velocity is returned, none of them `history` in the layout; None:
                      all; {}: none, only the cache matters
        """
        cos_NP, sin_NP = angles(positions_N3, rope_dim=self.rope_dim, theta=self.config.rope_theta)
        context = Pass(
            layout=layout,
            rows=rows,
            t_index_N=t_index_N,
            modulation=modulation,
            cache=cache,
            rotation=interleave(cos_NP, sin_NP, head_dim=self.head_dim),
            ending=None if wanted is None else ending_of(wanted, rows, layout),
        )
        entered = {name: self.enter[name](z_SC) for name, z_SC in x.items()}
        x_ND = join(entered, rows, layout.length)
        for number in range(len(self.layers)):
            if self.recompute and torch.is_grad_enabled():  # a layer draws nothing: there is no state to put back
                x_ND = checkpoint(self._pass, number, x_ND, context, use_reentrant=False, preserve_rng_state=False)
            else:
                x_ND = self._pass(number, x_ND, context)
        if context.ending is None:
            return {name: self._leave(name, take(x_ND, rows[name]), rows[name], context) for name in x}
        ends = context.ending.rows
        sizes = [layout.length if rows_S is None else len(rows_S) for rows_S in ends.values()]
        parts = zip(ends.items(), x_ND.split(sizes), strict=True)
        return {name: self._leave(name, x_SD, rows_S, context) for (name, rows_S), x_SD in parts}

    def _pass(self, number: int, x_ND: Tensor, context: Pass) -> Tensor:
        context.layer, context.last = number, number == len(self.layers) - 1
        return self.layers[number](x_ND, context)

    def _leave(self, name: str, x_SD: Tensor, rows_S: Tensor | None, context: Pass) -> Tensor:
        shift_SD, scale_SD = context.look_up(context.modulation.exits[name], rows_S)
        h_SD = torch.addcmul(shift_SD, self.exit_norm[name](x_SD).to(shift_SD.dtype), 1 + scale_SD)
        return self.exit[name](h_SD)

    def hidden(self) -> tuple[Tensor, ...]:
        """The matrices of all layers that map hidden states to hidden states."""
        return tuple(weight for branch in self.branches() for weight in branch.hidden())

    def branches(self) -> list[Branch]:
        """The branches of all layers."""
        return [layer.branch(name) for layer in self.layers for name in layer.names]  # type: ignore[operator,union-attr]

    def new_cache(
        self, *, batch: int, window: int, block: int, expected: int | None = None, device: torch.device | None = None
    ) -> KVCache:
        """An empty cache for `batch` samples, `window` latents of history and blocks of at most `block` latents; see
        `KVCache` for `expected`. With `device` a `FixedCache` there, for blocks of exactly `block`."""
        shape: dict[str, Any] = {"batch": batch, "window": window, "block": block, "expected": expected}
        shape |= {"layers": len(self.layers), "heads": self.config.heads, "head_dim": self.head_dim}
        return KVCache(**shape) if device is None else FixedCache(device=device, **shape)
