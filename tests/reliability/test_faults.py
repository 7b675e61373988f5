"""Faults of the disk and of what lies on it, over a whole run; those of a single save are in `test_checkpoint.py`."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from colatent.checkpoint import RunFolder, atomic_write_text, prune, scan, write_checkpoint
from colatent.errors import UserError
from plugins_for_tests.failing_disk import disk_full, not_allowed, watched_disk
from reliability import faults
from reliability.watched import Place, train_at

pytestmark = pytest.mark.filterwarnings("ignore:there is no run in")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_at(folder, Place())
    return folder


@pytest.mark.parametrize("damage", faults.DAMAGES.values(), ids=list(faults.DAMAGES))
def test_damage_to_any_file_is_named_and_skipped(damage: faults.Damage, whole: Path, tmp_path: Path) -> None:
    rng = random.Random(1)
    assert faults.damage_every_file(tmp_path, whole, damage, rng) > 15
    faults.resume_after_damage(tmp_path, whole, damage, rng)


@pytest.mark.parametrize("fail", [disk_full, not_allowed])
def test_a_disk_that_fails_ends_a_run_that_goes_on_afterwards(fail, whole: Path, tmp_path: Path) -> None:
    faults.fail_the_disk(tmp_path, whole, fail, random.Random(2), tries=2)


def test_a_second_run_in_a_folder_changes_nothing(whole: Path, tmp_path: Path) -> None:
    faults.write_to_one_folder_twice(tmp_path, whole)


def save(folder: Path, step: int) -> None:
    weights = {"prior": {"w": torch.full((64,), float(step))}}
    write_checkpoint(folder, step=step, tensors=weights, documents={}, files={}, fingerprint="", versions={})


def test_two_complete_checkpoints_are_there_at_every_moment(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    counts = []
    with watched_disk(lambda: counts.append(len(scan(tmp_path).valid))):
        for step in (3, 4, 4, 5):
            save(tmp_path, step)
            prune(tmp_path)
    assert len(counts) > 40
    assert min(counts) == 2


@contextmanager
def unprivileged() -> Iterator[Path]:
    """A folder that may be read and not be written: rights do not bind root, so root is left for a while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "inside").mkdir()
        save(folder / "inside", 1)
        paths = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        root = os.geteuid() == 0
        for path in paths:
            path.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for path in paths:
                path.chmod(0o755)


def test_a_folder_that_may_not_be_written() -> None:
    with unprivileged() as folder:
        with pytest.raises(UserError, match=r"run: cannot be used as a run folder: Permission denied; choose another"):
            RunFolder.create(folder / "run", "")
        with pytest.raises(UserError, match=r"cannot save a checkpoint: Permission denied.*last good checkpoint is"):
            save(folder / "inside", 2)
        with pytest.raises(UserError, match="text: cannot be written: Permission denied"):
            atomic_write_text(folder / "text", "x")
        assert [path.name for path in scan(folder / "inside").valid] == ["step-00000001"]
