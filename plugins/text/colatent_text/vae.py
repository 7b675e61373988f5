"""The network of the text VAE: a Transformer encoder to a Gaussian posterior, a Transformer decoder to token logits.

Both run at the rate of latents over flat, packed batches; patches of tokens are folded on the way in and unfolded on
the way out. Every published variant is a setting of this one network (`colatent_text.cola` maps names and weights), so
an imported model and one trained here differ in their config alone. Nothing here knows strings, items or training.

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
    """Attention and feed-forward, with norms before each or, as published, on the residual and the output."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width, ffn, eps = config.width, config.ffn_width, config.norm_eps
        kv = (config.kv_heads or config.heads) * config.head_dim
        self.config, self.parts = config, (width, kv, kv)
        self.norm_attn = nn.LayerNorm(width, eps=eps, elementwise_affine=config.norm_affine)
        self.qkv_proj = nn.Linear(width, sum(self.parts), bias=config.qk_bias)
        if config.qk_norm:
            self.q_norm = nn.LayerNorm(width, eps=eps, elementwise_affine=config.qk_norm_affine)
            self.k_norm = nn.LayerNorm(kv, eps=eps, elementwise_affine=config.qk_norm_affine)
        self.attn_out_proj = nn.Linear(width, width, bias=config.bias)
        self.norm_ffn = nn.LayerNorm(width, eps=eps)
        self.ffn_proj = nn.Linear(width, ffn, bias=config.bias)
        self.ffn_out = nn.Linear(ffn // 2 if config.act == "swiglu" else ffn, width, bias=config.bias)

    def forward(
        self, x_ND: Tensor, *, layout: Layout, turn: tuple[Tensor, Tensor], cache: KVCache | None, layer: int
    ) -> Tensor:
        """(N, D) -> (N, D); `turn` is the cosine and sine of the rows' positions."""
        post, normed_ND = self.config.post_norm, self.norm_attn(x_ND)
        q_NHD, k_NHD, v_NHD = self._to_qkv(x_ND if post else normed_ND, turn)
        o_NHD = attend(q_NHD, k_NHD, v_NHD, layout=layout, cache=cache, layer=layer)
        x_ND = (normed_ND if post else x_ND) + self.attn_out_proj(o_NHD.flatten(1))
        if post:
            return x_ND + self.norm_ffn(self._feed_forward(x_ND))
        return x_ND + self._feed_forward(self.norm_ffn(x_ND))

    def _to_qkv(self, h_ND: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads, (N, H, D / H) each: clipped, normalised, rotated."""
        config, qkv = self.config, self.qkv_proj(h_ND)
        if config.clip_qkv is not None:
            qkv = qkv.clamp(-config.clip_qkv, config.clip_qkv)
        q, k, v = qkv.split(self.parts, dim=-1)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q_NHD, k_NHD, v_NHD = (x.unflatten(-1, (-1, config.head_dim)) for x in (q, k, v))
        q_NHD, k_NHD = (rotate_halves(x, *turn).to(v_NHD.dtype) for x in (q_NHD, k_NHD))
        if (shared := config.heads // k_NHD.shape[1]) > 1:
            k_NHD, v_NHD = k_NHD.repeat_interleave(shared, dim=1), v_NHD.repeat_interleave(shared, dim=1)
        return q_NHD, k_NHD, v_NHD

    def _feed_forward(self, x_ND: Tensor) -> Tensor:
        h = self.ffn_proj(x_ND)
        if self.config.act == "swiglu":
            value, gate = h.chunk(2, dim=-1)
            return self.ffn_out(value * F.silu(gate))
        return self.ffn_out(F.gelu(h) if self.config.act == "gelu" else F.silu(h))


class Trunk(nn.Module):
    """A stack of blocks over a packed batch."""

    def __init__(self, config: TextConfig, layers: int) -> None:
        super().__init__()
        self.theta, self.head_dim = config.rope_theta, config.head_dim
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
        """`vocabulary`: every id that can be read, the mask's included."""
        super().__init__()
        width, channels = config.width, config.channels
        self.config = config
        self.wte = nn.Embedding(vocabulary, width)
        self.patch_embedder = nn.Linear(config.tokens_per_latent * width, width)
        self.trunk = Trunk(config, config.encoder_layers)
        self.final_norm = nn.LayerNorm(width, eps=config.norm_eps) if config.encoder_norm else nn.Identity()
        self.final_layer = nn.Linear(width, 2 * channels if config.variational else channels, bias=config.bias)
        nn.init.normal_(self.wte.weight, std=0.5)
        if config.variational and config.bias:
            # Start at the log SNR that training should end near: a posterior as wide as the prior drowns the first
            # steps.
            with torch.no_grad():
                self.final_layer.bias[channels:].fill_(-4.5)

    def forward(self, ids_NP: Tensor, *, layout: Layout, position_N: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, P) -> mean and log-variance, (N, C) float32 each; no log-variance where the encoder gives points."""
        config = self.config
        x_ND = self.patch_embedder(self.wte(ids_NP).flatten(1))
        h_ND = self.final_norm(self.trunk(x_ND, layout=layout, position_N=position_N))
        out_N = self.final_layer(h_ND).float()
        mean_NC = out_N[:, : config.channels]
        if config.mean_norm:
            mean_NC = F.layer_norm(mean_NC, mean_NC.shape[-1:], eps=config.norm_eps)
        if not config.variational:
            return mean_NC, None
        if config.log_snr is not None:
            return mean_NC, torch.full_like(mean_NC, -config.log_snr).clamp(*LOGVAR_RANGE)
        return mean_NC, out_N[:, config.channels :].clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """Latents to token logits, all tokens of a block in parallel."""

    def __init__(self, config: TextConfig, vocabulary: int) -> None:
        """`vocabulary`: every id that can be written, which the mask's is not."""
        super().__init__()
        width = config.width
        self.tokens_per_latent = config.tokens_per_latent
        self.in_layer = nn.Linear(config.channels, width, bias=config.bias)
        self.trunk = Trunk(config, config.decoder_layers)
        self.unpatch_layer = nn.Linear(width, config.tokens_per_latent * width)
        self.final_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.final_layer = nn.Linear(width, vocabulary, bias=config.bias)

    def forward(self, z_NC: Tensor, *, layout: Layout, position_N: Tensor, cache: KVCache | None = None) -> Tensor:
        """(N, C) -> logits (N, P, V)."""
        x_ND = self.hidden(z_NC, layout=layout, position_N=position_N, cache=cache)
        x_NPD = self.unpatch_layer(x_ND).unflatten(-1, (self.tokens_per_latent, -1))
        return self.final_layer(self.final_norm(x_NPD))

    def hidden(self, z_NC: Tensor, *, layout: Layout, position_N: Tensor, cache: KVCache | None = None) -> Tensor:
        """(N, C) -> (N, D), which logits are made of; for who wants no more than the cache filled."""
        return self.trunk(self.in_layer(z_NC), layout=layout, position_N=position_N, cache=cache)
