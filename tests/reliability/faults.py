"""Faults put into a run and into what it left, one by one: each is named, and costs no more than the last checkpoint.

Every function tries one kind, goes on with the run where there is one, holds it against the run that nothing happened
to, and gives the number of faults that it put in.
"""

from __future__ import annotations

import os
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from colatent.checkpoint.folder import newest
from colatent.checkpoint.manifest import MANIFEST
from colatent.checkpoint.run import RunFolder
from colatent.errors import UserError
from plugins_for_tests.failing_disk import disk_full, failing_at, not_allowed
from plugins_for_tests.runs import assert_same_run, last
from reliability.watched import STAGES, Place, train_at

Damage = Callable[[Path, random.Random], None]


def flip_a_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def half_write(path: Path, rng: random.Random) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Damage] = {"a flipped bit": flip_a_bit, "half a file": half_write, "a missing file": remove}


def damage_every_file(folder: Path, whole: Path, damage: Damage, rng: random.Random) -> int:
    """Each file of a run's last checkpoints in turn: the checkpoint is skipped, and the reason names the file."""
    run, count = Path(shutil.copytree(whole, folder / "damaged")), 0
    for stage in STAGES:
        good = last(run, stage)
        for name in [*good.manifest.files, MANIFEST]:
            path, skipped = good.path / name, dict[Path, str]()
            before = path.read_bytes()
            damage(path, rng)
            found = newest(run / "checkpoints" / stage, on_skip=skipped.__setitem__)
            assert found is not None
            assert found.step < good.step
            assert skipped.keys() == {good.path}
            assert name in skipped[good.path] or (name == MANIFEST and "not a checkpoint" in skipped[good.path])
            path.write_bytes(before)
            count += 1
    shutil.rmtree(run)
    return count


def resume_after_damage(folder: Path, whole: Path, damage: Damage, rng: random.Random) -> int:
    """A run goes on from the checkpoint before the damaged one, and ends as it would have."""
    run = Path(shutil.copytree(whole, folder / "resumed"))
    step = last(run, STAGES[-1])
    damage(step.path / rng.choice(sorted(step.manifest.files)), rng)
    train_at(run, Place())
    assert_same_run(whole, run)
    shutil.rmtree(run)
    return 1


def fail_the_disk(folder: Path, whole: Path, fail: Callable[[], None], rng: random.Random, *, tries: int) -> int:
    """At so many of all operations of a run that the disk is asked for, drawn at random: the run says so and ends, and
    goes on to the same end when the disk is well again."""
    with failing_at(0, fail) as count:
        train_at(folder / "counted", Place())
    for n in rng.sample(range(1, count[0] + 1), tries):
        run = folder / f"failed-{n}"
        with failing_at(n, fail), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(without TensorBoard|remove it yourself)")
            line = complaint(run)
        assert line is None or "No space left" in line or "Permission denied" in line, line
        train_at(run, Place())
        assert_same_run(whole, run)
        shutil.rmtree(run)
    return tries


def write_to_one_folder_twice(folder: Path, whole: Path) -> int:
    """A second run in the folder of one that is going on is refused, and changes nothing."""
    run = Path(shutil.copytree(whole, folder / "shared"))
    with RunFolder.create(run, "", resume=True):
        before = contents(run)
        line = complaint(run)
        assert line is not None
        assert f"another run is writing here (process {os.getpid()})" in line
        assert contents(run) == before
    shutil.rmtree(run)
    return 1


def complaint(run: Path) -> str | None:
    """The one line with which a run ends that goes on in a folder; None where it comes to its end."""
    try:
        train_at(run, Place())
    except (UserError, OSError) as error:  # the command line makes a line of either
        line = str(error)
        assert "\n" not in line
        return line
    return None


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_in_all(folder: Path, *, tries: int, seed: int = 0) -> dict[str, int]:
    """All kinds, with `tries` at the disk of each sort; how many of each."""
    folder.mkdir()
    rng, whole = random.Random(seed), folder / "whole"
    train_at(whole, Place())
    found = {}
    for name, damage in DAMAGES.items():
        count = damage_every_file(folder, whole, damage, rng)
        found[name] = count + resume_after_damage(folder, whole, damage, rng)
    found["no space left"] = fail_the_disk(folder, whole, disk_full, rng, tries=tries)
    found["not allowed"] = fail_the_disk(folder, whole, not_allowed, rng, tries=tries)
    found["two runs in one folder"] = write_to_one_folder_twice(folder, whole)
    return found
