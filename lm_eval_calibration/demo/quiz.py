"""The quiz: our own questions as tasks of the harness."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from typing import Any

from lm_eval.api.group import Group

from lm_eval_calibration.metrics import CORE
from lm_eval_calibration.records import jsonl
from lm_eval_calibration.tasks import CalibratedTask

PARTS = {"general": "general knowledge", "medicine": "medicine", "code": "code"}


def load_quiz(part: str, **_: Any) -> Mapping[str, Any]:
    """Return a part's questions as the harness's ``custom_dataset`` wants them: splits of rows."""
    from datasets import Dataset

    with as_file(files(__package__) / "quiz" / f"{part}.jsonl") as path:
        return {"test": Dataset.from_list(list(jsonl.read(path)))}


def quiz_group(n_bins: int = 10) -> Group:
    """Return the quiz: a task for each part in a group that pools them."""
    group = Group.from_config(
        {
            "group": "quiz_calibration",
            "aggregate_metric_list": [{"metric": metric} for metric in ("acc", *CORE)],
            "metadata": {"version": 1},
        }
    )
    for part in PARTS:
        group.add(_task(part, n_bins))
    return group


def _task(part: str, n_bins: int) -> Any:
    return CalibratedTask(
        {
            "task": f"quiz_{part}_calibration",
            "custom_dataset": load_quiz,
            "dataset_kwargs": {"part": part},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [{"metric": metric} for metric in ("acc", *CORE)],
            "metadata": {"version": 1, "calibration": {"n_bins": n_bins}},
        }
    )
