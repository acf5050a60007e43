"""The options of a calibrated task: ``metadata: {calibration: {...}}`` in a YAML, or ``--metadata`` on the command."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from typing import Any, Self

from lm_eval_calibration import __version__
from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.scoring import MAX_BINS

KEY = "calibration"

_STATED = ("definition_version", "version")
"""What results state beside the options; a configuration taken from results may hold it."""


class TaskError(ValueError):
    """A task, its data or its options can't be used; the message says which and what to do."""


@dataclass(frozen=True)
class Options:
    """What a user may set.

    Attributes:
        n_bins: bins of all binned metrics, 1 to 100.
        metrics: extended metrics wanted beside the core ones, by name.
    """

    n_bins: int = 10
    metrics: tuple[str, ...] = ()

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], task: str) -> Self:
        """Read and check the options of a task."""
        given = metadata.get(KEY) or {}
        place = f"{task}: metadata.{KEY}"
        if not isinstance(given, Mapping):
            raise TaskError(f"{place} is {given!r}, not a mapping like {{n_bins: 15}}")
        # A resolved configuration (from a result's `configs`) can be given back as it is.
        given = {key: value for key, value in given.items() if key not in _STATED}
        known = [f.name for f in fields(cls)]
        if unknown := [key for key in given if key not in known]:
            raise TaskError(f"{place} has no option {unknown[0]!r}; there are {', '.join(known)}")
        n_bins, names = given.get("n_bins", 10), given.get("metrics", ())
        if isinstance(n_bins, bool) or not isinstance(n_bins, int) or not 1 <= n_bins <= MAX_BINS:
            raise TaskError(f"{place}.n_bins is {n_bins!r}, not a whole number from 1 to {MAX_BINS}")
        names = (names,) if isinstance(names, str) else names
        if not isinstance(names, list | tuple):
            raise TaskError(f"{place}.metrics is {names!r}, not a list of names")
        for name in names:
            check_metric(name, f"{place}.metrics")
        return cls(n_bins, tuple(names))

    def to_metadata(self) -> dict[str, Any]:
        """Return what results show under ``configs``."""
        stated = dict(zip(_STATED, (DEFINITION_VERSION, __version__), strict=True))
        return {**stated, **asdict(self), "metrics": list(self.metrics)}


def check_metric(name: Any, place: str) -> None:
    """Raise TaskError if there is no metric of this name of ours, or the package that it needs is missing."""
    if not isinstance(name, str) or name not in CATALOG:
        near = difflib.get_close_matches(str(name), CATALOG, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise TaskError(f"{place} has {name!r}{hint}; there are {', '.join(CATALOG)}")
    if name == "smece" and find_spec("relplot") is None:
        raise TaskError(f"{place} has smece, which needs: pip install 'lm-eval-calibration[smece]'")


def merged(*metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merge metadata, later ones winning; our own options are merged key by key."""
    result: dict[str, Any] = {}
    for part in metadata:
        ours = {**(result.get(KEY) or {}), **((part or {}).get(KEY) or {})} if _is_mapping(part) else None
        result |= part or {}
        if ours:
            result[KEY] = ours
    return result


def _is_mapping(metadata: Mapping[str, Any] | None) -> bool:
    return isinstance((metadata or {}).get(KEY, {}), Mapping)
