"""The checks of a dataset: it resolves, and where it needs no settings its samples keep to the contract."""

from __future__ import annotations

import pickle

from colatent.data.dataset import FactualDataset, Sample
from colatent.testing.declaration import check_round_trip, check_words
from colatent.testing.requiring import check_closed, require, same
from colatent.testing.running import check
from colatent.testing.subject import DatasetSubject, first_samples

SAMPLES = 3


@check(vital=True)
def config(subject: DatasetSubject) -> None:
    """The settings are frozen and refuse unknown keys."""
    check_closed(subject.model)


@check()
def metadata(subject: DatasetSubject) -> None:
    """The declaration has a summary of one line, distinct fields, and the fields that registry.toml lists."""
    check_words(summary=subject.info.summary, fields=subject.info.fields)
    entry, declared = subject.found.registry.datasets.get(subject.info.name), subject.info.fields
    if entry:
        require(declared == entry.fields, f"fields is {declared!r}, registry.toml says {entry.fields!r}")


@check(vital=True)
def class_(subject: DatasetSubject) -> None:
    """The class has a length and numbered samples."""
    built = subject.found.dataset_class(subject.info.name)
    missing = [name for name in ("__len__", "sample") if not callable(getattr(built, name, None))]
    require(not missing, f"lacks {', '.join(missing)}")


@check()
def config_round_trip(subject: DatasetSubject) -> None:
    """The settings come back equal from JSON and from YAML."""
    subject.build()
    check_round_trip(subject.model())


@check()
def samples_(subject: DatasetSubject) -> None:
    """Samples have the declared fields and no others, are functions of their number and generator alone, and `facts`
    speaks of no other fields."""
    dataset = subject.build()
    require(len(dataset) > 0, "has no samples")
    first, again = first_samples(dataset, SAMPLES), first_samples(dataset, SAMPLES)
    for one, other in zip(first, again, strict=True):
        missing = [name for name in subject.info.fields if name not in one]
        require(not missing, f"a sample lacks the declared {', '.join(missing)}")
        extra = [name for name in one if name not in subject.info.fields]
        require(not extra, f"a sample has {', '.join(extra)} too, which `fields` of the declaration leaves out")
        repeats = all(same(one[name], other[name]) for name in subject.info.fields)
        require(repeats, "a sample changes for the same generator")
    said = dataset.facts() if isinstance(dataset, FactualDataset) else {}
    others = [name for name in said if name not in subject.info.fields]
    require(not others, f"facts() speaks of {', '.join(others)}, which no sample has")


@check()
def split(subject: DatasetSubject) -> None:
    """Held-out samples are not the training samples again."""
    training, heldout = subject.build("train"), subject.build("heldout")
    first, other = first_samples(training, SAMPLES), first_samples(heldout, SAMPLES)
    redrawn = first_samples(heldout, SAMPLES, seed=1)
    # What no generator changes was stored, not drawn: if both splits store the same, `split` has no effect.
    stored = [name for name in subject.info.fields if alike(name, other, redrawn)]
    differs = any(not alike(name, first, other) for name in stored)
    require(differs or not stored, "the first samples of both splits are the same: `split` has no effect")


def alike(field: str, one: list[Sample], other: list[Sample]) -> bool:
    """Whether a field is the same in all samples of two lists."""
    return same([sample[field] for sample in one], [sample[field] for sample in other])


@check()
def pickling(subject: DatasetSubject) -> None:
    """The dataset can be sent to a worker process, and gives the same samples there."""
    dataset = subject.build()
    again = pickle.loads(pickle.dumps(dataset))
    require(same(first_samples(dataset, SAMPLES), first_samples(again, SAMPLES)), "samples are others after pickling")
