"""From a calibrated task's few lines to the whole configuration that the harness builds: pure, nothing is loaded."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lm_eval.api.registry import (
    DEFAULT_METRIC_REGISTRY,
    aggregation_registry,
    get_aggregation,
    get_metric_aggregation,
    is_higher_better,
    metric_agg_registry,
    metric_registry,
)
from lm_eval.config.task import TaskConfig

from lm_eval_calibration.errors import TaskError
from lm_eval_calibration.harness.code_eval import local_code_eval
from lm_eval_calibration.harness.log import warn_of_task
from lm_eval_calibration.harness.stock import is_stock, read_config, read_yaml, stock_path
from lm_eval_calibration.metrics import CATALOG, CORE, GENERATION_CATALOG, GENERATION_CORE
from lm_eval_calibration.tasks.confidences.verbalized import SETTINGS, UNPARSED
from lm_eval_calibration.tasks.corpus_metrics import CORPUS_METRICS
from lm_eval_calibration.tasks.generation_metrics import GENERATION_TABLE, SAMPLED_ACC, TOKEN_ACCURACY, with_rows
from lm_eval_calibration.tasks.options import KEY, NAMED_OPTIONS, Options, check_metric, merged, nearest
from lm_eval_calibration.tasks.views import ORDER_METRICS, TABLE, with_views

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
        return any(entry.get(_OURS) for entry in self.full["metric_list"] if entry["metric"] == "acc")

    @property
    def where(self) -> str:
        """The place that an error names: a user's file and task, or the task alone."""
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
    is_corpus = {**stock, **given}.get("output_type") == ROLLING
    if is_corpus and named[KEY]:
        raise TaskError(f"{where}: a corpus holds no answers that the model could be asked about")
    if options.verbalized and options.reference is None and not is_corpus:
        options = replace(options, reference="")  # a chat server scores no text that it did not write
    metadata[KEY] = options.to_metadata()
    full = {**stock, **given, "metadata": metadata}
    if reason := why_not(full):
        raise TaskError(f"{where} can't be calibrated: {reason}")
    _check_keys(full, where)
    in_words = options.verbalized and full.get("output_type", TaskConfig.output_type) == "multiple_choice"
    if in_words:
        stock = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
        full |= {"output_type": GENERATION, "generation_kwargs": dict(SETTINGS), "filter_list": None}
    _say_without_effect(options, str(name), full.get("output_type"))
    if full.get("output_type") == ROLLING:
        full["metric_list"], ours = _corpus_metric_list(stock, given, where)
    elif full.get("output_type") == GENERATION:
        full["metric_list"], ours = _generation_metric_list(stock, given, options, where)
        if options.repeats:
            full |= {"repeats": options.repeats}
        if options.repeats > 1:
            full["generation_kwargs"] = _sampling(full)
    else:
        full["metric_list"], ours = _metric_list(
            stock, given, options, where, is_stock_task=base_path is not None and is_stock(base_path)
        )
    return Configuration(full, tuple(ours), options, path, in_words)


_OF_CHOICES = ("confidence", "permute", "temperature", "temperatures")
_OF_GENERATIONS = ("filter", "correct", "reference", "repeats")
_OF_ANSWERS = ("metrics", "intervals", "nulls", "p_true", "verbalized")


def _say_without_effect(options: Options, task: str, output_type: Any) -> None:
    """Warn of options that mean nothing to a task of this type: they may be meant for others of the run."""
    idle: dict[Any, tuple[tuple[str, ...], str]] = {
        ROLLING: (_OF_CHOICES + _OF_GENERATIONS + _OF_ANSWERS, "a corpus"),
        GENERATION: (_OF_CHOICES, "generated answers"),
    }
    names, what = idle.get(output_type, (_OF_GENERATIONS, "docs with choices"))
    given = [name for name in names if getattr(options, name) != getattr(Options, name)]
    if given:
        plural = "options" if len(given) > 1 else "option"
        warn_of_task(task, f"calibration {plural} {', '.join(given)}: without effect on {what}")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Say why a task can't be calibrated, as far as its configuration tells (None: it can).

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
    """Say why the first metric of a generation task calls no answer right or wrong ("": it may)."""
    entries = config.get("metric_list") or ()
    first = next((e for e in entries if isinstance(e, Mapping) and e.get("metric") not in GENERATION_TABLE), {})
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
    """Read the task that ours is made of; where it runs programs, with our judge in the place of the hub's."""
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


