"""A whole run, from a config to a folder with a trained model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from colatent.checkpoint.folder import Checkpoint, newest
from colatent.checkpoint.run import RunFolder, is_run_folder
from colatent.config.load import Loaded
from colatent.config.stages import StageConfig
from colatent.data.facts import check_facts
from colatent.data.mixture import Draws
from colatent.errors import UserError
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.prior.backends.choose import asked, typical
from colatent.prior.fused import check_compiler
from colatent.train.budgets import budgeted, check_budgets
from colatent.train.cached import open_cache
from colatent.train.codec_stage import CodecStage
from colatent.train.codecs import adopt_stored, build_codecs, check_items, check_lengths
from colatent.train.joint_stage import JointStage
from colatent.train.loop import Trainer
from colatent.train.prepare import Run, prepare
from colatent.train.prior_stage import PriorStage
from colatent.train.progress import Reporter
from colatent.train.refusals import check_begin, check_joint_resumed, check_order, check_resumed
from colatent.train.remote import Remote, check_wandb, open_wandb
from colatent.train.resume import check_same_settings, with_solver
from colatent.train.spread import check_shares
from colatent.train.stage import Stage
from colatent.train.starting import check_init
from colatent.train.versions import versions
from colatent.train.world import World, join

STAGES: dict[str, Callable[[Run, StageConfig], Stage]] = {
    "codec": CodecStage,
    "prior": PriorStage,
    "joint": JointStage,
}


def train(
    loaded: Loaded, *, resume: bool = False, plugins: PluginSet | None = None, reporter: Reporter | None = None
) -> Path:
    """Run the stages of a config in order; returns the run folder. With `resume`, go on from the last checkpoint.

    What cannot work is refused before anything is written: a run folder that exists is left as it was. Started by
    torchrun, this is one of several processes that train together.
    """
    plugins = plugins or load_plugins()
    with join(loaded.config.device) as world:
        _check_same(world, loaded, plugins, resume=resume)
        check_shares(loaded.config, world)
        check_wandb(loaded.config.metrics.wandb)
        run = prepare(loaded.config, plugins, world=world)
        path = loaded.config.folder
        with world.together():
            saved = _check(run, path, resume=resume)
        _check_same_files(run, saved)
        _train_stages(run, path, loaded.text, reporter or Reporter(quiet=not world.leads), resume=resume)
    return path


def _check_same(world: World, loaded: Loaded, plugins: PluginSet, *, resume: bool) -> None:
    """Refuse to begin where the processes of a run were not all started alike."""
    told = {
        "the set of plugins": plugins.fingerprint,
        "the installation": json.dumps(versions()),
        "the configuration": loaded.config.model_dump_json(),
        "the choice of --resume": str(resume),
    }
    world.check_same(told, do="start all with one command, of one installation, where they see the same files")


def _check(run: Run, path: Path, *, resume: bool) -> dict[str, Checkpoint]:
    """Give the run its codecs, and refuse what cannot work. Gives the checkpoints that the run will go on from."""
    config = run.config
    if resume and not is_run_folder(path) and run.world.leads:
        warnings.warn(f"there is no run in {path} to resume: starting one", stacklevel=3)
    if resume and is_run_folder(path):
        check_same_settings(path, config)
    saved = _saved(path, config.stages) if resume else {}
    run.config = config = with_solver(config, saved)
    _build_or_restore(run, saved)
    check_facts(run.sources, run.codecs)
    check_items(run)
    check_lengths(run)
    check_budgets(run)
    open_cache(run)
    if "prior" in config.stages:
        check_order(run, "prior")
    if "joint" in config.stages:
        check_begin(run)
    if {"prior", "joint"} & config.stages.keys():
        check_init(run)
    for name, stage in config.stages.items():
        if stage.compile:
            check_compiler(run.device, where=f"stages.{name}.compile")
    asked(typical(run.device, gradient=True))  # refused here, not in the first step
    return saved


def _check_same_files(run: Run, saved: Mapping[str, Checkpoint]) -> None:
    """Refuse to begin where processes, on several machines maybe, see other files than the first one."""
    sizes = {name: len(dataset) for name, (dataset, _) in run.sources.training.items()}
    reached = {name: one.step for name, one in saved.items()}
    told = {"the data": json.dumps(sizes), "the run folder": json.dumps(reached)}
    told["the latent cache"] = run.cache.plan.digest() if run.cache is not None else ""
    run.world.check_same(told, do="put it where all see the same files, on a disk that they share")


def _train_stages(run: Run, path: Path, text: str, reporter: Reporter, *, resume: bool) -> None:
    """Train what is left to train. The first process holds the run folder; to the others it is a place to read."""
    world, stages = run.world, run.config.stages
    with ExitStack() as held:
        folder, remote = RunFolder(path), None
        with world.together():
            if world.leads:
                folder = held.enter_context(RunFolder.create(path, text, resume=resume))
                folder.write_config(text)
                folder.begin(list(stages))
                remote = held.enter_context(open_wandb(run.config, path, text))
        with world.together():
            _check_shared(run, path)
        done = json.loads(world.gather(json.dumps(folder.state().done if world.leads else ()))[0])
        for name in stages:
            if name == "codec" and name in done:
                continue
            _train_stage(name, run, folder, reporter, remote, resume=resume)
            if world.leads:
                folder.stage_done(name)
        if world.leads:
            folder.finish()


def _check_shared(run: Run, path: Path) -> None:
    """Where each process writes its share of a checkpoint, it must find the folder that the first one has made."""
    if any(stage.parallel == "fsdp" for stage in run.config.stages.values()) and not is_run_folder(path):
        what = f"process {run.world.rank} does not see the run folder of process 0"
        raise UserError(
            what, where=str(path), do="choose an out= on a disk that all share: each writes its own weights"
        )


def _saved(path: Path, stages: Iterable[str]) -> dict[str, Checkpoint]:
    """The newest checkpoint of each stage of the run in `path`."""
    if not is_run_folder(path):
        return {}
    found = {name: newest(RunFolder.open(path).checkpoints(name)) for name in stages}
    return {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}


def _build_or_restore(run: Run, saved: Mapping[str, Checkpoint]) -> None:
    """Codecs as the run left them, fresh ones (or those named by the config) where it has none; then the checks that
    what was saved fits them."""
    if "codec" in saved:
        for name in run.config.streams:
            adopt_stored(run, name, saved["codec"])
        _check_final(run, saved["codec"])
    else:
        build_codecs(run)
    if "prior" in saved:
        check_resumed(saved["prior"], run)
    if "joint" in saved:
        check_joint_resumed(saved["joint"], run)
    for checkpoint in saved.values():
        if checkpoint.manifest.fingerprint != run.plugins.fingerprint:
            what = "the plugins in force are not those that this run was started with"
            raise UserError(what, where=str(checkpoint.path), do="see colatent plugins doctor")


def _check_final(run: Run, checkpoint: Checkpoint) -> None:
    """A codec whose scale was measured cannot be trained on: what was trained on its latents would not fit."""
    steps = run.config.stages["codec"].steps
    if steps > checkpoint.step and all(facts.trained for facts in run.facts.values()):
        what = f"is {steps}, but this stage ended after {checkpoint.step} steps"
        raise UserError(what, where="stages.codec.steps", do="put it back, or train longer in a run of its own")


def _train_stage(
    name: str, run: Run, folder: RunFolder, reporter: Reporter, remote: Remote | None, *, resume: bool
) -> None:
    config = run.config.stages[name]  # type: ignore[index]
    stage = STAGES[name](run, config)
    world, seed = run.world, run.config.seed
    workers = 0 if run.cache is not None else run.config.data.workers  # of what is cached, nothing is read ahead
    mixture: Draws
    if config.budget is None:
        whole = config.draw == "step"
        mixture = run.sources.mixture(seed=seed, whole=whole, rank=world.rank, world=world.size, workers=workers)
    else:
        mixture = budgeted(run, run.sources.mixture(seed=seed, workers=workers), stage=name)
    with closing(mixture):
        trainer = Trainer(
            stage,
            config,
            folder=folder,
            mixture=mixture,
            fingerprint=run.plugins.fingerprint,
            device=run.device,
            reporter=reporter,
            world=world,
            remote=remote,
        )
        checkpoint = trainer.resume() if resume else None
        if checkpoint is None or trainer.step < trainer.config.steps:
            trainer.run()
