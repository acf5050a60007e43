"""A fitted map as a JSON file: what it maps, how, and digests of the docs it must not be tested on."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.recalibration import MapByGroup
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.records.files import write_whole

FILE_VERSION = 1
"""Version of the file's form; others are refused."""


@dataclass(frozen=True)
class SavedMap:
    """What is saved.

    Attributes:
        map: the map, one for each group.
        by: what the groups are; None where there is one for all.
        error_rate: error rate wanted of the answers given; None where no threshold was requested.
        threshold: confidence from which to answer; None also where no threshold reaches the error rate.
    """

    map: MapByGroup
    by: str | None = None
    error_rate: float | None = None
    threshold: float | None = None

    def write(self, path: Path) -> None:
        """Write the file whole, and the folders above it; raise OutputError naming it where it can't be written."""
        data = {"version": FILE_VERSION, "definitions": DEFINITION_VERSION, **asdict(self), "map": self.map.to_dict()}
        write_whole(path, json.dumps(data, indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "SavedMap":
        """Read the file; raise UserError naming it where it is none of ours or of another version."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls._from_dict(data if isinstance(data, dict) else {})
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> "SavedMap":
        if data.get("version") != FILE_VERSION:
            raise ValueError(f"version {data.get('version')!r} of the map file is not {FILE_VERSION}")
        if data.get("definitions") != DEFINITION_VERSION:
            raise ValueError(f"definition version {data.get('definitions')!r} is not {DEFINITION_VERSION}")
        fitted = MapByGroup.from_dict(data.get("map") or {})
        return cls(fitted, *(data.get(name) for name in ("by", "error_rate", "threshold")))
