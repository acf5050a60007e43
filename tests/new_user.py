"""What a new user does: a fresh clone, a fresh virtual environment, the README's two commands, with times.

    python tests/new_user.py [--torch torch==2.13.0] [--folder FOLDER]

Not a test that pytest runs: it installs from the package registry. torch is installed first, and timed by itself.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LIMIT = 120.0
"""Seconds for the README's two commands, where torch is there."""


def timed(what: str, command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Run a command, print its time and the lines that it showed before its table; return the seconds."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{what} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    print(f"{seconds:7.1f} s  {what}", flush=True)
    if "|" in done.stdout:
        before = done.stderr.split("Next: ")[0].split("Warnings")[0] + done.stdout.split("|")[0]
        print(f"           {len(before.strip().splitlines())} lines before the table")
        print("\n".join(f"           {line}" for line in done.stdout.splitlines()[:8]))
    return seconds


def main() -> None:
    """Do it, and fail where it takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="torch", help="requirement of the torch that is there already")
    parser.add_argument("--folder", type=Path, default=None, help="kept; by default a temporary one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        clone, venv = folder / "clone", folder / "venv"
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "HF_HUB_OFFLINE")}
        environment = kept | {
            "PATH": f"{venv / 'bin'}{os.pathsep}{kept['PATH']}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "HF_HOME": str(folder / "hub"),
        }
        timed("git clone", ["git", "clone", "-q", str(REPOSITORY), str(clone)], Path.cwd(), environment)
        timed("python -m venv", [sys.executable, "-m", "venv", str(venv)], clone, environment)
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q"]
        timed(f"pip install {given.torch}", [*pip, given.torch], clone, environment)
        install = timed("pip install -e '.[demo]'", [*pip, "-e", ".[demo]"], clone, environment)
        demo = timed(
            "lm-eval-calibration demo", [str(venv / "bin" / "lm-eval-calibration"), "demo"], clone, environment
        )
        print(f"{install + demo:7.1f} s  the README's two commands")
        if install + demo > LIMIT:
            sys.exit(f"more than {LIMIT:.0f} s")


if __name__ == "__main__":
    main()
