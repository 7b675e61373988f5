"""Files that last: checkpoints, run folders, and what a path given by a user means."""

from colatent.checkpoint.folder import Checkpoint, Scan, Skipped, newest, read_checkpoint, scan
from colatent.checkpoint.manifest import FORMAT, FileRecord, Manifest
from colatent.checkpoint.resolve import resolve_model
from colatent.checkpoint.run import RunFolder, RunState, is_run_folder
from colatent.checkpoint.storage import atomic_write_bytes, atomic_write_text
from colatent.checkpoint.tensors import hash_tensors
from colatent.checkpoint.write import clean_temporary, prune, step_folder, write_checkpoint

__all__ = [
    "FORMAT",
    "Checkpoint",
    "FileRecord",
    "Manifest",
    "RunFolder",
    "RunState",
    "Scan",
    "Skipped",
    "atomic_write_bytes",
    "atomic_write_text",
    "clean_temporary",
    "hash_tensors",
    "is_run_folder",
    "newest",
    "prune",
    "read_checkpoint",
    "resolve_model",
    "scan",
    "step_folder",
    "write_checkpoint",
]
