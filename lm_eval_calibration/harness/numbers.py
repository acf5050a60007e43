"""The records' numbers in Parquet, beside the samples that the harness saves: what every command reads first."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from lm_eval.loggers import evaluation_tracker

from lm_eval_calibration.errors import OutputError
from lm_eval_calibration.records import RECORD_KEY
from lm_eval_calibration.records.jsonl import JsonLines, read
from lm_eval_calibration.records.parquet import NoParquetFormError, parquet_of, write_parquet
from lm_eval_calibration.records.reading import read_batches


def with_numbers(save_results_samples: Callable[..., None]) -> Callable[..., None]:
    """Write ``samples_*.parquet`` where the harness has saved samples with our records.

    What can't be written is logged, as the harness logs what it can't.
    """

    @wraps(save_results_samples)
    def patched(tracker: Any, task_name: str, samples: Any) -> None:
        save_results_samples(tracker, task_name, samples)
        path = samples_file(tracker, task_name)
        if path is None or RECORD_KEY not in next(read(path), {}):
            return
        try:
            write_parquet(parquet_of(path), read_batches(JsonLines(path), with_names=True), path)
        except NoParquetFormError:
            pass
        except (OutputError, ValueError) as error:
            evaluation_tracker.eval_logger.warning("Could not save numbers")
            evaluation_tracker.eval_logger.info(repr(error))

    return patched


def samples_file(tracker: Any, task_name: str) -> Path | None:
    """Return the file of samples that one of the harness's ``EvaluationTracker`` has written; None where none is."""
    folder = folder_of(tracker)
    file = None if folder is None else folder / f"samples_{task_name}_{tracker.date_id}.jsonl"
    return file if file is not None and file.is_file() else None


def results_file(tracker: Any) -> Path | None:
    """Return the file of results that one of them has written; None where none is."""
    folder, time = folder_of(tracker), getattr(tracker, "date_id", None)
    if folder is None or time is None:
        return None
    path = Path(tracker.output_path)
    file = folder / (f"{path.stem}_{time}.json" if path.suffix == ".json" else f"results_{time}.json")
    return file if file.is_file() else None


def folder_of(tracker: Any) -> Path | None:
    """Return the folder that one of them writes to; None where it writes nothing."""
    if getattr(tracker, "output_path", None) is None:
        return None
    path = Path(tracker.output_path)
    return path.parent if path.suffix == ".json" else path / str(tracker.general_config_tracker.model_name_sanitized)
