"""The task `spoken-digits`: whether a spoken digit survives the codec, and the way to text and from it.

What judges shares nothing with what is judged: a support vector machine over cepstra, fitted on the real recordings for
training, and a reader of number words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from colatent.checkpoint.run import RunFolder
from colatent.errors import UserError
from colatent.evaluate.tasks import Progress, Verdict
from colatent.latents.draws import generator, normal
from colatent.plugins.contract import Codec
from colatent_gallery.digits.captions import SPOKEN, caption, read_digit
from colatent_gallery.digits.directions import Direction, Field, generate
from colatent_gallery.material import check_material
from colatent_gallery.speech.classifier import VoiceJudge
from colatent_gallery.speech.judged import GOALS, Heard, Judged
from colatent_gallery.speech.recordings import load_recordings
from colatent_gallery.speech.sections import sections
from colatent_gallery.speech.settings import SpokenDigitsConfig, SpokenDigitsTaskConfig

if TYPE_CHECKING:
    from colatent.generate.model import Model

SAY = Direction(given="text", target="audio", goal=GOALS["text_to_audio"])
HEAR = Direction(given="audio", target="text", goal=GOALS["audio_to_text"])
BATCH = 20
"""Recordings that go through the codec together."""


class SpokenDigitsTask:
    """See `SpokenDigitsTaskConfig`."""

    def __init__(self, config: SpokenDigitsTaskConfig) -> None:
        self.config = config
        training, test = load_recordings(config.path, heldout=config.heldout)
        if config.samples > len(test):
            what = f"is {config.samples}, and {len(test)} recordings are held out"
            raise UserError(what, where="task 'spoken-digits', samples", do="judge fewer samples, or hold out more")
        self.test = test[: config.samples]
        self._voices = VoiceJudge(training)

    def judge(self, model: Model, *, run: RunFolder | None, seed: int, progress: Progress) -> Verdict:
        """See `colatent.evaluate.tasks.Task.judge`."""
        codec = self._audio_codec(model)
        if run is not None:
            check_material(run, self.config, name="spoken-digits", dataset=SpokenDigitsConfig, keys=("heldout",))
        found = self._found(model, codec, seed=seed, progress=progress)
        return Verdict(
            figures=found.figures(), bounds=found.bounds(), goals=found.goals(), sections=sections(found, codec=codec)
        )

    def _found(self, model: Model, codec: Codec, *, seed: int, progress: Progress) -> Judged:
        sounds, asked = [one.sound for one in self.test], [number % 10 for number in range(self.config.samples)]
        captions = [caption(each, generator(seed, "captions", i), templates=SPOKEN) for i, each in enumerate(asked)]
        streams: dict[Field, str] = {"text": self.config.text, "audio": self.config.audio}
        make = partial(generate, model, streams=streams, seed=seed, progress=progress)
        rebuilt = reconstruct(codec, sounds, seed=seed, progress=progress)
        said, written = make(SAY, captions), make(HEAR, sounds)
        hear, recorded = self._voices.hear, partial(Heard, given=sounds, digits=[one.digit for one in self.test])
        return Judged(
            real=recorded(made=sounds, judged=hear(sounds)),
            reconstruction=recorded(made=rebuilt, judged=hear(rebuilt)),
            text_to_audio=Heard(given=captions, made=said, digits=asked, judged=hear(said)),
            audio_to_text=recorded(made=written, judged=[read_digit(str(text)) for text in written]),
        )

    def _audio_codec(self, model: Model) -> Codec:
        missing = [name for name in (self.config.text, self.config.audio) if name not in model.codecs]
        if missing:
            what = f"this model (streams: {', '.join(model.codecs)}) has no stream {' and no '.join(missing)}"
            raise UserError(what, where="task 'spoken-digits'", do="name its streams with text= and audio=")
        return model.codecs[self.config.audio]


def reconstruct(codec: Codec, sounds: Sequence[Any], *, seed: int, progress: Progress) -> list[Any]:
    """Each sound through the codec and back, by a sample of its posterior: what a prior is trained on."""
    made: list[Any] = []
    for start in range(0, len(sounds), BATCH):
        records = [record.on_cpu() for record in codec.encode(sounds[start : start + BATCH])]
        drawn = [
            record.sample(normal(record.mean_LC.shape, seed, "reconstruction", number))
            for number, record in enumerate(records, start=start)
        ]
        made += codec.decode(drawn)
        progress("reconstruction", len(made), len(sounds))
    return made
