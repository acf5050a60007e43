"""The options of a calibrated task: ``metadata: {calibration: {...}}`` in a YAML, or ``--metadata`` on the command."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from lm_eval_calibration.metrics import CATALOG
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.scoring import MAX_BINS

KEY = "calibration"


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
        given = {key: value for key, value in given.items() if key != "definition_version"}
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
            if not isinstance(name, str) or name not in CATALOG:
                raise TaskError(f"{place}.metrics has {name!r}; there are {', '.join(CATALOG)}")
        return cls(n_bins, tuple(names))

    def to_metadata(self) -> dict[str, Any]:
        """Return what results show under ``configs``."""
        return {"definition_version": DEFINITION_VERSION, **asdict(self), "metrics": list(self.metrics)}


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
