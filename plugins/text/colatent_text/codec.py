"""The text codec: what the engine's contract asks, in terms of the text VAE.

Tokens of an item are right-aligned to whole latents: where several tokens share a latent, the padding stands at the
item's start, once. So a prompt of any length ends with a full latent, and there is no boundary inside a latent that
training has not seen. (Published models left-align them, which is a setting.) After the end symbol, padding fills the
block and carries no loss.

Axes: L latents of an item, N latents of the flat batch, P tokens per latent, C channels, V vocabulary, B items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from colatent.latents.rows import Layout
from colatent.plugins.contract import BlockPlan, Encoded, Latents, PlanRequest
from colatent.plugins.records import LatentSpec
from colatent_text.config import TextConfig
from colatent_text.cuts import encode_cut_blocks, encode_cut_wholes
from colatent_text.decoding import DecodingOptions
from colatent_text.items import Text, checked_ids, decoded
from colatent_text.layouts import items_layout
from colatent_text.likelihood import log_likelihood
from colatent_text.stream import TextStream
from colatent_text.tokenizers import build_tokenizer, prepare_assets
from colatent_text.tokens import TextItem, TokenRows, as_text, cut_item, token_rows
from colatent_text.vae import Decoder, Encoder

IGNORED = -100
"""Target of a token that carries no loss."""

PROMPT_WINDOWS = 8
"""How many windows of a prompt are encoded at most; a stack of that many layers would see past it, by a little."""


class TextCodec(nn.Module):
    """Transformer VAE over tokens; see `TextConfig` for its settings."""

    shift_C: Tensor
    scale_C: Tensor

    def __init__(self, config: TextConfig, assets: Mapping[str, bytes]) -> None:
        super().__init__()
        self.config, self._assets = config, dict(assets)
        self.tokenizer = build_tokenizer(config.tokenizer, assets)
        self.encoder = Encoder(config, self.tokenizer.vocab_size)
        self.decoder = Decoder(config, self.tokenizer.vocab_size - 1)  # the mask is read, never written
        self.register_buffer("shift_C", torch.full((config.channels,), config.shifting_factor))
        self.register_buffer("scale_C", torch.full((config.channels,), config.scaling_factor or 1.0))

    # What every codec does.

    def latent_spec(self) -> LatentSpec:
        return self.config.latent_spec()

    def encode(self, items: Sequence[TextItem], *, generator: torch.Generator | None = None) -> list[Encoded]:
        """Posterior of each item; an empty text that has not ended gives no latents."""
        rows = [self.token_rows(item) for item in items]
        mean_NC, logvar_NC = self._posterior([row.ids_LP for row in rows])
        records, start = [], 0
        for row in rows:
            stop = start + len(row)
            logvar_LC = None if logvar_NC is None else logvar_NC[start:stop]
            records.append(self._record(row, mean_NC[start:stop], logvar_LC))
            start = stop
        return records

    def decode(self, latents: Sequence[Latents]) -> list[str]:
        """Greedy text of each item, up to its end symbol."""
        if not latents:
            return []
        logits_NPV = self.logits([record.z_LC for record in latents])
        ids = logits_NPV.argmax(-1).flatten(1).split([len(record.z_LC) for record in latents])
        return [self.tokenizer.decode(self._until_end(rows.flatten().tolist())) for rows in ids]

    def plan(self, request: PlanRequest) -> Iterator[BlockPlan]:
        """Blocks without end; the first one holds the prompt's partial block."""
        block = self.config.block
        done = 0 if request.given is None else int((request.given.units_L > 0).sum()) // block * block
        for start in count(done, block):
            positions_LA = torch.arange(start, start + block, dtype=torch.float32)[:, None]
            yield BlockPlan(length=block, positions_LA=positions_LA)

    def finished(self, latents: Latents) -> bool:
        """Whether the decoded text holds an end symbol."""
        if self.tokenizer.end_id is None:
            return False
        ids = self.logits([latents.z_LC]).argmax(-1)
        return bool((ids == self.tokenizer.end_id).any())

    def example_batch(self, n: int) -> list[str]:
        return [f"{word} {number}" for number, word in zip(range(n), _words(), strict=False)]

    def set_scale(self, mean_C: Tensor, std_C: Tensor) -> None:
        """See `Codec.set_scale`: z = (raw - shift) * scale. A fixed scale stays what it is."""
        if self.config.scaling_factor is not None:
            return
        self.shift_C += mean_C.to(self.shift_C) / self.scale_C
        self.scale_C /= std_C.to(self.scale_C)

    # What this one also does.

    @classmethod
    def prepare(cls, config: TextConfig, items: Iterable[TextItem]) -> dict[str, bytes]:
        """The tokenizer's file: read, or trained from the items."""
        return prepare_assets(config.tokenizer, (as_text(item).text or "" for item in items))

    def assets(self) -> dict[str, bytes]:
        return dict(self._assets)

    def losses(
        self, items: Sequence[TextItem], latents: Sequence[Latents], *, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Cross-entropy per token of the drawn latents and, BERT-style, of latents encoded from masked tokens."""
        rows = [self.token_rows(item) for item in items]
        losses = {"reconstruction": self._cross_entropy(rows, [record.z_LC for record in latents])}
        if self.config.mask_weight and self.config.mask:
            losses["mask"] = self.config.mask_weight * self._masked_loss(rows, latents, generator)
        return losses

    def reconstruction_score(self, items: Sequence[TextItem], latents: Sequence[Latents]) -> tuple[int, int]:
        """Tokens decoded right, and tokens in all (padding does not count)."""
        rows = [self.token_rows(item) for item in items]
        ids_NP, real_NP = torch.cat([row.ids_LP for row in rows]), torch.cat([row.real_LP for row in rows])
        best_NP = self.logits([record.z_LC for record in latents]).argmax(-1).cpu()
        return int((best_NP == ids_NP)[real_NP].sum()), int(real_NP.sum())

    def cut(self, items: Sequence[TextItem], lengths: Sequence[int]) -> list[TextItem]:
        """The first so many latents of each item, as a text that goes on; items that are shorter stay whole."""
        return [
            cut_item(item, length, self.tokenizer, self.config) for item, length in zip(items, lengths, strict=True)
        ]

    def lengths(self, items: Sequence[TextItem]) -> list[int]:
        """See `MeasuredCodec.lengths`."""
        return [len(self.token_rows(item)) for item in items]

    def encode_cut(self, items: Sequence[TextItem], cuts: Sequence[Sequence[int]]) -> list[Tensor]:
        """See `RaggedCodec.encode_cut`."""
        rows, config, pad = [self.token_rows(item) for item in items], self.config, self.tokenizer.pad_id
        if config.attention == "causal":  # nothing looks ahead: a cut changes no latent before it
            return self._means([row.ids_LP for row in rows])
        if config.attention == "full":
            return encode_cut_wholes(self._means, rows, cuts, config=config, pad=pad)
        raw = encode_cut_blocks(self.encoder, rows, cuts, config=config, pad=pad)
        return [self._to_unit(mean_LC) for mean_LC in raw]

    def prompt(self, prompt: str | Sequence[int]) -> Text:
        """See `Promptable.prompt`. Of a very long one the last `PROMPT_WINDOWS` windows are kept, cut at a block: no
        layer looks back further, and attention over all of it would fill the memory."""
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt)
        else:
            ids = checked_ids(prompt, self.tokenizer, padding=self.config.alignment == "start")
        size = self.config.block * self.config.tokens_per_latent
        kept = PROMPT_WINDOWS * self.config.window * self.config.tokens_per_latent
        return Text(ids=tuple(ids[max(0, len(ids) - kept) // size * size :]), ends=False)

    @classmethod
    def options_model(cls) -> type[DecodingOptions]:
        """See `OptionedCodec.options_model`."""
        return DecodingOptions

    def open_stream(
        self,
        given: Sequence[Encoded | None],
        *,
        max_units: int | None = None,
        options: Mapping[str, Any] = MappingProxyType({}),
        names: Sequence[tuple[int | str, ...]] | None = None,
    ) -> TextStream:
        """See `StreamingCodec.open_stream`; without `names`, items are drawn as samples 0, 1, ... of seed 0."""
        names = [(0, number) for number in range(len(given))] if names is None else names
        return TextStream(self, given, max_units=max_units, options=options, names=names)

    def log_likelihood(self, items: Sequence[TextItem], latents: Sequence[Latents]) -> list[Tensor]:
        """See `Scorable.log_likelihood`."""
        return log_likelihood(self, items, latents)

    def spelled(self, text: str) -> str:
        """See `Spelled.spelled`."""
        return text

    @classmethod
    def suffixes(cls) -> tuple[str, ...]:
        """See `StoredCodec.suffixes`."""
        return ("txt", "md")

    @classmethod
    def open_item(cls, config: TextConfig, data: bytes, *, name: str) -> str:
        """See `StoredCodec.open_item`: a whole text in UTF-8, without the line break that editors leave at its end."""
        return decoded(data, name=name).removesuffix("\n").removesuffix("\r")

    # Rooms below the door.

    def token_rows(self, item: TextItem) -> TokenRows:
        """The tokens of an item, padded to whole latents and blocks."""
        return token_rows(item, self.tokenizer, self.config)

    def raw(self, z_NC: Tensor) -> Tensor:
        """What the decoder reads: the encoder's own scale, or (where the scale is fixed) the latents as they are."""
        if self.config.scaling_factor is not None:
            return z_NC
        return z_NC / self.scale_C + self.shift_C

    def logits(self, latents: Sequence[Tensor], *, as_generated: bool = False) -> Tensor:
        """Logits (N, P, V) of items decoded whole, given their unit-scale latents (L, C). With `as_generated` no block
        sees later ones, as where they are made one after the other; that differs for attention "full" alone."""
        lengths = tuple(len(z_LC) for z_LC in latents)
        z_NC = torch.cat(list(latents)).to(self.shift_C.device)
        layout = self._layout(lengths, causal_blocks=as_generated)
        return self.decoder(self.raw(z_NC), layout=layout, position_N=self._positions(lengths))

    def _layout(self, lengths: tuple[int, ...], *, causal_blocks: bool = False) -> Layout:
        config, attention = self.config, self.config.attention
        if causal_blocks and attention == "full":
            attention = "block_causal"
        present = tuple(length for length in lengths if length)
        return items_layout(present, block=config.block, window=config.window, attention=attention)

    def _positions(self, lengths: Sequence[int]) -> Tensor:
        return torch.cat([torch.arange(length, dtype=torch.float32) for length in lengths]).to(self.shift_C.device)

    def _posterior(self, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Unit-scale mean and log-variance (N, C) of items encoded whole, given their ids (L, P) each; no log-variance
        where the encoder gives points."""
        lengths = tuple(len(ids_LP) for ids_LP in ids)
        if not sum(lengths):
            empty = torch.zeros(0, self.config.channels, device=self.shift_C.device)
            return empty, empty if self.config.variational else None
        ids_NP = torch.cat(list(ids)).to(self.shift_C.device)
        mean_NC, logvar_NC = self.encoder(ids_NP, layout=self._layout(lengths), position_N=self._positions(lengths))
        return self._to_unit(mean_NC), None if logvar_NC is None else logvar_NC + 2 * self.scale_C.log()

    def _means(self, ids: Sequence[Tensor]) -> list[Tensor]:
        """Unit-scale means (L, C) of items encoded whole."""
        return list(self._posterior(ids)[0].split([len(ids_LP) for ids_LP in ids]))

    def _to_unit(self, raw_NC: Tensor) -> Tensor:
        return (raw_NC - self.shift_C) * self.scale_C

    def _record(self, row: TokenRows, mean_LC: Tensor, logvar_LC: Tensor | None) -> Encoded:
        length, block = len(row), self.config.block
        return Encoded(
            mean_LC=mean_LC,
            logvar_LC=logvar_LC,
            block_lengths=(block,) * (length // block),
            positions_LA=torch.arange(length, dtype=torch.float32)[:, None],
            units_L=row.real_LP.sum(-1),
        )

    def _cross_entropy(self, rows: Sequence[TokenRows], latents: Sequence[Tensor]) -> Tensor:
        target_N = torch.cat([row.ids_LP.masked_fill(~row.real_LP, IGNORED) for row in rows]).flatten()
        logits_NV = self.logits(latents).flatten(0, 1).float()
        return F.cross_entropy(logits_NV, target_N.to(logits_NV.device), ignore_index=IGNORED)

    def _masked_loss(self, rows: Sequence[TokenRows], latents: Sequence[Latents], generator: torch.Generator) -> Tensor:
        hidden, noises = [], []
        for row, drawn in zip(rows, latents, strict=True):
            own = generator if drawn.seed is None else torch.Generator().manual_seed(drawn.seed)
            chosen = torch.rand(row.ids_LP.shape, generator=own) < self.config.mask
            hidden.append(row.ids_LP.masked_fill(chosen & row.real_LP, self.tokenizer.mask_id))
            noises.append(torch.randn((len(row), self.config.channels), generator=own))
        z_NC, logvar_NC = self._posterior(hidden)
        if logvar_NC is not None:
            z_NC = z_NC + torch.exp(0.5 * logvar_NC) * torch.cat(noises).to(z_NC)
        return self._cross_entropy(rows, z_NC.split([len(row) for row in rows]))

    def _until_end(self, ids: list[int]) -> list[int]:
        return ids[: ids.index(self.tokenizer.end_id)] if self.tokenizer.end_id in ids else ids


def _words() -> Iterator[str]:
    stock = ("alpha", "beta gamma", "", "delta, epsilon", "zeta")
    return (stock[number % len(stock)] for number in count())
