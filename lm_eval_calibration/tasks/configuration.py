"""From a calibrated task's few lines to the whole configuration that the harness builds: pure, nothing is loaded."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lm_eval.config.task import TaskConfig

from lm_eval_calibration.errors import TaskError, nearest
from lm_eval_calibration.harness.code_eval import local_code_eval
from lm_eval_calibration.harness.log import warn_of_tasks
from lm_eval_calibration.harness.stock import is_stock, read_config, read_yaml, stock_path
from lm_eval_calibration.tasks.confidences.follow_up import ONE_LINE
from lm_eval_calibration.tasks.confidences.registry import setting_form, sources
from lm_eval_calibration.tasks.confidences.source import Table
from lm_eval_calibration.tasks.metric_lists import OURS, metrics_of_choices, metrics_of_corpus, metrics_of_generation
from lm_eval_calibration.tasks.options import KEY, NAMED_OPTIONS, Options, merged
from lm_eval_calibration.tasks.views import rows

ROLLING = "loglikelihood_rolling"
"""The output type of a task whose docs are texts that the model predicts token by token."""

GENERATION = "generate_until"
"""The output type of a task whose answers are written by the model."""

SAMPLING_TEMPERATURE = 0.7
"""Of several samples, where the task's own setting is greedy. Wang et al. 2023, arXiv:2203.11171."""

CLASS = "lm_eval_calibration.tasks.CalibratedTask"

_KEYS = {field.name for field in fields(TaskConfig)}


@dataclass(frozen=True)
class Configuration:
    """What a calibrated task is built of.

    Attributes:
        full: the keys of the harness's ``TaskConfig``.
        metrics: names of our metrics, in the table's order.
        options: what the user set.
        path: the YAML that says how docs become prompts; None for a configuration written in Python.
        in_words: whether docs with choices are answered in words.
    """

    full: dict[str, Any]
    metrics: tuple[str, ...]
    options: Options
    path: Path | None
    in_words: bool = False

    @property
    def output_type(self) -> str:
        """The stock task's kind of request."""
        return str(self.full.get("output_type", TaskConfig.output_type))

    @property
    def adds_acc(self) -> bool:
        """Whether a generation task has no ``acc`` of its own."""
        return any(entry.get(OURS) for entry in self.full["metric_list"] if entry["metric"] == "acc")

    @property
    def where(self) -> str:
        """What an error names: a user's file and task, or the task alone."""
        name = str(self.full["task"])
        return name if self.path is None or is_stock(self.path) else f"{self.path}: {name}"

    @property
    def is_users_file(self) -> bool:
        """Whether the docs are described by a file that the user can mend."""
        return self.path is not None and not is_stock(self.path)


def configuration(config: Mapping[str, Any] | None) -> Configuration:
    """Return the stock task's configuration with calibration in it.

    Args:
        config: the keys of our task YAML (see :class:`~lm_eval_calibration.tasks.CalibratedTask`).

    Raises:
        TaskError: naming the file, the key and the value that can't be used, or what can't be calibrated.
    """
    given = {key: value for key, value in (config or {}).items() if key != "class"}
    name = given.get("task")
    if not name:
        raise TaskError(f"a task configuration needs a name under 'task'; this one has {sorted(given)}")
    source = _source(given)
    base_path = _base_path(given.pop("stock_task", None), source)
    stock = _stock_config(base_path) if base_path else {}
    named = {KEY: given.pop(NAMED_OPTIONS, None) or {}}
    path = base_path or source
    where = Configuration({"task": name}, (), Options(), path).where
    for part in (stock, given):
        _check_forms(part, where)
    metadata = merged(stock.get("metadata"), named, _yaml_metadata(source), given.get("metadata"))
    options = Options.from_metadata(metadata, where)
    output_type = {**stock, **given}.get("output_type", TaskConfig.output_type)
    if output_type == ROLLING and named[KEY]:
        raise TaskError(f"{where}: a corpus holds no answers that the model could be asked about")
    is_written = output_type != ROLLING and any(s.writes_only and s.is_requested(options) for s in sources())
    if is_written and options.reference is None:
        options = replace(options, reference="")  # a chat server scores no text that it did not write
    metadata[KEY] = options.to_metadata()
    full = {**stock, **given, "metadata": metadata}
    if reason := reason_unsupported(full):
        raise TaskError(f"{where} can't be calibrated: {reason}")
    _check_keys(full, where)
    if is_written and output_type == "multiple_choice":
        acc = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
        full |= {"output_type": GENERATION, "generation_kwargs": dict(ONE_LINE), "filter_list": None}
        full |= _in_form(full, options, where)
        return Configuration(*_with_metrics(full, acc, given, options, where), options, path, in_words=True)
    if output_type == GENERATION:
        full |= _in_form(full, options, where)
    return Configuration(*_with_metrics(full, stock, given, options, where), options, path)


