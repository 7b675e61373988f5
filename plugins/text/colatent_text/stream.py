"""Conditional decoding: each block's tokens given the blocks before it, through a cache of the decoder's keys.

The repetition penalty counts tokens of earlier generated blocks, so there is none in the first; a prompt's tokens count
only where its partial block is decoded again with the first one, as published.

Axes: B items, L latents of an item, P tokens per latent, K latents of a block, T = K P tokens of a block, C channels,
V vocabulary, N rows of the flat batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.latents.draws import generator
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.plugins.contract import Encoded, Latents, Part
from colatent.prior.cache import KVCache
from colatent_text.continuation import Continuation
from colatent_text.decoding import DecodingOptions, choose, penalise
from colatent_text.layouts import items_layout

if TYPE_CHECKING:
    from colatent_text.codec import TextCodec


class TextStream:
    """Decodes B texts block after block, each after its own prompt."""

    def __init__(
        self,
        codec: TextCodec,
        given: Sequence[Encoded | None],
        *,
        max_units: int | None,
        options: Mapping[str, Any],
        names: Sequence[tuple[int | str, ...]],
    ) -> None:
        self.codec, self.names, self.options = codec, names, DecodingOptions.model_validate(dict(options))
        self._check_stop()
        lengths = [0 if record is None else int((record.units_L > 0).sum()) for record in given]
        whole = [length // codec.config.block * codec.config.block for length in lengths]
        self._trim = [0 if g is None else self._own_tokens(g, n) for g, n in zip(given, whole, strict=True)]
        self._position = torch.tensor(whole, dtype=torch.float32)
        self._texts = [
            Continuation(
                codec.tokenizer,
                budget=max_units,
                stop=self.options.stop,
                keep_padding=codec.config.alignment == "start",
            )
            for _ in given
        ]
        self._number = 0
        self._seen_BV: Tensor | None = None
        self.cache = self._new_cache(whole, max_units)
        self._fill([None if g is None else g.mean_LC[:n] for g, n in zip(given, whole, strict=True)], whole)

    def _check_stop(self) -> None:
        size = self.codec.tokenizer.vocab_size
        for one in self.options.stop:
            if isinstance(one, int) and one >= size - 1:  # the last id is the mask, which is never written
                raise UserError(f"token {one} is not in the vocabulary (0 to {size - 2})", where="option stop")

    def _own_tokens(self, given: Encoded, whole: int) -> int:
        """Places of the first generated block that hold the prompt's own tokens, after `whole` latents in the cache."""
        per = self.codec.config.tokens_per_latent
        if self.codec.config.alignment == "end":  # every latent of a prompt is full to its last place
            return (int((given.units_L > 0).sum()) - whole) * per
        return max(0, int(given.units_L.sum()) - whole * per)

    def _new_cache(self, whole: Sequence[int], max_units: int | None) -> KVCache:
        config = self.codec.config
        # A prompt's partial block gives at least one token, the others come in whole blocks.
        blocks = None if max_units is None else 1 + -(-max_units // (config.block * config.tokens_per_latent))
        return KVCache(
            layers=config.decoder_layers,
            batch=len(whole),
            heads=config.heads,
            head_dim=config.width // config.heads,
            window=config.window,
            block=config.block,
            expected=None if blocks is None else max(whole) + blocks * config.block,
        )

    def _fill(self, prefixes: Sequence[Tensor | None], lengths: Sequence[int]) -> None:
        """Leave the keys of the whole prompt blocks in the cache."""
        if not any(lengths):
            return
        config = self.codec.config
        layout = items_layout(
            tuple(lengths),
            block=config.block,
            window=config.window,
            attention=config.attention,
            cache="fill",
        )
        z_NC = torch.cat([z_LC for z_LC in prefixes if z_LC is not None])
        position_N = torch.cat([torch.arange(length, dtype=torch.float32) for length in lengths])
        self._run(self.codec.decoder.hidden, z_NC, layout, position_N)
        self.cache.filled(torch.tensor(lengths))

    def _run(self, network: Callable[..., Tensor], z_NC: Tensor, layout: Layout, position_N: Tensor) -> Tensor:
        device = self.codec.shift_C.device
        raw_NC = self.codec.raw(z_NC.to(device))
        return network(raw_NC, layout=layout, position_N=position_N.to(device), cache=self.cache)

    def _logits(self, blocks: Sequence[Latents]) -> Tensor:
        """Of the next block, (B, T, V). Its keys lie in the cache until they are committed or written over."""
        size, batch = self.codec.config.block, len(blocks)
        self.cache.make_room(size)
        position_BK = self._position[:, None] + torch.arange(size)
        z_NC = torch.cat([block.z_LC for block in blocks])
        logits_NPV = self._run(self.codec.decoder, z_NC, self._block_layout(batch), position_BK.flatten())
        return logits_NPV.flatten(0, 1).unflatten(0, (batch, -1))

    def push(self, blocks: Sequence[Latents]) -> None:
        """See `DecodeStream.push`."""
        logits_BTV = self._logits(blocks)
        ids_BT = self._choose(logits_BTV)
        self._remember(ids_BT, vocabulary=logits_BTV.shape[-1])
        for text, ids in zip(self._texts, self._generated(ids_BT), strict=True):
            text.extend(ids)
        self.cache.commit(self.codec.config.block)
        self._position += self.codec.config.block
        self._number += 1

    def preview(self, blocks: Sequence[Latents]) -> list[str]:
        """See `DecodeStream.preview`; the likeliest tokens, whatever the options."""
        ids = self._generated(self._logits(blocks).argmax(-1))
        return [text.with_more(some) for text, some in zip(self._texts, ids, strict=True)]

    def _generated(self, ids_BT: Tensor) -> list[list[int]]:
        """A block's tokens without the prompt's own."""
        rows: list[list[int]] = ids_BT.tolist()
        return [ids[trim if self._number == 0 else 0 :] for ids, trim in zip(rows, self._trim, strict=True)]

    def _choose(self, logits_BTV: Tensor) -> Tensor:
        """A token for each place of a block, (B, T)."""
        if not self.options.temperature and self._seen_BV is None:
            return logits_BTV.argmax(-1)
        # One by one: copies of a batch of logits, in float64, would be many times the cache.
        return torch.stack([self._choose_one(item, logits_TV) for item, logits_TV in enumerate(logits_BTV)])

    def _choose_one(self, item: int, logits_TV: Tensor) -> Tensor:
        if self._seen_BV is not None:
            logits_TV = penalise(logits_TV, self._seen_BV[item], self.options.repetition_penalty)
        if not self.options.temperature:
            return logits_TV.argmax(-1)
        drawn = generator(*self.names[item], "decode", "tokens", self._number).random(len(logits_TV), dtype=np.float32)
        return choose(logits_TV, options=self.options, uniform_T=torch.from_numpy(drawn))

    def _remember(self, ids_BT: Tensor, *, vocabulary: int) -> None:
        """Note what the next blocks' repetition penalty is for."""
        if self.options.repetition_penalty == 1.0:
            return
        if self._seen_BV is None:
            self._seen_BV = torch.zeros(len(ids_BT), vocabulary, dtype=torch.bool, device=ids_BT.device)
        self._seen_BV.scatter_(1, ids_BT, True)

    def _block_layout(self, batch: int) -> Layout:
        config, size = self.codec.config, self.codec.config.block
        mask_BQK = self.cache.mask_BQK(size)
        if config.attention == "causal":
            columns = self.cache.end + size
            before_QK = torch.arange(columns)[None] <= self.cache.end + torch.arange(size)[:, None]
            mask_BQK = before_QK[None] if mask_BQK is None else mask_BQK & before_QK
        rows = Rows(range(0, batch * size, size), (size,) * batch)
        return Layout((AttentionPart(queries=rows, keys=rows, mask_BQK=mask_BQK, cache="read"),), batch * size)

    def finished(self) -> list[bool]:
        """See `DecodeStream.finished`."""
        return [text.stopped is not None for text in self._texts]

    def items(self) -> list[str]:
        """See `DecodeStream.items`."""
        return [text.text for text in self._texts]

    def details(self) -> list[dict[str, Any]]:
        """See `DecodeStream.details`: the tokens, and why the text stopped ("end", "stop", "budget")."""
        return [{"tokens": list(text.tokens), "stopped": text.stopped} for text in self._texts]

    def news(self, *, final: bool = False) -> list[Part]:
        """See `DecodeStream.news`."""
        parts = []
        for text in self._texts:
            tokens, new = text.news(final=final)
            parts.append(Part(item=new, details={"tokens": tokens, "stopped": text.stopped}))
        return parts
