"""Processes of judged programs."""

from pathlib import Path

from lm_eval_calibration.code_judge.launching import LAUNCHER


def launchers() -> list[str]:
    """Command lines of judged programs that run: they are forks of the launcher."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(LAUNCHER) in line:
            found.append(line)
    return found
