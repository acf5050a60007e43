"""A decision as a JSON file: what a service needs to act on it, and what a later run needs to check it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval_calibration.decisions.costs import Costs
from lm_eval_calibration.decisions.decide import ConfidenceCounts, Decision
from lm_eval_calibration.decisions.wanted import Wanted
from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.records.files import write_whole

FILE_VERSION = 1
"""Version of the file's form; others are refused."""


@dataclass(frozen=True)
class SavedDecision:
    """What is saved of a decision.

    Attributes:
        model: name of the model.
        tasks: whose docs were decided on.
        wanted: what was wanted.
        by: what groups are; None for one decision for all docs.
        thresholds: group ("" for all docs) to the confidence from which to answer; None for never.
        q: nonconformity score to group to the largest score of an option that is not ruled out; None for no limit.
        cost_threshold: confidence from which answering is cheapest; None where no costs were given, or for never.
        confidences: of the calibration docs.
        calibrated_on: digests of the calibration docs.
        largest_cluster: most docs of a cluster; 1 where docs were drawn one by one.
        calibrated_clusters: digests of the calibration docs' clusters.
    """

    model: str
    tasks: tuple[str, ...]
    wanted: Wanted
    by: str | None
    thresholds: Mapping[str, float | None]
    q: Mapping[str, Mapping[str, float | None]]
    cost_threshold: float | None
    confidences: ConfidenceCounts
    calibrated_on: frozenset[str]
    largest_cluster: int
    calibrated_clusters: frozenset[str] = frozenset()

    @classmethod
    def of(cls, decision: Decision, model: str, tasks: tuple[str, ...]) -> "SavedDecision":
        """Return what is saved of a decision."""
        q = {name: {group: _finite(value) for group, value in sets.q.items()} for name, sets in decision.sets.items()}
        cost = None if decision.cost is None else _finite(decision.cost.threshold)
        return cls(
            model,
            tasks,
            decision.wanted,
            decision.by,
            decision.thresholds,
            q,
            cost,
            decision.confidences,
            decision.calibrated_on,
            decision.largest_cluster,
            decision.calibrated_clusters,
        )

    def write(self, path: Path) -> None:
        """Write the file, and the folders above it."""
        costs = self.wanted.costs
        data = {
            "version": FILE_VERSION,
            "definitions": DEFINITION_VERSION,
            "model": self.model,
            "tasks": list(self.tasks),
            "error_rate": self.wanted.error_rate,
            "confidence_level": self.wanted.confidence_level,
            "by": self.by,
            "thresholds": dict(self.thresholds),
            "prediction_sets": self.q,
            "costs": None if costs is None else {**costs._asdict(), "threshold": self.cost_threshold},
            "confidence_bins": self.confidences._asdict(),
            "largest_cluster": self.largest_cluster,
            "calibrated_on": sorted(self.calibrated_on),
            "calibrated_clusters": sorted(self.calibrated_clusters),
        }
        write_whole(path, json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "SavedDecision":
        """Read the file; raise UserError naming it where it is none of ours or of another version."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return cls._from_dict(data if isinstance(data, dict) else {})
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {error}") from error
        except (KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is not a decision: {error!r}") from error

    @classmethod
    def _from_dict(cls, data: dict[str, Any]) -> "SavedDecision":
        if data.get("version") != FILE_VERSION or "thresholds" not in data:
            raise ValueError(f"this is not a decision of version {FILE_VERSION}")
        if data.get("definitions") != DEFINITION_VERSION:
            raise ValueError(f"definition version {data.get('definitions')!r} is not {DEFINITION_VERSION}")
        costs, bins = data["costs"], data["confidence_bins"]
        wanted = Wanted(
            data["error_rate"],
            data["confidence_level"],
            None if costs is None else Costs(costs["wrong"], costs["abstain"]),
        ).check()
        return cls(
            str(data["model"]),
            tuple(data["tasks"]),
            wanted,
            data["by"],
            {name: _threshold(name, value) for name, value in data["thresholds"].items()},
            {score: dict(groups) for score, groups in data["prediction_sets"].items()},
            None if costs is None else costs["threshold"],
            ConfidenceCounts(tuple(map(float, bins["edges"])), tuple(map(int, bins["counts"]))),
            frozenset(map(str, data["calibrated_on"])),
            int(data["largest_cluster"]),
            frozenset(map(str, data.get("calibrated_clusters", ()))),
        )

    def check_made_for(self, model: str, tasks: Sequence[str]) -> tuple[str, ...]:
        """Return the tasks that were decided on and are not among these.

        Raises:
            ValueError: another model, or a task that was not decided on.
        """
        if model != self.model:
            raise ValueError(
                f"the decision was made for {self.model}, these results are of {model}: what was promised of one model "
                'says nothing of another; if both are the same model, change "model" in the file'
            )
        if others := [task for task in tasks if task not in self.tasks]:
            raise ValueError(
                f"the decision was made on {', '.join(self.tasks)}, not on {', '.join(others)}: "
                "leave these results out, or decide anew"
            )
        return tuple(task for task in self.tasks if task not in tasks)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _threshold(name: str, value: Any) -> float | None:
    if value is not None and not (isinstance(value, float | int) and 0 <= value <= 1):
        raise ValueError(f"the threshold of {name!r} is {value!r}, not a confidence")
    return None if value is None else float(value)
