"""The block-causal diffusion transformer, for one stream or many.

Latents of each stream enter and leave through their own projections. The first `dual_layers` have parameters per stream
and joint attention; the others are shared. With no dual layers and text alone this is the published DiT, weight for
weight. Parameters are keyed by stream, so that adding or dropping one leaves the rest of a checkpoint valid.

Axes: N rows of the flat batch, S rows of one stream, T distinct times, D width, H heads, C channels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from colatent.config.schema import PriorConfig
from colatent.latents.rows import Layout
from colatent.prior.attention import attend
from colatent.prior.cache import KVCache
from colatent.prior.modulation import Modulation, TimeEmbedding
from colatent.prior.rotary import angles, interleave, rotate_interleaved

SHARED = ""
"""Key of a shared layer's parameters and modulation, where a stream's name would stand."""


class Branch(nn.Module):
    """All parameters that one layer applies to one kind of row."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        width, head_dim = config.width, config.width // config.heads
        self.heads, self.head_dim, self.eps = config.heads, head_dim, config.norm_eps
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width, bias=config.qk_bias)
        self.norm_q = nn.LayerNorm(head_dim, eps=config.norm_eps)
        self.norm_k = nn.LayerNorm(head_dim, eps=config.norm_eps)
        self.attention_out = nn.Linear(width, width, bias=config.qk_bias)
        self.mlp_in = nn.Linear(width, config.mlp_ratio * width)
        self.mlp_out = nn.Linear(config.mlp_ratio * width, width)
        # Each layer starts as the identity: its gates are zero.
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def hidden(self) -> tuple[Tensor, ...]:
        """Its matrices that map hidden states to hidden states; modulation maps times."""
        return tuple(part.weight for part in (self.qkv, self.attention_out, self.mlp_in, self.mlp_out))

    def to_qkv(self, x_ND: Tensor, shift_ND: Tensor, scale_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised queries and keys, and values; (N, H, D / H) each."""
        h_ND = modulate(x_ND, shift_ND, scale_ND, self.eps)
        q_NHD, k_NHD, v_NHD = self.qkv(h_ND).unflatten(-1, (3, self.heads, self.head_dim)).unbind(1)
        return self.norm_q(q_NHD), self.norm_k(k_NHD), v_NHD

    def mlp(self, x_ND: Tensor, shift_ND: Tensor, scale_ND: Tensor) -> Tensor:
        """The feed-forward half."""
        h_ND = modulate(x_ND, shift_ND, scale_ND, self.eps)
        return self.mlp_out(F.gelu(self.mlp_in(h_ND), approximate="tanh"))


def modulate(x_ND: Tensor, shift_ND: Tensor, scale_ND: Tensor, eps: float) -> Tensor:
    """LayerNorm without affine, then scale and shift."""
    return torch.addcmul(shift_ND, F.layer_norm(x_ND, x_ND.shape[-1:], eps=eps).to(shift_ND.dtype), 1 + scale_ND)


class Layer(nn.Module):
    """One transformer layer: a branch per stream (dual) or one for all rows (shared)."""

    def __init__(self, config: PriorConfig, names: Collection[str]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({name or "shared": Branch(config) for name in names})
        self.names = tuple(names)

    def branch(self, name: str) -> Branch:
        """The parameters of one stream, or the shared ones."""
        return self.branches[name or "shared"]  # type: ignore[return-value]

    def tables(self, embedding_TD: Tensor) -> dict[str, Tensor]:
        """Modulation of every time, (T, 6, D) for each kind of row."""
        return {name: self.branch(name).modulation(embedding_TD).unflatten(-1, (6, -1)) for name in self.names}

    def forward(self, x_ND: Tensor, context: Pass) -> Tensor:
        """Attention, then MLP, each between its modulation and its gate."""
        rows = context.rows if self.names != (SHARED,) else {SHARED: None}
        made = context.modulation.layers
        tables = self.tables(context.modulation.embedding_TD) if made is None else made[context.layer]
        m_N = {name: context.look_up(tables[name], rows[name]) for name in rows}
        parts = {name: self.branch(name).to_qkv(take(x_ND, r), *m_N[name][:2]) for name, r in rows.items()}
        q_NHD, k_NHD, v_NHD = (join({n: p[i] for n, p in parts.items()}, rows, len(x_ND)) for i in range(3))
        q_NHD, k_NHD = (rotate_interleaved(x.to(v_NHD.dtype), *context.turn(v_NHD.dtype)) for x in (q_NHD, k_NHD))
        o_NHD = attend(q_NHD, k_NHD, v_NHD, layout=context.layout, cache=context.cache, layer=context.layer)
        o_ND = o_NHD.flatten(1)
        out = {}
        for name, r in rows.items():
            branch, (_, _, gate_a, shift, scale, gate_m) = self.branch(name), m_N[name]
            x_SD = torch.addcmul(take(x_ND, r), gate_a, branch.attention_out(take(o_ND, r)))
            out[name] = torch.addcmul(x_SD, gate_m, branch.mlp(x_SD, shift, scale))
        return join(out, rows, len(x_ND))


def take(x_N: Tensor, rows_S: Tensor | None) -> Tensor:
    """Rows of one stream; None: all of them."""
    return x_N if rows_S is None else x_N.index_select(0, rows_S)


def join(parts: Mapping[str, Tensor], rows: Mapping[str, Tensor | None], length: int) -> Tensor:
    """The streams' rows back in flat order."""
    if len(parts) == 1 and next(iter(rows.values())) is None:
        return next(iter(parts.values()))
    source = torch.cat([rows[name] for name in parts])  # type: ignore[misc]
    joined = torch.cat(list(parts.values()))
    return torch.empty((length, *joined.shape[1:]), dtype=joined.dtype, device=joined.device).index_copy(
        0, source, joined
    )


@dataclass(kw_only=True, eq=False)
class Pass:
    """What all layers of one forward pass share: where rows stand, who sees whom, their times and rotations."""

    layout: Layout
    rows: Mapping[str, Tensor | None]
    t_index_N: Tensor
    modulation: Modulation
    cache: KVCache | None
    rotation: tuple[Tensor, Tensor]
    layer: int = 0

    def turn(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Rotary factors in the dtype that the layers compute in, converted once."""
        if self.rotation[0].dtype != dtype:
            self.rotation = (self.rotation[0].to(dtype), self.rotation[1].to(dtype))
        return self.rotation

    def look_up(self, table_TKD: Tensor, rows_S: Tensor | None) -> tuple[Tensor, ...]:
        """Modulation of each row of a stream, from the table of its times."""
        index_S = take(self.t_index_N, rows_S)
        return tuple(table_TD.index_select(0, index_S) for table_TD in table_TKD.unbind(1))


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
        wanted        rows (within the stream) whose velocity is returned; None: all; {}: none, only the cache matters
        """
        cos_NP, sin_NP = angles(positions_N3, rope_dim=self.rope_dim, theta=self.config.rope_theta)
        context = Pass(
            layout=layout,
            rows=rows,
            t_index_N=t_index_N,
            modulation=modulation,
            cache=cache,
            rotation=interleave(cos_NP, sin_NP, head_dim=self.head_dim),
        )
        entered = {name: self.enter[name](z_SC) for name, z_SC in x.items()}
        x_ND = join(entered, rows, layout.length)
        for number in range(len(self.layers)):
            if self.recompute and torch.is_grad_enabled():  # a layer draws nothing: there is no state to put back
                x_ND = checkpoint(self._pass, number, x_ND, context, use_reentrant=False, preserve_rng_state=False)
            else:
                x_ND = self._pass(number, x_ND, context)
        names = x if wanted is None else wanted
        return {name: self._leave(name, x_ND, context, None if wanted is None else wanted[name]) for name in names}

    def _pass(self, number: int, x_ND: Tensor, context: Pass) -> Tensor:
        context.layer = number
        return self.layers[number](x_ND, context)

    def _leave(self, name: str, x_ND: Tensor, context: Pass, wanted_S: Tensor | None) -> Tensor:
        rows = context.rows[name]
        if wanted_S is not None:
            rows = wanted_S if rows is None else rows[wanted_S]
        shift_SD, scale_SD = context.look_up(context.modulation.exits[name], rows)
        h_SD = torch.addcmul(shift_SD, self.exit_norm[name](take(x_ND, rows)).to(shift_SD.dtype), 1 + scale_SD)
        return self.exit[name](h_SD)

    def hidden(self) -> tuple[Tensor, ...]:
        """The matrices of all layers that map hidden states to hidden states."""
        branches = [layer.branch(name) for layer in self.layers for name in layer.names]  # type: ignore[operator,union-attr]
        return tuple(weight for branch in branches for weight in branch.hidden())

    def new_cache(self, *, batch: int, window: int, block: int, expected: int | None = None) -> KVCache:
        """An empty cache for `batch` samples, `window` latents of history and blocks of at most `block` latents; see
        `KVCache` for `expected`."""
        return KVCache(
            layers=len(self.layers),
            batch=batch,
            heads=self.config.heads,
            head_dim=self.head_dim,
            window=window,
            block=block,
            expected=expected,
        )
