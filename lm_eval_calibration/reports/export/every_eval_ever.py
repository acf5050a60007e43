"""Every Eval Ever's record of an evaluation: https://github.com/evaleval/every_eval_ever, schema 0.3.0."""

import math
import time
from collections.abc import Iterable
from typing import Any

from lm_eval_calibration import __version__
from lm_eval_calibration.records import DEFINITION_VERSION
from lm_eval_calibration.reports.values import Value
from lm_eval_calibration.results import Run
from lm_eval_calibration.results.columns import metric_of
from lm_eval_calibration.results.identity import date_of

SCHEMA_VERSION = "0.3.0"

RANGES: dict[str, tuple[float | str, float | str]] = {
    "brier_score": (0, 2),
    "full_ece": (0, 2),
    "full_ece_choices": (0, 2),
    "nll": (0, "Infinity"),
    "skill_score": ("-Infinity", 1),
}
"""Smallest and greatest possible values; all others lie from 0 to 1."""


def every_eval_ever(run: Run, found: Iterable[Value], name: str) -> dict[str, Any]:
    """Return the record.

    Metrics that are undefined are left out, and ``overconfidence``, which is best at 0: the schema knows lower and
    higher only. Who ran the evaluation, and whether the weights are open, no log says: it is "unknown".
    """
    versions = run.configuration.versions
    backend = str((run.certificates or [({}, 0)])[0][0].get("backend", "unknown"))
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": f"lm-eval-calibration/{name}/{date_of(run)}",
        "evaluation_timestamp": date_of(run),
        "retrieved_timestamp": str(int(time.time())),
        "source_metadata": {
            "source_name": "lm-eval-calibration",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "lm_eval",
            "version": versions.get("lm-eval", "unknown"),
            "additional_details": {"lm-eval-calibration": __version__, "definitions": str(DEFINITION_VERSION)},
        },
        "model_info": {
            "name": name,
            "id": name,
            "inference_engine": {"name": backend},
            "additional_details": {"deployment_type": "unknown", "model_availability": "unknown"},
        },
        "evaluation_results": [_result(run, value) for value in found if _is_known(value)],
    }


def _is_known(value: Value) -> bool:
    return metric_of(value.metric).higher_is_better is not None and math.isfinite(value.measured.value)


def _result(run: Run, value: Value) -> dict[str, Any]:
    low, high = RANGES.get(value.metric, (0, 1))
    metric = metric_of(value.metric)
    return {
        "evaluation_result_id": f"{value.scope}/{value.metric}",
        "evaluation_name": value.scope,
        "source_data": _source(run, value),
        "metric_config": {
            "metric_id": value.metric if value.metric == "auroc" else f"lm-eval-calibration.{value.metric}",
            "metric_name": value.metric,
            "metric_parameters": {"n_bins": run.n_bins} if metric.takes_n_bins else {},
            "lower_is_better": not metric.higher_is_better,
            "score_type": "continuous",
            "min_score": low,
            "max_score": high,
        },
        "score_details": {"score": value.measured.value, "uncertainty": _uncertainty(value)},
        "generation_config": {"additional_details": _details(run, value)},
    }


def _source(run: Run, value: Value) -> dict[str, Any]:
    path = run.configuration.dataset_of(value.tasks[0])[0]
    if len({run.configuration.dataset_of(task)[0] for task in value.tasks}) > 1 or path is None:
        return {"dataset_name": value.scope, "source_type": "other"}
    split = run.configuration.split_of(value.tasks[0])
    known = {} if split is None else {"hf_split": "val" if split.startswith("val") else split}
    source = {"dataset_name": value.scope, "source_type": "hf_dataset", "hf_repo": path, **known}
    return {**source, "samples_number": value.measured.n_docs}


def _uncertainty(value: Value) -> dict[str, Any]:
    m = value.measured
    found: dict[str, Any] = {"num_samples": m.n_docs}
    if math.isfinite(m.stderr):
        found["standard_error"] = {"value": m.stderr}
    if math.isfinite(m.low) and math.isfinite(m.high):
        found["confidence_interval"] = {"lower": m.low, "upper": m.high, "confidence_level": 0.95}
    return found


def _details(run: Run, value: Value) -> dict[str, str]:
    configuration = run.configuration
    details = {
        "num_fewshot": configuration.num_fewshot.get(value.tasks[0]),
        "task_version": configuration.task_versions.get(value.scope),
        "chat_template_sha256": configuration.chat_template,
    }
    return {key: str(detail) for key, detail in details.items() if detail is not None}
