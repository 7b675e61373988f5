"""Runs of two processes on this machine: started once for several runs, since starting takes longer than training.

As a program it is one of the two, with the environment that torchrun gives it. What each run ended with is left beside
the runs: "" where it ended well, an exit status, or the one line of a mistake.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from colatent.config import load
from colatent.errors import UserError
from colatent.plugins import Candidate, load_plugins
from colatent.train.interrupts import Interrupted
from colatent.train.progress import Reporter
from colatent.train.run import train
from plugins_for_tests import grid, grid_codec
from plugins_for_tests.stops import StopsAt

PROCESSES = 2
_CLEAN, _GRID = grid.Captions.sample, grid_codec.GridCodec


class StillGrid(grid_codec.GridCodec):
    """The same codec, which nothing trains."""

    losses = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One run of both.

    tree, out  its config and its folder
    more       overrides of each rank's config
    resume     whether it goes on
    stop       (rank, stage, step) after which that rank alone gets SIGTERM
    poison     the sample whose picture is no number to the second rank
    frozen     whether pictures have a codec that cannot be trained
    version    of the plugin, at each rank
    at         the folder that each rank is started in
    """

    tree: Mapping[str, Any]
    out: Path
    more: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    resume: bool = False
    stop: tuple[int, str, int] | None = None
    poison: int | None = None
    frozen: bool = False
    version: tuple[str, str] = ("1", "1")
    at: tuple[str, str] = (".", ".")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What each rank ended with, and what it said."""

    ends: list[str]
    said: list[str] = field(default_factory=list)


def both(asked: Sequence[Asked], folder: Path) -> list[Ended]:
    """Run these one after the other, each on both ranks."""
    for number, one in enumerate(asked):
        (folder / f"{number}.yaml").write_text(yaml.safe_dump(dict(one.tree), sort_keys=False))
    plain = [{key: value for key, value in vars(one).items() if key != "tree"} for one in asked]
    rest = [{**one, "out": str(one["out"]), "at": [str(Path(at).absolute()) for at in one["at"]]} for one in plain]
    (folder / "asked.json").write_text(json.dumps(rest))
    roots = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    places = {
        "PYTHONPATH": roots,
        "MASTER_ADDR": "localhost",
        "WORLD_SIZE": str(PROCESSES),
        "PORTS": json.dumps(free_ports(len(asked))),
    }
    command = [sys.executable, "-m", "plugins_for_tests.ranks", str(folder)]
    each = [
        subprocess.Popen(
            command,
            env={**os.environ, **places, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(PROCESSES)
    ]
    try:
        said = [process.communicate(timeout=900)[0] for process in each]
    finally:
        for process in each:
            process.kill()
    assert [process.returncode for process in each] == [0] * PROCESSES, "\n".join(said)
    ends = [json.loads((folder / f"ended-{rank}.json").read_text()) for rank in range(PROCESSES)]
    return [Ended(ends=list(some), said=said) for some in zip(*ends, strict=True)]


def torchrun(*command: str) -> subprocess.Popen[str]:
    """`colatent` with these arguments in two processes, by torch's launcher; what they print comes in one piece."""
    launcher = [sys.executable, "-m", "torch.distributed.run", f"--master-port={free_ports(1)[0]}"]
    return subprocess.Popen(
        [*launcher, f"--nproc-per-node={PROCESSES}", "-m", "colatent", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _main(folder: Path) -> None:
    rank, ports, ended = int(os.environ["RANK"]), json.loads(os.environ["PORTS"]), []
    for number, one in enumerate(json.loads((folder / "asked.json").read_text())):
        os.environ["MASTER_PORT"] = str(ports[number])
        ended.append(_run(folder / f"{number}.yaml", rank, Asked(tree={}, **one)))
    (folder / f"ended-{rank}.json").write_text(json.dumps(ended))


def _run(config: Path, rank: int, asked: Asked) -> str:
    text = Candidate(name="text", distribution="colatent", version="0", target="colatent_text.plugin")
    pictures = Candidate(name="grid", distribution="grids", version=asked.version[rank], target=grid.HERE)
    grid.Captions.sample = _poisoned(asked.poison if rank else None)  # type: ignore[method-assign]
    grid_codec.GridCodec = StillGrid if asked.frozen else _GRID  # type: ignore[misc]
    reporter = Reporter(quiet=True)
    if asked.stop and asked.stop[0] == rank:
        reporter = StopsAt(asked.stop[1], asked.stop[2], signal.SIGTERM)
    os.chdir(asked.at[rank])
    loaded = load(config, [f"out={asked.out}", *asked.more[rank]])
    try:
        train(loaded, resume=asked.resume, plugins=load_plugins([text, pictures]), reporter=reporter)
    except UserError as error:
        return str(error)
    except Interrupted as stopped:
        return str(stopped.code)
    return ""


def _poisoned(poison: int | None) -> Any:
    def sample(self: Any, index: int, rng: np.random.Generator) -> Any:
        found = _CLEAN(self, index, rng)
        return {**found, "grid": found["grid"] * np.float32("nan")} if index == poison else found

    return sample


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
