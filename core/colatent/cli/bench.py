"""`colatent bench`: how fast a model of any shape trains and generates here, as a share of what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from colatent.cli.bench_shape import VOCABULARY, check_alone, shape_config, shape_options, vocabulary

if TYPE_CHECKING:
    from colatent.config import RunConfig
    from colatent.evaluate.bench import Measured
    from colatent.generate.model import Model
    from colatent.generate.precision import Precision
    from colatent.train.prepare import Run


@click.group()
def bench() -> None:
    """Measure the speed of training and generation.

    Example: colatent bench train --json
    """


def measuring(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands take."""
    options = (
        click.argument("config", required=False, type=click.Path(dir_okay=False)),
        click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]..."),
        click.option("--batch", type=click.IntRange(1), help="Sequences at once. [default: 4]"),
        click.option("--dtype", type=click.Choice(["bf16", "float32"]), help="Of matrix products. [default: bf16]"),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda or auto."),
        click.option("--compile", "compiled", is_flag=True, help="Compile what layers do to rows (torch.compile)."),
        click.option("--warmup", default=2, show_default=True, type=click.IntRange(0), help="Repeats beforehand."),
        click.option("--repeats", default=5, show_default=True, type=click.IntRange(1), help="Repeats that count."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    command = shape_options(command)
    for option in reversed(options):
        command = option(command)
    return command


@bench.command(epilog="Example: colatent bench train --layers 4 --width 256 --sequence 512 --json")
@measuring
@click.option("--sequence", type=click.IntRange(1), help="Latents of a sequence. [default: 256]")
@click.option(
    "--encode", is_flag=True, help="Encode random token ids in every step. Without, flags of the codec do nothing."
)
def train(
    config: str | None,
    overrides: tuple[str, ...],
    batch: int | None,
    dtype: str | None,
    device: str,
    compiled: bool,
    warmup: int,
    repeats: int,
    as_json: bool,
    sequence: int | None,
    encode: bool,
    **shape: int | None,
) -> None:
    """Measure training steps of the prior.

    With CONFIG, those of its stage prior, on its data, encoded in every step; codecs without weights to begin with have
    random ones. Without, the prior alone trains on random latents, in the shape that the flags say.
    """
    said = {"batch": batch, "dtype": dtype, "sequence": sequence, "encode": encode or None, "compile": compiled or None}
    check_alone(config, {**shape, **said})
    if config is None:
        stage = {"batch": batch or 4, "precision": dtype or "bf16", "compile": compiled}
        found = shape_config(shape, length=sequence or 256, device=device, **stage)
    else:
        found = _load(config, overrides, device=device)

    from colatent.evaluate.bench import Bench
    from colatent.plugins import load_plugins
    from colatent.train.bench import bench_training, prior_stage, run_on_latents

    trained = found.stages[prior_stage(found)]
    alone = config is None and not encode
    run = run_on_latents(found, load_plugins()) if alone else _run(found, shape, made_up=config is None)
    how = Bench(device=run.device, precision=trained.precision, warmup=warmup, repeats=repeats)
    size = {"batch": trained.batch} if trained.budget is None else {"budget": trained.budget}
    asked = {**size, "sequence": found.data.length, "dtype": trained.precision, "encode": not alone}
    asked["compile"] = trained.compile
    _tell(run, asked, bench_training(run, how), as_json=as_json)


@bench.command(epilog="Example: colatent bench generate --batch 1 --prompt 256 --new 64 --guidance 3 --json")
@measuring
@click.option("--prompt", default=64, show_default=True, type=click.IntRange(0), help="Token ids of each prompt.")
@click.option("--new", default=64, show_default=True, type=click.IntRange(1), help="Tokens to generate for each.")
@click.option("--steps", default=16, show_default=True, type=click.IntRange(1), help="Solver steps per block.")
@click.option("--guidance", default=7.0, show_default=True, type=click.FloatRange(0.0), help="Scale; 1 is off.")
def generate(
    config: str | None,
    overrides: tuple[str, ...],
    batch: int | None,
    dtype: str | None,
    device: str,
    compiled: bool,
    warmup: int,
    repeats: int,
    as_json: bool,
    prompt: int,
    new: int,
    steps: int,
    guidance: float,
    **shape: int | None,
) -> None:
    """Measure generation, from prompts to what is decoded.

    With CONFIG, by a model of that config; what has no weights to begin with has random ones. Without, by one of the
    shape that the flags say. Prompts are random token ids; where no codec takes these, give --prompt 0.
    """
    check_alone(config, shape)
    if config is None:
        found = shape_config(shape, length=prompt + new, device=device)
    else:
        found = _load(config, overrides, device=device)

    from colatent.evaluate.bench import Bench
    from colatent.evaluate.bench_generate import Questions, bench_generation

    asked = {"batch": batch or 4, "prompt": prompt, "new": new, "steps": steps, "guidance": guidance}
    questions = Questions(**asked, vocabulary=vocabulary(shape) if config is None else VOCABULARY)  # type: ignore[arg-type]
    run = _run(found, shape, made_up=config is None)
    precision: Precision = dtype or "bf16"  # type: ignore[assignment]  # one of the two, says click
    how = Bench(device=run.device, precision=precision, warmup=warmup, repeats=repeats)
    model = _model(run, window=prompt + new, precision=how.precision, compiled=compiled)
    measured = bench_generation(model, questions, how)
    said = {**asked, "dtype": how.precision, "compile": compiled, "packed": _packed(model)}
    _tell(run, said, measured, as_json=as_json)


def _load(config: str, overrides: tuple[str, ...], *, device: str) -> RunConfig:
    from colatent.config import load

    found = load(config, overrides).config
    return found if device == "auto" else found.model_copy(update={"device": device})


def _run(config: RunConfig, shape: Mapping[str, int | None], *, made_up: bool) -> Run:
    from colatent.plugins import load_plugins
    from colatent.train.bench import configured_run, run_on_ids

    plugins = load_plugins()
    return run_on_ids(config, plugins, vocabulary=vocabulary(shape)) if made_up else configured_run(config, plugins)


def _model(run: Run, *, window: int, precision: Precision, compiled: bool) -> Model:
    """A model of a run before its first step."""
    from colatent.generate.model import Model
    from colatent.train.starting import build_prior

    prior = build_prior(run).prior.eval().requires_grad_(False)
    for codec in run.codecs.values():
        codec.requires_grad_(False)  # type: ignore[attr-defined]
    sample = run.config.sample
    return Model(prior=prior, codecs=run.codecs, sample=sample, window=window, precision=precision, compiled=compiled)


def _packed(model: Model) -> bool:
    """Whether the prior multiplies packed matrices."""
    from colatent.prior.packed import PackedLinear

    return any(isinstance(module, PackedLinear) for module in model.prior.modules())


def _tell(run: Run, asked: Mapping[str, Any], measured: Measured, *, as_json: bool) -> None:
    from colatent.cli.show import print_facts, print_json
    from colatent.evaluate.bench import machine

    prior, facts, here = run.config.prior.model_dump(), measured.facts(), machine(run.device)
    if as_json:
        print_json({**facts, "asked": dict(asked), "prior": prior, "machine": here})
        return
    print_facts({name: _shown(value) for name, value in {**facts, **asked, **here}.items()})


def _shown(value: Any) -> Any:
    """A figure as a reader wants it."""
    if isinstance(value, list):
        return [_shown(one) for one in value]
    if isinstance(value, dict):
        return [f"{name} {_shown(one)}" for name, one in value.items()]
    return f"{value:.4g}" if isinstance(value, float) else value
