"""How reliable a run is, in numbers: `python tests/measure_reliability.py --json reliability.json`.

Runs are killed at moments drawn over their wall time, and resumed; faults are put into others and into what they left.
Prints what was being done at the kills, what was lost, how many faults of which kind were survived, how many changed
configs were refused, and how many changed shards were tried. Ends with status 1 as soon as a run is lost or ends
otherwise than the one that nothing stopped, or a config or a shard breaks the program.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data import test_mutations as mutations
from reliability import faults
from reliability.bad_configs import EXAMPLES, try_configs
from reliability.killing import Kill, Killer, LostRunError
from reliability.watched import PHASES, SAVING


def measure(folder: Path, *, kills: int, aimed: int, cold: int, seed: int) -> dict[str, Any]:
    """Kill runs in `folder`; the facts, with each kill."""
    killer, found = Killer(folder, seed=seed), []
    share = f"{killer.share:.0%} of it in saves"
    seconds = {start: f"{killer.seconds[start]:.1f} s" for start in killer.seconds}
    print(f"a run takes {seconds['warm']}, {share}; {seconds['cold']} from a cold start", flush=True)
    for kill in killer.kills(kills, aimed=aimed, cold=cold):
        found.append(kill)
        print(f"\r{len(found)} of {kills + aimed} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "seconds": killer.seconds,
        "share_of_saves": killer.share,
        "runs_ended_alike": killer.ended,
        "by_phase": {phase: summary([kill for kill in found if kill.phase == phase]) for phase in PHASES},
        "kills": [asdict(kill) for kill in found],
    }


def summary(kills: Sequence[Kill]) -> dict[str, int]:
    """What is to be told of these kills."""
    return {
        "uniform": sum(not kill.aimed for kill in kills),
        "aimed": sum(kill.aimed for kill in kills),
        "half_written": sum(kill.torn for kill in kills),
        "lost_steps": sum(kill.lost for kill in kills),
        "most_lost_steps": max((kill.lost for kill in kills), default=0),
    }


def try_shards(folder: Path) -> dict[str, int]:
    """What is tried on shards, and how often; an `AssertionError` where any of it did not hold."""
    tests = {
        "packed shards": (mutations.test_packed_samples_are_whole_or_replaced_and_never_fewer, mutations.TRIES),
        "shards without index": (
            mutations.test_archives_without_an_index_are_read_or_refused_and_never_silently_fewer,
            mutations.TRIES,
        ),
        "indices of shards": (mutations.test_an_index_holds_or_is_refused, mutations.TRIES),
        "noise as a shard": (mutations.test_noise_is_no_archive, mutations.NOISE),
    }
    for name, (test, _) in tests.items():
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True)
        test(place)
    return {name: count for name, (_, count) in tests.items()}


def table(by_phase: dict[str, dict[str, int]]) -> str:
    """The summaries as lines."""
    rows = [["phase", "uniform", "aimed", "half written", "steps lost", "at most"]]
    rows += [[phase, *map(str, facts.values())] for phase, facts in by_phase.items()]
    return "\n".join(f"{row[0]:<22}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at moments uniform in wall time")
    parser.add_argument("--cold", type=int, default=10, help="how many of them begin with an import of everything")
    parser.add_argument("--aimed", type=int, default=10, help="more of them, each aimed at a save")
    parser.add_argument("--faults", type=int, default=20, help="moments at which a disk fails, of either sort; 0: none")
    parser.add_argument("--configs", type=int, default=600, help="configs that something happened to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for all facts")
    given = parser.parse_args()
    warnings.simplefilter("ignore")  # each first start says that there is nothing to resume
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        try:
            facts = measure(Path(folder), kills=given.kills, aimed=given.aimed, cold=given.cold, seed=given.seed)
            print(table(facts["by_phase"]))
            inside = facts["by_phase"][SAVING]
            print(f"{inside['uniform']} of {given.kills} uniform kills and {inside['aimed']} aimed ones inside a save")
            print(f"{facts['runs_ended_alike']} runs, all to the bit like the one that nothing stopped", flush=True)
            if given.faults:
                facts["faults"] = faults.put_in_all(Path(folder) / "faults", tries=given.faults, seed=given.seed)
                print("\n".join(f"{name:<24}{count:>6}" for name, count in facts["faults"].items()))
            if given.configs:
                facts["configs"] = try_configs(Path(folder), EXAMPLES, count=given.configs)
                print("\n".join(f"{name:<24}{count:>6}" for name, count in facts["configs"].items()))
            facts["shards"] = try_shards(Path(folder) / "shards")
            print("\n".join(f"{name:<24}{count:>6}" for name, count in facts["shards"].items()))
        except (LostRunError, AssertionError) as error:
            print(f"LOST: {error}", file=sys.stderr)
            return 1
    if given.json:
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
