"""The network of the text VAE: a Transformer encoder to a Gaussian posterior, a Transformer decoder to token logits.

Both run at the rate of latents over flat, packed batches; patches of tokens are folded on the way in and unfolded on
the way out. Nothing here knows strings, items or training.

Axes: N latents of the flat batch, P tokens per latent, D width, H heads, C channels, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent.latents.rows import Layout
from colatent.prior.attention import attend
from colatent.prior.cache import KVCache
from colatent.prior.rotary import angles, rotate_halves
from colatent_text.config import TextConfig

LOGVAR_RANGE = (-30.0, 20.0)


class Block(nn.Module):
    """Pre-norm attention and SwiGLU, queries and keys normalised over the whole width."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.heads = config.heads
        self.norm_attn = nn.LayerNorm(width, eps=eps)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.q_norm = nn.LayerNorm(width, eps=eps)
        self.k_norm = nn.LayerNorm(width, eps=eps)
        self.attn_out_proj = nn.Linear(width, width)
        self.norm_ffn = nn.LayerNorm(width, eps=eps)
        self.ffn_proj = nn.Linear(width, config.ffn_ratio * width)
        self.ffn_out = nn.Linear(config.ffn_ratio * width // 2, width)

    def forward(
        self, x_ND: Tensor, *, layout: Layout, turn: tuple[Tensor, Tensor], cache: KVCache | None, layer: int
    ) -> Tensor:
        """(N, D) -> (N, D); `turn` is the cosine and sine of the rows' positions."""
        q_ND, k_ND, v_ND = self.qkv_proj(self.norm_attn(x_ND)).chunk(3, dim=-1)
        q_NHD, k_NHD, v_NHD = (x.unflatten(-1, (self.heads, -1)) for x in (self.q_norm(q_ND), self.k_norm(k_ND), v_ND))
        q_NHD, k_NHD = rotate_halves(q_NHD, *turn), rotate_halves(k_NHD, *turn)
        o_NHD = attend(q_NHD.to(v_NHD.dtype), k_NHD.to(v_NHD.dtype), v_NHD, layout=layout, cache=cache, layer=layer)
        x_ND = x_ND + self.attn_out_proj(o_NHD.flatten(1))
        value, gate = self.ffn_proj(self.norm_ffn(x_ND)).chunk(2, dim=-1)
        return x_ND + self.ffn_out(value * F.silu(gate))


class Trunk(nn.Module):
    """A stack of blocks over a packed batch."""

    def __init__(self, config: TextConfig, layers: int) -> None:
        super().__init__()
        self.theta, self.head_dim = config.rope_theta, config.width // config.heads
        self.blocks = nn.ModuleList([Block(config) for _ in range(layers)])

    def forward(self, x_ND: Tensor, *, layout: Layout, position_N: Tensor, cache: KVCache | None = None) -> Tensor:
        """(N, D) -> (N, D)."""
        turn = angles(position_N[:, None].expand(-1, 3), rope_dim=self.head_dim, theta=self.theta)
        for layer, block in enumerate(self.blocks):
            x_ND = block(x_ND, layout=layout, turn=turn, cache=cache, layer=layer)
        return x_ND


class Encoder(nn.Module):
    """Token ids to the posterior's mean and log-variance."""

    def __init__(self, config: TextConfig, vocabulary: int) -> None:
        super().__init__()
        width = config.width
        self.wte = nn.Embedding(vocabulary, width)
        self.patch_embedder = nn.Linear(config.tokens_per_latent * width, width)
        self.trunk = Trunk(config, config.encoder_layers)
        self.final_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.final_layer = nn.Linear(width, 2 * config.channels)
        self.eps, self.log_snr = config.norm_eps, config.log_snr
        nn.init.normal_(self.wte.weight, std=0.5)
        # Start at the log SNR that training should end near: a posterior as wide as the prior drowns the first steps.
        with torch.no_grad():
            self.final_layer.bias[config.channels :].fill_(-4.5)

    def forward(self, ids_NP: Tensor, *, layout: Layout, position_N: Tensor) -> tuple[Tensor, Tensor]:
        """(N, P) -> mean and log-variance, (N, C) float32 each; the mean is normalised over its channels."""
        x_ND = self.patch_embedder(self.wte(ids_NP).flatten(1))
        h_ND = self.final_norm(self.trunk(x_ND, layout=layout, position_N=position_N))
        mean_NC, logvar_NC = self.final_layer(h_ND).float().chunk(2, dim=-1)
        mean_NC = F.layer_norm(mean_NC, mean_NC.shape[-1:], eps=self.eps)
        if self.log_snr is not None:
            logvar_NC = torch.full_like(mean_NC, -self.log_snr)
        return mean_NC, logvar_NC.clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """Latents to token logits, all tokens of a block in parallel."""

    def __init__(self, config: TextConfig, vocabulary: int) -> None:
        super().__init__()
        width = config.width
        self.tokens_per_latent = config.tokens_per_latent
        self.in_layer = nn.Linear(config.channels, width)
        self.trunk = Trunk(config, config.decoder_layers)
        self.unpatch_layer = nn.Linear(width, config.tokens_per_latent * width)
        self.final_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.final_layer = nn.Linear(width, vocabulary)

    def forward(self, z_NC: Tensor, *, layout: Layout, position_N: Tensor, cache: KVCache | None = None) -> Tensor:
        """(N, C) -> logits (N, P, V)."""
        x_ND = self.trunk(self.in_layer(z_NC), layout=layout, position_N=position_N, cache=cache)
        x_NPD = self.unpatch_layer(x_ND).unflatten(-1, (self.tokens_per_latent, -1))
        return self.final_layer(self.final_norm(x_NPD))