def _metric_list(
    stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, where: str, *, is_stock_task: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the task's ``metric_list`` and the names in it that are ours, in order."""
    chosen = list(given.get("metric_list") or ())
    for entry in [*chosen, *(stock.get("metric_list") or ())]:
        metric = entry["metric"]
        if isinstance(metric, str) and (
            metric in CATALOG or not (metric in metric_registry or entry.get("hf_evaluate"))
        ):
            check_metric(metric, f"{where}: metric_list", metric_registry)
    names = [entry["metric"] for entry in chosen]
    ours = [metric for metric in names if metric in CATALOG] or list(CORE)
    ours = with_views([*ours, *(metric for metric in options.metrics if metric not in ours)], options)
    defaults = [{"metric": metric} for metric in DEFAULT_METRIC_REGISTRY["multiple_choice"]]
    stocks = [entry for entry in chosen if entry["metric"] not in CATALOG] or list(stock.get("metric_list") or defaults)
    if not chosen and "acc" not in [entry["metric"] for entry in stocks]:
        stocks.insert(0, {"metric": "acc"})  # what confidence is about stands beside it
    if options.confidence == "length_normalized" and "acc_norm" not in [entry["metric"] for entry in stocks]:
        stocks.append({"metric": "acc_norm"})
    entries = [
        {"metric": metric, "aggregation": metric, "higher_is_better": TABLE[metric].metric.higher_is_better}
        for metric in ours
    ]
    entries += [
        {"metric": metric, "aggregation": "mean", "higher_is_better": better}
        for metric, better in order_metrics(options).items()
    ]
    return [*_complete([entry for entry in stocks if entry["metric"] not in TABLE]), *entries], ours


def _corpus_metric_list(
    stock: Mapping[str, Any], given: Mapping[str, Any], where: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a corpus's ``metric_list``, the stock task's metrics first, and the names in it that are ours."""
    chosen = list(given.get("metric_list") or ())
    for entry in chosen:
        name = entry["metric"]
        if name not in CORPUS_METRICS and (name in TABLE or not (name in metric_registry or entry.get("hf_evaluate"))):
            known = ", ".join(CORPUS_METRICS)
            raise TaskError(f"{where}: metric_list has {name!r}{nearest(name, CORPUS_METRICS)}; a corpus has {known}")
    ours = [entry["metric"] for entry in chosen if entry["metric"] in CORPUS_METRICS] or list(CORPUS_METRICS)
    defaults = [{"metric": metric} for metric in DEFAULT_METRIC_REGISTRY[ROLLING]]
    stocks = [e for e in chosen if e["metric"] not in CORPUS_METRICS] or list(stock.get("metric_list") or defaults)
    entries = [
        {"metric": name, "aggregation": name, "higher_is_better": CORPUS_METRICS[name].higher_is_better}
        for name in ours
    ]
    return [*_complete([entry for entry in stocks if entry["metric"] not in CORPUS_METRICS]), *entries], ours


_OURS = "of_calibration"
"""Marks an entry that the stock task does not have; the harness takes it for an argument of the metric."""


def _generation_metric_list(
    stock: Mapping[str, Any], given: Mapping[str, Any], options: Options, where: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a generation task's ``metric_list``, the stock task's metrics first, and the names in it that are ours."""
    chosen = list(given.get("metric_list") or ())
    names = [entry["metric"] for entry in chosen]
    own = {entry["metric"] for entry in chosen if entry.get("hf_evaluate") or given.get("process_results")}
    for name in [*names, *options.metrics]:
        if name in CATALOG and name not in GENERATION_CATALOG:
            known = ", ".join(GENERATION_CATALOG)
            raise TaskError(f"{where}: {name} is not defined for generated answers, which have no choices; {known} are")
        if isinstance(name, str) and name not in {*GENERATION_CATALOG, *own} and name not in metric_registry:
            check_metric(name, f"{where}: metric_list", metric_registry)
    ours = [name for name in names if name in GENERATION_CATALOG] or list(GENERATION_CORE)
    ours += [name for name in options.metrics if name not in ours]
    if options.reference == "":
        ours = [name for name in ours if GENERATION_CATALOG[name].kind != "full_vocabulary"]
    ours = with_rows(ours, options)
    defaults = [{"metric": metric} for metric in DEFAULT_METRIC_REGISTRY[GENERATION]]
    stocks = [e for e in chosen if e["metric"] not in GENERATION_CATALOG] or list(stock.get("metric_list") or defaults)
    extra = {"acc": True} if "acc" not in [entry["metric"] for entry in stocks] else {}
    extra |= {SAMPLED_ACC: True} if options.repeats > 1 else {}
    extra |= {UNPARSED: False} if options.verbalized else {}
    means = [{"metric": m, "aggregation": "mean", "higher_is_better": b, _OURS: True} for m, b in extra.items()]
    if options.reference != "":
        means.append({"metric": TOKEN_ACCURACY, "aggregation": TOKEN_ACCURACY, "higher_is_better": True})
    entries = [
        {"metric": name, "aggregation": name, "higher_is_better": GENERATION_TABLE[name].metric.higher_is_better}
        for name in ours
    ]
    return [*_complete(stocks), *means, *entries], ours


def _sampling(full: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generation settings with sampling: greedy samples would all be the same."""
    delimiter = full.get("fewshot_delimiter", TaskConfig.fewshot_delimiter)  # where the harness stops by default
    settings = full.get("generation_kwargs") or {"until": [delimiter]}
    if settings.get("do_sample"):
        return dict(settings)
    return {**settings, "do_sample": True, "temperature": SAMPLING_TEMPERATURE}


def order_metrics(options: Options) -> dict[str, bool]:
    """Return the means over docs that asking in several orders adds; one order shows neither spread nor changes."""
    n_metrics = {0: 0, 1: 1}.get(options.permute, len(ORDER_METRICS))
    return dict(list(ORDER_METRICS.items())[:n_metrics])


def _complete(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the harness's metrics the aggregation and direction that it would take by itself, with a warning."""
    names = {get_aggregation(name): name for name in aggregation_registry}
    return [
        {
            "aggregation": names[get_metric_aggregation(entry["metric"])],
            "higher_is_better": is_higher_better(entry["metric"]),
            **entry,
        }
        if entry["metric"] in metric_agg_registry
        else dict(entry)
        for entry in entries
    ]
