"""Checkpoints and run folders: what was saved comes back, and no failure, however it falls, costs the last good one.

Failures are made at every single step of a save: an `OSError`, an interrupt, and a `kill -9` in a child process.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import json
import math
import os
import random
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import colatent.checkpoint as package
from colatent.checkpoint import (
    RunFolder,
    RunState,
    atomic_write_text,
    clean_temporary,
    hash_tensors,
    is_run_folder,
    manifest,
    newest,
    prune,
    read_checkpoint,
    resolve_model,
    scan,
    write_checkpoint,
)
from colatent.checkpoint.manifest import parse_manifest
from colatent.checkpoint.run import undisturbed
from colatent.errors import UserError
from plugins_for_tests.failing_disk import disk_full, failing_at

VERSIONS = {"colatent": "0.1.0"}


def save(folder: Path, step: int, value: float | None = None) -> Path:
    """A small checkpoint of all three kinds, filled with `value` (default: the step)."""
    filled = float(step if value is None else value)
    return write_checkpoint(
        folder,
        step=step,
        tensors={"prior": {"w": torch.full((64,), filled), "b": torch.full((3,), filled)}},
        documents={"state": {"value": filled}},
        files={"codec.text/vocabulary/tokenizer.json": str(filled).encode()},
        fingerprint="f",
        versions=VERSIONS,
    )


def value_of(checkpoint: package.Checkpoint) -> float:
    """The value that all parts of a checkpoint made by `save` agree on."""
    tensors = checkpoint.tensors("prior")
    found = {float(number) for tensor in tensors.values() for number in tensor}
    found |= {checkpoint.document("state")["value"], float(checkpoint.files("codec.text")["vocabulary/tokenizer.json"])}
    assert len(found) == 1
    return found.pop()


def temporaries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(".tmp-")]


# Failures at the n-th operation on the disk


def interrupt() -> None:
    raise KeyboardInterrupt


def check_survivors(folder: Path, *, step: int) -> None:
    """Steps 1 and 2 are as saved, and `step` is the old one or the new one (value 9), never something between."""
    found = {checkpoint.step: value_of(checkpoint) for checkpoint in map(read_checkpoint, scan(folder).valid)}
    allowed = {1: {1.0}, 2: {2.0}, 3: {9.0}}
    allowed[step] = allowed[step] | {9.0}
    assert {1, 2} <= set(found)
    assert all(value in allowed[saved] for saved, value in found.items()), found


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Syncs return at once: they cost most of the time, and only a power cut shows the difference."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.parametrize(("fail", "error"), [(disk_full, UserError), (interrupt, KeyboardInterrupt)])
@pytest.mark.parametrize("step", [2, 3], ids=["replaced", "new"])
def test_failure_anywhere_keeps_the_last_good_checkpoint(
    tmp_path: Path, step: int, fail: Callable[[], None], error: type[BaseException]
) -> None:
    n = 0
    while True:
        n += 1
        folder = tmp_path / str(n)
        save(folder, 1)
        save(folder, 2)
        with failing_at(n, fail) as count:
            try:
                save(folder, step, 9)
                failed = None
            except BaseException as raised:
                failed = raised
        check_survivors(folder, step=step)
        assert not temporaries(folder)
        assert (folder / "step-00000002").is_dir()
        if count[0] < n:
            break
        if failed is not None:
            assert type(failed) is error
        if isinstance(failed, UserError):
            assert str(folder) in str(failed)
            assert "No space left on device" in str(failed)
            assert "last good checkpoint is" in str(failed)
    assert failed is None
    assert n > 20  # every file is opened, written and synced, every folder made and synced
    assert value_of(read_checkpoint(folder / f"step-{step:08d}")) == 9


def test_a_real_limit_on_file_size(tmp_path: Path) -> None:
    save(tmp_path, 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))
    try:
        with pytest.raises(UserError, match=r"File too large.*last good checkpoint is .*step-00000001"):
            write_checkpoint(
                tmp_path,
                step=2,
                tensors={"prior": {"w": torch.zeros(1 << 20)}},
                documents={},
                files={},
                fingerprint="f",
                versions={},
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def in_child(work: Callable[[], None], *, kill_after: float | None = None) -> bool:
    """Run `work` in a forked child, killed after some seconds; whether it ended by itself."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return os.WIFEXITED(status)


