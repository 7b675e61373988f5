"""One transformer layer: modulated attention and MLP, with parameters per stream (dual) or for all rows (shared).

Axes: N rows of the flat batch, S rows of one stream, T distinct times, D width, H heads.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent.config.prior import PriorConfig
from colatent.prior.attention import attend
from colatent.prior.passing import SHARED, Pass, join, take
from colatent.prior.rotary import rotate_interleaved


class GeluLinear(nn.Linear):
    """A linear layer and the tanh form of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return F.gelu(super().forward(x), approximate="tanh")


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
        self.mlp_in = GeluLinear(width, config.mlp_ratio * width)
        self.mlp_out = nn.Linear(config.mlp_ratio * width, width)
        # Each layer starts as the identity: its gates are zero.
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def hidden(self) -> tuple[Tensor, ...]:
        """Its matrices that map hidden states to hidden states; modulation maps times."""
        return tuple(part.weight for part in (self.qkv, self.attention_out, self.mlp_in, self.mlp_out))

    def to_qkv(
        self, x_ND: Tensor, modulation_ND: Sequence[Tensor], rotation_N1D: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised and rotated queries and keys, and values; (N, H, D / H) each."""
        shift_ND, scale_ND = modulation_ND
        h_ND = modulate(x_ND, shift_ND, scale_ND, self.eps)
        q_NHD, k_NHD, v_NHD = self.qkv(h_ND).unflatten(-1, (3, self.heads, self.head_dim)).unbind(1)
        normed = (norm(x_NHD).to(v_NHD.dtype) for norm, x_NHD in ((self.norm_q, q_NHD), (self.norm_k, k_NHD)))
        q_NHD, k_NHD = (rotate_interleaved(x_NHD, *rotation_N1D) for x_NHD in normed)
        return q_NHD, k_NHD, v_NHD

    def finish(self, x_ND: Tensor, o_ND: Tensor, modulation_ND: Sequence[Tensor]) -> Tensor:
        """What attention gave and then the feed-forward half, each added under its gate."""
        gate_attention, shift_ND, scale_ND, gate_mlp = modulation_ND
        x_ND = torch.addcmul(x_ND, gate_attention, self.attention_out(o_ND))
        h_ND = modulate(x_ND, shift_ND, scale_ND, self.eps)
        return torch.addcmul(x_ND, gate_mlp, self.mlp_out(self.mlp_in(h_ND)))


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
        """Attention, then MLP, each between its modulation and its gate. The last layer gives the rows that are wanted,
        stream after stream."""
        shared = self.names == (SHARED,)
        rows = {SHARED: None} if shared else context.rows
        made = context.modulation.layers
        tables = self.tables(context.modulation.embedding_TD) if made is None else made[context.layer]
        m_N = {name: context.look_up(tables[name][:, :2], r) for name, r in rows.items()}
        parts = {
            name: self.branch(name).to_qkv(take(x_ND, r), m_N[name], context.turn(name, r, x_ND.dtype))
            for name, r in rows.items()
        }
        q_NHD, k_NHD, v_NHD = (join({n: p[i] for n, p in parts.items()}, rows, len(x_ND)) for i in range(3))
        ending = context.ending if context.last else None
        o_NHD = attend(
            q_NHD,
            k_NHD,
            v_NHD,
            layout=context.layout,
            cache=context.cache,
            layer=context.layer,
            answered=None if ending is None else ending.answered,
        )
        o_ND, out = o_NHD.flatten(1), {}
        for name, r in (rows if ending is None else ending.kinds(shared)).items():
            modulation_SD = context.look_up(tables[name][:, 2:], r)
            out[name] = self.branch(name).finish(take(x_ND, r), take(o_ND, r), modulation_SD)
        return join(out, rows, len(x_ND)) if ending is None else torch.cat([x_ND[:0], *out.values()])
