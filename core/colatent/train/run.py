"""A whole run, from a config to a folder with a trained model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from colatent.checkpoint.folder import Checkpoint, newest
from colatent.checkpoint.run import RunFolder, is_run_folder
from colatent.config.load import Loaded
from colatent.config.schema import StageConfig
from colatent.data.facts import check_facts
from colatent.errors import UserError
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.train.cached import open_cache
from colatent.train.codec_stage import CodecStage
from colatent.train.codecs import adopt_stored, build_codecs, check_items, check_lengths
from colatent.train.joint_stage import JointStage, check_begin, check_joint_resumed
from colatent.train.loop import Trainer
from colatent.train.prepare import Run, prepare
from colatent.train.prior_stage import PriorStage, check_init, check_order, check_resumed
from colatent.train.progress import Reporter
from colatent.train.resume import check_same_settings
from colatent.train.stage import Stage

STAGES: dict[str, Callable[[Run, StageConfig], Stage]] = {
    "codec": CodecStage,
    "prior": PriorStage,
    "joint": JointStage,
}


def train(
    loaded: Loaded, *, resume: bool = False, plugins: PluginSet | None = None, reporter: Reporter | None = None
) -> Path:
    """Run the stages of a config in order; returns the run folder. With `resume`, go on from the last checkpoint.

    What cannot work is refused before anything is written: a run folder that exists is left as it was.
    """
    config, reporter = loaded.config, reporter or Reporter()
    plugins = plugins or load_plugins()
    run = prepare(config, plugins)
    path = Path(config.out or f"runs/{config.name}")
    if resume and not is_run_folder(path):
        warnings.warn(f"there is no run in {path} to resume: starting one", stacklevel=2)
    _build_or_restore(run, _saved(path, config.stages) if resume else {})
    if resume and is_run_folder(path):
        check_same_settings(path, config)
    check_facts(run.sources, run.codecs)
    check_items(run)
    check_lengths(run)
    open_cache(run)
    if "prior" in config.stages:
        check_order(run, "prior")
    if "joint" in config.stages:
        check_begin(run)
    if {"prior", "joint"} & config.stages.keys():
        check_init(run)
    with RunFolder.create(path, loaded.text, resume=resume) as folder:
        folder.write_config(loaded.text)
        folder.begin(list(config.stages))
        for name in config.stages:
            if name == "codec" and name in folder.state().done:
                continue
            _train_stage(name, run, folder, reporter, resume=resume)
            folder.stage_done(name)
        folder.finish()
    return path


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


def _train_stage(name: str, run: Run, folder: RunFolder, reporter: Reporter, *, resume: bool) -> None:
    config = run.config.stages[name]  # type: ignore[index]
    stage = STAGES[name](run, config)
    workers = 0 if run.cache is not None else run.config.data.workers  # of what is cached, nothing is read ahead
    mixture = run.sources.mixture(seed=run.config.seed, whole=config.draw == "step", workers=workers)
    with closing(mixture):
        trainer = Trainer(
            stage,
            config,
            folder=folder,
            mixture=mixture,
            fingerprint=run.plugins.fingerprint,
            device=run.device,
            reporter=reporter,
        )
        checkpoint = trainer.resume() if resume else None
        if checkpoint is None or trainer.step < trainer.config.steps:
            trainer.run()