def kill_everywhere(root: Path, step: int = 2) -> None:
    """`kill -9` at every operation of a save that replaces a step, then what a resumed run does: clean up and save."""
    n, survived = 0, False
    while not survived:
        n += 1
        folder = root / str(n)
        save(folder, 1)
        save(folder, 2)

        def work(folder: Path = folder, n: int = n) -> None:
            with failing_at(n, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                save(folder, step, 9)

        survived = in_child(work)
        check_survivors(folder, step=step)
        clean_temporary(folder)
        assert not temporaries(folder)
        check_survivors(folder, step=step)
        save(folder, step, 9)
        assert value_of(read_checkpoint(folder / f"step-{step:08d}")) == 9
        assert not list(folder.glob("*.old"))
    assert n > 20


def kill_anytime(folder: Path) -> None:
    """A run that saves and prunes without rest, killed at random moments: every restart goes on from where it was."""
    rng, last = random.Random(0), 0

    def work() -> None:
        for step in range(last + 1, last + 10_000):
            save(folder, step)
            prune(folder)

    for _ in range(8):
        in_child(work, kill_after=rng.uniform(0.02, 0.12))
        checkpoint = newest(folder)
        if checkpoint is not None:
            assert checkpoint.step >= last
            assert value_of(checkpoint) == checkpoint.step
            last = checkpoint.step
        clean_temporary(folder)
    assert last > 0


def test_kill_leaves_a_valid_checkpoint(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib, test_checkpoint as t; os.fsync = lambda descriptor: None;"
        "root = pathlib.Path(sys.argv[1]); t.kill_everywhere(root); t.kill_anytime(root / 'run')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_all_is_synced_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    path = save(tmp_path / "stage", 1)
    names = {entry.stat().st_ino: str(entry.relative_to(tmp_path)) for entry in [tmp_path, *tmp_path.rglob("*")]}
    step = "stage/step-00000001"
    order = [names[inode] for inode in synced]
    assert order[-3:] == [f"{step}/manifest.json", step, "stage"]
    assert set(order) == set(names.values())
    assert path == tmp_path / step


# Round trip


def test_round_trip(tmp_path: Path) -> None:
    shared = torch.randn(4, 6)
    tensors = {
        "bfloat16": torch.randn(3, 5).to(torch.bfloat16),
        "int": torch.tensor([-(2**62), 0, 7]),
        "byte": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "strided": shared.T,
        "every second": torch.arange(6.0)[::2],
        "tied": shared,
        "part": shared[1:2],
        "parameter": torch.nn.Parameter(torch.randn(2)),
        "odd name/µ": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    document = {"step": 12, "names": ["µ", None], "nested": {"x": 0.1}}
    path = write_checkpoint(
        tmp_path / "new" / "stage",
        step=1234,
        tensors={"prior": tensors, "nothing": {}},
        documents={"state": document},
        files={"codec.text/tokenizer.json": b"\x00\xff", "codec.text.more/a": b""},
        fingerprint="abc",
        versions=VERSIONS,
    )
    assert path == tmp_path / "new" / "stage" / "step-00001234"
    checkpoint = read_checkpoint(path)
    assert (checkpoint.step, checkpoint.path) == (1234, path)
    assert (checkpoint.manifest.fingerprint, checkpoint.manifest.versions) == ("abc", VERSIONS)
    assert checkpoint.has("prior")
    assert not checkpoint.has("optimiser")
    assert checkpoint.tensors("nothing") == {}
    loaded = checkpoint.tensors("prior")
    assert hash_tensors(loaded) == hash_tensors(tensors)
    assert torch.equal(loaded["strided"], shared.T)
    assert {name: (t.dtype, t.shape) for name, t in loaded.items()} == {
        name: (t.dtype, t.shape) for name, t in tensors.items()
    }
    assert checkpoint.document("state") == document
    assert checkpoint.file("codec.text/tokenizer.json") == b"\x00\xff"
    assert checkpoint.files("codec.text") == {"tokenizer.json": b"\x00\xff"}
    with pytest.raises(UserError, match=r"no optimiser\.safetensors, it holds .*prior\.safetensors"):
        checkpoint.tensors("optimiser")


def test_tensors_are_aligned_for_other_readers(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(2, dtype=torch.float64), "c": torch.ones(1)}
    path = write_checkpoint(
        tmp_path, step=0, tensors={"g": tensors}, documents={}, files={}, fingerprint="", versions={}
    )
    data = (path / "g.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for name, tensor in tensors.items():
        assert (8 + size + header[name]["data_offsets"][0]) % tensor.element_size() == 0
    with safe_open(path / "g.safetensors", framework="numpy") as file:
        assert sorted(file.keys()) == ["a", "b", "c"]
        assert file.get_tensor("b").tolist() == [1.0, 1.0]


def test_tensors_no_checkpoint_can_hold(tmp_path: Path) -> None:
    for tensor in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2).to_sparse()):
        with pytest.raises(UserError, match=r"'w'.*no checkpoint can hold"):
            write_checkpoint(
                tmp_path, step=0, tensors={"g": {"w": tensor}}, documents={}, files={}, fingerprint="", versions={}
            )
    assert list(tmp_path.iterdir()) == []


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save(tmp_path / "stage", 1)
        atomic_write_text(tmp_path / "text", "x")
    finally:
        os.umask(before)
    files = [tmp_path / "text", *(entry for entry in path.rglob("*") if entry.is_file())]
    folders = [path.parent, path, *(entry for entry in path.rglob("*") if entry.is_dir())]
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in files} == {0o640}
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in folders} == {0o750}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "a\\x", "", ".", "a//b", "./x", "manifest.json", "x\0"])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a file"):
        write_checkpoint(
            tmp_path / "s", step=1, tensors={}, documents={}, files={name: b"x"}, fingerprint="", versions={}
        )
    assert list(tmp_path.iterdir()) == []


