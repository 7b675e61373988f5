"""A whole run, from a config to a folder with a trained model."""

from __future__ import annotations

from pathlib import Path

from colatent.checkpoint.codecs import load_codec
from colatent.checkpoint.folder import Checkpoint, newest
from colatent.checkpoint.run import RunFolder
from colatent.config.load import Loaded
from colatent.errors import UserError
from colatent.plugins.pluginset import PluginSet, load_plugins
from colatent.train.codec_stage import CodecStage
from colatent.train.loop import Trainer
from colatent.train.prepare import Run, build_codecs, prepare
from colatent.train.prior_stage import PriorStage
from colatent.train.progress import Reporter

STAGES = {"codec": CodecStage, "prior": PriorStage}


def train(
    loaded: Loaded, *, resume: bool = False, plugins: PluginSet | None = None, reporter: Reporter | None = None
) -> Path:
    """Run the stages of a config in order; returns the run folder. With `resume`, go on from the last checkpoint."""
    config, reporter = loaded.config, reporter or Reporter()
    plugins = plugins or load_plugins()
    run = prepare(config, plugins)
    path = Path(config.out or f"runs/{config.name}")
    with RunFolder.create(path, loaded.text, resume=resume) as folder:
        folder.write_config(loaded.text)
        folder.begin(list(config.stages))
        _build_or_restore(run, folder)
        for name in config.stages:
            if name in folder.state().done:
                continue
            _train_stage(name, run, folder, reporter, resume=resume)
            folder.stage_done(name)
        folder.finish()
    return path


def _build_or_restore(run: Run, folder: RunFolder) -> None:
    """Codecs as the newest checkpoint of the run left them; fresh ones (or those named by the config) before that."""
    checkpoint = newest(folder.checkpoints("codec")) if "codec" in run.config.stages else None
    if checkpoint is None:
        build_codecs(run)
        return
    for name in run.config.streams:
        run.adopt(name, *load_codec(checkpoint, name, plugins=run.plugins))


def _train_stage(name: str, run: Run, folder: RunFolder, reporter: Reporter, *, resume: bool) -> None:
    stage = STAGES[name](run, run.config.stages[name])  # type: ignore[index]
    trainer = Trainer(
        stage,
        run.config.stages[name],  # type: ignore[index]
        folder=folder,
        mixture=run.sources.mixture(seed=run.config.seed),
        fingerprint=run.plugins.fingerprint,
        device=run.device,
        reporter=reporter,
    )
    checkpoint = trainer.resume() if resume else None
    if checkpoint is not None:
        _check_resumed(stage, checkpoint, run)
        if trainer.step >= trainer.config.steps:
            return
    trainer.run()


def _check_resumed(stage: object, checkpoint: Checkpoint, run: Run) -> None:
    if isinstance(stage, PriorStage):
        stage.check(checkpoint)
    if checkpoint.manifest.fingerprint != run.plugins.fingerprint:
        what = "the plugins in force are not those that this run was started with"
        raise UserError(what, where=str(checkpoint.path), do="see colatent plugins doctor")
