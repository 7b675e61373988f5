"""The cache of passes that all have one shape, at the same place in memory: such passes can be recorded and replayed.

What changes between passes stands in tensors: where the block is written, and what each of its rows sees. Rows whose
block stands alone, the other branch of guidance, have a place of their own behind all history. So one call of a kernel
for sequences of any length can do them all; or else the cache is read whole, under a mask.

Axes: B samples, S columns, H heads, D head channels, Q queries, K keys, N rows of a pass, M rows of the store, E ends
of sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from colatent.prior.cache import KVCache


class FixedCache(KVCache):
    """A `KVCache` for blocks of one length.

    place_N    where keys and values of a block's rows are written: first with the samples' history, then alone
    keys_E     where sequences of keys end in the store, and those of what lies between them
    seen_BQK   what rows with history see, as a mask over all columns
    """

    def __init__(self, *, device: torch.device, batch: int, block: int, **shape: int | None) -> None:
        super().__init__(batch=batch, block=block, **shape)  # type: ignore[arg-type]
        columns = self.columns = self._shape[1]
        self._flat: list[tuple[Tensor, Tensor] | None] = [None] * self.layers
        self.place_N = torch.zeros(2 * batch * block, dtype=torch.int64, device=device)
        self.keys_E = torch.zeros(3 * batch + 2, dtype=torch.int32, device=device)
        self.seen_BQK = torch.zeros(batch, block, columns, dtype=torch.bool, device=device)
        self._queries: dict[int, Tensor] = {}

    def restart(self) -> None:
        """Forget the history; memory stays. What lies in hidden columns is multiplied by 0, so it must be a number."""
        for stores in self._flat:
            for store in stores or ():
                store.zero_()
        self.end, self.length_B = 0, torch.zeros_like(self.length_B)
        self._note()

    def filled(self, length_B: Tensor) -> None:
        """See `KVCache`."""
        super().filled(length_B)
        self._note()

    def commit(self, length: int) -> None:
        """See `KVCache`."""
        super().commit(length)
        self._note()

    def read(self, layer: int, k_BQHD: Tensor, v_BQHD: Tensor) -> tuple[Tensor, Tensor]:
        """All columns, the current block's own among them, (B, S, H, D) each, where B may also be only the first
        samples."""
        self.write(layer, k_BQHD.flatten(0, 1), v_BQHD.flatten(0, 1))
        keys, values = (stored[: len(k_BQHD)] for stored in self._store(layer, k_BQHD))
        return keys, values

    def write(self, layer: int, k_NHD: Tensor, v_NHD: Tensor) -> tuple[Tensor, Tensor]:
        """Leave keys and values of a block's rows in the store, and give all of it, (M, H, D) each."""
        self._store(layer, k_NHD)
        stores = self._flat[layer]
        assert stores is not None
        for store, x_NHD in zip(stores, (k_NHD, v_NHD), strict=True):
            store.index_copy_(0, self.place_N[: len(x_NHD)], x_NHD)
        return stores

    def queries_E(self, rows: int) -> Tensor:
        """Where sequences of queries end in so many rows, one for each of `keys_E`; what lies between has none."""
        if rows not in self._queries:
            batch, block = self._shape[0], self.block
            count_E = torch.tensor([0, *[0, block] * batch, 0, *[block] * batch])
            self._queries[rows] = count_E.cumsum(0).clamp(max=rows).to(self.keys_E)
        return self._queries[rows]

    def mask_BQK(self, length: int) -> Tensor:
        """What a block sees: its sample's history and itself. The same tensor every time; its content follows."""
        assert length == self.block, "blocks are of one length"
        return self.seen_BQK

    def has_room(self, block: int) -> bool:
        """Whether a next block of this length is one of those that this cache is for."""
        return block == self.block and self.end + block <= self.columns

    def make_room(self, block: int) -> None:
        """There is room, or the history would have to be moved."""
        assert self.has_room(block)

    def as_any(self) -> KVCache:
        """A copy that grows, for blocks of any length."""
        _, _, heads, head_dim = self._shape
        copy = KVCache(
            layers=self.layers,
            batch=self._shape[0],
            heads=heads,
            head_dim=head_dim,
            window=self.window,
            block=self.block,
            expected=self.columns - self.block,
        )
        copy.end, copy.length_B = self.end, self.length_B.clone()
        copy._keys, copy._values = (
            [None if store is None else store.clone() for store in stores] for stores in (self._keys, self._values)
        )
        return copy

    def _note(self) -> None:
        """Where the next block goes, and what its rows see."""
        batch, columns, stop = self._shape[0], self.columns, self.end + self.block
        column_K, first_B, row_B = torch.arange(columns), self.end - self.length_B, torch.arange(batch) * columns
        self.seen_BQK.copy_(((column_K >= first_B[:, None]) & (column_K < stop))[:, None])
        alone = batch * columns + torch.arange(batch * self.block)
        self.place_N.copy_(torch.cat([(row_B[:, None] + torch.arange(self.end, stop)).flatten(), alone]))
        history = torch.stack([row_B + first_B, row_B + stop], dim=1).flatten()
        behind = batch * columns + torch.arange(batch + 1) * self.block
        self.keys_E.copy_(torch.cat([torch.zeros(1, dtype=torch.int64), history, behind]))

    def _store(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        if self._flat[layer] is None:
            batch, columns, *head = self._shape
            rows = batch * (columns + self.block)
            stores = (like.new_zeros(rows, *head), like.new_zeros(rows, *head))
            self._flat[layer] = stores
            views = [store[: batch * columns].unflatten(0, (batch, columns)) for store in stores]
            self._keys[layer], self._values[layer] = views
        return super()._store(layer, like)