def test_names_outside_the_folder_are_refused_when_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    path = save(tmp_path, 1)
    payload = json.loads((path / "manifest.json").read_bytes())
    payload["files"]["../secret"] = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    seal(path, payload)
    with pytest.raises(UserError, match="cannot be the name of a file"):
        read_checkpoint(path)


def seal(path: Path, payload: dict[str, Any]) -> None:
    """Write a manifest with a hash of itself that is right."""
    payload.pop("sha256", None)
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    (path / "manifest.json").write_text(json.dumps({**payload, "sha256": hashlib.sha256(text.encode()).hexdigest()}))


def test_same_file_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="same file name"):
        write_checkpoint(
            tmp_path,
            step=1,
            tensors={},
            documents={"state": 1},
            files={"state.json": b""},
            fingerprint="",
            versions={},
        )


# Damage


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


FILES = ["prior.safetensors", "state.json", "codec.text/vocabulary/tokenizer.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "message"), [(truncate, "has .* bytes"), (flip, "hash"), (Path.unlink, "is missing")]
)
def test_damage_is_named_and_skipped(tmp_path: Path, name: str, damage: Callable[[Path], None], message: str) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    damage(bad / name)
    with pytest.raises(UserError, match=message) as raised:
        read_checkpoint(bad)
    assert str(bad / name) in str(raised.value)
    assert "use another one" in str(raised.value)
    assert "\n" not in str(raised.value)
    heard: list[Path] = []
    found = newest(tmp_path, on_skip=lambda path, reason: heard.append(path))
    assert found is not None
    assert (found.path, heard) == (good, [bad])
    result = scan(tmp_path)
    assert result.valid == (good,)
    assert [(skip.path, skip.reason) for skip in result.skipped] == [(bad, str(raised.value))]
    if damage is flip:
        assert read_checkpoint(bad, verify=False).step == 2


