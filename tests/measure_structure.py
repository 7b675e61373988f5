"""What the structure gains: each part of it switched off, in turns with as it is. Run from the repository:
python tests/measure_structure.py

Both ways run in one process and on one thread, one after the other, and what is compared is the process's CPU time: so
a busy machine does not matter much. Both must come to the same result, but for rounding; the FLOPs that arithmetic
predicts are printed beside the ratio. The shape is that of `colatent bench`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial, partialmethod
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from colatent.cli.bench_shape import CODEC, FLAGS, shape_config, vocabulary
from colatent.config.prior import PriorConfig
from colatent.config.schema import RunConfig
from colatent.evaluate.bench_generate import Questions
from colatent.evaluate.flops import PassWork, generation_flops, modulation_flops, pass_flops, training_flops
from colatent.flow.objective import flow_counts, flow_losses, total_loss
from colatent.generate import precision
from colatent.generate.engine import BlockSampler, _Block, branch_layout
from colatent.generate.model import Model
from colatent.generate.prefix import Prefix
from colatent.latents.packing import PackedBatch, pack
from colatent.latents.rows import Layout
from colatent.latents.sequence import LatentSequence, Segment, place
from colatent.plugins import load_plugins
from colatent.prior.dit import Prior
from colatent.train.bench import run_on_ids
from colatent.train.engine import clip
from colatent.train.stage import add_up
from colatent.train.starting import build_prior

Work = Callable[[], Sequence[Tensor]]
"""What is timed; gives what must be the same both ways."""

CHANNELS = {CODEC: 16}
BLOCK, NEW, STEPS, GUIDANCE = 16, 32, 8, 7.0
BATCH, LENGTH, PROMPT, LONG_PROMPT = 4, 256, 64, 256
UNEQUAL = (32, 64, 128, 256)
SPREAD = 0.1
"""Of weights that begin as zeros: enough for a hidden history to move latents by 8 %, for a wrong time by 18 %."""
ALIKE = {"float32": 1e-3, "bf16": 0.03}
"""How far results may lie apart, over their size: so much is rounding."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One part of the structure.

    on     the work as it is
    off    the same work without, by how it is done instead
    flops  predicted: model FLOPs of the prior without over with
    alike  whether both ways come to the same result
    """

    name: str
    on: Work
    off: Mapping[str, Work]
    flops: Mapping[str, float]
    alike: bool = True


def shape(**stage: Any) -> RunConfig:
    """The shape that `colatent bench` has where no flag says another."""
    return shape_config(dict.fromkeys(FLAGS), length=LONG_PROMPT + NEW, device="cpu", **stage)


@torch.no_grad()
def fill(prior: Prior) -> None:
    """Random numbers for matrices that begin as zeros: else no time and no history would be seen in what comes out."""
    for parameter in prior.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=SPREAD)


# Training


class Training:
    """Steps of the prior that leave its weights where they are: what comes of one is its gradient."""

    def __init__(self, dtype: str) -> None:
        torch.manual_seed(0)
        self.config: PriorConfig = shape().prior
        self.prior, self.lower = Prior(self.config, CHANNELS), dtype == "bf16"
        fill(self.prior)
        self.parameters = list(self.prior.parameters())
        self.optimiser = torch.optim.AdamW(self.parameters, lr=0.0, fused=True)

    def step(self, passes: Sequence[Sequence[LatentSequence]], change: Callable[[PackedBatch], PackedBatch]) -> Any:
        """One step over so many passes, with each packed batch changed first."""
        batches = [change(pack(sequences)) for sequences in passes]
        counts = add_up(flow_counts(batch) for batch in batches)
        self.optimiser.zero_grad(set_to_none=True)
        for batch in batches:
            with torch.autocast("cpu", dtype=torch.bfloat16) if self.lower else nullcontext():
                loss = total_loss(flow_losses(self.prior, batch, counts), {})
            loss.backward()
        clip(self.parameters, 1.0)
        self.optimiser.step()
        return [parameter.grad for parameter in self.parameters]

    def work(
        self, *passes: Sequence[LatentSequence], change: Callable[[PackedBatch], PackedBatch] = lambda batch: batch
    ) -> Work:
        """Such a step, to be timed."""
        return partial(self.step, passes, change)

    def flops(self, *passes: Sequence[LatentSequence]) -> int:
        """Of such a step."""
        return sum(training_flops(self.config, CHANNELS, sequences) for sequences in passes)


def sequence(number: int, length: int, *, padded: int | None = None) -> LatentSequence:
    """Random latents, cut to a length, or padded to a longer one with what has no weight."""
    random, rows = torch.Generator().manual_seed(number), padded or length
    z_LC, noise_LC = torch.randn(2, LENGTH, CHANNELS[CODEC], generator=random)[:, :rows]
    t_K = torch.rand(LENGTH // BLOCK, generator=random)[: rows // BLOCK].tolist()
    segment = Segment(
        stream=CODEC,
        z_LC=z_LC,
        noise_LC=noise_LC,
        t_K=tuple(t_K),
        block_lengths=(BLOCK,) * (rows // BLOCK),
        positions_LA=torch.arange(rows, dtype=torch.float32)[:, None],
        weight_L=(torch.arange(rows) < length).float(),
    )
    return (segment,)


def time_of_each_row(batch: PackedBatch) -> PackedBatch:
    """A batch whose table of times has a line for every row."""
    return replace(batch, t_T=batch.t_T[batch.t_index_N], t_index_N=torch.arange(batch.layout.length))


def training_points(training: Training) -> Iterator[Point]:
    """What training is built on."""
    equal = [sequence(number, LENGTH) for number in range(BATCH)]
    batch, whole = pack(equal), training.flops(equal)
    table = partial(modulation_flops, training.config, 1)
    more = 3 * (table(times=batch.layout.length) - table(times=len(batch.t_T)))
    yield Point(
        name="training-modulation",
        on=training.work(equal),
        off={"for each row": training.work(equal, change=time_of_each_row)},
        flops={"for each row": 1 + more / whole},
    )
    unequal = [sequence(number, length) for number, length in enumerate(UNEQUAL)]
    padded = [sequence(number, length, padded=max(UNEQUAL)) for number, length in enumerate(UNEQUAL)]
    off = {"a pass for each": [[one] for one in unequal], "padded": [padded]}
    yield Point(
        name="packing",
        on=training.work(unequal),
        off={name: training.work(*passes) for name, passes in off.items()},
        flops={name: training.flops(*passes) / training.flops(unequal) for name, passes in off.items()},
    )


# Generation


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of `Model.generate_many`, as it is or with methods of a block replaced; what comes of it is latents."""

    model: Model
    batch: int = BATCH
    prompt: int = PROMPT
    steps: int = STEPS
    solver: str = "euler"
    replaced: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self) -> Sequence[Tensor]:
        how: Any = {"steps": self.steps, "solver": self.solver, "guidance": GUIDANCE}
        with patch.multiple(_Block, **self.replaced) if self.replaced else nullcontext():
            found = self.model.generate_many(self.prompts(), max_new_tokens=NEW, **how)
        latents = [one.latents_LC for (one,) in found]
        assert all(len(z_LC) == NEW for z_LC in latents), "an item ended early"
        return latents

    def prompts(self) -> Sequence[Sequence[int]]:
        """Random token ids."""
        size = {"batch": self.batch, "prompt": self.prompt, "vocabulary": vocabulary(dict.fromkeys(FLAGS))}
        return Questions(new=NEW, steps=self.steps, guidance=GUIDANCE, **size).prompts()

    def flops(self) -> int:
        """Of the prior, as it is."""
        return generation_flops(
            self.model.prior.config,
            CHANNELS,
            CODEC,
            batch=self.batch,
            given=(BLOCK,) * (self.prompt // BLOCK),
            blocks=(BLOCK,) * (NEW // BLOCK),
            evaluations=self.steps,
            guided=True,
            window=self.model.window,
        )

    def passes(self) -> int:
        """Of the prior over blocks: velocities, and the commits between blocks."""
        return NEW // BLOCK * (self.steps + 1) - 1

    def prefix_flops(self, history: int) -> int:
        """Of putting so many latents of each item into the caches."""
        pairs = self.batch * BLOCK * sum(accumulate([BLOCK] * (history // BLOCK)))
        work = PassWork(rows={CODEC: self.batch * history}, asked={}, pairs=pairs, asked_pairs=0)
        return pass_flops(self.model.prior.config, CHANNELS, work)


def build_model(dtype: str, *, packed: bool = True, cast: bool = True) -> Model:
    """A model of random weights, the same every time. Without `cast` weights stay float32, and autocast casts them."""
    torch.manual_seed(0)
    run = run_on_ids(shape(), load_plugins(), vocabulary=vocabulary(dict.fromkeys(FLAGS)))
    prior = build_prior(run).prior.eval().requires_grad_(False)
    fill(prior)
    for codec in run.codecs.values():
        codec.requires_grad_(False)  # type: ignore[attr-defined]
    how: Any = dtype if cast else "float32"
    with nullcontext() if packed else patch.object(precision, "packing", lambda device: False):
        model = Model(prior=prior, codecs=run.codecs, sample=run.config.sample, window=LONG_PROMPT + NEW, precision=how)
    model.computing._lower = dtype == "bf16"
    return model


RUN, VELOCITY = _Block._run, _Block.velocity


def run_with_own_times(
    block: _Block, z_BKC: Tensor, index_BK: Tensor, layout: Layout, *, each_row: bool = False, **how: Any
) -> Tensor:
    """A pass that makes the modulation of its times, or of all its rows, anew."""
    sampler, t_BK = block.sampler, torch.tensor(block.sampler.times)[index_BK]
    if each_row:
        t_T, index_BK = t_BK.flatten().repeat(how["copies"]), torch.arange(t_BK.numel()).view_as(t_BK)
    else:
        t_T, index_BK = t_BK.unique(return_inverse=True)
    sampler.modulation = sampler.prior.modulate(t_T)
    return RUN(block, z_BKC, index_BK, layout, **how)


def run_apart(block: _Block, z_BKC: Tensor, index_BK: Tensor, layout: Layout, **how: Any) -> Tensor:
    """A pass for each branch of guidance."""
    if how["copies"] == 1:
        return RUN(block, z_BKC, index_BK, layout, **how)
    both = branch_layout(block.batch, block.length, None, alone=True)
    alone = Layout((replace(both.parts[0], cache=None),), block.reading.length)
    return torch.cat([RUN(block, z_BKC, index_BK, one, copies=1) for one in (block.reading, alone)])


def velocity_anew(block: _Block, z_BKC: Tensor, t: float) -> Tensor:
    """A velocity that first computes the whole history again, which the first of a call has just done."""
    sampler = block.sampler
    if sampler._number or t != sampler.grid[0]:
        sampler.cache = block.cache = sampler._fill(block.length)
        block.cache.make_room(block.length)
    return VELOCITY(block, z_BKC, t)


def commit_nothing(block: _Block, z_BKC: Tensor) -> None:
    """Have the block among what is given, and not in the cache."""
    sampler: BlockSampler = block.sampler
    some = zip(sampler.prefixes, z_BKC, block.plans, strict=True)
    sampler.prefixes = [longer(prefix, z_KC, plan.positions_LA, sampler.target) for prefix, z_KC, plan in some]
    block.cache.filled(torch.tensor([prefix.length for prefix in sampler.prefixes]))


def longer(prefix: Prefix, z_KC: Tensor, positions_LA: Tensor, stream: str) -> Prefix:
    """A prefix and one block more."""
    blocks = torch.arange(prefix.length + len(z_KC)) // len(z_KC)
    return replace(
        prefix,
        streams=(*prefix.streams, stream),
        parts=(*prefix.parts, z_KC),
        positions_L3=torch.cat([prefix.positions_L3, place(positions_LA, prefix.offset)]),
        group_L=blocks.numpy(),
    )


def generation_points(dtype: str) -> Iterator[Point]:
    """What generation is built on."""
    model = build_model(dtype)
    call = Call(model=model)
    config = model.prior.config
    rows = {"for each pass": 1, "for each row": 2 * BATCH * BLOCK}
    more = {name: call.passes() * modulation_flops(config, 1, times=times) for name, times in rows.items()}
    run = {
        "for each pass": partialmethod(run_with_own_times),
        "for each row": partialmethod(run_with_own_times, each_row=True),
    }
    yield Point(
        name="generation-modulation",
        on=call,
        off={name: replace(call, replaced={"_run": one}) for name, one in run.items()},
        flops={name: 1 + one / call.flops() for name, one in more.items()},
    )
    for batch in (BATCH, 1):
        some = replace(call, batch=batch)
        yield Point(
            name=f"guidance-{batch}",
            on=some,
            off={"two passes": replace(some, replaced={"_run": run_apart})},
            flops={"two passes": 1.0},
        )
    without = {"velocity": velocity_anew, "commit": commit_nothing}
    for prompt in (PROMPT, LONG_PROMPT):
        some = replace(call, prompt=prompt)
        anew = STEPS * sum(some.prefix_flops(prompt + made) for made in range(0, NEW, BLOCK))
        saved = some.prefix_flops(prompt + NEW - BLOCK)  # the prefix, and the commits
        yield Point(
            name=f"cache-{prompt}",
            on=some,
            off={"history anew": replace(some, replaced=without)},
            flops={"history anew": 1 + (anew - saved) / some.flops()},
        )
    if dtype == "bf16":
        plain, under = build_model(dtype, packed=False), build_model(dtype, packed=False, cast=False)
        for batch in (BATCH, 1):
            some = replace(call, batch=batch)
            ways = {"cast, not packed": replace(some, model=plain), "cast in every pass": replace(some, model=under)}
            yield Point(name=f"cast-{batch}", on=some, off=ways, flops=dict.fromkeys(ways, 1.0))
    quick, slow = replace(call, solver="ab2"), replace(call, steps=2 * STEPS)
    name = f"euler, {2 * STEPS} steps"
    yield Point(name="solver", on=quick, off={name: slow}, flops={name: slow.flops() / quick.flops()}, alike=False)


# Measuring


def measure(point: Point, *, rounds: int, tolerance: float) -> dict[str, Any]:
    """Seconds of CPU time with and without, in turns, and their ratio: of medians, with the quartiles over rounds."""
    works = {"as it is": point.on, **point.off}
    first = {name: work() for name, work in works.items()}  # also the warm-up
    apart = {name: distance(first["as it is"], first[name]) for name in point.off} if point.alike else {}
    assert all(one < tolerance for one in apart.values()), f"{point.name} comes to something else: {apart}"
    del first
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    found: dict[str, Any] = {"seconds": seconds["as it is"], "off": {}}
    for name in point.off:
        pairs = [off / on for off, on in zip(seconds[name], seconds["as it is"], strict=True)]
        low, _, high = statistics.quantiles(pairs, n=4)
        found["off"][name] = {
            "flops": point.flops[name],
            "ratio": statistics.median(seconds[name]) / statistics.median(seconds["as it is"]),
            "quartiles": [low, high],
            "apart": apart.get(name),
            "seconds": seconds[name],
        }
    return found


def distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm."""
    squares = [((a - b).square().sum(), a.square().sum()) for a, b in zip(one, other, strict=True)]
    return float(torch.stack([d for d, _ in squares]).sum() / torch.stack([s for _, s in squares]).sum()) ** 0.5


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure what each part of the structure gains.")
    parser.add_argument("--only", metavar="POINT", action="append", help="a point, or how its name begins")
    parser.add_argument("--dtype", choices=list(ALIKE), default="bf16", help="of matrix products")
    parser.add_argument("--rounds", type=int, default=7, help="of each point, two or more")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("--rounds must be two or more, to say how far they lie apart")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for points in (training_points(Training(asked.dtype)), generation_points(asked.dtype)):
        for point in points:
            if asked.only and not point.name.startswith(tuple(asked.only)):
                continue
            found[point.name] = measure(point, rounds=asked.rounds, tolerance=ALIKE[asked.dtype])
            for name, one in found[point.name]["off"].items():
                low, high = one["quartiles"]
                ratio = f"{one['ratio']:.2f} ({low:.2f} to {high:.2f}), FLOPs {one['flops']:.3f}"
                near = "" if one["apart"] is None else f", apart by {one['apart']:.1e}"
                print(f"{point.name}, {name}: {ratio}{near}", flush=True)
            if asked.out:
                asked.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
