"""The built wheel in an environment of its own, where nothing of the checkout is.

The environment is a real one with pip's own console script, but its dependencies are links into the packages that are
already here, since installing torch again takes minutes. Everything of this project's own is left out of the links: the
editable installation must not stand in for the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build_wheel(out: Path) -> Path:
    """The wheel, built from the source distribution, as an index would."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


def make_env(env: Path, wheel: Path) -> Path:
    """A virtual environment with the wheel in it."""
    run(sys.executable, "-m", "venv", "--without-pip", env)
    site = Path(run(env / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    _link_dependencies(Path(sysconfig.get_path("purelib")), site)
    install(env, wheel)
    return env


def install(env: Path, *what: Path) -> None:
    """Install wheels or source folders into an environment, offline; folders are built with what is in it."""
    pip = [sys.executable, "-m", "pip", "--python", env / "bin" / "python", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", *what)


def run(*command: object, cwd: Path | None = None) -> str:
    """What a command prints; it must succeed. No variable of Python's own reaches it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _link_dependencies(source: Path, target: Path) -> None:
    for path in source.iterdir():
        own = path.name.lower().startswith(("colatent", "_colatent"))
        if not own and path.suffix != ".pth" and path.name not in ("pip", "__pycache__"):
            (target / path.name).symlink_to(path)