def test_every_byte_of_the_manifest_is_guarded(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    whole = (path / "manifest.json").read_bytes()
    meaning = json.loads(whole)
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1
        try:
            same = json.loads(bytes(data)) == meaning
        except ValueError:
            same = False
        if not same:
            with pytest.raises(UserError):
                parse_manifest(bytes(data), where="x")
    for damaged in (whole[:-10], b"[" * 200_000, b"9" * 5000):
        (path / "manifest.json").write_bytes(damaged)
        with pytest.raises(UserError, match=r"manifest\.json: is not JSON; this checkpoint is damaged"):
            read_checkpoint(path)


def test_another_format(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    seal(path, {**json.loads((path / "manifest.json").read_bytes()), "format": 7})
    with pytest.raises(UserError, match="written by format 7, this colatent reads 1; use the colatent that wrote it"):
        read_checkpoint(path)


def test_a_renamed_step_is_not_taken_for_newer(tmp_path: Path) -> None:
    save(tmp_path, 1).rename(tmp_path / "step-00000009")
    path = save(tmp_path, 2)
    assert scan(tmp_path).valid == (path,)
    assert read_checkpoint(tmp_path / "step-00000009").step == 1


# Housekeeping


def test_leftovers_are_ignored_and_removed(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    left = tmp_path / ".tmp-step-00000002-1-abc"
    path.rename(left)
    path = save(tmp_path, 1)
    assert scan(tmp_path) == package.Scan(valid=(path,), skipped=())
    assert clean_temporary(tmp_path) == [left]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert clean_temporary(tmp_path / "missing") == []


def test_a_parked_step_counts_only_without_its_successor(tmp_path: Path) -> None:
    parked = save(tmp_path, 2).rename(tmp_path / "step-00000002.old")
    assert scan(tmp_path).valid == (parked,)
    assert clean_temporary(tmp_path) == []
    both = save(tmp_path / "both", 2)
    shutil.copytree(both, both.with_name(parked.name))
    assert scan(both.parent).valid == (both,)
    assert clean_temporary(both.parent) == [both.with_name(parked.name)]
    new = save(tmp_path, 1).parent / "step-00000002"
    assert scan(tmp_path).valid[0] == parked
    save(tmp_path, 2, 9)
    assert not parked.exists()
    assert value_of(read_checkpoint(new)) == 9


@pytest.mark.parametrize(("keep", "protect", "kept"), [(2, (), {4, 5}), (0, (), {4, 5}), (3, (1, 4), {1, 3, 4, 5})])
def test_prune(tmp_path: Path, keep: int, protect: tuple[int, ...], kept: set[int]) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    truncate(save(tmp_path, 6) / "state.json")
    removed = prune(tmp_path, keep=keep, protect=protect)
    assert {read_checkpoint(path).step for path in scan(tmp_path).valid} == kept
    assert {int(path.name[5:]) for path in removed} == {1, 2, 3, 4, 5} - kept
    assert not temporaries(tmp_path)
    assert (tmp_path / "step-00000006").exists()


def test_a_checkpoint_is_superseded_by_whole_ones_only(tmp_path: Path) -> None:
    first, second, third = (save(tmp_path, step) for step in (1, 2, 3))
    data = bytearray((second / "prior.safetensors").read_bytes())
    data[-1] ^= 1
    (second / "prior.safetensors").write_bytes(data)
    assert prune(tmp_path) == []
    assert prune(tmp_path, written=[third]) == []
    fourth = save(tmp_path, 4)
    assert prune(tmp_path, written=[third, fourth]) == [second, first]


def test_what_was_written_here_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [save(tmp_path, step) for step in (1, 2, 3)]
    monkeypatch.setattr(manifest, "hash_file", lambda path: pytest.fail(f"{path} is read"))
    assert prune(tmp_path, written=paths) == paths[:1]


def test_what_cannot_be_removed_is_one_warning(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    with failing_at(1, disk_full), pytest.warns(UserWarning, match=r"step-00000001: cannot be removed \(No space left"):
        assert prune(tmp_path) == []
    assert [checkpoint.name for checkpoint in scan(tmp_path).valid] == [f"step-0000000{step}" for step in (3, 2, 1)]


def test_a_prune_cut_short_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 4):
        save(tmp_path, step)

    def stopped(folder: Path, **options: Any) -> None:
        (folder / "state.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path)
    assert scan(tmp_path).skipped == ()
    assert len(clean_temporary(tmp_path)) == 1


def test_hash_tensors() -> None:
    header = b'["w", "torch.float32", [2]]\n'
    expected = hashlib.sha256(header + struct.pack("<2f", 1.0, -2.0)).hexdigest()
    assert hash_tensors({"w": torch.tensor([1.0, -2.0])}) == expected
    a, b = torch.randn(3, 4).to(torch.bfloat16), torch.arange(4)
    base = hash_tensors({"a": a, "b": b})
    assert hash_tensors({"b": b, "a": a.T.contiguous().T}) == base
    bit = a.clone()
    bit.view(torch.int16)[0, 0] ^= 1
    others = [{"a": bit, "b": b}, {"a": a.reshape(4, 3), "b": b}, {"a": a, "c": b}, {"a": a, "b": b.int()}, {"a": a}]
    assert base not in [hash_tensors(other) for other in others]


# Run folders


def test_run_folder(tmp_path: Path) -> None:
    config = "name: ${oc.env:HOME}\n"
    with RunFolder.create(tmp_path / "a" / "run", config) as run:
        assert run.state() == RunState(status="new")
        run.begin(["codec", "prior"])
        run.log({"stage": "codec", "step": 1, "loss": 0.5})
        run.stage_done("codec")
        run.stage_done("codec")
    reader = RunFolder.open(tmp_path / "a" / "run")
    assert reader.config_text() == config
    assert reader.state() == RunState(status="running", stages=("codec", "prior"), done=("codec",))
    assert list(reader.metrics()) == [{"stage": "codec", "step": 1, "loss": 0.5}]
    with RunFolder.create(run.path, "name: other\n", resume=True) as run:
        assert run.config_text() == config
        run.write_config("name: other\n")
        run.finish()
    assert (reader.config_text(), reader.state().status) == ("name: other\n", "finished")
    assert not temporaries(run.path)


def test_run_folder_refuses(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", "").close()
    with pytest.raises(UserError, match="already holds a run; use --resume or another out="):
        RunFolder.create(tmp_path / "run", "")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(UserError, match=r"not empty and not a run folder \(it has thesis.tex\)"):
            RunFolder.create(tmp_path / "other", "", resume=resume)
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == ["thesis.tex"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").touch()
    with pytest.raises(UserError, match=r"not empty and not a run folder \(it has config.yaml\)"):
        RunFolder.create(tmp_path / "mine", "")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "file", "")
    with pytest.raises(UserError, match="cannot be used as a run folder: Not a directory"):
        RunFolder.create(tmp_path / "file" / "run", "")
    with pytest.raises(UserError, match=r"is not a run folder: it has no run\.json"):
        RunFolder.open(tmp_path / "other")
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: is damaged"):
        RunFolder.open(tmp_path / "run").state()


def test_a_start_that_was_killed_can_be_started_again(tmp_path: Path) -> None:
    n, count = 0, [0]
    while n <= count[0]:
        n += 1
        with failing_at(n, interrupt) as count, contextlib.suppress(KeyboardInterrupt):
            RunFolder.create(tmp_path / str(n), "name: x\n").close()
        assert (tmp_path / str(n) / "config.yaml").exists() or not is_run_folder(tmp_path / str(n))
        RunFolder.create(tmp_path / str(n), "name: x\n", resume=True).close()
        assert RunFolder.open(tmp_path / str(n)).config_text() == "name: x\n"
    assert n > 8


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", "")
    with pytest.raises(UserError, match=rf"another run is writing here \(process {os.getpid()}\)"):
        RunFolder.create(tmp_path / "run", "", resume=True)
    run.log({"step": 1})
    RunFolder.open(tmp_path / "run")
    run.close()
    RunFolder.create(tmp_path / "run", "", resume=True).close()


def test_metrics_are_truncated_to_the_checkpoint(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "") as run:
        run.begin(["codec", "prior"])
        for stage in ("codec", "prior"):
            for step in range(1, 5):
                run.log({"stage": stage, "step": step})
        run.log({"note": "kept"})
        run.truncate_metrics(after_step=2, stage="prior")
        assert [record.get("step") for record in run.metrics()] == [1, 2, 3, 4, 1, 2, None]
        run.log({"stage": "prior", "step": 3})
        run.truncate_metrics(after_step=3, stage="codec")
        assert list(run.metrics()) == [*({"stage": "codec", "step": step} for step in (1, 2, 3)), {"note": "kept"}]


def test_a_torn_line_spoils_no_other(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "") as run:
        run.log({"step": 1})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2, "lo')
    with RunFolder.create(run.path, "", resume=True) as run:
        run.log({"step": 2})
        run.log({"step": 3})
    assert [record["step"] for record in run.metrics()] == [1, 2, 3]


def test_a_lock_that_is_shared_names_no_run_that_is_gone(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", ""):
        pass
    (tmp_path / "run" / "lock").write_text("999999999")
    with undisturbed(tmp_path / "run") as quiet:
        assert quiet
        line = "run: another colatent is looking at this run, or cleaning it; try again when it has ended"
        with pytest.raises(UserError, match=f"{line}$"):
            RunFolder.create(tmp_path / "run", "", resume=True)
    with RunFolder.create(tmp_path / "run", "", resume=True):
        pass


def test_metrics_on_a_full_disk(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "") as run:
        (run.path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written: No space left on device"):
            run.log({"step": 1})


def test_metrics_that_are_not_finite_are_strict_json(tmp_path: Path) -> None:
    """Lines of an older colatent, which are not, are read as well, and mended where they are written again."""
    record = {"stage": "prior", "step": 1, "loss": math.inf, "eval": {"text/flow": -math.inf, "a": 1.5}}
    path = tmp_path / "run" / "metrics.jsonl"
    with RunFolder.create(tmp_path / "run", "") as run:
        run.log(record)
        with open(path, "a") as file:
            file.write('{"step": 2, "loss": NaN, "grad_norm": Infinity}\n')
        for _ in range(2):
            first, second = run.metrics()
            assert first == record
            assert math.isnan(second["loss"])
            assert second["grad_norm"] == math.inf
            run.truncate_metrics(after_step=9, stage="prior")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert lines[0] == record | {"loss": "Infinity", "eval": {"text/flow": "-Infinity", "a": 1.5}}
    assert lines[1] == {"step": 2, "loss": "NaN", "grad_norm": "Infinity"}


def test_atomic_write_on_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    atomic_write_text(path, "old")
    for n in range(1, 5):
        with failing_at(n, disk_full), pytest.raises(UserError, match=r"run\.json: cannot be written: No space"):
            atomic_write_text(path, "new")
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_on_a_disk_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", read_only)
    with failing_at(1, read_only), pytest.raises(UserError, match=r"run\.json: cannot be written: Read-only"):
        atomic_write_text(tmp_path / "run.json", "new")


# From a path to a checkpoint


def test_resolve_model(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", "") as run:
        run.begin(["codec", "prior"])
        with pytest.raises(UserError, match="this run has no checkpoint yet; train on with --resume"):
            resolve_model(run.path)
        codec = save(run.checkpoints("codec"), 9)
        assert resolve_model(run.path).path == codec
        first, second = save(run.checkpoints("prior"), 1), save(run.checkpoints("prior"), 2)
        assert resolve_model(str(run.path)).path == second
        assert resolve_model(run.checkpoints("codec")).path == codec
        assert resolve_model(first).path == first
        assert resolve_model(first.rename(tmp_path / "model")).step == 1
        truncate(second / "state.json")
        with pytest.raises(UserError, match=r"no valid checkpoint, the newest one is not: .*state\.json"):
            resolve_model(run.path)
    with pytest.raises(UserError, match="does not exist"):
        resolve_model(tmp_path / "missing")
    for path in (run.path / "samples", run.path / "run.json"):
        with pytest.raises(UserError, match="is neither a run nor a checkpoint"):
            resolve_model(path)


# The room


def test_no_pickle_and_no_arrow_upward() -> None:
    allowed = ("colatent.checkpoint", "colatent.errors", "colatent.jsons", "colatent.config", "colatent.plugins")
    for path in Path(package.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr not in {"load", "save"}, path
        assert not {"pickle", "shelve", "marshal", "dill", "joblib"} & {name.split(".")[0] for name in names}, path
        assert all(name.startswith(allowed) for name in names if name.startswith("colatent")), path
