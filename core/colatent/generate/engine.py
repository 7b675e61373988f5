"""The generation loop: fill the cache, then block by block solve the flow, decode the block, commit it when the next
begins. Whether one does is decided by whoever looks at the block, and nothing looks back at the last.

The two guidance branches are one pass. Where the unconditional one is the block alone, its rows read no cache. (Rotary
is relative, so a block alone is the same at any position; it need not be moved to 0.) Where it is the item without what
is given, it has rows of the cache of its own, filled and committed like the others. Latents of a prompt's partial block
are pinned: at t = 0, with their value put back after every step. The loop is a generator that stops between the steps
of the solver too, so that there is one sampler for who wants items and for who wants to look on.

Axes: B samples, K latents of a block, C channels, N rows of the flat batch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from colatent.errors import UserError
from colatent.flow.guidance import guide, rescale
from colatent.flow.solvers import SOLVERS, shifted_grid, times_visited
from colatent.generate.events import Made, Step, latents_of
from colatent.generate.prefix import pack_prefixes, prefix_of
from colatent.generate.replays import Kept, Replays
from colatent.generate.requests import Request, Settings
from colatent.latents.draws import normal
from colatent.latents.rows import AttentionPart, Layout, Rows
from colatent.latents.sequence import place
from colatent.plugins.contract import Codec
from colatent.plugins.latents import BlockPlan, Latents
from colatent.prior.cache import KVCache
from colatent.prior.dit import Prior
from colatent.prior.fixed_cache import FixedCache

ROOM = 64
"""Where passes are kept, room for what is expected is rounded up to so many latents: more calls are of one shape."""


class BlockSampler:
    """Generates items of one stream for B requests in step, block after block; blocks of a step are equally long."""

    def __init__(
        self,
        prior: Prior,
        codec: Codec,
        requests: Sequence[Request],
        *,
        settings: Settings,
        window: int,
        new: int | None = None,
        kept: Kept | None = None,
    ) -> None:
        """`new`: latents that will probably be generated at most; memory for more is taken when they come.
        `kept`: where passes over blocks of one length are kept from call to call."""
        self.prior, self.requests, self.settings = prior, requests, settings
        (self.branch,) = {settings.branch(request) for request in requests}  # samples of a batch are guided alike
        self.freed = [replace(request, given=()) for request in requests] if self.branch == "condition" else []
        self.device = next(prior.parameters()).device
        self.target = requests[0].target
        self.channels = prior.channels[self.target]
        self.prefixes = [prefix_of(request, channels=self.channels) for request in (*requests, *self.freed)]
        self.plans = [codec.plan(r.plan_request()) for r in requests]
        self.grid = shifted_grid(settings.steps, settings.shift)
        visited = times_visited(settings.solver, self.grid)
        self.times = (0.0, *(t for t in visited if t != 0.0))
        self.modulation = prior.modulate(torch.tensor(self.times, device=self.device))
        self._window, self._number = window, 0
        self._expected = None if new is None else max(prefix.length for prefix in self.prefixes) + new
        self.cache: KVCache | None = None
        self.replays: Replays | None = None
        self._kept = kept
        self._commit: Callable[[], None] | None = None  # of the block before, until it is done

    def __iter__(self) -> Iterator[list[Latents]]:
        """The next block of every sample, until a plan ends."""
        return (event.latents for event in self.events() if isinstance(event, Made))

    @torch.no_grad()
    def events(self) -> Iterator[Step | Made]:
        """The same with what happens on the way: each step of the solver, then the block."""
        try:
            for plans in zip(*self.plans, strict=False):
                yield from self._block(plans)
        finally:  # also where nobody asks for the next block
            if self._kept is not None:
                self._give_back()
                self.cache = self._commit = None

    def _block(self, plans: Sequence[BlockPlan]) -> Iterator[Step | Made]:
        length = plans[0].length
        assert all(plan.length == length for plan in plans), "samples of a batch have equal blocks"
        if self.cache is None:
            self.cache = self._fill(length)
        if self._commit is not None:
            self._commit()
            self._commit = None
        if isinstance(self.cache, FixedCache) and not self.cache.has_room(length):  # more than was expected
            self.cache = self.cache.as_any()
            self._give_back()
        self.cache.make_room(length)
        block = _Block(self, plans)
        z_BKC = yield from block.solve()
        self._commit = partial(block.commit, z_BKC.clone())  # whoever is given the block may write into it
        made = Made(block=self._number, latents=latents_of(z_BKC, plans))
        self._number += 1
        yield made

    def _give_back(self) -> None:
        """Go on, or end, without passes that are kept from call to call."""
        if self.replays is not None:
            self._kept.give_back()  # type: ignore[union-attr]
        self.replays = None

    def _fill(self, block: int) -> KVCache:
        """The cache with everything that is given."""
        shape = {"batch": len(self.prefixes), "window": self._window, "block": block, "expected": self._expected}
        if self._kept is not None and self._expected is not None:
            fixed = shape | {"expected": min(self._window, -(-self._expected // ROOM) * ROOM)}
            key = (*fixed.values(), self.target, len(self.requests), self.times)
            self.replays = self._kept.lend(self.prior, self.modulation, key, device=self.device, **fixed)
        cache = self.prior.new_cache(**shape) if self.replays is None else self.replays.cache  # type: ignore[arg-type]
        batch = pack_prefixes(self.prefixes, window=self._window)
        if batch is not None and self._window:
            self.prior(
                {name: z_SC.to(self.device) for name, z_SC in batch.x.items()},
                layout=batch.layout,
                rows={name: None if rows is None else rows.to(self.device) for name, rows in batch.rows.items()},
                positions_N3=batch.positions_N3.to(self.device),
                t_index_N=torch.zeros(batch.layout.length, dtype=torch.int64, device=self.device),
                modulation=self.modulation,
                cache=cache,
                wanted={},
            )
            cache.filled(batch.length_B)
        return cache

    def noise(self, length: int) -> Tensor:
        """z1 of the current block, (B, K, C): a function of each sample's names and the block's number."""
        return torch.stack(
            [normal((length, self.channels), *r.names, self.target, self._number) for r in self.requests]
        ).to(self.device)

    def pinned(self, length: int) -> tuple[Tensor, Tensor]:
        """Which latents of the current block are given (B, K), and their values (B, K, C)."""
        flag_BK = torch.zeros(len(self.requests), length, dtype=torch.bool)
        value_BKC = torch.zeros(len(self.requests), length, self.channels)
        if self._number == 0:
            for row, prefix in enumerate(self.prefixes[: len(self.requests)]):
                count = len(prefix.pinned_RC)
                flag_BK[row, :count], value_BKC[row, :count] = True, prefix.pinned_RC
        return flag_BK.to(self.device), value_BKC.to(self.device)


class _Block:
    """One block of every sample on its way from noise to latents.

    kept   rows that read the cache, as often as there are samples: twice where a branch has a cache of its own
    times  how often the samples stand in a pass that gives velocities: twice where they are guided
    """

    def __init__(self, sampler: BlockSampler, plans: Sequence[BlockPlan]) -> None:
        assert sampler.cache is not None
        self.sampler, self.cache, self.plans = sampler, sampler.cache, plans
        self.batch, self.length = len(plans), plans[0].length
        self.pinned_BK, self.value_BKC = sampler.pinned(self.length)
        # Where a sample has no history both branches are the same, so guidance is off.
        guided_B = self.cache.length_B[: self.batch] > 0
        self.scale_B11 = torch.where(guided_B, sampler.settings.guidance, 1.0)[:, None, None].to(sampler.device)
        self.kept = 2 if sampler.freed else 1
        self.times = 2 if sampler.branch is not None and bool(guided_B.any()) else self.kept
        offsets = [prefix.offset for prefix in sampler.prefixes] * (1 if sampler.freed else self.times)
        placed = [place(p.positions_LA, x) for p, x in zip([*plans] * self.times, offsets, strict=True)]
        self.positions_N3 = torch.cat(placed).to(sampler.device)
        mask_BQK, rows = self.cache.mask_BQK(self.length), self.batch * self.kept
        self.reading = branch_layout(rows, self.length, mask_BQK, alone=False)
        alone = self.times > self.kept
        self.solving = branch_layout(rows, self.length, mask_BQK, alone=True) if alone else self.reading
        self.plain = self.reading
        if self.kept == 2:
            mask_BQK = None if mask_BQK is None else mask_BQK[: self.batch]
            self.plain = branch_layout(self.batch, self.length, mask_BQK, alone=False)

    def solve(self) -> Generator[Step, None, Tensor]:
        """Noise to latents, step by step."""
        sampler = self.sampler
        z_BKC = torch.where(self.pinned_BK[..., None], self.value_BKC, sampler.noise(self.length))
        block, solver = sampler._number, SOLVERS[sampler.settings.solver]
        for number, move in enumerate(solver(self.velocity, z_BKC, sampler.grid)):
            yield Step(block=block, number=number, t=move.t, z_BKC=move.z, velocity_BKC=move.velocity, plans=self.plans)
            z_BKC = move.after
        if not bool(z_BKC.isfinite().all()):
            what = f"the latents of block {block} are not finite"
            raise UserError(what, where="generate", do="lower the guidance, or look for NaN in the model's weights")
        return z_BKC

    def velocity(self, z_BKC: Tensor, t: float) -> Tensor:
        """Guided velocity at one time; zero for pinned latents, which so keep their value."""
        settings, index_BK = self.sampler.settings, torch.where(self.pinned_BK, 0, self.sampler.times.index(t))
        if self.times == 1 or not settings.guides_at(t):
            v = self._run(z_BKC, index_BK, self.plain, copies=1)
        else:
            conditional, unconditional = self._run(z_BKC, index_BK, self.solving, copies=2).chunk(2)
            v = guide(conditional, unconditional, self.scale_B11)
            if settings.guidance_rescale:
                share, free_BK = settings.guidance_rescale, ~self.pinned_BK
                v = rescale(v, conditional, z_BKC, t=t, share=share, free_BK=free_BK)
        return v.masked_fill(self.pinned_BK[..., None], 0.0)

    def commit(self, z_BKC: Tensor) -> None:
        """One pass at t = 0, whose keys stay in the cache."""
        index_BK = torch.zeros_like(self.pinned_BK, dtype=torch.int64)
        self._run(z_BKC, index_BK, self.reading, copies=self.kept, wanted={})
        self.cache.commit(self.length)

    def _run(
        self,
        z_BKC: Tensor,
        index_BK: Tensor,
        layout: Layout,
        *,
        copies: int,
        wanted: Mapping[str, Tensor | None] | None = None,
    ) -> Tensor:
        """The prior on so many copies of the block, one after the other."""
        sampler, z_BKC = self.sampler, z_BKC.repeat(copies, 1, 1)
        x_SC, target = z_BKC.flatten(0, 1), sampler.target
        inputs = {
            "positions_N3": self.positions_N3[: layout.length],
            "t_index_N": index_BK.repeat(copies, 1).flatten(),
        }
        if sampler.replays is None:
            velocity = sampler.prior(
                {target: x_SC},
                layout=layout,
                rows={target: None},
                modulation=sampler.modulation,
                cache=self.cache,
                wanted=wanted,
                **inputs,
            )
        else:  # who sees whom is the same at every block: what changes stands in the cache's mask
            key = (len(layout.parts), layout.length, wanted is None)
            velocity = sampler.replays.run(key, x_SC, inputs=inputs, target=target, layout=layout, wanted=wanted)
        return velocity[target].view_as(z_BKC) if velocity else z_BKC


def branch_layout(batch: int, length: int, mask_BQK: Tensor | None, *, alone: bool) -> Layout:
    """Rows of one block per sample that read the cache; with `alone`, as many again that see their block alone."""
    rows = Rows(range(0, batch * length, length), (length,) * batch)
    parts = [AttentionPart(queries=rows, keys=rows, mask_BQK=mask_BQK, cache="read")]
    if alone:
        start = batch * length
        again = Rows(range(start, 2 * start, length), (length,) * batch)
        parts.append(AttentionPart(queries=again, keys=again))
    return Layout(tuple(parts), batch * length * len(parts))
