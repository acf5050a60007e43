"""Results without the texts of docs, prompts and answers: ids, hashes and numbers alone.

They are taken out of what ``simple_evaluate`` returns, before any file, hub, W&B or Trackio sees it. A hash is no
text, but who has a doc can tell by its hash that it was asked, and can guess a gold label of few possible values.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any

from lm_eval_calibration.errors import UserError
from lm_eval_calibration.records import RECORD_KEY

HARNESS_FIELDS = ("doc", "target", "arguments", "resps", "filtered_resps")
"""What the harness writes of a doc, and expects to find: it stays, without a text."""

_IDS = ("doc_id", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash", RECORD_KEY)

_CONFIG = (
    *("task", "dataset_path", "dataset_name", "training_split", "validation_split", "test_split", "fewshot_split"),
    *("output_type", "num_fewshot", "repeats", "unsafe_code", "should_decontaminate", "metadata"),
)

KEEP_TEXTS = ("write_out", "use_cache", "cache_requests", "show_config")
"""Options of the harness that print or keep texts, as its configuration calls them."""

_METADATA = ("version", "definition_version", "cluster", "metrics", "filter", "correct")
"""Texts in a task's metadata that are names, and stay."""


def refuse_keeping_texts(config: Any) -> None:
    """Raise UserError where the harness's configuration of a run prints or keeps texts, however it was set."""
    for name in KEEP_TEXTS:
        if getattr(config, name, None):
            raise UserError(f"--{name} prints or keeps texts of docs, which --redact leaves out: run without it")


def redacting(simple_evaluate: Callable[..., Any], keep: Collection[str] = ()) -> Callable[..., Any]:
    """Return the harness's ``simple_evaluate`` with results that hold no text of docs, prompts or answers.

    Fields of docs that are named in ``keep`` stay.
    """

    @wraps(simple_evaluate)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        results = simple_evaluate(*args, **kwargs)
        if (tracker := kwargs.get("evaluation_tracker")) is not None:
            tracker.general_config_tracker.system_instruction = None  # its hash stays
        return results if results is None else redacted_results(results, keep)

    return evaluate


def redacted_results(results: Mapping[str, Any], keep: Collection[str] = ()) -> dict[str, Any]:
    """Return the results with redacted samples, and with what names a task of its configuration."""
    redacted = dict(results)
    if "samples" in results:
        samples = {task: [redacted_sample(s, keep) for s in some] for task, some in results["samples"].items()}
        rename_clusters(samples)
        redacted["samples"] = samples
    redacted["configs"] = {task: _redacted_config(config) for task, config in results["configs"].items()}
    if "system_instruction" in redacted:
        redacted["system_instruction"] = None
    return redacted


def _redacted_config(config: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: config[key] for key in _CONFIG if key in config}
    if kept.get("metadata"):
        kept["metadata"] = _names_and_numbers(kept["metadata"])
    return kept


def _names_and_numbers(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata without the texts that may be parts of prompts."""
    return {
        key: _names_and_numbers(value) if isinstance(value, Mapping) else value
        for key, value in metadata.items()
        if key in _METADATA or not _holds_text(value) or isinstance(value, Mapping)
    }


def _holds_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list | tuple) and any(map(_holds_text, value)))


def rename_clusters(samples: Mapping[str, list[dict[str, Any]]]) -> None:
    """Give clusters ids that say nothing but which docs of the run have the same, in place.

    A hash of the field's value would tell a name to whoever tries names. The id is a hash of the cluster's number, in
    the order of docs, and of the clusters of all docs: runs on the same docs have the same ids, others have others.
    """
    records = [sample[RECORD_KEY] for task in sorted(samples) for sample in samples[task] if RECORD_KEY in sample]
    docs = [(str(record.get("task")), record.get("doc_id") or 0, str(record.get("doc_hash"))) for record in records]
    order = sorted(range(len(records)), key=docs.__getitem__)
    numbers: dict[str, int] = {}
    for i in order:
        if (cluster := records[i].get("cluster")) is not None:
            numbers.setdefault(cluster, len(numbers) + 1)
    pattern = [(*docs[i], numbers.get(records[i].get("cluster"))) for i in order]
    key = hashlib.sha256(repr(pattern).encode()).hexdigest()
    for record in records:
        if (cluster := record.get("cluster")) is not None:
            record["cluster"] = hashlib.sha256(f"{key} {numbers[cluster]}".encode()).hexdigest()[:16]


def redacted_sample(sample: Mapping[str, Any], keep: Collection[str] = ()) -> dict[str, Any]:
    """Return a line of the samples with ids, hashes, the record, and the numbers under the metrics' names.

    Of the doc its fields that are to be kept, as far as it has them; None where there are none.
    """
    kept = {key: sample[key] for key in _IDS if key in sample}
    if RECORD_KEY in kept:
        kept[RECORD_KEY] = dict(kept[RECORD_KEY])  # several filters log one
    numbers = {key: numbers_of(value) for key, value in sample.items() if key not in (*_IDS, *HARNESS_FIELDS)}
    numbers = {key: value for key, value in numbers.items() if value is not None}
    responses = {key: numbers_of(list(sample.get(key, ()))) for key in ("resps", "filtered_resps")}
    doc = sample.get("doc")
    fields = {key: doc[key] for key in keep if key in doc} if isinstance(doc, Mapping) else {}
    return {**kept, "doc": fields or None, "target": "", "arguments": [], **responses, **numbers}


def numbers_of(value: Any) -> Any:
    """The value with None for every text in it."""
    if isinstance(value, list | tuple):
        return [numbers_of(item) for item in value]
    if isinstance(value, dict):
        return {key: numbers_of(item) for key, item in value.items()}
    return value if isinstance(value, bool | int | float) else None
