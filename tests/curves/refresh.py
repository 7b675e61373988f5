"""Trains example configs for some steps and stores their curves: python tests/curves/refresh.py [--out DIR] [NAME ...]

For a change that is meant to change numbers. The curves are of the machine that ran this last, named in each file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

# Before anything imports torch, which reads them once. Sums over several threads are of another order.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """The command."""
    from curves.cases import CASES
    from curves.recording import FOLDER, Recorder

    parser = argparse.ArgumentParser(description="Store the curves of example configs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; all where none is named")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where to store them")
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - CASES.keys()):
        parser.error(f"no curve is named {unknown[0]}; there are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder))
        for name in asked.names or CASES:
            start = time.process_time()
            text = json.dumps(recorder.record(name), indent=2) + "\n"
            (asked.out / f"{name}.json").write_text(text, encoding="utf-8")
            print(f"{name}: {time.process_time() - start:.1f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
