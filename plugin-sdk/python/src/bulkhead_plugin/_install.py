"""The build's tools, in an environment of the plugin's own: `.venv`, filled from `requirements.txt`."""

import os
import subprocess
import sys
from pathlib import Path

from ._build import COMPONENTIZE_PY, PACKAGE, BuildError

VENV = Path(".venv")
REQUIREMENTS = Path("requirements.txt")


def interpreter() -> Path:
    """The environment's Python; the environment is made and filled first if it is not as the requirements say."""
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = REQUIREMENTS.read_text() if REQUIREMENTS.is_file() else f"componentize-py=={COMPONENTIZE_PY}\n"
    # Written last: with it the environment is whole, and it says what is in there.
    stamp = VENV / "requirements.txt"
    if not (python.exists() and stamp.is_file() and stamp.read_text() == wanted):
        print(f"filling {VENV} from {REQUIREMENTS}: about 17 MB to download, once for this plugin", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(VENV)])
        asked = VENV / "asked.txt"
        asked.write_text(wanted)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--requirement", str(asked)])
        asked.replace(stamp)
    return python


def start_again(python: Path, arguments: list[str]) -> int:
    """Runs this command in the environment."""
    command = [str(python), "-m", "bulkhead_plugin", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)}).returncode


def _run(command: list[str]) -> None:
    if subprocess.run(command).returncode != 0:
        raise BuildError(f"`{' '.join(command)}` failed; the environment in {VENV} is not complete")
