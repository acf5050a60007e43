"""Versions of the packages that a number depends on."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def versions(*packages: str) -> dict[str, str]:
    """Return the installed version of ours and of each named package."""
    return {package: _version(package) for package in ("lm-eval-calibration", *packages)}