def _in_form(full: Mapping[str, Any], options: Options, where: str) -> dict[str, Any]:
    """Return the keys that differ where a source sets the form of a reply."""
    source = setting_form(options)
    if source is None:
        return {}
    if full.get("gen_prefix"):
        raise TaskError(
            f"{where}: the task begins each reply itself (gen_prefix is {full['gen_prefix']!r}), so a reply can't have "
            f"the form of {source.name}"
        )
    if full.get("num_fewshot"):
        warn_of_tasks(
            [str(full["task"])],
            f"zero-shot, where the stock task has {full['num_fewshot']} examples: they show nothing of the form of "
            f"{source.name}",
        )
    return {"num_fewshot": 0, "generation_kwargs": source.generation_settings(full.get("generation_kwargs") or {})}


def _with_metrics(
    full: dict[str, Any], stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, where: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the configuration with its metrics and samples, and the names of the metrics that are ours."""
    _warn_without_effect(options, str(full["task"]), full.get("output_type"))
    make_list = _METRIC_LISTS.get(str(full.get("output_type")), metrics_of_choices)
    metric_list, ours = make_list(stock, given, options, where)
    samples = _samples(full, options) if make_list is metrics_of_generation else {}
    return {**full, "metric_list": metric_list, **samples}, tuple(ours)


_METRIC_LISTS = {ROLLING: metrics_of_corpus, GENERATION: metrics_of_generation}

_WITHOUT_EFFECT_ON = {
    "a corpus": (
        "metrics",
        "intervals",
        "nulls",
        "temperatures",
        "filter",
        "correct",
        "reference",
        "question_max_gen_toks",
    ),
    "generated answers": ("temperatures",),
    "docs with choices": ("filter", "correct", "reference"),
}


def _warn_without_effect(options: Options, task: str, output_type: Any) -> None:
    """Warn of options that mean nothing to a task of this type: they may be meant for others of the run."""
    table: Table | None = {GENERATION: "generation", ROLLING: None}.get(output_type, "choices")
    docs = {"generation": "generated answers", "choices": "docs with choices"}.get(table or "", "a corpus")
    idle = [source.option.name for source in sources() if source.option and table not in source.tables]
    given, defaults = options.to_dict(), Options().to_dict()
    names = [name for name in dict.fromkeys((*_WITHOUT_EFFECT_ON[docs], *idle)) if given[name] != defaults[name]]
    if names:
        options_have = "options {} have" if len(names) > 1 else "option {} has"
        warn_of_tasks([task], f"calibration {options_have.format(', '.join(names))} no effect on {docs}")


def _samples(full: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return the keys that let the harness draw several samples: greedy ones would all be the same."""
    repeats = options["repeats"]
    if repeats < 2:
        return {"repeats": repeats} if repeats else {}
    delimiter = full.get("fewshot_delimiter", TaskConfig.fewshot_delimiter)  # where the harness stops by default
    settings = full.get("generation_kwargs") or {"until": [delimiter]}
    if not settings.get("do_sample"):
        settings = {**settings, "do_sample": True, "temperature": SAMPLING_TEMPERATURE}
    return {"repeats": repeats, "generation_kwargs": dict(settings)}


def reason_unsupported(config: Mapping[str, Any]) -> str | None:
    """Return why a task can't be calibrated, as far as its configuration tells; None where it can.

    Args:
        config: keys of a task YAML, with or without its functions resolved.
    """
    output_type = config.get("output_type", TaskConfig.output_type)
    reasons = {
        "it is a Python class of its own": "class" in config and not _is_ours(config["class"]),
        "it shows images or audio": config.get("doc_to_image") or config.get("doc_to_audio"),
    }
    if output_type == GENERATION:
        reasons |= {_no_yes_or_no(config): _no_yes_or_no(config)}
    elif output_type != ROLLING:
        reasons |= {
            f"its output_type is {output_type!r}, not 'multiple_choice', {GENERATION!r} or {ROLLING!r}": output_type
            != "multiple_choice",
            "it has a process_results of its own": config.get("process_results") is not None,
            "it has no doc_to_choice": config.get("doc_to_choice") is None,
            "its gold is a list of answers; calibration needs exactly one": isinstance(
                config.get("doc_to_target"), list
            ),
        }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _no_yes_or_no(config: Mapping[str, Any]) -> str:
    """Return why the first metric of a generation task calls no answer right or wrong; "" where it may."""
    entries = config.get("metric_list") or ()
    first = next((e for e in entries if isinstance(e, Mapping) and e.get("metric") not in rows("generation")), {})
    metadata = config.get("metadata")
    ours = metadata.get(KEY) if isinstance(metadata, Mapping) else None
    aggregation = first.get("aggregation", "mean")
    if getattr(aggregation, "__name__", aggregation) == "mean" or (isinstance(ours, Mapping) and ours.get("correct")):
        return ""
    name = getattr(first.get("metric"), "__name__", first.get("metric"))
    shown = getattr(aggregation, "__name__", aggregation)
    return f"its metric {name}, aggregated by {shown}, calls no answer right or wrong"


def _is_ours(task_class: Any) -> bool:
    return task_class.__name__ == "CalibratedTask" if inspect.isclass(task_class) else str(task_class).endswith(CLASS)


def _stock_config(path: Path) -> dict[str, Any]:
    """Read the task that ours is made of; where it runs programs, with our code judge instead of the hub's."""
    if not read_config(path, resolve=False).get("unsafe_code"):
        return read_config(path)
    with local_code_eval(path.parent):
        return read_config(path)


def _source(given: Mapping[str, Any]) -> Path | None:
    """Return the YAML that the harness read this configuration from."""
    source = (given.get("metadata") or {}).get("config_source")
    return Path(source) if source and source != "inline" else None


def _base_path(stock_task: Any, source: Path | None) -> Path | None:
    """Find the task that ours is made of: a name, or a path as seen from our own YAML."""
    if stock_task is None:
        return None
    if not str(stock_task).endswith(".yaml"):
        return stock_path(str(stock_task))
    path = Path(stock_task).expanduser()
    return (source.parent / path if source else path).resolve()


def _yaml_metadata(source: Path | None) -> Mapping[str, Any] | None:
    """Return the YAML's own metadata: the harness lets ``--metadata`` replace keys whole before we see them."""
    metadata = read_yaml(source, resolve=False).get("metadata") if source else None
    return metadata if isinstance(metadata, Mapping) else None


def _check_forms(config: Mapping[str, Any], where: str) -> None:
    metadata, listed = config.get("metadata"), config.get("metric_list")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TaskError(f"{where}: metadata is {metadata!r}, not a mapping like {{version: 1}}")
    entries = [] if listed is None else listed
    if not isinstance(entries, list | tuple) or not all(isinstance(e, Mapping) and "metric" in e for e in entries):
        raise TaskError(f"{where}: metric_list is {listed!r}, not a list of entries like - metric: acc")


def _check_keys(full: Mapping[str, Any], where: str) -> None:
    for key in full:
        if key not in _KEYS:
            raise TaskError(f"{where} has a key {key!r} that no task has{nearest(key, _KEYS)}")
    if full.get("dataset_path") is None and full.get("custom_dataset") is None:
        raise TaskError(f"{where} has no dataset_path")
    if full.get("test_split") is None and full.get("validation_split") is None:
        raise TaskError(f"{where} has neither test_split nor validation_split: there is nothing to evaluate")
    for key in ("doc_to_text", "doc_to_target"):
        if full.get(key) is None:
            raise TaskError(f"{where} has no {key}")
